//! The command line, as types: one file a group of commands.

pub mod admin;
pub mod clients;
pub mod contexts;
pub mod credentials;
pub mod host;
pub mod tokens;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::cli::args::admin::{AuditCommand, KeysCommand, OperatorCommand, PolicyCommand};
use crate::cli::args::clients::ClientCommand;
use crate::cli::args::contexts::{CONTEXT_EXAMPLES, ContextCommand};
use crate::cli::args::host::{BackupArgs, InitArgs, RestoreArgs, ServeArgs};
use crate::cli::args::tokens::TokenCommand;
use crate::cli::format::Format;

/// A token service for a service mesh: OAuth 2.0 client credentials over gRPC.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The command itself.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  $ countersign serve --dev
  $ countersign token issue
  $ countersign keys rotate --wait

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by the server, 4 server unreachable.";

/// What every command takes.
#[derive(Args, Debug)]
pub struct GlobalArgs {
    /// How to print answers: for people, or as one line of JSON for scripts
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "human",
        help_heading = "Global options"
    )]
    pub format: Format,
    /// Tables as wide as they are, also on a narrow terminal
    #[arg(long, global = true, help_heading = "Global options")]
    pub wide: bool,
    /// Tables without their heading
    #[arg(long, global = true, help_heading = "Global options")]
    pub no_headers: bool,
    /// The credentials file: TOML with url, client_id and client_secret, mode 0600.
    /// Without it: COUNTERSIGN_CREDENTIALS names one; else COUNTERSIGN_URL, COUNTERSIGN_CLIENT_ID and
    /// COUNTERSIGN_CLIENT_SECRET; else what `serve --dev` left in ./countersign-dev; else
    /// countersign/credentials.toml in the configuration directory
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub credentials: Option<PathBuf>,
    /// The credentials file that this name stands for; see `countersign context`
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        conflicts_with = "credentials",
        help_heading = "Global options"
    )]
    pub context: Option<String>,
    /// Allow plaintext off loopback, to listen and to connect: secrets and tokens cross the
    /// network readable, unless something else encrypts
    #[arg(long, global = true, help_heading = "Global options")]
    pub insecure_plaintext: bool,
}

/// What there is to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create the store, its keys and the first operator
    Init(InitArgs),
    /// Serve clients and verifiers over gRPC
    Serve(Box<ServeArgs>),
    /// Copy the store, also while a server runs
    Backup(BackupArgs),
    /// Put a backup in place of the store: replaces all its keys, and lists what to look through
    Restore(RestoreArgs),
    /// Register clients, change them, and manage their credentials
    #[command(subcommand, after_help = CLIENT_EXAMPLES)]
    Client(ClientCommand),
    /// Make operators: clients that hold administrative scopes
    #[command(subcommand, after_help = OPERATOR_EXAMPLES)]
    Operator(OperatorCommand),
    /// List, rotate and revoke the signing keys
    #[command(subcommand, after_help = KEYS_EXAMPLES)]
    Keys(KeysCommand),
    /// Issue, validate, revoke and look into tokens
    #[command(subcommand, after_help = TOKEN_EXAMPLES)]
    Token(TokenCommand),
    /// Show what each RPC demands of its caller
    #[command(subcommand, after_help = POLICY_EXAMPLES)]
    Policy(PolicyCommand),
    /// Read the audit trail and prove that it is whole
    #[command(subcommand, after_help = AUDIT_EXAMPLES)]
    Audit(AuditCommand),
    /// Give credentials files names, for --context
    #[command(subcommand, after_help = CONTEXT_EXAMPLES)]
    Context(ContextCommand),
    /// Print the completions for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        shell: Shell,
    },
}

const CLIENT_EXAMPLES: &str = "\
Examples:
  $ countersign client create cron --grant inventory=stock:read --out cron.toml
  $ countersign client list
  $ countersign client credential list cron";

const OPERATOR_EXAMPLES: &str = "\
Examples:
  $ countersign operator create alice --out alice.toml
  $ countersign operator recover --operator-id rescue --out rescue.toml";

const KEYS_EXAMPLES: &str = "\
Examples:
  $ countersign keys list
  $ countersign keys rotate";

const TOKEN_EXAMPLES: &str = "\
Examples:
  $ countersign token issue --audience inventory
  $ countersign token issue --audience inventory | countersign token inspect -";

const POLICY_EXAMPLES: &str = "\
Examples:
  $ countersign policy show";

const AUDIT_EXAMPLES: &str = "\
Examples:
  $ countersign audit list --limit 20
  $ countersign audit verify";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  $ countersign completions bash > /etc/bash_completion.d/countersign
  $ countersign completions fish > ~/.config/fish/completions/countersign.fish";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Every command below and including `command`, with the examples of its help.
    fn examples(command: &clap::Command, path: &str, into: &mut Vec<(String, Vec<String>)>) {
        let path = format!("{path} {}", command.get_name());
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines =
            help.lines().filter_map(|line| line.strip_prefix("  $ ")).map(str::to_owned).collect();
        into.push((path.trim().to_owned(), lines));
        for subcommand in command.get_subcommands() {
            examples(subcommand, &path, into);
        }
    }

    fn all_examples() -> Vec<(String, Vec<String>)> {
        let mut all = Vec::new();
        examples(&Cli::command(), "", &mut all);
        all
    }

    #[test]
    fn clap_finds_no_fault_with_the_tree_of_commands() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_help_has_an_example_of_the_command_itself() {
        for (path, lines) in all_examples() {
            assert!(
                lines.iter().any(|line| line.contains(&path)),
                "`{path} --help` shows no example of itself"
            );
        }
    }

    #[test]
    fn every_example_parses() {
        for line in all_examples().into_iter().flat_map(|(_, lines)| lines) {
            for command in line.split(" | ") {
                let words: Vec<&str> =
                    command.split(" > ").next().unwrap_or_default().split(' ').collect();
                if words[0] == "countersign" {
                    let words = words.iter().take_while(|word| **word != "<");
                    assert!(Cli::try_parse_from(words).is_ok(), "{command}");
                }
            }
        }
    }
}
