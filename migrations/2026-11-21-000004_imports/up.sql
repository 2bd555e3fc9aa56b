-- Bulk imports: the file is stored before it is acknowledged; these rows tell how far its work has come.

CREATE TABLE imports (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    job_id uuid,
    state text NOT NULL DEFAULT 'queued',
    format text,
    mode text NOT NULL,
    dry_run boolean NOT NULL,
    file_name text,
    namespace text,
    message text,
    storage_key text NOT NULL,
    content_bytes bigint NOT NULL,
    content_sha256 bytea NOT NULL,
    bytes_read bigint NOT NULL DEFAULT 0,
    rows_total bigint,
    rows_done bigint NOT NULL DEFAULT 0,
    created_count bigint NOT NULL DEFAULT 0,
    updated_count bigint NOT NULL DEFAULT 0,
    unchanged_count bigint NOT NULL DEFAULT 0,
    failed_count bigint NOT NULL DEFAULT 0,
    warning_count bigint NOT NULL DEFAULT 0,
    error text,
    requested_by uuid,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    cancel_requested_at timestamptz,
    CONSTRAINT imports_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT imports_state_known CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    CONSTRAINT imports_mode_known CHECK (mode IN ('all_or_nothing', 'row_by_row')),
    CONSTRAINT imports_format_known CHECK (format IN ('json', 'yaml', 'ndjson', 'csv', 'metric_hub'))
);
CREATE UNIQUE INDEX imports_same_work_key ON imports (tenant_id, content_sha256, mode, dry_run, coalesce(namespace, ''), coalesce(format, ''))
    WHERE state IN ('queued', 'running');
CREATE INDEX imports_state_idx ON imports (tenant_id, state, id);
COMMENT ON TABLE imports IS 'One uploaded file and what became of it.';
COMMENT ON COLUMN imports.rows_done IS 'Entries whose outcome is committed; a restarted row-by-row import goes on after them.';
COMMENT ON INDEX imports_same_work_key IS 'The same file sent twice at once is one import.';

CREATE TABLE import_issues (
    tenant_id uuid NOT NULL,
    import_id uuid NOT NULL,
    ordinal bigint NOT NULL,
    severity text NOT NULL,
    line bigint,
    path text,
    entity_kind text,
    entity_key text,
    field text,
    code text NOT NULL,
    message text NOT NULL,
    raw_value text,
    CONSTRAINT import_issues_pkey PRIMARY KEY (tenant_id, import_id, ordinal),
    CONSTRAINT import_issues_import_fkey FOREIGN KEY (tenant_id, import_id) REFERENCES imports (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT import_issues_severity_known CHECK (severity IN ('error', 'warning'))
);
COMMENT ON TABLE import_issues IS 'What was wrong in an imported file, and where.';

CREATE TABLE import_changes (
    tenant_id uuid NOT NULL,
    import_id uuid NOT NULL,
    ordinal bigint NOT NULL,
    action text NOT NULL,
    entity_kind text NOT NULL,
    entity_key text NOT NULL,
    fields jsonb NOT NULL,
    CONSTRAINT import_changes_pkey PRIMARY KEY (tenant_id, import_id, ordinal),
    CONSTRAINT import_changes_import_fkey FOREIGN KEY (tenant_id, import_id) REFERENCES imports (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT import_changes_action_known CHECK (action IN ('create', 'update'))
);
COMMENT ON TABLE import_changes IS 'What a dry run would have changed, field by field.';
COMMENT ON COLUMN import_changes.fields IS 'List of {field, before, after}; before is null for a new entry.';

ALTER TABLE imports ENABLE ROW LEVEL SECURITY;
ALTER TABLE imports FORCE ROW LEVEL SECURITY;
CREATE POLICY imports_isolation ON imports USING (tenant_id = current_tenant());
ALTER TABLE import_issues ENABLE ROW LEVEL SECURITY;
ALTER TABLE import_issues FORCE ROW LEVEL SECURITY;
CREATE POLICY import_issues_isolation ON import_issues USING (tenant_id = current_tenant());
ALTER TABLE import_changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE import_changes FORCE ROW LEVEL SECURITY;
CREATE POLICY import_changes_isolation ON import_changes USING (tenant_id = current_tenant());
