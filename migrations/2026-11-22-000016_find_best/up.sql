-- One index of all that a search and its filter ask for: PostgreSQL finds what is in each of its lists before it reads a row. With an
-- index for each, it read all rows that have the word to look at their tags.
CREATE INDEX metrics_find_idx ON metrics
    USING gin (tenant_id, search, name gin_trgm_ops, tags, tier, status, category, owner_team);
DROP INDEX metrics_search_idx;
DROP INDEX metrics_name_trigram_idx;
DROP INDEX metrics_tags_idx;

-- The functions of before, find_metrics with nine arguments and metrics_tagged, stay for programs that still run.

-- Before its library is loaded, a setting of pg_trgm may be set by superusers only.
SELECT word_similarity('', '');

CREATE FUNCTION find_metrics(
    query text, every_tag text[], any_tag text[], categories text[], tiers text[], statuses text[], owner_teams text[],
    archived boolean, most bigint, best bigint
) RETURNS SETOF uuid
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE ROWS 200 SET search_path = public, pg_catalog, pg_temp
    SET pg_trgm.word_similarity_threshold = 0.5
    AS $$
        DECLARE
            -- Planned anew each time, with what is really asked for. The text is fixed; all that comes from outside is a parameter.
            matching text := 'SELECT id, search, name FROM metrics WHERE ' || concat_ws(' AND ',
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
                CASE WHEN archived THEN 'archived_at IS NOT NULL' WHEN NOT archived THEN 'archived_at IS NULL' END) || ' LIMIT $8';
        BEGIN
            RETURN QUERY EXECUTE 'SELECT id FROM (' || matching || ') AS matching'
                || CASE WHEN best IS NOT NULL THEN ' ORDER BY metric_rank(search, name, $1) DESC, id DESC LIMIT $9' ELSE '' END
                USING query, every_tag, any_tag, categories, tiers, statuses, owner_teams, most, best;
        END
    $$;
COMMENT ON FUNCTION find_metrics(text, text[], text[], text[], text[], text[], text[], boolean, bigint, bigint) IS 'Metrics of this tenant that match all that is not NULL: whose text has the words or whose name resembles them, and whose columns have the values. Of the first so many that it comes upon, those that match the query best.';

GRANT CREATE ON SCHEMA public TO mdl_search;
ALTER FUNCTION find_metrics(text, text[], text[], text[], text[], text[], text[], boolean, bigint, bigint) OWNER TO mdl_search;
REVOKE CREATE ON SCHEMA public FROM mdl_search;
