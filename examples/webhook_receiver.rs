//! Our webhook: a payment provider tells us that an order is paid. Anyone on the internet can call it, and
//! whoever could pretend to be the provider would get our tea for nothing. So the provider is a client of
//! *our* token service and brings a token, which says:
//!
//! - who it is (`client_id`), and it is our provider's;
//! - that it was issued for our webhook (`aud`), so that nobody uses against us what the provider gave to
//!   someone else;
//! - that it may deliver (`scope`), so that no other client of ours can;
//! - and it is signed by our issuer, and still good. All of it without asking anyone.
//!
//! ```text
//! countersign client create acme-pay --credentials countersign-dev/operator.toml \
//!     --grant shop-webhook=payments:report --out for-acme-pay.toml
//! cargo run --example webhook_receiver -- --listen 127.0.0.1:8085 --audience shop-webhook --provider acme-pay \
//!     --issuer http://127.0.0.1:9443 --jwks-url http://127.0.0.1:9443/.well-known/jwks.json
//! ```
//!
//! Refusals follow RFC 6750 §3.

use std::io::Write;
use std::process::ExitCode;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use clap::Parser;
use countersign_mesh::claims::ClientId;
use countersign_mesh::guard::{self, Permitted};
use serde::Deserialize;

use crate::log::Failure;
use crate::serving::Serving;

#[path = "support/log.rs"]
mod log;
#[path = "support/serving.rs"]
mod serving;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    serving: Serving,
    /// The provider, as it is called here
    #[arg(long, value_name = "CLIENT")]
    provider: ClientId,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    log::run(serve(Args::parse())).await
}

async fn serve(Args { serving, provider }: Args) -> Result<(), Failure> {
    let guard = serving.guard(&[]).await?;
    let routes = Router::new()
        .route("/webhooks/payments", post(paid))
        // The layer added last runs first: the token must be good before its client's name is looked
        // at.
        .route_layer(from_fn_with_state(provider, only_the_provider))
        .route_layer(guard.require(["payments:report"]));
    Ok(axum::serve(serving.listener().await?, routes).await?)
}

/// A scope may be granted to more than one client some day; orders are paid by this one only.
async fn only_the_provider(
    State(provider): State<ClientId>,
    request: Request,
    next: Next,
) -> Response {
    match guard::caller(request.extensions()) {
        Some(token) if token.claims().client_id == provider => next.run(request).await,
        _ => {
            tracing::warn!("another client came in the provider's place");
            let challenge = [(WWW_AUTHENTICATE, "Bearer error=\"insufficient_scope\"")];
            (StatusCode::FORBIDDEN, challenge, "this webhook is not for you\n").into_response()
        }
    }
}

#[derive(Deserialize)]
struct Payment {
    order: u32,
    cents: u32,
}

async fn paid(Extension(caller): Extension<Permitted>, Json(payment): Json<Payment>) -> StatusCode {
    let Payment { order, cents } = payment;
    // The provider calls again when it gets no answer: to pay an order twice changes nothing.
    match writeln!(
        std::io::stdout(),
        "order {order} is paid, {cents} cents, says {}",
        caller.claims().client_id
    ) {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
