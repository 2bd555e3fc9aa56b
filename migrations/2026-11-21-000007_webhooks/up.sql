-- Webhooks: who is to be told of events, and every telling.
--
-- webhook_deliveries is its own ledger: a due row is claimed by moving next_attempt_at into the future and counting attempt
-- up, so a claim that nobody settles becomes due again by itself, and attempt is the fencing token of whoever claimed it.

CREATE TABLE webhook_endpoints (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    url text NOT NULL,
    description text NOT NULL,
    event_kinds text[] NOT NULL,
    filter jsonb NOT NULL,
    headers jsonb NOT NULL,
    rate_limit integer,
    payload_version integer NOT NULL DEFAULT 1,
    enabled boolean NOT NULL DEFAULT true,
    disabled_reason text,
    failing_since timestamptz,
    not_before timestamptz,
    revision integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by uuid,
    CONSTRAINT webhook_endpoints_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT webhook_endpoints_url_length CHECK (char_length(url) BETWEEN 1 AND 2000),
    CONSTRAINT webhook_endpoints_rate_limit_positive CHECK (rate_limit > 0),
    CONSTRAINT webhook_endpoints_payload_version_known CHECK (payload_version = 1),
    CONSTRAINT webhook_endpoints_disabled_reason_known CHECK (disabled_reason IN ('by_hand', 'gone', 'failing')),
    CONSTRAINT webhook_endpoints_disabled_has_reason CHECK (enabled = (disabled_reason IS NULL))
);
CREATE UNIQUE INDEX webhook_endpoints_id_key ON webhook_endpoints (id);
COMMENT ON TABLE webhook_endpoints IS 'A receiver of events outside: where it is, and what it is told of.';
COMMENT ON COLUMN webhook_endpoints.event_kinds IS 'Kinds of events; empty for all.';
COMMENT ON COLUMN webhook_endpoints.filter IS 'Lists of domains, tags, tiers and changedFields; an empty list lets everything through.';
COMMENT ON COLUMN webhook_endpoints.headers IS 'List of {name, value} and, encrypted, {name, sealed}.';
COMMENT ON COLUMN webhook_endpoints.rate_limit IS 'Attempts per second; NULL for as many as there are.';
COMMENT ON COLUMN webhook_endpoints.failing_since IS 'The first failed attempt since the last that succeeded.';
COMMENT ON COLUMN webhook_endpoints.not_before IS 'The receiver asked not to be called before, or its rate limit has been used up until then.';

CREATE TABLE webhook_secrets (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    CONSTRAINT webhook_secrets_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT webhook_secrets_endpoint_fkey FOREIGN KEY (tenant_id, endpoint_id)
        REFERENCES webhook_endpoints (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX webhook_secrets_endpoint_idx ON webhook_secrets (endpoint_id);
COMMENT ON TABLE webhook_secrets IS 'What messages are signed with. After a rotation two sign, until the older one expires.';
COMMENT ON COLUMN webhook_secrets.sealed IS 'Encrypted with a key of MDL_WEBHOOK_KEYS; the endpoint id is authenticated with it.';
COMMENT ON COLUMN webhook_secrets.expires_at IS 'Set when a newer secret has taken its place.';

CREATE TABLE webhook_deliveries (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    event_id uuid NOT NULL,
    sequence bigint,
    kind text NOT NULL,
    payload jsonb NOT NULL,
    occurred_at timestamptz NOT NULL,
    origin text NOT NULL,
    replay_of uuid,
    state text NOT NULL DEFAULT 'pending',
    attempt integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    trace_context jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT webhook_deliveries_endpoint_fkey FOREIGN KEY (tenant_id, endpoint_id)
        REFERENCES webhook_endpoints (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT webhook_deliveries_origin_known CHECK (origin IN ('event', 'replay', 'test')),
    CONSTRAINT webhook_deliveries_state_known CHECK (state IN ('pending', 'delivered', 'failed', 'discarded')),
    CONSTRAINT webhook_deliveries_finished CHECK ((state = 'pending') = (finished_at IS NULL))
);
CREATE UNIQUE INDEX webhook_deliveries_event_key ON webhook_deliveries (tenant_id, endpoint_id, event_id) WHERE origin = 'event';
CREATE INDEX webhook_deliveries_due_idx ON webhook_deliveries (endpoint_id, next_attempt_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_endpoint_idx ON webhook_deliveries (tenant_id, endpoint_id, id);
CREATE INDEX webhook_deliveries_state_idx ON webhook_deliveries (tenant_id, state, id);
CREATE INDEX webhook_deliveries_finished_idx ON webhook_deliveries (finished_at) WHERE finished_at IS NOT NULL;
COMMENT ON TABLE webhook_deliveries IS 'One event owed to one endpoint, and how far that has come. Its id is the webhook-id of every attempt.';
COMMENT ON COLUMN webhook_deliveries.payload IS 'A copy of the event''s: it is sent again as it was, for longer than the outbox keeps it.';
COMMENT ON COLUMN webhook_deliveries.sequence IS 'The event''s place among those of the tenant; NULL for a test, which is of no event.';
COMMENT ON COLUMN webhook_deliveries.attempt IS 'Attempts begun. Only whoever began the last may write what came of it.';
COMMENT ON COLUMN webhook_deliveries.next_attempt_at IS 'When it is due. While an attempt runs: when it is taken up again, should nobody write what came of it.';
COMMENT ON COLUMN webhook_deliveries.replay_of IS 'The first delivery of the same event to the same endpoint, if there was one.';
COMMENT ON INDEX webhook_deliveries_event_key IS 'However often the relay comes by, an event is owed to an endpoint once.';

CREATE TABLE webhook_attempts (
    tenant_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    attempt integer NOT NULL,
    endpoint_id uuid NOT NULL,
    at timestamptz NOT NULL,
    duration_ms integer NOT NULL,
    status integer,
    error_class text,
    error text,
    response text NOT NULL DEFAULT '',
    CONSTRAINT webhook_attempts_pkey PRIMARY KEY (tenant_id, delivery_id, attempt),
    CONSTRAINT webhook_attempts_delivery_fkey FOREIGN KEY (tenant_id, delivery_id)
        REFERENCES webhook_deliveries (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX webhook_attempts_endpoint_idx ON webhook_attempts (tenant_id, endpoint_id, at);
COMMENT ON TABLE webhook_attempts IS 'One request to an endpoint and what came back.';
COMMENT ON COLUMN webhook_attempts.error_class IS 'Why it counts as failed; NULL when it was delivered.';
COMMENT ON COLUMN webhook_attempts.response IS 'The first 4 kB of the answer''s body.';

ALTER TABLE webhook_endpoints ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_endpoints FORCE ROW LEVEL SECURITY;
CREATE POLICY webhook_endpoints_isolation ON webhook_endpoints USING (tenant_id = current_tenant());
CREATE POLICY webhook_endpoints_dispatch ON webhook_endpoints USING (is_dispatcher());
ALTER TABLE webhook_secrets ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_secrets FORCE ROW LEVEL SECURITY;
CREATE POLICY webhook_secrets_isolation ON webhook_secrets USING (tenant_id = current_tenant());
CREATE POLICY webhook_secrets_dispatch ON webhook_secrets USING (is_dispatcher());
ALTER TABLE webhook_deliveries ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_deliveries FORCE ROW LEVEL SECURITY;
CREATE POLICY webhook_deliveries_isolation ON webhook_deliveries USING (tenant_id = current_tenant());
CREATE POLICY webhook_deliveries_dispatch ON webhook_deliveries USING (is_dispatcher());
ALTER TABLE webhook_attempts ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_attempts FORCE ROW LEVEL SECURITY;
CREATE POLICY webhook_attempts_isolation ON webhook_attempts USING (tenant_id = current_tenant());
CREATE POLICY webhook_attempts_dispatch ON webhook_attempts USING (is_dispatcher());
