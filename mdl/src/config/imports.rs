#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Imports")]
pub struct ImportConfig {
    /// Longest uploaded file, in bytes as sent
    #[arg(id = "import_max_bytes", long = "import-max-bytes", env = "MDL_IMPORT_MAX_BYTES", default_value_t = 268_435_456)]
    pub max_bytes: u64,
    /// Longest file after decompression, in bytes
    #[arg(
        id = "import_max_inflated_bytes",
        long = "import-max-inflated-bytes",
        env = "MDL_IMPORT_MAX_INFLATED_BYTES",
        default_value_t = 2_147_483_648
    )]
    pub max_inflated_bytes: u64,
    /// Most times that decompression may make a file longer, once it is over a megabyte
    #[arg(
        id = "import_max_inflate_ratio",
        long = "import-max-inflate-ratio",
        env = "MDL_IMPORT_MAX_INFLATE_RATIO",
        default_value_t = 100
    )]
    pub max_inflate_ratio: u64,
    /// Most entries in one file
    #[arg(id = "import_max_rows", long = "import-max-rows", env = "MDL_IMPORT_MAX_ROWS", default_value_t = 1_000_000)]
    pub max_rows: u64,
    /// Longest YAML or TOML file, in bytes: these are read whole
    #[arg(
        id = "import_max_document_bytes",
        long = "import-max-document-bytes",
        env = "MDL_IMPORT_MAX_DOCUMENT_BYTES",
        default_value_t = 33_554_432
    )]
    pub max_document_bytes: u64,
    /// Entries that are written in one transaction
    #[arg(id = "import_batch_rows", long = "import-batch-rows", env = "MDL_IMPORT_BATCH_ROWS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch_rows: u32,
}
