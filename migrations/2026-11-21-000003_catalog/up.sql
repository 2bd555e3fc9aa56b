-- The catalog: domains, metrics with their versions and lineage, objectives with their key results.
--
-- References between catalog entries are by key, the stable human name, so that a definition may name an entry that
-- does not exist yet: the reference resolves by itself once it does.

CREATE TABLE business_domains (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    key text NOT NULL,
    name text COLLATE "und-x-icu" NOT NULL,
    description text NOT NULL DEFAULT '',
    owner_team text,
    stakeholders text[] NOT NULL DEFAULT '{}',
    industry text,
    priority text,
    objective_keys text[] NOT NULL DEFAULT '{}',
    key_metric_keys text[] NOT NULL DEFAULT '{}',
    extra jsonb NOT NULL DEFAULT '{}',
    implied boolean NOT NULL DEFAULT false,
    revision integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by uuid,
    archived_at timestamptz,
    CONSTRAINT business_domains_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT business_domains_key_key UNIQUE (tenant_id, key),
    CONSTRAINT business_domains_name_key UNIQUE (tenant_id, name),
    CONSTRAINT business_domains_key_length CHECK (char_length(key) BETWEEN 1 AND 200),
    CONSTRAINT business_domains_name_length CHECK (char_length(name) BETWEEN 1 AND 200)
);
CREATE INDEX business_domains_updated_idx ON business_domains (tenant_id, updated_at, id);
COMMENT ON TABLE business_domains IS 'An area of the business that metrics belong to.';
COMMENT ON COLUMN business_domains.implied IS 'Made because a metric named it; a definition of the same name takes it over, key and all.';
COMMENT ON COLUMN business_domains.extra IS 'Imported fields that the model has no place for, kept as they came.';

CREATE FUNCTION metric_search_document(key text, name text, short_name text, synonyms text[], tags text[], description text, formula text)
    RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN setweight(to_tsvector('english'::regconfig, name || ' ' || array_to_string(synonyms, ' ')), 'A')
        || setweight(to_tsvector('english'::regconfig, translate(key || ' ' || coalesce(short_name, ''), '_.:/-', '     ')
                                                       || ' ' || array_to_string(tags, ' ')), 'B')
        || setweight(to_tsvector('english'::regconfig, left(description, 20000)), 'C')
        || setweight(to_tsvector('english'::regconfig, translate(left(coalesce(formula, ''), 20000), '_.', '  ')), 'D');

CREATE FUNCTION metric_search_query(query text) RETURNS tsquery
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN websearch_to_tsquery('english'::regconfig, regexp_replace(query, '([[:alnum:]])[-_.:/](?=[[:alnum:]])', '\1 ', 'g'));
COMMENT ON FUNCTION metric_search_query(text) IS 'What people type as a text search query: keys and hyphened words as their parts, as documents have them.';

CREATE FUNCTION metric_rank(document tsvector, name text, query text) RETURNS real
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ts_rank_cd(document, metric_search_query(query)) + word_similarity(query, name);
COMMENT ON FUNCTION metric_rank(tsvector, text, text) IS 'How well a metric matches a search: its text by cover density and weight, and its name by likeness.';

CREATE TABLE metrics (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    key text NOT NULL,
    name text COLLATE "und-x-icu" NOT NULL,
    short_name text,
    description text NOT NULL DEFAULT '',
    category text,
    tier text,
    domain_id uuid,
    indicator_kind text,
    metric_type text NOT NULL DEFAULT 'simple',
    status text NOT NULL DEFAULT 'draft',
    tags text[] NOT NULL DEFAULT '{}',
    synonyms text[] NOT NULL DEFAULT '{}',
    formula text,
    unit text,
    expected_direction text,
    owner_team text,
    technical_owner text,
    business_owner text,
    data_classification text,
    pii_involved boolean NOT NULL DEFAULT false,
    details jsonb NOT NULL DEFAULT '{}',
    version_major integer NOT NULL DEFAULT 1,
    version_minor integer NOT NULL DEFAULT 0,
    version_patch integer NOT NULL DEFAULT 0,
    revision integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by uuid,
    archived_at timestamptz,
    search tsvector NOT NULL GENERATED ALWAYS AS
        (metric_search_document(key, name, short_name, synonyms, tags, description, formula)) STORED,
    CONSTRAINT metrics_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT metrics_key_key UNIQUE (tenant_id, key),
    CONSTRAINT metrics_domain_fkey FOREIGN KEY (tenant_id, domain_id) REFERENCES business_domains (tenant_id, id),
    CONSTRAINT metrics_key_length CHECK (char_length(key) BETWEEN 1 AND 200),
    CONSTRAINT metrics_name_length CHECK (char_length(name) BETWEEN 1 AND 300),
    CONSTRAINT metrics_tier_known CHECK (tier IN ('tier_1', 'tier_2', 'tier_3')),
    CONSTRAINT metrics_indicator_kind_known CHECK (indicator_kind IN ('leading', 'lagging', 'operational')),
    CONSTRAINT metrics_metric_type_known CHECK (metric_type IN ('simple', 'ratio', 'derived', 'cumulative', 'conversion')),
    CONSTRAINT metrics_status_known CHECK (status IN ('draft', 'in_review', 'active', 'deprecated', 'removed')),
    CONSTRAINT metrics_expected_direction_known CHECK (expected_direction IN ('increase', 'decrease', 'stable'))
);
CREATE INDEX metrics_name_idx ON metrics (tenant_id, name, id);
CREATE INDEX metrics_created_idx ON metrics (tenant_id, created_at, id);
CREATE INDEX metrics_updated_idx ON metrics (tenant_id, updated_at, id);
CREATE INDEX metrics_domain_idx ON metrics (tenant_id, domain_id, key);
CREATE INDEX metrics_category_idx ON metrics (tenant_id, category, key);
CREATE INDEX metrics_owner_team_idx ON metrics (tenant_id, owner_team, key);
CREATE INDEX metrics_status_idx ON metrics (tenant_id, status, key);
CREATE INDEX metrics_tier_idx ON metrics (tenant_id, tier, key);
CREATE INDEX metrics_search_idx ON metrics USING gin (tenant_id, search);
CREATE INDEX metrics_name_trigram_idx ON metrics USING gin (tenant_id, name gin_trgm_ops);
CREATE INDEX metrics_tags_idx ON metrics USING gin (tenant_id, tags);
COMMENT ON TABLE metrics IS 'What a number means, as of now. Columns for what is filtered or joined, details for the rest.';
COMMENT ON COLUMN metrics.details IS 'mdl::metrics::Details as JSON: alignment, events, sources, dimensions, targets, usage and the like.';
COMMENT ON COLUMN metrics.revision IS 'Counts changes; a writer names the revision it has seen (expectedVersion).';

CREATE TABLE metric_versions (
    tenant_id uuid NOT NULL,
    metric_id uuid NOT NULL,
    revision integer NOT NULL,
    version_major integer NOT NULL,
    version_minor integer NOT NULL,
    version_patch integer NOT NULL,
    change_tier text NOT NULL,
    changed_fields text[] NOT NULL,
    message text,
    document jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    CONSTRAINT metric_versions_pkey PRIMARY KEY (tenant_id, metric_id, revision),
    CONSTRAINT metric_versions_metric_fkey FOREIGN KEY (tenant_id, metric_id) REFERENCES metrics (tenant_id, id),
    CONSTRAINT metric_versions_change_tier_known CHECK (change_tier IN ('initial', 'major', 'minor', 'patch'))
);
COMMENT ON TABLE metric_versions IS 'Every state a metric has had. Written with the change; never updated.';
COMMENT ON COLUMN metric_versions.document IS 'mdl::metrics::Definition as JSON: the whole definition as it was.';

CREATE TABLE metric_edges (
    tenant_id uuid NOT NULL,
    declared_by uuid NOT NULL,
    upstream_key text NOT NULL,
    downstream_key text NOT NULL,
    CONSTRAINT metric_edges_pkey PRIMARY KEY (tenant_id, declared_by, upstream_key, downstream_key),
    CONSTRAINT metric_edges_metric_fkey FOREIGN KEY (tenant_id, declared_by) REFERENCES metrics (tenant_id, id),
    CONSTRAINT metric_edges_not_self CHECK (upstream_key <> downstream_key)
);
CREATE INDEX metric_edges_upstream_idx ON metric_edges (tenant_id, upstream_key, downstream_key);
CREATE INDEX metric_edges_downstream_idx ON metric_edges (tenant_id, downstream_key, upstream_key);
COMMENT ON TABLE metric_edges IS 'Lineage: the downstream metric is computed from, or follows, the upstream one. Both ends may declare it.';

CREATE TABLE objectives (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    key text NOT NULL,
    name text COLLATE "und-x-icu" NOT NULL,
    description text NOT NULL DEFAULT '',
    owner text,
    status text NOT NULL DEFAULT 'draft',
    priority text,
    pillar text,
    starts_on date,
    ends_on date,
    domain_id uuid,
    metric_keys text[] NOT NULL DEFAULT '{}',
    extra jsonb NOT NULL DEFAULT '{}',
    revision integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by uuid,
    archived_at timestamptz,
    CONSTRAINT objectives_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT objectives_key_key UNIQUE (tenant_id, key),
    CONSTRAINT objectives_domain_fkey FOREIGN KEY (tenant_id, domain_id) REFERENCES business_domains (tenant_id, id),
    CONSTRAINT objectives_key_length CHECK (char_length(key) BETWEEN 1 AND 200),
    CONSTRAINT objectives_name_length CHECK (char_length(name) BETWEEN 1 AND 500),
    CONSTRAINT objectives_status_known CHECK (status IN ('draft', 'active', 'achieved', 'missed', 'cancelled')),
    CONSTRAINT objectives_timeframe_ordered CHECK (starts_on <= ends_on)
);
CREATE INDEX objectives_name_idx ON objectives (tenant_id, name, id);
CREATE INDEX objectives_updated_idx ON objectives (tenant_id, updated_at, id);
CREATE INDEX objectives_ends_on_idx ON objectives (tenant_id, ends_on, id);
CREATE INDEX objectives_domain_idx ON objectives (tenant_id, domain_id, key);
COMMENT ON TABLE objectives IS 'What the company wants to reach in a timeframe.';

CREATE TABLE key_results (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    objective_id uuid NOT NULL,
    key text NOT NULL,
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    unit text,
    direction text NOT NULL DEFAULT 'increase',
    baseline_value double precision,
    target_value double precision,
    current_value double precision,
    extra jsonb NOT NULL DEFAULT '{}',
    position integer NOT NULL DEFAULT 0,
    revision integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by uuid,
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by uuid,
    archived_at timestamptz,
    CONSTRAINT key_results_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT key_results_key_key UNIQUE (tenant_id, objective_id, key),
    CONSTRAINT key_results_objective_fkey FOREIGN KEY (tenant_id, objective_id) REFERENCES objectives (tenant_id, id),
    CONSTRAINT key_results_key_length CHECK (char_length(key) BETWEEN 1 AND 200),
    CONSTRAINT key_results_name_length CHECK (char_length(name) BETWEEN 1 AND 1000),
    CONSTRAINT key_results_direction_known CHECK (direction IN ('increase', 'decrease', 'maintain')),
    CONSTRAINT key_results_values_finite CHECK (
        coalesce(baseline_value, 0) NOT IN ('NaN', 'Infinity', '-Infinity')
        AND coalesce(target_value, 0) NOT IN ('NaN', 'Infinity', '-Infinity')
        AND coalesce(current_value, 0) NOT IN ('NaN', 'Infinity', '-Infinity'))
);
CREATE INDEX key_results_objective_idx ON key_results (tenant_id, objective_id, position, id);
COMMENT ON TABLE key_results IS 'How an objective is measured. Progress and status are computed, never stored.';

CREATE TABLE key_result_metrics (
    tenant_id uuid NOT NULL,
    key_result_id uuid NOT NULL,
    metric_key text NOT NULL,
    position integer NOT NULL DEFAULT 0,
    CONSTRAINT key_result_metrics_pkey PRIMARY KEY (tenant_id, key_result_id, metric_key),
    CONSTRAINT key_result_metrics_key_result_fkey FOREIGN KEY (tenant_id, key_result_id) REFERENCES key_results (tenant_id, id)
);
CREATE INDEX key_result_metrics_metric_idx ON key_result_metrics (tenant_id, metric_key);
COMMENT ON TABLE key_result_metrics IS 'The metrics that a key result is read from, by key.';

ALTER TABLE business_domains ENABLE ROW LEVEL SECURITY;
ALTER TABLE business_domains FORCE ROW LEVEL SECURITY;
CREATE POLICY business_domains_isolation ON business_domains USING (tenant_id = current_tenant());
ALTER TABLE metrics ENABLE ROW LEVEL SECURITY;
ALTER TABLE metrics FORCE ROW LEVEL SECURITY;
CREATE POLICY metrics_isolation ON metrics USING (tenant_id = current_tenant());
ALTER TABLE metric_versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE metric_versions FORCE ROW LEVEL SECURITY;
CREATE POLICY metric_versions_isolation ON metric_versions USING (tenant_id = current_tenant());
ALTER TABLE metric_edges ENABLE ROW LEVEL SECURITY;
ALTER TABLE metric_edges FORCE ROW LEVEL SECURITY;
CREATE POLICY metric_edges_isolation ON metric_edges USING (tenant_id = current_tenant());
ALTER TABLE objectives ENABLE ROW LEVEL SECURITY;
ALTER TABLE objectives FORCE ROW LEVEL SECURITY;
CREATE POLICY objectives_isolation ON objectives USING (tenant_id = current_tenant());
ALTER TABLE key_results ENABLE ROW LEVEL SECURITY;
ALTER TABLE key_results FORCE ROW LEVEL SECURITY;
CREATE POLICY key_results_isolation ON key_results USING (tenant_id = current_tenant());
ALTER TABLE key_result_metrics ENABLE ROW LEVEL SECURITY;
ALTER TABLE key_result_metrics FORCE ROW LEVEL SECURITY;
CREATE POLICY key_result_metrics_isolation ON key_result_metrics USING (tenant_id = current_tenant());

REVOKE UPDATE, DELETE ON metric_versions FROM mdl_app;

-- Under row-level security only leakproof operators may use an index, and neither full text, trigram nor array operators
-- are. These two functions find candidates through the indexes as mdl_search, a role that bypasses the policies; they
-- keep to the transaction's tenant themselves and give away nothing but ids. The caller reads the rows under its own
-- policy, so a mistake here could cost a result but not reveal a row.

CREATE FUNCTION search_metrics(query text) RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE ROWS 200 SET search_path = public, pg_catalog, pg_temp
    SET pg_trgm.word_similarity_threshold = 0.5
    AS $$
        SELECT id FROM metrics, metric_search_query(query) AS parsed (terms)
        WHERE tenant_id = current_tenant() AND (search @@ parsed.terms OR (query !~ '"|(^|\s)-' AND query <% name))
        LIMIT 5000
    $$;
-- Half of the trigrams in common: a word with one letter missing or wrong is still found. Who quotes a phrase or excludes a
-- word means just that.
COMMENT ON FUNCTION search_metrics(text) IS 'Metrics of this tenant whose text has the words, or whose name resembles them. At most 5,000: a word that every metric has is not worth ranking them all.';

CREATE FUNCTION metrics_tagged(wanted text[], every boolean) RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE ROWS 1000 SET search_path = public, pg_catalog, pg_temp
    AS $$
        SELECT id FROM metrics WHERE every AND tenant_id = current_tenant() AND tags @> wanted
        UNION ALL
        SELECT id FROM metrics WHERE NOT every AND tenant_id = current_tenant() AND tags && wanted
    $$;
COMMENT ON FUNCTION metrics_tagged(text[], boolean) IS 'Metrics of this tenant that have every, or any, of the wanted tags.';

GRANT SELECT (tenant_id, id, name, tags, search) ON metrics TO mdl_search;
GRANT CREATE, USAGE ON SCHEMA public TO mdl_search;
ALTER FUNCTION search_metrics(text) OWNER TO mdl_search;
ALTER FUNCTION metrics_tagged(text[], boolean) OWNER TO mdl_search;
REVOKE CREATE ON SCHEMA public FROM mdl_search;
