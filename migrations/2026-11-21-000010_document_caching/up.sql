-- How answers to a published document are kept, where whoever publishes it says so.

ALTER TABLE documents
    ADD COLUMN cache_seconds integer,
    ADD COLUMN public boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT documents_cache_seconds_sane CHECK (cache_seconds BETWEEN 0 AND 86400);
COMMENT ON COLUMN documents.cache_seconds IS 'Seconds that an answer is kept at most; 0 for never, NULL for as long as any answer of its kind.';
COMMENT ON COLUMN documents.public IS 'Whether caches between us and the caller may keep answers to GET requests.';
