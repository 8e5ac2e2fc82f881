//! `token`: issue, validate, revoke, inspect.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};

/// What there is to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Get a token: it is the only thing on stdout, so it can be piped
    Issue(IssueArgs),
    /// Ask the server whether a token is good right now; exit code 3 if not
    Validate(ValidateArgs),
    /// Revoke a token before it expires
    Revoke(RevokeArgs),
    /// Decode a token offline, without verifying anything
    Inspect(InspectArgs),
}

/// Get a token.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  $ countersign token issue
  $ countersign token issue --audience inventory --scope stock:read --ttl 5m
  $ countersign token issue --audience inventory --format json | jq .expires_in
  $ countersign token issue --audience inventory | countersign token validate -")]
pub struct IssueArgs {
    /// The service that the token is for [default: the only one that fits]
    #[arg(long, value_name = "AUDIENCE", default_value = "", hide_default_value = true)]
    pub audience: String,
    /// A scope to carry, or several with commas between; may be repeated [default: all that are granted]
    #[arg(long = "scope", value_name = "SCOPE[,SCOPE..]", value_delimiter = ',')]
    pub scopes: Vec<String>,
    /// A shorter life than it would have, like 5m
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
}

/// Ask the server about a token.
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("source").required(true).args(["stdin", "token_file"]),
    after_help = "\
Examples:
  $ countersign token issue --audience inventory | countersign token validate -
  $ countersign token validate --token-file token.txt --audience inventory --scope stock:read"
)]
pub struct ValidateArgs {
    /// The token.
    #[command(flatten)]
    pub source: TokenSource,
    /// The audience that it must be for [default: any that the caller serves]
    #[arg(long, value_name = "AUDIENCE", default_value = "", hide_default_value = true)]
    pub audience: String,
    /// A scope that it must carry, or several with commas between; may be repeated
    #[arg(long = "scope", value_name = "SCOPE[,SCOPE..]", value_delimiter = ',')]
    pub scopes: Vec<String>,
}

/// Revoke a token.
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("source").required(true).args(["stdin", "token_file", "token_id"]),
    after_help = "\
Examples:
  $ countersign token revoke - < token.txt
  $ countersign token revoke --token-id 5b1c7d20e8f94a6b

A client revokes its own tokens, an operator any."
)]
pub struct RevokeArgs {
    /// The token.
    #[command(flatten)]
    pub source: TokenSource,
    /// The token's id (jti), which is no secret; needs tokens:revoke
    #[arg(long, value_name = "JTI", allow_hyphen_values = true)]
    pub token_id: Option<String>,
}

/// Decode a token.
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("source").required(true).args(["stdin", "token_file"]),
    after_help = "\
Examples:
  $ countersign token issue --audience inventory | countersign token inspect -
  $ countersign token inspect --token-file token.txt --format json

Nothing is verified: anyone can write a token that says anything."
)]
pub struct InspectArgs {
    /// The token.
    #[command(flatten)]
    pub source: TokenSource,
}

/// Where a token comes from; never the command line, which others can read.
#[derive(Args, Debug)]
pub struct TokenSource {
    /// Read the token from stdin
    #[arg(value_name = "-", value_parser = parse_mark)]
    pub stdin: Option<Mark>,
    /// Read the token from this file
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// What stood where `-` belongs. Anything else may well be a token, so it is
/// dropped at once: clap would quote it in its error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `-`
    Stdin,
    /// Anything else.
    Other,
}

fn parse_mark(text: &str) -> Result<Mark, Infallible> {
    Ok(if text == "-" { Mark::Stdin } else { Mark::Other })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::args::Cli;

    #[test]
    fn a_token_comes_from_exactly_one_place() {
        let parses = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        assert!(
            parses("countersign token revoke -") && parses("countersign token revoke --token-id a")
        );
        assert!(parses("countersign token validate --token-file f"));
        for bad in
            ["validate", "inspect", "revoke", "revoke - --token-id a", "validate - --token-file f"]
        {
            assert!(!parses(&format!("countersign token {bad}")), "{bad}");
        }
    }
}
