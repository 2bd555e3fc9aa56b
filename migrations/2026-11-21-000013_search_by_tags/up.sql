-- A search among the metrics with some tags looks only at those: candidates that are cut off before the tags are looked at
-- leave nothing of the few that have both, and reading two long lists of candidates to find what is in both takes longer.

-- Before its library is loaded, a setting of pg_trgm may be set by superusers only.
SELECT word_similarity('', '');

CREATE FUNCTION search_tagged_metrics(query text, wanted text[], every boolean) RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE ROWS 100 SET search_path = public, pg_catalog, pg_temp
    SET pg_trgm.word_similarity_threshold = 0.5
    AS $$
        (SELECT id FROM metrics, metric_search_query(query) AS parsed (terms)
         WHERE every AND tenant_id = current_tenant() AND tags @> wanted
             AND (search @@ parsed.terms OR (query !~ '"|(^|\s)-' AND query <% name))
         UNION ALL
         SELECT id FROM metrics, metric_search_query(query) AS parsed (terms)
         WHERE NOT every AND tenant_id = current_tenant() AND tags && wanted
             AND (search @@ parsed.terms OR (query !~ '"|(^|\s)-' AND query <% name)))
        LIMIT 5000
    $$;
COMMENT ON FUNCTION search_tagged_metrics(text, text[], boolean) IS 'As search_metrics, among the metrics that have every, or any, of the wanted tags.';

GRANT CREATE ON SCHEMA public TO mdl_search;
ALTER FUNCTION search_tagged_metrics(text, text[], boolean) OWNER TO mdl_search;
REVOKE CREATE ON SCHEMA public FROM mdl_search;
