-- Turns between tenants that are not all of one length.

ALTER TABLE queue_settings
    ADD COLUMN weight integer NOT NULL DEFAULT 1,
    ADD CONSTRAINT queue_settings_weight_sane CHECK (weight BETWEEN 1 AND 100);
COMMENT ON COLUMN queue_settings.weight IS 'Jobs of the tenant that go for one of a tenant of weight 1, while both have a backlog. Set by who operates the deployment.';
