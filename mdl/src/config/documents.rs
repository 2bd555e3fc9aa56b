//! Which documents the api runs, and what it keeps of them.

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Documents")]
pub struct DocumentsConfig {
    /// What may be run. open: any document. prefer-trusted: a published one, or any for callers with the permission explore. trusted-only: published ones
    #[arg(id = "documents_mode", long = "documents-mode", env = "MDL_DOCUMENTS_MODE", value_enum, default_value_t = DocumentsMode::Open)]
    pub mode: DocumentsMode,
    /// Bytes of memory for parsed documents, of each process
    #[arg(
        id = "document_cache_bytes",
        long = "document-cache-bytes",
        env = "MDL_DOCUMENT_CACHE_BYTES",
        default_value_t = 33_554_432
    )]
    pub cache_bytes: u64,
    /// Seconds that Redis keeps a document which a client registered by its hash, from its last use
    #[arg(id = "apq_ttl_seconds", long = "apq-ttl-seconds", env = "MDL_APQ_TTL_SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub apq_ttl_seconds: u64,
    /// Longest document that is registered by its hash, in bytes; a longer one is run and forgotten
    #[arg(id = "apq_max_bytes", long = "apq-max-bytes", env = "MDL_APQ_MAX_BYTES", default_value_t = 65_536)]
    pub apq_max_bytes: usize,
    /// Most documents that one tenant has registered by hash; the one that was not used for longest makes room
    #[arg(id = "apq_max_documents", long = "apq-max-documents", env = "MDL_APQ_MAX_DOCUMENTS", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub apq_max_documents: u32,
    /// Most bytes that the documents of one tenant which are registered by hash have together; those that were not used for longest make room
    #[arg(
        id = "apq_max_tenant_bytes",
        long = "apq-max-tenant-bytes",
        env = "MDL_APQ_MAX_TENANT_BYTES",
        default_value_t = 16_777_216
    )]
    pub apq_max_tenant_bytes: usize,
}

/// Which documents may be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DocumentsMode {
    Open,
    PreferTrusted,
    TrustedOnly,
}
