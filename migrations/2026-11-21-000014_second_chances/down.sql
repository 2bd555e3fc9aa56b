ALTER TABLE schedules DROP COLUMN declared_at;
COMMENT ON COLUMN webhook_endpoints.failing_since IS 'The first failed attempt since the last that succeeded.';
ALTER TABLE webhook_endpoints DROP COLUMN last_failed_at;
ALTER TABLE imports DROP COLUMN given_up;
