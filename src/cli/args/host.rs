//! The commands that run where the store is.

use std::path::PathBuf;

use clap::Args;

use crate::cli::config::Mode;
use crate::cli::config::layers::Flags;
use crate::cli::config::settings::{self, Setting};

/// Where the store is, and the key that opens it. Read as settings.
#[derive(Args, Debug)]
pub struct StoreArgs {
    /// The directory that holds the database [default: countersign-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// The file with the key-encryption key [default: kek in the data directory]
    #[arg(long, value_name = "FILE")]
    pub kek_file: Option<String>,
    /// The directory that keeps the highest epoch, by which an old copy of the store is known
    /// [default: where the key-encryption key is]
    #[arg(long, value_name = "DIR")]
    pub epoch_dir: Option<String>,
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl StoreArgs {
    /// The settings given here.
    pub fn flags(&self) -> Flags {
        given([
            (&settings::DATA_DIR, &self.data_dir),
            (&settings::KEK_FILE, &self.kek_file),
            (&settings::EPOCH_DIR, &self.epoch_dir),
        ])
    }
}

/// Create the store.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  $ countersign init --issuer https://auth.example.com
  $ countersign init --issuer https://auth.example.com --data-dir /var/lib/countersign --kek-file /etc/countersign/kek

The key-encryption key is created with mode 0600. Without it the store cannot be opened: keep a copy elsewhere.")]
pub struct InitArgs {
    /// The issuer that tokens name (iss): a URL, fixed for the life of the store
    #[arg(long, value_name = "URL")]
    pub issuer: String,
    /// The id of the first operator
    #[arg(long, value_name = "ID", default_value = "operator")]
    pub operator_id: String,
    /// Where the server will be, for the operator's credentials [default: http://127.0.0.1:9443]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Where to create it.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Serve clients and verifiers over gRPC
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  $ countersign serve --dev
  $ countersign serve --config /etc/countersign/config.toml
  $ countersign serve --listen 0.0.0.0:9443 --tls-cert-file tls.crt --tls-key-file tls.key
  $ COUNTERSIGN_LOG_FORMAT=json countersign serve --data-dir /var/lib/countersign

Each setting is taken from its flag, else its variable, else the configuration file; docs/configuration.md lists them.")]
pub struct ServeArgs {
    /// Try it out: creates the store, a demo client and an operator on first start, prints what
    /// to type next, and never listens off loopback
    #[arg(long)]
    pub dev: bool,
    /// The addresses to serve on, with commas between: 127.0.0.1:9443, localhost:9443, or :9443 for
    /// every interface; port 0 takes a free one [default: 127.0.0.1:9443]
    #[arg(long, value_name = "ADDRESSES")]
    pub listen: Option<String>,
    /// The server's certificate and its chain, in PEM; TLS takes this and its key
    #[arg(long, value_name = "FILE")]
    pub tls_cert_file: Option<String>,
    /// The certificate's private key, in PEM
    #[arg(long, value_name = "FILE")]
    pub tls_key_file: Option<String>,
    /// The authorities that client certificates must chain to, in PEM
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca_file: Option<String>,
    /// How many threads serve [default: 1]
    #[arg(long, value_name = "COUNT")]
    pub workers: Option<String>,
    /// How long calls in flight may take to finish at shutdown [default: 10s]
    #[arg(long, value_name = "DURATION")]
    pub shutdown_grace: Option<String>,
    /// Whether failed authentications are throttled, on or off [default: on]
    #[arg(long, value_name = "SWITCH")]
    pub limits_failures: Option<String>,
    /// How many tokens a second one client is issued, 0 for no limit [default: 0]
    #[arg(long, value_name = "COUNT")]
    pub limits_tokens_per_client: Option<String>,
    /// How many requests may be under way at once [default: 4096]
    #[arg(long, value_name = "COUNT")]
    pub limits_concurrent_requests: Option<String>,
    /// How many connections there may be at once [default: 8192]
    #[arg(long, value_name = "COUNT")]
    pub limits_connections: Option<String>,
    /// What log lines look like, human or json [default: human]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Which log lines to write [default: info]
    #[arg(long, value_name = "DIRECTIVES")]
    pub log_filter: Option<String>,
    /// The life of tokens of clients without a maximum of their own [default: 15m]
    #[arg(long, value_name = "DURATION")]
    pub tokens_default_ttl: Option<String>,
    /// How long audit events are kept [default: 365d]
    #[arg(long, value_name = "DURATION")]
    pub audit_retention: Option<String>,
    /// How long a key signs before the next one takes over by itself [default: off]
    #[arg(long, value_name = "DURATION")]
    pub keys_rotate_every: Option<String>,
    /// How old what verifiers know may become before those that fail closed refuse [default: 5m]
    #[arg(long, value_name = "DURATION")]
    pub trust_max_staleness: Option<String>,
    /// How many trust streams a client may have at a time [default: 256]
    #[arg(long, value_name = "COUNT")]
    pub trust_max_streams: Option<String>,
    /// Where the state is.
    #[command(flatten)]
    pub store: StoreArgs,
}

impl ServeArgs {
    /// The settings given here, except the global `--insecure-plaintext`.
    pub fn flags(&self) -> Flags {
        let mut flags = given([
            (&settings::LISTEN, &self.listen),
            (&settings::TLS_CERT_FILE, &self.tls_cert_file),
            (&settings::TLS_KEY_FILE, &self.tls_key_file),
            (&settings::TLS_CLIENT_CA_FILE, &self.tls_client_ca_file),
            (&settings::WORKERS, &self.workers),
            (&settings::SHUTDOWN_GRACE, &self.shutdown_grace),
            (&settings::LIMITS_FAILURES, &self.limits_failures),
            (&settings::LIMITS_TOKENS_PER_CLIENT, &self.limits_tokens_per_client),
            (&settings::LIMITS_CONCURRENT_REQUESTS, &self.limits_concurrent_requests),
            (&settings::LIMITS_CONNECTIONS, &self.limits_connections),
            (&settings::LOG_FORMAT, &self.log_format),
            (&settings::LOG_FILTER, &self.log_filter),
            (&settings::TOKENS_DEFAULT_TTL, &self.tokens_default_ttl),
            (&settings::AUDIT_RETENTION, &self.audit_retention),
            (&settings::KEYS_ROTATE_EVERY, &self.keys_rotate_every),
            (&settings::TRUST_MAX_STALENESS, &self.trust_max_staleness),
            (&settings::TRUST_MAX_STREAMS, &self.trust_max_streams),
        ]);
        flags.extend(self.store.flags());
        flags
    }

    /// For whom to serve.
    pub fn mode(&self) -> Mode {
        if self.dev { Mode::Dev } else { Mode::Production }
    }
}

/// Make another operator, on the host.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  $ countersign operator recover --data-dir /var/lib/countersign --operator-id rescue --out rescue.toml

Needs the store and the key-encryption key at hand, and no server. It is recorded in the audit trail.")]
pub struct RecoverArgs {
    /// The id of the new operator
    #[arg(long, value_name = "ID", default_value = "operator")]
    pub operator_id: String,
    /// Write the credentials to this new file, mode 0600, instead of printing the secret
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Copy the store.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  $ countersign backup --to /backups/countersign-monday.db
  $ countersign backup --data-dir /var/lib/countersign --to copy.db

The server may run meanwhile. The copy is of one moment, and needs the key-encryption key to be opened: keep that \
elsewhere. Put a backup back with `countersign restore` only.")]
pub struct BackupArgs {
    /// The copy: a new file, mode 0600
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Put a backup back.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  $ countersign restore --from /backups/countersign-monday.db
  $ countersign restore --data-dir /var/lib/countersign

Needs the key-encryption key at hand, and no server. What was revoked after the backup is not revoked in it, so all its \
keys are replaced and every earlier token is refused; the clients and secrets to look through are printed. The store that \
was there before is kept beside. Without --from it makes good a copy that was put in place by hand.")]
pub struct RestoreArgs {
    /// The backup; without it, the store that is in place
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Write what to look through to this new file, mode 0600, as JSON, instead of printing it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Prove that the audit trail is whole.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  $ countersign audit verify
  $ countersign audit verify --head head.json

Names the first row that was changed or removed. Only a head exported earlier, and kept elsewhere, shows that the \
newest rows were cut off.")]
pub struct AuditVerifyArgs {
    /// A head exported earlier with `audit head`, which the trail must still contain
    #[arg(long, value_name = "FILE")]
    pub head: Option<PathBuf>,
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Export the head of the audit trail.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  $ countersign audit head --format json > head.json

Keep it where those who can write to the database cannot write.")]
pub struct AuditHeadArgs {
    /// Where the store is.
    #[command(flatten)]
    pub store: StoreArgs,
}

fn given<const N: usize>(settings: [(&'static Setting, &Option<String>); N]) -> Flags {
    settings.into_iter().filter_map(|(setting, value)| Some((setting, value.clone()?))).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use crate::cli::args::Cli;
    use crate::cli::config::settings::SETTINGS;

    #[test]
    fn serve_has_a_flag_for_each_setting() {
        let mut cli = Cli::command();
        cli.build();
        let serve = cli.find_subcommand("serve").expect("`serve` is a command");
        for setting in SETTINGS {
            let flag = setting.flag();
            assert!(
                serve.get_arguments().any(|arg| arg.get_long() == flag.strip_prefix("--")),
                "{flag}"
            );
        }
    }
}
