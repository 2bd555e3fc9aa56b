-- Operating the queues: fairness between tenants, pauses and limits, attempts, batches, progress, workers, schedules.

-- What belongs to no company (pruning, backups, schedules, the workers themselves) belongs to this tenant. Its members, if it
-- is given any, operate the deployment.
SELECT set_config('app.tenant_id', '00000000-0000-0000-0000-000000000001', true);
INSERT INTO tenants (id, slug, name) VALUES ('00000000-0000-0000-0000-000000000001', 'mdl-system', 'MDL itself');
SELECT set_config('app.tenant_id', '', true);

-- Work for all tenants begins with the question who they are; operators at the command line ask it too.
CREATE POLICY tenants_dispatch ON tenants FOR SELECT USING (is_dispatcher());

ALTER TABLE jobs
    ADD COLUMN turn bigint NOT NULL DEFAULT 0,
    ADD COLUMN unique_until timestamptz,
    ADD COLUMN batch_id uuid,
    ADD COLUMN waits_for uuid,
    ADD COLUMN progress_done bigint,
    ADD COLUMN progress_total bigint,
    ADD COLUMN progress_message text,
    DROP CONSTRAINT jobs_state_known,
    ADD CONSTRAINT jobs_state_known
        CHECK (state IN ('held', 'waiting', 'dispatched', 'running', 'succeeded', 'dead', 'cancelled', 'discarded')),
    ADD CONSTRAINT jobs_held_for_something CHECK (state <> 'held' OR waits_for IS NOT NULL);
COMMENT ON COLUMN jobs.state IS 'held (for waits_for) -> waiting (for run_at) -> dispatched (id is in Redis) -> running (leased) -> succeeded | dead | cancelled; a failed attempt goes back to waiting; dead -> waiting by a retry, or discarded.';
COMMENT ON COLUMN jobs.turn IS 'Place among the dispatched jobs of its queue and priority; tenants take turns.';
COMMENT ON COLUMN jobs.unique_key IS 'At most one job of a kind has this key while it is unfinished, and until unique_until.';
COMMENT ON COLUMN jobs.batch_id IS 'The jobs that it was enqueued together with.';
COMMENT ON COLUMN jobs.waits_for IS 'The batch after which it runs.';

DROP INDEX jobs_unique_key;
CREATE UNIQUE INDEX jobs_unique_key ON jobs (tenant_id, kind, unique_key)
    WHERE unique_key IS NOT NULL AND (unique_until IS NOT NULL OR state IN ('held', 'waiting', 'dispatched', 'running'));
-- Tenant by tenant, so that the relay can take some of each without looking at all of one.
DROP INDEX jobs_due_idx;
CREATE INDEX jobs_due_idx ON jobs (queue, tenant_id, priority, run_at) WHERE state = 'waiting';
DROP INDEX jobs_dispatched_idx;
CREATE INDEX jobs_active_idx ON jobs (queue, tenant_id) WHERE state IN ('dispatched', 'running');
CREATE INDEX jobs_held_idx ON jobs (tenant_id, waits_for) WHERE state = 'held';
CREATE INDEX jobs_batch_idx ON jobs (tenant_id, batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX jobs_dead_idx ON jobs (tenant_id, id) WHERE state = 'dead';
CREATE INDEX jobs_finished_idx ON jobs (tenant_id, finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE job_attempts (
    tenant_id uuid NOT NULL,
    job_id uuid NOT NULL,
    lease_token bigint NOT NULL,
    number integer NOT NULL,
    worker text,
    started_at timestamptz,
    finished_at timestamptz NOT NULL DEFAULT now(),
    outcome text NOT NULL,
    error text,
    CONSTRAINT job_attempts_pkey PRIMARY KEY (tenant_id, job_id, lease_token),
    CONSTRAINT job_attempts_job_fkey FOREIGN KEY (tenant_id, job_id) REFERENCES jobs (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT job_attempts_outcome_known CHECK (outcome IN ('failed', 'dead', 'cancelled', 'returned', 'lost'))
);
COMMENT ON TABLE job_attempts IS 'Attempts that did not succeed. One that runs, or succeeded, is told by its row of jobs: most jobs need no row here.';
COMMENT ON COLUMN job_attempts.number IS 'From 1. An attempt that was returned does not count, so the next has the same number.';
COMMENT ON COLUMN job_attempts.outcome IS 'failed (tried again), dead, cancelled, returned (its worker stopped), lost (its worker gave no sign of life).';

CREATE TABLE queue_settings (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    queue text NOT NULL,
    paused_at timestamptz,
    concurrency integer,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT queue_settings_pkey PRIMARY KEY (tenant_id, queue),
    CONSTRAINT queue_settings_concurrency_sane CHECK (concurrency BETWEEN 1 AND 10000),
    CONSTRAINT queue_settings_queue_form CHECK (queue ~ '^[a-z][a-z0-9_]{0,62}$')
);
COMMENT ON TABLE queue_settings IS 'What operators set: for the jobs of one tenant in a queue or, in the row of mdl-system, for the whole queue.';
COMMENT ON COLUMN queue_settings.concurrency IS 'Jobs that may be under way at once, on all workers together. NULL: as many as the workers take.';

CREATE TABLE workers (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    name text NOT NULL,
    host text NOT NULL,
    pid bigint NOT NULL,
    version text NOT NULL,
    queues text[] NOT NULL,
    running integer NOT NULL,
    memory_bytes bigint,
    started_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    stopped_at timestamptz,
    CONSTRAINT workers_pkey PRIMARY KEY (tenant_id, name)
);
COMMENT ON TABLE workers IS 'The processes that do the jobs; each writes its row every few seconds. All rows are of mdl-system, and everybody may read them.';

CREATE TABLE schedules (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    name text NOT NULL,
    description text NOT NULL,
    expression text NOT NULL,
    time_zone text NOT NULL,
    overlap text NOT NULL,
    catch_up text NOT NULL,
    enabled boolean NOT NULL,
    queue text NOT NULL,
    kind text NOT NULL,
    payload jsonb NOT NULL,
    max_attempts integer NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    paused_at timestamptz,
    CONSTRAINT schedules_pkey PRIMARY KEY (tenant_id, name),
    CONSTRAINT schedules_overlap_known CHECK (overlap IN ('skip', 'queue')),
    CONSTRAINT schedules_catch_up_known CHECK (catch_up IN ('once', 'never'))
);
COMMENT ON TABLE schedules IS 'What runs by the clock, as the workers of this version have it; only paused_at is set by people.';
COMMENT ON COLUMN schedules.since IS 'When it was made, changed or resumed: times before are not made up for.';

CREATE TABLE schedule_slots (
    tenant_id uuid NOT NULL,
    schedule text NOT NULL,
    slot timestamptz NOT NULL,
    outcome text NOT NULL,
    job_id uuid,
    fired_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT schedule_slots_pkey PRIMARY KEY (tenant_id, schedule, slot),
    CONSTRAINT schedule_slots_schedule_fkey FOREIGN KEY (tenant_id, schedule) REFERENCES schedules (tenant_id, name) ON DELETE CASCADE,
    CONSTRAINT schedule_slots_outcome_known CHECK (outcome IN ('fired', 'requested', 'skipped', 'missed'))
);
COMMENT ON TABLE schedule_slots IS 'One row for each time of a schedule: whoever inserts it enqueues the job, so that any number of workers fire once.';
COMMENT ON COLUMN schedule_slots.outcome IS 'fired, requested (by an operator), skipped (the job before still ran), missed (nobody was there in time).';

ALTER TABLE job_attempts ENABLE ROW LEVEL SECURITY;
ALTER TABLE job_attempts FORCE ROW LEVEL SECURITY;
CREATE POLICY job_attempts_isolation ON job_attempts USING (tenant_id = current_tenant());
CREATE POLICY job_attempts_dispatch ON job_attempts USING (is_dispatcher());
ALTER TABLE queue_settings ENABLE ROW LEVEL SECURITY;
ALTER TABLE queue_settings FORCE ROW LEVEL SECURITY;
CREATE POLICY queue_settings_isolation ON queue_settings USING (tenant_id = current_tenant());
CREATE POLICY queue_settings_dispatch ON queue_settings FOR SELECT USING (is_dispatcher());
-- What is set for a whole queue concerns everybody in it.
CREATE POLICY queue_settings_of_all ON queue_settings FOR SELECT
    USING (tenant_id = '00000000-0000-0000-0000-000000000001' AND current_tenant() IS NOT NULL);
ALTER TABLE workers ENABLE ROW LEVEL SECURITY;
ALTER TABLE workers FORCE ROW LEVEL SECURITY;
CREATE POLICY workers_isolation ON workers USING (tenant_id = current_tenant());
CREATE POLICY workers_of_all ON workers FOR SELECT USING (current_tenant() IS NOT NULL OR is_dispatcher());
ALTER TABLE schedules ENABLE ROW LEVEL SECURITY;
ALTER TABLE schedules FORCE ROW LEVEL SECURITY;
CREATE POLICY schedules_isolation ON schedules USING (tenant_id = current_tenant());
CREATE POLICY schedules_of_all ON schedules FOR SELECT USING (current_tenant() IS NOT NULL);
ALTER TABLE schedule_slots ENABLE ROW LEVEL SECURITY;
ALTER TABLE schedule_slots FORCE ROW LEVEL SECURITY;
CREATE POLICY schedule_slots_isolation ON schedule_slots USING (tenant_id = current_tenant());
CREATE POLICY schedule_slots_of_all ON schedule_slots FOR SELECT USING (current_tenant() IS NOT NULL);
