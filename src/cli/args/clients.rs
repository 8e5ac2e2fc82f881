//! `client`: registered clients.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::cli::args::credentials::{
    CREDENTIAL_EXAMPLES, CredentialCommand, SECRET_EXAMPLES, SecretCommand,
};

/// What there is to do with clients.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Register a client and make its first secret
    Create(CreateArgs),
    /// List the clients
    #[command(
        after_help = "Examples:\n  $ countersign client list\n  $ countersign client list --audience inventory\n  $ countersign client list --unused 90d\n  $ countersign client list --format json | jq ."
    )]
    List(ListArgs),
    /// Show a client: what it may call, what it serves, its credentials
    #[command(alias = "get", after_help = "Examples:\n  $ countersign client show cron")]
    Show {
        /// The client
        id: String,
    },
    /// Change a client
    Update(UpdateArgs),
    /// Delete a client and its credentials, and revoke its tokens
    #[command(
        after_help = "Examples:\n  $ countersign client delete cron\n\nAt a terminal it asks first, and says what will fail."
    )]
    Delete {
        /// The client
        id: String,
        /// Do not ask whether to go on
        #[arg(long)]
        yes: bool,
    },
    /// Add, list and revoke what a client proves itself with: secrets, public keys, certificate names
    #[command(subcommand, after_help = CREDENTIAL_EXAMPLES)]
    Credential(CredentialCommand),
    /// Rotate a client's secret
    #[command(subcommand, after_help = SECRET_EXAMPLES)]
    Secret(SecretCommand),
    /// Revoke every token issued to a client so far; those it gets from now on are good
    #[command(after_help = "Examples:\n  $ countersign client revoke-tokens cron")]
    RevokeTokens {
        /// The client
        id: String,
    },
}

/// Which clients to list.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// Those whose id or description has this text
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Those that may call this audience, or are it
    #[arg(long, value_name = "AUDIENCE")]
    pub audience: Option<String>,
    /// Those none of whose credentials was used for this long
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub unused: Option<Duration>,
}

/// Register a client.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  $ countersign client create cron --grant inventory=stock:read,stock:write --out cron.toml
  $ countersign client create inventory --serves inventory --description stock-team
  $ countersign client create shop --serves shop --resource https://shop.example.com/api
  $ countersign client create partner --grant orders=orders:read --max-token-ttl 5m --secret-ttl 90d

Unless --out names a file, the secret is the only thing on stdout. It is not shown again.")]
pub struct CreateArgs {
    /// The client's id: 1 to 64 characters of A-Z a-z 0-9 . _ ~ -
    pub id: String,
    /// What it is and whom to ask
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub description: String,
    /// What it may call; may be repeated
    #[arg(long = "grant", value_name = "AUDIENCE=SCOPE[,SCOPE..]", value_parser = parse_grant)]
    pub grants: Vec<GrantArg>,
    /// An audience that it is, whose tokens it may validate; may be repeated
    #[arg(long, value_name = "AUDIENCE")]
    pub serves: Vec<String>,
    /// Another name of an audience that it is, as OAuth clients send it in `resource`; may be repeated
    #[arg(long = "resource", value_name = "URI[=AUDIENCE]", value_parser = parse_resource)]
    pub resources: Vec<ResourceArg>,
    /// The longest life of its tokens: 1s to 24h [default: the server's]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub max_token_ttl: Option<Duration>,
    /// Make no secret
    #[arg(long, conflicts_with_all = ["secret_ttl", "out"])]
    pub no_secret: bool,
    /// The secret.
    #[command(flatten)]
    pub secret: SecretArgs,
}

/// How to make a secret, and where to put it.
#[derive(Args, Clone, Debug)]
pub struct SecretArgs {
    /// How long the secret works [default: for ever]
    #[arg(long = "secret-ttl", id = "secret_ttl", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub ttl: Option<Duration>,
    /// Write the credentials to this new file, mode 0600, instead of printing the secret
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Change a client.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  $ countersign client update cron --add-grant orders=orders:read
  $ countersign client update shop --add-serves orders
  $ countersign client update cron --max-token-ttl default --description nightly
  $ countersign client update cron --disable

Disabling a client also revokes the tokens issued to it so far.")]
pub struct UpdateArgs {
    /// The client
    pub id: String,
    /// What it is and whom to ask
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// What it may call from now on, instead of all that it may call now; may be repeated
    #[arg(
        long = "grant",
        value_name = "AUDIENCE=SCOPE[,SCOPE..]",
        value_parser = parse_grant,
        conflicts_with_all = ["add_grants", "remove_grants"]
    )]
    pub grants: Vec<GrantArg>,
    /// What it may call besides; may be repeated
    #[arg(long = "add-grant", value_name = "AUDIENCE=SCOPE[,SCOPE..]", value_parser = parse_grant)]
    pub add_grants: Vec<GrantArg>,
    /// An audience that it may call no more; may be repeated
    #[arg(long = "remove-grant", value_name = "AUDIENCE")]
    pub remove_grants: Vec<String>,
    /// An audience that it is, instead of all that it is now; may be repeated
    #[arg(long, value_name = "AUDIENCE")]
    pub serves: Vec<String>,
    /// An audience that it is besides; may be repeated
    #[arg(long, value_name = "AUDIENCE", conflicts_with_all = ["serves", "no_serves"])]
    pub add_serves: Vec<String>,
    /// An audience that it is no more; may be repeated
    #[arg(long, value_name = "AUDIENCE", conflicts_with_all = ["serves", "no_serves"])]
    pub remove_serves: Vec<String>,
    /// It is no audience any more
    #[arg(long, conflicts_with = "serves")]
    pub no_serves: bool,
    /// Another name of an audience that it is, instead of all that there are now; may be repeated
    #[arg(long = "resource", value_name = "URI[=AUDIENCE]", value_parser = parse_resource)]
    pub resources: Vec<ResourceArg>,
    /// Its audiences have no other names any more
    #[arg(long, conflicts_with = "resources")]
    pub no_resources: bool,
    /// The longest life of its tokens, 1s to 24h, or `default` for the server's
    #[arg(long, value_name = "DURATION", value_parser = parse_max_ttl)]
    pub max_token_ttl: Option<MaxTtl>,
    /// It gets no more tokens, and those it has are revoked
    #[arg(long, conflicts_with = "enable")]
    pub disable: bool,
    /// It gets tokens again
    #[arg(long)]
    pub enable: bool,
}

impl UpdateArgs {
    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        let Self {
            id: _,
            description,
            grants,
            add_grants,
            remove_grants,
            serves,
            add_serves,
            remove_serves,
            no_serves,
            resources,
            no_resources,
            max_token_ttl,
            disable,
            enable,
        } = self;
        let lists = grants.is_empty()
            && add_grants.is_empty()
            && remove_grants.is_empty()
            && serves.is_empty()
            && add_serves.is_empty()
            && remove_serves.is_empty()
            && resources.is_empty();
        lists
            && description.is_none()
            && max_token_ttl.is_none()
            && !no_serves
            && !no_resources
            && !disable
            && !enable
    }
}

/// `AUDIENCE=SCOPE[,SCOPE..]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantArg {
    /// The service.
    pub audience: String,
    /// The scopes, at least one.
    pub scopes: Vec<String>,
}

/// `URI[=AUDIENCE]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceArg {
    /// The URI.
    pub uri: String,
    /// The audience; none for the only one that the client is.
    pub audience: Option<String>,
}

/// A new maximum for the life of a client's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxTtl {
    /// The server's default.
    Default,
    /// This.
    At(Duration),
}

fn parse_grant(text: &str) -> Result<GrantArg, String> {
    let shape =
        || "give it as AUDIENCE=SCOPE[,SCOPE..], like inventory=stock:read,stock:write".to_owned();
    let (audience, scopes) = text.split_once('=').ok_or_else(shape)?;
    let scopes: Vec<String> = scopes.split(',').map(str::to_owned).collect();
    if audience.is_empty() || scopes.iter().any(String::is_empty) {
        return Err(shape());
    }
    Ok(GrantArg { audience: audience.to_owned(), scopes })
}

/// The last `=` divides: audiences have none, URIs may.
fn parse_resource(text: &str) -> Result<ResourceArg, String> {
    let (uri, audience) = match text.rsplit_once('=') {
        Some((uri, audience)) => (uri, Some(audience.to_owned())),
        None => (text, None),
    };
    if uri.is_empty() || audience.as_deref() == Some("") {
        return Err("give it as URI=AUDIENCE, like https://shop.example.com/api=shop".to_owned());
    }
    Ok(ResourceArg { uri: uri.to_owned(), audience })
}

fn parse_max_ttl(text: &str) -> Result<MaxTtl, humantime::DurationError> {
    match text {
        "default" => Ok(MaxTtl::Default),
        span => humantime::parse_duration(span).map(MaxTtl::At),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::Cli;

    fn parses(line: &str) -> bool {
        Cli::try_parse_from(line.split(' ')).is_ok()
    }

    #[test]
    fn a_grant_names_an_audience_and_at_least_one_scope() {
        let grant = parse_grant("inventory=stock:read,a=b").expect("a grant");
        assert_eq!((grant.audience.as_str(), grant.scopes.len()), ("inventory", 2));
        for bad in ["inventory", "inventory=", "=stock:read", "inventory=a,,b", "inventory=a,"] {
            assert!(parse_grant(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_resource_is_divided_at_the_last_equals_sign() {
        let resource = |uri: &str, audience: Option<&str>| {
            Ok(ResourceArg { uri: uri.to_owned(), audience: audience.map(str::to_owned) })
        };
        assert_eq!(parse_resource("https://a.test/"), resource("https://a.test/", None));
        assert_eq!(parse_resource("a:b?c=d=shop"), resource("a:b?c=d", Some("shop")));
        for bad in ["", "=shop", "https://a.test/="] {
            assert!(parse_resource(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn flags_of_an_update_that_contradict_each_other_are_refused() {
        assert!(parses("countersign client update a --disable --description x"));
        for bad in [
            " --disable --enable",
            " --grant a=b --add-grant c=d",
            " --grant a=b --remove-grant c",
            " --serves a --no-serves",
            " --serves a --add-serves b",
            " --no-serves --remove-serves b",
            " --resource a:b --no-resources",
        ] {
            assert!(!parses(&format!("countersign client update a{bad}")), "{bad}");
        }
    }

    #[test]
    fn no_secret_excludes_the_flags_that_are_about_a_secret() {
        assert!(parses("countersign client create a --no-secret"));
        assert!(!parses("countersign client create a --no-secret --out f"));
        assert!(!parses("countersign client create a --no-secret --secret-ttl 1d"));
    }
}
