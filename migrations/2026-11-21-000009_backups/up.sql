-- What is known of backups and of their trial restores. The backups themselves say the same of themselves, in their manifests:
-- these rows may be lost with the database and are made anew from those.
--
-- They belong to no company, and so to the tenant mdl-system.

CREATE TABLE backups (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    state text NOT NULL DEFAULT 'running',
    phase text NOT NULL DEFAULT 'starting',
    requested_by uuid,
    started_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    verified_at timestamptz,
    pruned_at timestamptz,
    done_bytes bigint NOT NULL DEFAULT 0,
    expected_bytes bigint,
    plain_bytes bigint,
    stored_bytes bigint,
    table_count integer,
    row_count bigint,
    file_count bigint,
    file_bytes bigint,
    encrypted boolean NOT NULL,
    dump_seconds double precision,
    schema_version text,
    server_version text,
    program_version text NOT NULL,
    places text[] NOT NULL DEFAULT '{}',
    error text,
    CONSTRAINT backups_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT backups_state_known CHECK (state IN ('queued', 'running', 'published', 'verified', 'failed'))
);
CREATE INDEX backups_verified_idx ON backups (tenant_id, started_at) WHERE verified_at IS NOT NULL;
COMMENT ON TABLE backups IS 'One run of a backup and what became of it.';
COMMENT ON COLUMN backups.state IS 'queued -> running -> published (complete, and never restored yet) -> verified (restored, and found to be the same); or failed.';
COMMENT ON COLUMN backups.expected_bytes IS 'Of the dump, as the last one was; for progress.';
COMMENT ON COLUMN backups.error IS 'Why it failed, or what was wrong when it was restored on trial.';

CREATE TABLE restore_drills (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    backup_id uuid NOT NULL,
    place text NOT NULL,
    state text NOT NULL DEFAULT 'running',
    phase text NOT NULL DEFAULT 'starting',
    requested_by uuid,
    started_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    done_bytes bigint NOT NULL DEFAULT 0,
    expected_bytes bigint,
    restore_seconds double precision,
    differences text[] NOT NULL DEFAULT '{}',
    error text,
    CONSTRAINT restore_drills_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT restore_drills_backup_fkey FOREIGN KEY (tenant_id, backup_id) REFERENCES backups (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT restore_drills_state_known CHECK (state IN ('running', 'succeeded', 'failed'))
);
CREATE INDEX restore_drills_backup_idx ON restore_drills (tenant_id, backup_id, id);
COMMENT ON TABLE restore_drills IS 'One trial restore of a backup into a scratch database.';
COMMENT ON COLUMN restore_drills.differences IS 'What the restored database had otherwise than the manifest says.';

ALTER TABLE backups ENABLE ROW LEVEL SECURITY;
ALTER TABLE backups FORCE ROW LEVEL SECURITY;
CREATE POLICY backups_isolation ON backups USING (tenant_id = current_tenant());
ALTER TABLE restore_drills ENABLE ROW LEVEL SECURITY;
ALTER TABLE restore_drills FORCE ROW LEVEL SECURITY;
CREATE POLICY restore_drills_isolation ON restore_drills USING (tenant_id = current_tenant());
