SELECT word_similarity('', '');

DROP FUNCTION find_metrics;

CREATE FUNCTION metrics_tagged(wanted text[], every boolean) RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE ROWS 1000 SET search_path = public, pg_catalog, pg_temp
    AS $$
        SELECT id FROM metrics WHERE every AND tenant_id = current_tenant() AND tags @> wanted
        UNION ALL
        SELECT id FROM metrics WHERE NOT every AND tenant_id = current_tenant() AND tags && wanted
    $$;
COMMENT ON FUNCTION metrics_tagged(text[], boolean) IS 'Metrics of this tenant that have every, or any, of the wanted tags.';

CREATE FUNCTION find_metrics(
    query text, every_tag text[], any_tag text[], categories text[], tiers text[], statuses text[], owner_teams text[],
    archived boolean, most bigint
) RETURNS SETOF uuid
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE ROWS 200 SET search_path = public, pg_catalog, pg_temp
    SET pg_trgm.word_similarity_threshold = 0.5
    AS $$
        BEGIN
            -- Planned anew each time, with what is really asked for. The text is fixed; all that comes from outside is a parameter.
            RETURN QUERY EXECUTE 'SELECT id FROM metrics WHERE ' || concat_ws(' AND ',
                'tenant_id = current_tenant()',
                -- Who quotes a phrase or excludes a word means just that.
                CASE WHEN query ~ '"|(^|\s)-' THEN 'search @@ metric_search_query($1)'
                     WHEN query IS NOT NULL THEN '(search @@ metric_search_query($1) OR $1 <% name)' END,
                CASE WHEN every_tag IS NOT NULL THEN 'tags @> $2' END,
                CASE WHEN any_tag IS NOT NULL THEN 'tags && $3' END,
                CASE WHEN categories IS NOT NULL THEN 'category = ANY($4)' END,
                CASE WHEN tiers IS NOT NULL THEN 'tier = ANY($5)' END,
                CASE WHEN statuses IS NOT NULL THEN 'status = ANY($6)' END,
                CASE WHEN owner_teams IS NOT NULL THEN 'owner_team = ANY($7)' END,
                CASE WHEN archived THEN 'archived_at IS NOT NULL' WHEN NOT archived THEN 'archived_at IS NULL' END) || ' LIMIT $8'
                USING query, every_tag, any_tag, categories, tiers, statuses, owner_teams, most;
        END
    $$;
COMMENT ON FUNCTION find_metrics IS 'Metrics of this tenant that match all that is not NULL: whose text has the words or whose name resembles them, and whose columns have the values.';

GRANT CREATE ON SCHEMA public TO mdl_search;
ALTER FUNCTION metrics_tagged(text[], boolean) OWNER TO mdl_search;
ALTER FUNCTION find_metrics OWNER TO mdl_search;
REVOKE CREATE ON SCHEMA public FROM mdl_search;

CREATE INDEX metrics_search_idx ON metrics USING gin (tenant_id, search);
CREATE INDEX metrics_name_trigram_idx ON metrics USING gin (tenant_id, name gin_trgm_ops);
CREATE INDEX metrics_tags_idx ON metrics USING gin (tenant_id, tags);
DROP INDEX metrics_find_idx;
