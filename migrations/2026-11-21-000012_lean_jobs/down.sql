ALTER TABLE jobs ADD CONSTRAINT jobs_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id);
CREATE INDEX jobs_leases_idx ON jobs (lease_until) WHERE state = 'running';
CREATE UNIQUE INDEX jobs_id_key ON jobs (id);
