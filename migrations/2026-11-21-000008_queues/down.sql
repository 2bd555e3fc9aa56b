SELECT set_config('app.tenant_id', '00000000-0000-0000-0000-000000000001', true);
SELECT set_config('app.dispatcher', 'on', true);

DROP TABLE schedule_slots;
DROP TABLE schedules;
DROP TABLE workers;
DROP TABLE queue_settings;
DROP TABLE job_attempts;

-- The states and the tenant that the version before does not know.
DELETE FROM jobs WHERE state IN ('held', 'discarded') OR tenant_id = '00000000-0000-0000-0000-000000000001';
DELETE FROM outbox WHERE tenant_id = '00000000-0000-0000-0000-000000000001';
DELETE FROM audit_log WHERE tenant_id = '00000000-0000-0000-0000-000000000001';
DELETE FROM tenants WHERE id = '00000000-0000-0000-0000-000000000001';
DROP POLICY tenants_dispatch ON tenants;

DROP INDEX jobs_unique_key;
DROP INDEX jobs_due_idx;
DROP INDEX jobs_active_idx;
DROP INDEX jobs_held_idx;
DROP INDEX jobs_batch_idx;
DROP INDEX jobs_dead_idx;
DROP INDEX jobs_finished_idx;
ALTER TABLE jobs
    DROP CONSTRAINT jobs_held_for_something,
    DROP CONSTRAINT jobs_state_known,
    ADD CONSTRAINT jobs_state_known CHECK (state IN ('waiting', 'dispatched', 'running', 'succeeded', 'dead', 'cancelled')),
    DROP COLUMN turn,
    DROP COLUMN unique_until,
    DROP COLUMN batch_id,
    DROP COLUMN waits_for,
    DROP COLUMN progress_done,
    DROP COLUMN progress_total,
    DROP COLUMN progress_message;
CREATE UNIQUE INDEX jobs_unique_key ON jobs (tenant_id, kind, unique_key)
    WHERE unique_key IS NOT NULL AND state IN ('waiting', 'dispatched', 'running');
CREATE INDEX jobs_due_idx ON jobs (queue, priority DESC, run_at) WHERE state = 'waiting';
CREATE INDEX jobs_dispatched_idx ON jobs (dispatched_at) WHERE state = 'dispatched';
COMMENT ON COLUMN jobs.state IS 'waiting (for run_at) -> dispatched (id is in Redis) -> running (leased) -> succeeded | dead | cancelled; a failed attempt goes back to waiting.';
COMMENT ON COLUMN jobs.unique_key IS 'At most one unfinished job of a kind has this key.';

SELECT set_config('app.tenant_id', '', true);
SELECT set_config('app.dispatcher', '', true);
