//! `operator`, `keys`, `policy` and `audit`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::args::clients::SecretArgs;
use crate::cli::args::host::{AuditHeadArgs, AuditVerifyArgs, RecoverArgs};

/// What there is to do with operators.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// List the operators: clients that hold an administrative scope
    #[command(after_help = "Examples:\n  $ countersign operator list")]
    List,
    /// Make an operator: a client with administrative scopes, and its first secret
    Create(OperatorArgs),
    /// Make an operator on the host itself, without a server, when none is left
    Recover(RecoverArgs),
}

/// Make an operator.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  $ countersign operator create alice --out alice.toml
  $ countersign operator create watcher --scope audit:read --scope keys:read

Needs operators:write, and nobody grants a scope they lack. Unless --out names a file, the secret is the only thing \
on stdout. It is not shown again.")]
pub struct OperatorArgs {
    /// The operator's id: 1 to 64 characters of A-Z a-z 0-9 . _ ~ -
    pub id: String,
    /// A scope to hold, or several with commas between; may be repeated [default: all administrative scopes]
    #[arg(long = "scope", value_name = "SCOPE[,SCOPE..]", value_delimiter = ',')]
    pub scopes: Vec<String>,
    /// The secret.
    #[command(flatten)]
    pub secret: SecretArgs,
}

/// What there is to do with signing keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// List the keys: next and active first
    #[command(
        after_help = "Examples:\n  $ countersign keys list\n  $ countersign keys list --format json | jq ."
    )]
    List,
    /// Promote the next key to active; tokens signed so far stay good
    #[command(after_help = "\
Examples:
  $ countersign keys rotate
  $ countersign keys rotate --wait
  $ countersign keys rotate --wait --timeout 30m
  $ countersign keys rotate --force

Refused (exit code 3) while some verifier would refuse the next key's tokens; who, and when to try again, is on stderr.")]
    Rotate {
        /// Try again until every verifier holds the next key
        #[arg(long)]
        wait: bool,
        /// How long to go on trying at the most
        #[arg(long, value_name = "DURATION", requires = "wait", default_value = "5m", value_parser = humantime::parse_duration)]
        timeout: Duration,
        /// Go ahead although some verifier does not hold the next key yet; names who may refuse its tokens
        #[arg(long, conflicts_with = "wait")]
        force: bool,
    },
    /// Revoke a key: every token that it signed is rejected from now on
    #[command(after_help = "\
Examples:
  $ countersign keys list
  $ countersign keys revoke 9k3F2a

Revoking the active key promotes the next one at the same moment. At a terminal it asks first.")]
    Revoke {
        /// The key, as `keys list` shows it
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// Do not ask whether to go on
        #[arg(long)]
        yes: bool,
    },
}

/// What there is to do with the policy.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Print what each RPC demands, one line a method, to review and diff
    #[command(after_help = "\
Examples:
  $ countersign policy show > policy.txt
  $ countersign policy show | diff policy.txt -
  $ countersign policy show --descriptor descriptors.bin > policy.txt

Each line is a path, then `public`, or the audience and the scopes that a token needs. No server is asked.
Methods that declare nothing are not listed, but told on stderr: a guard refuses them.")]
    Show {
        /// Of the services in this file, an encoded FileDescriptorSet with its imports, instead of
        /// Countersign's own: `descriptors.bin` of a build with countersign-build, or what
        /// `buf build -o` and `protoc --include_imports --descriptor_set_out` write
        #[arg(long, value_name = "FILE")]
        descriptor: Option<PathBuf>,
    },
}

/// What there is to do with the audit trail.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List audit events, newest first
    #[command(after_help = "\
Examples:
  $ countersign audit list
  $ countersign audit list --actor alice --since 24h
  $ countersign audit list --follow --action keys.
  $ countersign audit list --action client. --target order
  $ countersign audit list --limit 1000 --format json | jq '.events[].action'")]
    List(AuditListArgs),
    /// Prove on the host, without a server, that the trail is whole
    Verify(AuditVerifyArgs),
    /// Export on the host, without a server, what a later `verify` can compare with
    Head(AuditHeadArgs),
}

/// Which audit events to list.
#[derive(Args, Debug)]
pub struct AuditListArgs {
    /// How many at most
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Those of this actor: a client's id, or `host`
    #[arg(long, value_name = "ACTOR")]
    pub actor: Option<String>,
    /// Those whose action begins with this, like `client.` or `keys.rotate`
    #[arg(long, value_name = "ACTION")]
    pub action: Option<String>,
    /// Those about this: a client's id, a key's, ...
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// Go on with those that come, oldest first, until interrupted
    #[arg(long)]
    pub follow: bool,
    /// Those from this long ago on, by the server's clock
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub since: Option<Duration>,
}
