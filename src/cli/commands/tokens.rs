//! `token`: issue, validate, revoke, inspect.

use std::fs::File;
use std::io::{self, Read};

use countersign_mesh::internals::without_mark;
use countersign_mesh::token::unverified_claims;
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::cli::args::tokens::{
    InspectArgs, IssueArgs, Mark, RevokeArgs, TokenCommand, TokenSource, ValidateArgs,
};
use crate::cli::commands::Server;
use crate::cli::error::Error;
use crate::cli::escape::escape;
use crate::cli::format::Format;
use crate::cli::output::{self, Output, View};
use crate::cli::secret::Secret;
use crate::cli::sheet::Sheet;
use crate::rpc::revoke_token_request::Target;
use crate::rpc::token_service_client::TokenServiceClient;
use crate::rpc::{
    InactiveReason, IssueTokenResponse, RevokeTokenRequest, TokenClaims, ValidateTokenRequest,
};

/// Runs a command about tokens.
pub async fn run(
    command: TokenCommand,
    server: &Server<'_>,
    stdin: &mut dyn Read,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    match command {
        TokenCommand::Issue(args) => issue(args, server, output).await,
        TokenCommand::Validate(args) => validate(args, server, stdin, output).await,
        TokenCommand::Revoke(args) => revoke(args, server, stdin, output).await,
        TokenCommand::Inspect(args) => inspect(&args, stdin, output),
    }
}

async fn issue(args: IssueArgs, server: &Server<'_>, output: &mut Output<'_>) -> Result<(), Error> {
    let issued =
        server.connect(output).await?.issue(&args.audience, &args.scopes, args.ttl).await?;
    let token = Issued::from(issued);
    if output.format() == Format::Human {
        output.remark(&token.remark())?;
    }
    // A second less than asked for is the clock between two seconds.
    let shorter = args.ttl.zip(token.expires_in).filter(|(ttl, given)| given + 1 < ttl.as_secs());
    if let Some((ttl, given)) = shorter {
        output.remark(&format!(
            "{} was asked for, and {} is the most that the client may have; an operator sets it with client update --max-token-ttl",
            output::span(ttl.as_secs()),
            output::span(given)
        ))?;
    }
    output.show(&token)
}

async fn validate(
    args: ValidateArgs,
    server: &Server<'_>,
    stdin: &mut dyn Read,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let token = read(&args.source, stdin)?.expose().to_owned();
    let connection = server.connect(output).await?;
    let mut service = TokenServiceClient::new(connection.clone());
    let request =
        ValidateTokenRequest { token, audience: args.audience, required_scopes: args.scopes };
    let answer = connection.answer(service.validate_token(request).await)?;
    if answer.active {
        return output.show(&Validated {
            active: true,
            inactive_reason: None,
            claims: answer.claims.map(Claims::from),
        });
    }
    let (reason, meaning, next) = why(answer.inactive_reason());
    output.show(&Validated { active: false, inactive_reason: Some(reason), claims: None })?;
    Err(Error::refused(format!("the token is not active: {meaning}"), next))
}

async fn revoke(
    args: RevokeArgs,
    server: &Server<'_>,
    stdin: &mut dyn Read,
    output: &mut Output<'_>,
) -> Result<(), Error> {
    let target = match args.token_id {
        Some(token_id) => Target::TokenId(token_id),
        None => Target::Token(read(&args.source, stdin)?.expose().to_owned()),
    };
    let connection = server.connect(output).await?;
    let mut service = TokenServiceClient::new(connection.clone());
    connection.answer(service.revoke_token(RevokeTokenRequest { target: Some(target) }).await)?;
    output.show(&Revoked { revoked: true })
}

fn inspect(args: &InspectArgs, stdin: &mut dyn Read, output: &mut Output<'_>) -> Result<(), Error> {
    let token = unverified_claims(read(&args.source, stdin)?.expose()).map_err(|_| {
        Error::failed(
            "this is not a token: three parts of base64url with dots between",
            "paste it whole",
        )
    })?;
    output.remark(NOTHING_VERIFIED)?;
    output.show(&Inspected {
        verified: false,
        warning: NOTHING_VERIFIED,
        header: token.header,
        claims: token.claims,
    })
}

const NOTHING_VERIFIED: &str = "NOTHING WAS VERIFIED: anyone can write a token that says this. \
                                Ask the server with `countersign token validate -`.";

/// The longest token that is read, in bytes. Anything longer is not a token.
const TOKEN_MAX: u64 = 64 * 1024;

fn read(source: &TokenSource, stdin: &mut dyn Read) -> Result<Secret, Error> {
    let (text, from) = match (&source.token_file, source.stdin) {
        (Some(path), _) => (
            File::open(path).and_then(|mut file| read_capped(&mut file)),
            path.display().to_string(),
        ),
        (None, Some(Mark::Stdin)) => (read_capped(stdin), "stdin".to_owned()),
        (None, Some(Mark::Other) | None) => {
            return Err(Error::usage(
                "a token is not taken from the command line, where others can read it",
                "give `-` and the token on stdin, or --token-file",
            ));
        }
    };
    let text = text.map_err(|error| {
        Error::failed(
            format!("cannot read the token from {from}: {error}"),
            "check where it comes from",
        )
    })?;
    match without_mark(&text).trim() {
        "" => Err(Error::failed(
            format!("there is no token in {from}"),
            "check that what writes it succeeded",
        )),
        _ if text.len() as u64 > TOKEN_MAX => Err(Error::failed(
            format!("what {from} holds is too long for a token"),
            "give the token alone",
        )),
        token => Ok(Secret::new(token.to_owned())),
    }
}

fn read_capped(source: &mut dyn Read) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    // One byte more than allowed, so that the caller can tell a longer input from one of just that
    // length.
    source.take(TOKEN_MAX + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// A reason as one word for scripts, as words for people, and with what to do next.
fn why(reason: InactiveReason) -> (&'static str, &'static str, &'static str) {
    match reason {
        InactiveReason::Unspecified => {
            ("unspecified", "the server does not say why", "get a new one")
        }
        InactiveReason::Invalid => {
            ("invalid", "this server did not make it", "check that it is complete and whose it is")
        }
        InactiveReason::Expired => ("expired", "its time is over or has not come", "get a new one"),
        InactiveReason::KeyUnknown => {
            ("key_unknown", "the server has no such key any more", "get a new one")
        }
        InactiveReason::Revoked => {
            ("revoked", "it, its client or its key was revoked", "get a new one, if its client may")
        }
        InactiveReason::AudienceMismatch => {
            ("audience_mismatch", "it is for another audience", "get one for this audience")
        }
        InactiveReason::ScopeMissing => {
            ("scope_missing", "it lacks a required scope", "get one with the scope")
        }
    }
}

/// An issued token, with the members of an OAuth token response (RFC 6749 §5.1).
#[derive(Serialize)]
struct Issued {
    access_token: String,
    token_type: String,
    expires_in: Option<u64>,
    refresh_in: Option<u64>,
    scope: String,
    audience: String,
    expire_time: Option<String>,
}

impl From<IssueTokenResponse> for Issued {
    fn from(issued: IssueTokenResponse) -> Self {
        Self {
            access_token: issued.access_token,
            token_type: issued.token_type,
            expires_in: output::seconds(issued.expires_in.as_ref()),
            refresh_in: output::seconds(issued.refresh_in.as_ref()),
            scope: issued.scopes.join(" "),
            audience: issued.audience,
            expire_time: issued.expire_time.as_ref().map(output::time),
        }
    }
}

impl Issued {
    fn remark(&self) -> String {
        let span = |seconds: Option<u64>| seconds.map_or_else(|| "?".to_owned(), output::span);
        format!(
            "token for {} ({}), expires in {}, refresh in {}",
            self.audience,
            self.scope,
            span(self.expires_in),
            span(self.refresh_in)
        )
    }
}

impl View for Issued {
    /// The token alone, to be piped.
    fn human(&self, _: Sheet) -> String {
        format!("{}\n", escape(&self.access_token))
    }
}

#[derive(Serialize)]
struct Validated {
    active: bool,
    inactive_reason: Option<&'static str>,
    claims: Option<Claims>,
}

#[derive(Serialize)]
struct Claims {
    issuer: String,
    client_id: String,
    audience: String,
    scopes: Vec<String>,
    issue_time: Option<String>,
    expire_time: Option<String>,
    expires_in: Option<u64>,
    token_id: String,
}

impl From<TokenClaims> for Claims {
    fn from(claims: TokenClaims) -> Self {
        Self {
            issue_time: claims.issue_time.as_ref().map(output::time),
            expire_time: claims.expire_time.as_ref().map(output::time),
            expires_in: output::seconds(claims.expires_in.as_ref()),
            issuer: claims.issuer,
            client_id: claims.client_id,
            audience: claims.audience,
            scopes: claims.scopes,
            token_id: claims.token_id,
        }
    }
}

impl View for Validated {
    fn human(&self, _: Sheet) -> String {
        let Some(claims) = &self.claims else {
            return match self.inactive_reason {
                Some(reason) => {
                    output::fields([("active", "no".to_owned()), ("reason", reason.to_owned())])
                }
                None => output::fields([("active", "yes".to_owned())]),
            };
        };
        let expires = claims.expire_time.clone().unwrap_or_else(|| "-".to_owned());
        output::fields([
            ("active", "yes".to_owned()),
            ("client", claims.client_id.clone()),
            ("audience", claims.audience.clone()),
            ("scopes", claims.scopes.join(" ")),
            ("issuer", claims.issuer.clone()),
            ("issued", claims.issue_time.clone().unwrap_or_else(|| "-".to_owned())),
            (
                "expires",
                claims.expires_in.map_or(expires.clone(), |left| {
                    format!("{expires}, in {}", output::span(left))
                }),
            ),
            ("token id", claims.token_id.clone()),
        ])
    }
}

#[derive(Serialize)]
struct Revoked {
    revoked: bool,
}

impl View for Revoked {
    fn human(&self, _: Sheet) -> String {
        "the token is revoked\n".to_owned()
    }
}

#[derive(Serialize)]
struct Inspected {
    verified: bool,
    warning: &'static str,
    header: Value,
    claims: Value,
}

impl View for Inspected {
    fn human(&self, _: Sheet) -> String {
        let part = |name: &str, value: &Value| {
            // The alternate form is indented JSON.
            let lines: String =
                format!("{value:#}").lines().map(|line| format!("{}\n", escape(line))).collect();
            format!("{name} {lines}")
        };
        format!("{}{}", part("header", &self.header), part("claims", &self.claims))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_stdin(text: &[u8]) -> Result<Secret, Error> {
        read(&TokenSource { stdin: Some(Mark::Stdin), token_file: None }, &mut &text[..])
    }

    #[test]
    fn a_token_on_stdin_loses_its_newline() {
        assert_eq!(from_stdin(b"a.b.c\n").expect("a token").expose(), "a.b.c");
    }

    #[test]
    fn empty_oversized_or_non_utf8_input_is_no_token() {
        for text in [&b" \n"[..], &vec![b'a'; 64 * 1024 + 1], &[0xff]] {
            assert!(matches!(from_stdin(text), Err(Error::Failed(_))));
        }
        assert!(from_stdin(&vec![b'a'; 64 * 1024]).is_ok());
    }

    #[test]
    fn a_token_as_an_argument_is_wrong_usage() {
        let source = TokenSource { stdin: Some(Mark::Other), token_file: None };
        assert!(matches!(read(&source, &mut io::empty()), Err(Error::Usage(_))));
    }
}
