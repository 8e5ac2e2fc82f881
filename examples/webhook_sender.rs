//! The other way round: we call the provider's API, which trusts *their* issuer. We are a client of
//! theirs, and get a token from their token endpoint (RFC 6749 §4.4), whatever it runs on. The same
//! `TokenSource` that keeps the tokens of our own mesh fresh also keeps this one.
//!
//! ```text
//! cat > acme-pay.toml <<END; chmod 600 acme-pay.toml
//! url = "https://auth.acme-pay.example/oauth/token"
//! client_id = "shop-0815"
//! client_secret = "what they gave us"
//! END
//! cargo run --example webhook_sender -- --credentials acme-pay.toml \
//!     --api https://api.acme-pay.example/events --scope events:write --order 1001
//! ```
//!
//! Here COUNTERSIGN_URL and the credentials file's `url` name a token endpoint.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use countersign_mesh::claims::ScopeSet;
use countersign_mesh::session::{ClientSecret, OAuthEndpoint, TokenSource};
use http::Request;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use tokio::time::Instant;

use crate::http_client::Http;
use crate::log::Failure;

#[path = "support/http.rs"]
mod http_client;
#[path = "support/log.rs"]
mod log;

#[derive(Parser)]
struct Args {
    /// The credentials that the provider gave us; without it, COUNTERSIGN_URL, COUNTERSIGN_CLIENT_ID and
    /// COUNTERSIGN_CLIENT_SECRET, or a `_FILE` of that
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// What to ask for
    #[arg(long, value_name = "SCOPES", default_value = "events:write")]
    scope: ScopeSet,
    /// What the provider calls its API, if its tokens name one
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// Where events go
    #[arg(long, value_name = "URL")]
    api: String,
    /// The order that was shipped
    #[arg(long, value_name = "NUMBER")]
    order: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    log::run(send(Args::parse())).await
}

async fn send(args: Args) -> Result<(), Failure> {
    let mut endpoint = match &args.credentials {
        Some(path) => OAuthEndpoint::from_credentials_file(path)?,
        None => {
            let secret = match variable("COUNTERSIGN_CLIENT_SECRET_FILE") {
                Ok(path) => ClientSecret::from_file(path),
                Err(_) => ClientSecret::new(&variable("COUNTERSIGN_CLIENT_SECRET")?),
            };
            let client_id = variable("COUNTERSIGN_CLIENT_ID")?;
            OAuthEndpoint::new(&variable("COUNTERSIGN_URL")?, &client_id, secret)?
        }
    };
    if let Some(audience) = &args.audience {
        endpoint = endpoint.parameter("audience", audience);
    }
    let tokens = TokenSource::oauth(endpoint, args.scope);

    // A program that goes on running asks the source again for each call, and always gets a fresh
    // token.
    let token = tokens.token(Instant::now() + Duration::from_secs(10)).await?;
    let event = serde_json::json!({ "event": "shipped", "order": args.order });
    let request = Request::post(&args.api)
        .header(AUTHORIZATION, token.header())
        .header(CONTENT_TYPE, "application/json")
        .body(Bytes::from(event.to_string()).into())?;
    let answer = Http::new()?.send(request).await?;
    let told = String::from_utf8_lossy(answer.body());
    if !answer.status().is_success() {
        return Err(format!("the provider answered {} {told}", answer.status()).into());
    }
    tracing::info!(order = args.order, status = %answer.status(), "the provider knows");
    Ok(())
}

fn variable(name: &str) -> Result<String, Failure> {
    std::env::var(name).map_err(|_| format!("neither --credentials is given nor {name} set").into())
}
