-- Whether a request with an idempotency key has done anything: set by the very transaction that does it, so that nothing is done twice when
-- its answer is lost.

ALTER TABLE idempotency_keys ADD COLUMN wrote boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN idempotency_keys.wrote IS 'Whether the request has changed anything: then it never runs again, with an answer or without.';
