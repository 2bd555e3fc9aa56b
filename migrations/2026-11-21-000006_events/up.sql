-- Events get a number in their tenant's stream, in the order in which their transactions were committed.
--
-- PostgreSQL does not tell in which order transactions were committed, so each says so itself: as the last thing before its
-- commit, a transaction that wrote events takes its tenant's lock and a position. The lock is given up after the commit is
-- visible to everybody. So whoever sees a position sees every lesser one of the tenant. (ADR 8)

-- Nobody could ask for events so far, and their content is another from now on.
SELECT set_config('app.dispatcher', 'on', true);
DELETE FROM outbox;

DROP INDEX outbox_unpublished_idx;
ALTER TABLE outbox
    ADD COLUMN version smallint NOT NULL DEFAULT 1,
    ADD COLUMN transaction_id bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    ADD CONSTRAINT outbox_sequence_key UNIQUE (tenant_id, sequence),
    ADD CONSTRAINT outbox_published_is_stamped CHECK ((sequence IS NULL) = (published_at IS NULL));
CREATE INDEX outbox_unstamped_idx ON outbox (tenant_id, transaction_id, id) WHERE sequence IS NULL;
COMMENT ON COLUMN outbox.version IS 'Of the payload, for its kind.';
COMMENT ON COLUMN outbox.transaction_id IS 'The transaction that wrote it, with its epoch; a savepoint is none.';
COMMENT ON COLUMN outbox.sequence IS 'Its place in the stream of its tenant, from 1 and without a gap. The relay gives it.';
COMMENT ON COLUMN outbox.published_at IS 'When it got its sequence.';

CREATE SEQUENCE outbox_positions;

CREATE TABLE outbox_commits (
    tenant_id uuid NOT NULL,
    transaction_id bigint NOT NULL,
    position bigint,
    CONSTRAINT outbox_commits_pkey PRIMARY KEY (tenant_id, transaction_id)
);
CREATE INDEX outbox_commits_position_idx ON outbox_commits (tenant_id, position);
COMMENT ON TABLE outbox_commits IS 'Transactions whose events wait for their sequence. Written by triggers, deleted by the relay.';
COMMENT ON COLUMN outbox_commits.position IS 'Grows within a tenant from commit to commit. NULL only before the commit, when nobody else sees it.';

CREATE FUNCTION note_outbox_transaction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox_commits (tenant_id, transaction_id)
        SELECT DISTINCT tenant_id, transaction_id FROM new_events ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER outbox_transaction AFTER INSERT ON outbox
    REFERENCING NEW TABLE AS new_events FOR EACH STATEMENT EXECUTE FUNCTION note_outbox_transaction();

CREATE FUNCTION number_outbox_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('outbox_commits'), hashtext(NEW.tenant_id::text));
    UPDATE outbox_commits SET position = nextval('outbox_positions')
        WHERE tenant_id = NEW.tenant_id AND transaction_id = NEW.transaction_id;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER outbox_commit AFTER INSERT ON outbox_commits
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION number_outbox_commit();

CREATE TABLE event_streams (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    last_sequence bigint NOT NULL,
    kept_from bigint NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT event_streams_pkey PRIMARY KEY (tenant_id),
    CONSTRAINT event_streams_kept_within CHECK (kept_from BETWEEN 1 AND last_sequence + 1)
);
COMMENT ON TABLE event_streams IS 'How far the events of a tenant are numbered, and from where on they are kept. A tenant without events has no row.';
COMMENT ON COLUMN event_streams.kept_from IS 'The least sequence that is still there; older events were removed.';

ALTER TABLE outbox_commits ENABLE ROW LEVEL SECURITY;
ALTER TABLE outbox_commits FORCE ROW LEVEL SECURITY;
CREATE POLICY outbox_commits_isolation ON outbox_commits USING (tenant_id = current_tenant());
CREATE POLICY outbox_commits_dispatch ON outbox_commits USING (is_dispatcher());
ALTER TABLE event_streams ENABLE ROW LEVEL SECURITY;
ALTER TABLE event_streams FORCE ROW LEVEL SECURITY;
CREATE POLICY event_streams_isolation ON event_streams USING (tenant_id = current_tenant());
CREATE POLICY event_streams_dispatch ON event_streams USING (is_dispatcher());
