//! `client key` and `client cert`: what a client proves itself with instead of a secret.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

/// What there is to do with a client's public keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Register a public key; the private key never leaves the client
    #[command(after_help = "\
Examples:
  $ openssl genpkey -algorithm ed25519 -out cron.key
  $ openssl pkey -in cron.key -pubout -out cron.pub
  $ countersign client key add cron cron.pub")]
    Add {
        /// The client
        id: String,
        /// The Ed25519 public key: PEM as `openssl pkey -pubout` writes it, or a JWK
        file: PathBuf,
        /// How long it works [default: for ever]
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
    },
    /// List a client's public keys
    #[command(after_help = "Examples:\n  $ countersign client key list cron")]
    List {
        /// The client
        id: String,
    },
    /// Revoke a public key; tokens that the client got with it so far live on
    #[command(after_help = "\
Examples:
  $ countersign client key list cron
  $ countersign client key revoke cron kPrK_qmxVWaYVA9w")]
    Revoke {
        /// The client
        id: String,
        /// The key's kid, as `client key list` shows it
        kid: String,
    },
}

/// Examples of `client key`.
pub const KEY_EXAMPLES: &str = "\
Examples:
  $ countersign client key add cron cron.pub
  $ countersign client key list cron";

/// What there is to do with the names in a client's certificates.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Register a name: who connects with a certificate that has it is the client
    #[command(after_help = "\
Examples:
  $ countersign client cert add backup --san-dns backup.example
  $ countersign client cert add backup --san-uri spiffe://example/backup --ttl 90d
  $ countersign client cert add backup --subject-dn CN=backup,O=Example

The server must be told which authority signs such certificates.")]
    Add {
        /// The client
        id: String,
        /// The name.
        #[command(flatten)]
        name: CertNameArgs,
        /// How long it works [default: for ever]
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
    },
    /// List the names in a client's certificates
    #[command(after_help = "Examples:\n  $ countersign client cert list backup")]
    List {
        /// The client
        id: String,
    },
    /// Revoke a name; tokens that the client got by it so far live on
    #[command(
        after_help = "Examples:\n  $ countersign client cert revoke backup --san-dns backup.example"
    )]
    Revoke {
        /// The client
        id: String,
        /// The name.
        #[command(flatten)]
        name: CertNameArgs,
    },
}

/// Examples of `client cert`.
pub const CERT_EXAMPLES: &str = "\
Examples:
  $ countersign client cert add backup --san-dns backup.example
  $ countersign client cert list backup";

/// One name in a certificate.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct CertNameArgs {
    /// The subject, as `openssl x509 -noout -subject -nameopt RFC2253` prints it
    #[arg(long, value_name = "NAME")]
    pub subject_dn: Option<String>,
    /// A DNS name among the subject alternative names
    #[arg(long, value_name = "NAME")]
    pub san_dns: Option<String>,
    /// A URI among them, such as a SPIFFE id
    #[arg(long, value_name = "URI")]
    pub san_uri: Option<String>,
    /// An IP address among them
    #[arg(long, value_name = "ADDRESS")]
    pub san_ip: Option<String>,
    /// An e-mail address among them
    #[arg(long, value_name = "ADDRESS")]
    pub san_email: Option<String>,
}
