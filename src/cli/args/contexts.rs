//! `context`: names for credentials files.

use std::path::PathBuf;

use clap::Subcommand;

/// What there is to do with contexts.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// Give a credentials file a name; the first becomes the current one
    #[command(
        after_help = "Examples:\n  $ countersign context add prod /etc/countersign/operator.toml\n  $ countersign --context prod keys list"
    )]
    Add {
        /// The name
        name: String,
        /// The credentials file, which stays where it is
        file: PathBuf,
    },
    /// List the names; `*` marks the current one
    #[command(after_help = "Examples:\n  $ countersign context list")]
    List,
    /// Make a name the current one: it counts where no credentials are named
    #[command(after_help = "Examples:\n  $ countersign context use prod")]
    Use {
        /// The name
        name: String,
    },
    /// Forget a name; its credentials file stays
    #[command(after_help = "Examples:\n  $ countersign context remove prod")]
    Remove {
        /// The name
        name: String,
    },
}

/// Examples of `context`.
pub const CONTEXT_EXAMPLES: &str = "\
Examples:
  $ countersign context add prod /etc/countersign/operator.toml
  $ countersign context use prod
  $ countersign --context staging keys list";
