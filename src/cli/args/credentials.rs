//! `client credential` and `client secret`: what a client proves itself with.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::client::CertificateNameKind;

/// What there is to do with a client's credentials.
#[derive(Debug, Subcommand)]
pub enum CredentialCommand {
    /// Add a credential: a new secret, a public key, or a name in certificates
    Add(AddArgs),
    /// List what is known of a client's credentials; never the secrets themselves
    #[command(after_help = "Examples:\n  $ countersign client credential list cron")]
    List {
        /// The client
        id: String,
    },
    /// Revoke a credential; tokens that the client got so far live on, unless --tokens revokes them
    #[command(after_help = "\
Examples:
  $ countersign client credential list cron
  $ countersign client credential revoke cron 3f9a0c71 --tokens
  $ countersign client credential revoke backup san_dns:backup.example")]
    Revoke {
        /// The client
        id: String,
        /// The credential's id, as `client credential list` shows it
        #[arg(allow_hyphen_values = true)]
        credential_id: String,
        /// Also revoke every token issued to the client so far, with whichever credential
        #[arg(long)]
        tokens: bool,
        /// Do not ask whether to go on
        #[arg(long)]
        yes: bool,
    },
}

/// Examples of `client credential`.
pub const CREDENTIAL_EXAMPLES: &str = "\
Examples:
  $ countersign client credential add cron --key cron.pub
  $ countersign client credential list cron";

/// Add a credential.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  $ countersign client credential add cron --secret --out cron-new.toml
  $ openssl genpkey -algorithm ed25519 -out cron.key
  $ openssl pkey -in cron.key -pubout -out cron.pub
  $ countersign client credential add cron --key cron.pub --ttl 90d
  $ countersign client credential add cron --key cron.pub --private-key-file cron.key --out cron.toml
  $ countersign client credential add backup --certificate-name san_dns:backup.example

Unless --out names a file, a secret is the only thing on stdout. It is not shown again. A private key never
leaves the client. The server must be told which authority signs certificates that have such a name.")]
pub struct AddArgs {
    /// The client
    pub id: String,
    /// What to add.
    #[command(flatten)]
    pub kind: KindArgs,
    /// How long it works [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
    /// Write the credentials to this new file, mode 0600, instead of printing the secret
    #[arg(long, value_name = "FILE", conflicts_with = "certificate_name")]
    pub out: Option<PathBuf>,
    /// Where the private key of --key is, for the file that --out names; it is not read
    #[arg(long, value_name = "FILE", requires_all = ["key", "out"], conflicts_with_all = ["secret", "certificate_name"])]
    pub private_key_file: Option<PathBuf>,
}

/// One kind of credential.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct KindArgs {
    /// A new secret; the others go on working
    #[arg(long)]
    pub secret: bool,
    /// The Ed25519 public key in this file: PEM as `openssl pkey -pubout` writes it, or a JWK
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// A name in certificates: `san_dns:`, `san_uri:`, `san_ip:` or `san_email:` and what stands among the
    /// subject alternative names, or `subject_dn:` and what `openssl x509 -noout -subject -nameopt RFC2253`
    /// prints
    #[arg(long, value_name = "KIND:NAME", value_parser = parse_certificate_name)]
    pub certificate_name: Option<(CertificateNameKind, String)>,
}

/// What there is to do with a client's secrets, every day.
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Make another secret, and say when the others were last used and what becomes of them
    #[command(after_help = "\
Examples:
  $ countersign client secret rotate cron --retire-when-idle 24h --out cron-new.toml
  $ countersign client credential list cron

With --retire-when-idle, the others are revoked by themselves: each once nobody has used it for that long,
and somebody has used a newer one. Without it they go on working.
Unless --out names a file, the secret is the only thing on stdout. It is not shown again.")]
    Rotate {
        /// The client
        id: String,
        /// Revoke the others once nobody has used them for this long: 1m or more
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        retire_when_idle: Option<Duration>,
        /// How long the new one works [default: for ever]
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
        /// Write the credentials to this new file, mode 0600, instead of printing the secret
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

/// Examples of `client secret`.
pub const SECRET_EXAMPLES: &str = "\
Examples:
  $ countersign client secret rotate cron --retire-when-idle 24h --out cron-new.toml";

/// Whether the name is one of its kind, the server says.
fn parse_certificate_name(text: &str) -> Result<(CertificateNameKind, String), String> {
    let known = text.split_once(':').and_then(|(kind, name)| {
        let kind = CertificateNameKind::ALL.into_iter().find(|known| known.as_str() == kind)?;
        Some((kind, name.to_owned()))
    });
    known.ok_or_else(|| "give it as KIND:NAME, like san_dns:backup.example".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::args::Cli;

    #[test]
    fn a_credential_has_exactly_one_kind_and_a_certificate_name_needs_no_file() {
        let parses = |flags: &str| {
            let line = format!("countersign client credential add cron {flags}");
            Cli::try_parse_from(line.split_whitespace()).is_ok()
        };
        for good in [
            "--secret --out f",
            "--key f",
            "--key f --private-key-file k --out f",
            "--certificate-name san_uri:spiffe://a/b",
        ] {
            assert!(parses(good), "{good}");
        }
        for bad in [
            "",
            "--secret --key f",
            "--key f --private-key-file k",
            "--secret --private-key-file k --out f",
            "--certificate-name san_dns:a --out f",
            "--certificate-name a.example",
            "--certificate-name san_x:a",
        ] {
            assert!(!parses(bad), "{bad}");
        }
    }
}
