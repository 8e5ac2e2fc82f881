//! The shop's admin API. Each route says what it demands; `cleanup.sh` is a script that calls it.
//!
//! ```text
//! cargo run --example admin_api -- --listen 127.0.0.1:8081 --audience admin \
//!     --issuer http://127.0.0.1:9443 --jwks-url http://127.0.0.1:9443/.well-known/jwks.json
//! ```
//!
//! `DELETE /sessions/expired` removes the sessions that are over, and demands `admin:cleanup`.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::routing::{delete, get};
use axum::{Extension, Json, Router};
use clap::Parser;
use countersign_mesh::guard::Permitted;
use serde_json::{Value, json};

use crate::log::Failure;
use crate::serving::Serving;

#[path = "support/log.rs"]
mod log;
#[path = "support/serving.rs"]
mod serving;

/// The sessions, and whether they are over.
type Sessions = Arc<Mutex<Vec<(&'static str, bool)>>>;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    serving: Serving,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    log::run(serve(Args::parse())).await
}

async fn serve(Args { serving }: Args) -> Result<(), Failure> {
    let guard = serving.guard(&[]).await?;
    let sessions = vec![("anna", true), ("ben", false), ("chloe", true), ("dan", true)];
    let routes = Router::new()
        .route("/sessions/expired", delete(remove_expired))
        .route_layer(guard.require(["admin:cleanup"]))
        // After the guard's layer, so that anyone may ask.
        .route("/health/live", get(|| async { "alive" }))
        .with_state(Sessions::new(Mutex::new(sessions)));
    Ok(axum::serve(serving.listener().await?, routes).await?)
}

async fn remove_expired(
    State(sessions): State<Sessions>,
    Extension(caller): Extension<Permitted>,
) -> Json<Value> {
    let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
    let before = sessions.len();
    sessions.retain(|(_, is_over)| !is_over);
    let removed = before - sessions.len();
    tracing::info!(client_id = %caller.claims().client_id, removed, "expired sessions were removed");
    Json(json!({ "removed": removed, "left": sessions.len() }))
}
