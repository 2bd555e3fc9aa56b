ALTER TABLE documents
    DROP CONSTRAINT documents_cache_seconds_sane,
    DROP COLUMN public,
    DROP COLUMN cache_seconds;
