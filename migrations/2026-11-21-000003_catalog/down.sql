DROP FUNCTION metrics_tagged(text[], boolean);
DROP FUNCTION search_metrics(text);
REVOKE USAGE ON SCHEMA public FROM mdl_search;
DROP TABLE key_result_metrics, key_results, objectives, metric_edges, metric_versions, metrics, business_domains;
DROP FUNCTION metric_search_document(text, text, text, text[], text[], text, text);
DROP FUNCTION metric_rank(tsvector, text, text);
DROP FUNCTION metric_search_query(text);
