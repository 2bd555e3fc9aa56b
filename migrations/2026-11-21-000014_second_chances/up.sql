-- What was given up, and may still be taken up again.

ALTER TABLE imports
    ADD COLUMN given_up text,
    ADD CONSTRAINT imports_given_up_known CHECK (given_up IN ('for_now', 'for_good')),
    ADD CONSTRAINT imports_given_up_is_failed CHECK (given_up IS NULL OR state = 'failed');
COMMENT ON COLUMN imports.given_up IS 'Set when its job could not finish it: for_now, a retry of the job opens it again; for_good, its file has been removed.';

ALTER TABLE webhook_endpoints ADD COLUMN last_failed_at timestamptz;
COMMENT ON COLUMN webhook_endpoints.failing_since IS 'The first of the failures that count against the endpoint: without a success or a long silence in between.';
COMMENT ON COLUMN webhook_endpoints.last_failed_at IS 'The last failure that counts against the endpoint.';

ALTER TABLE schedules ADD COLUMN declared_at timestamptz NOT NULL DEFAULT now();
COMMENT ON COLUMN schedules.declared_at IS 'When a worker last had it in its table. One that no worker has had for a day is removed.';
