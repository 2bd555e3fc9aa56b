-- The job ledger and the outbox: what is still to be done, and what is still to be told.
--
-- The relay and the worker serve all tenants at once. A transaction that says so (app.dispatcher = 'on') sees these two
-- tables across tenants, and no other table.

CREATE FUNCTION is_dispatcher() RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(current_setting('app.dispatcher', true), '') = 'on';
COMMENT ON FUNCTION is_dispatcher() IS 'Whether this transaction moves jobs and events of all tenants (setting app.dispatcher).';

CREATE TABLE jobs (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    queue text NOT NULL,
    kind text NOT NULL,
    payload jsonb NOT NULL,
    state text NOT NULL DEFAULT 'waiting',
    priority smallint NOT NULL DEFAULT 0,
    run_at timestamptz NOT NULL DEFAULT now(),
    unique_key text,
    attempt integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL,
    lease_token bigint NOT NULL DEFAULT 0,
    lease_until timestamptz,
    worker text,
    cancel_requested_at timestamptz,
    last_error text,
    trace_context jsonb NOT NULL DEFAULT '{}',
    enqueued_by uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    dispatched_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    CONSTRAINT jobs_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT jobs_state_known CHECK (state IN ('waiting', 'dispatched', 'running', 'succeeded', 'dead', 'cancelled')),
    CONSTRAINT jobs_attempts_sane CHECK (attempt >= 0 AND max_attempts > 0)
);
CREATE UNIQUE INDEX jobs_unique_key ON jobs (tenant_id, kind, unique_key)
    WHERE unique_key IS NOT NULL AND state IN ('waiting', 'dispatched', 'running');
CREATE UNIQUE INDEX jobs_id_key ON jobs (id);
CREATE INDEX jobs_due_idx ON jobs (queue, priority DESC, run_at) WHERE state = 'waiting';
CREATE INDEX jobs_dispatched_idx ON jobs (dispatched_at) WHERE state = 'dispatched';
CREATE INDEX jobs_leases_idx ON jobs (lease_until) WHERE state = 'running';
COMMENT ON TABLE jobs IS 'The ledger of background work. Redis carries ids; this row is the truth.';
COMMENT ON COLUMN jobs.state IS 'waiting (for run_at) -> dispatched (id is in Redis) -> running (leased) -> succeeded | dead | cancelled; a failed attempt goes back to waiting.';
COMMENT ON COLUMN jobs.lease_token IS 'Fencing token: grows with every claim; a worker may write only with the token it was given.';
COMMENT ON COLUMN jobs.unique_key IS 'At most one unfinished job of a kind has this key.';

CREATE TABLE outbox (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    kind text NOT NULL,
    subject_id uuid,
    payload jsonb NOT NULL,
    actor_id uuid,
    trace_context jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    sequence bigint,
    published_at timestamptz,
    CONSTRAINT outbox_pkey PRIMARY KEY (tenant_id, id)
);
CREATE INDEX outbox_unpublished_idx ON outbox (id) WHERE published_at IS NULL;
COMMENT ON TABLE outbox IS 'Events owed to subscribers, written in the transaction of the change they tell of.';

ALTER TABLE jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE jobs FORCE ROW LEVEL SECURITY;
CREATE POLICY jobs_isolation ON jobs USING (tenant_id = current_tenant());
CREATE POLICY jobs_dispatch ON jobs USING (is_dispatcher());
ALTER TABLE outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE outbox FORCE ROW LEVEL SECURITY;
CREATE POLICY outbox_isolation ON outbox USING (tenant_id = current_tenant());
CREATE POLICY outbox_dispatch ON outbox USING (is_dispatcher());
