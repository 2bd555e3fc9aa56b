DROP FUNCTION find_metrics(text, text[], text[], text[], text[], text[], text[], boolean, bigint, bigint);

CREATE INDEX metrics_search_idx ON metrics USING gin (tenant_id, search);
CREATE INDEX metrics_name_trigram_idx ON metrics USING gin (tenant_id, name gin_trgm_ops);
CREATE INDEX metrics_tags_idx ON metrics USING gin (tenant_id, tags);
DROP INDEX metrics_find_idx;
