DROP TABLE outbox, jobs;
DROP FUNCTION is_dispatcher();
