-- Published documents: operations that a tenant, or the operator for all tenants, has let in by name.

CREATE TABLE documents (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    document_id text NOT NULL,
    sha256 bytea NOT NULL,
    name text NOT NULL,
    version integer NOT NULL,
    text text NOT NULL,
    published_by uuid,
    published_at timestamptz NOT NULL DEFAULT now(),
    withdrawn_at timestamptz,
    use_count bigint NOT NULL DEFAULT 0,
    last_used_at timestamptz,
    CONSTRAINT documents_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT documents_document_id_key UNIQUE (tenant_id, document_id),
    CONSTRAINT documents_document_id_length CHECK (char_length(document_id) BETWEEN 1 AND 200),
    CONSTRAINT documents_name_length CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT documents_sha256_length CHECK (octet_length(sha256) = 32),
    CONSTRAINT documents_version_positive CHECK (version > 0)
);
CREATE INDEX documents_sha256_idx ON documents (tenant_id, sha256);
CREATE INDEX documents_name_idx ON documents (tenant_id, name, version);
COMMENT ON TABLE documents IS 'GraphQL documents that clients may send by id. Withdrawn ones stay, so that an id never gets another text.';
COMMENT ON COLUMN documents.tenant_id IS 'Whose it is. The nil UUID, which is no tenant, for a document of all tenants; so there is no foreign key.';
COMMENT ON COLUMN documents.document_id IS 'What clients send: the id of the manifest, or the SHA-256 of the text in hex.';
COMMENT ON COLUMN documents.version IS 'Grows when a name is published with another text.';
COMMENT ON COLUMN documents.published_by IS 'The user; NULL for the command line.';
COMMENT ON COLUMN documents.use_count IS 'Written in batches some seconds after the use; a crash loses the last batch.';

ALTER TABLE documents ENABLE ROW LEVEL SECURITY;
ALTER TABLE documents FORCE ROW LEVEL SECURITY;
CREATE POLICY documents_isolation ON documents USING (tenant_id = current_tenant());
-- Every tenant reads the documents of all; only a transaction for the nil UUID, which no credential stands for, writes them.
CREATE POLICY documents_of_all ON documents FOR SELECT
    USING (tenant_id = '00000000-0000-0000-0000-000000000000' AND current_tenant() IS NOT NULL);
-- Before a deployment, the operator holds all of them against the new schema.
CREATE POLICY documents_check ON documents FOR SELECT USING (is_dispatcher());
