DROP TABLE idempotency_keys, audit_log, api_keys, refresh_tokens, sessions, memberships, users, tenants;
DROP FUNCTION current_tenant();
DROP EXTENSION btree_gin;
DROP EXTENSION pg_trgm;
