SELECT word_similarity('', '');

DROP FUNCTION find_metrics;
REVOKE SELECT (category, tier, status, owner_team, archived_at) ON metrics FROM mdl_search;

CREATE FUNCTION search_metrics(query text) RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE ROWS 200 SET search_path = public, pg_catalog, pg_temp
    SET pg_trgm.word_similarity_threshold = 0.5
    AS $$
        SELECT id FROM metrics, metric_search_query(query) AS parsed (terms)
        WHERE tenant_id = current_tenant() AND (search @@ parsed.terms OR (query !~ '"|(^|\s)-' AND query <% name))
        LIMIT 5000
    $$;
COMMENT ON FUNCTION search_metrics(text) IS 'Metrics of this tenant whose text has the words, or whose name resembles them. At most 5,000: a word that every metric has is not worth ranking them all.';

GRANT CREATE ON SCHEMA public TO mdl_search;
ALTER FUNCTION search_metrics(text) OWNER TO mdl_search;
REVOKE CREATE ON SCHEMA public FROM mdl_search;
