//! The shop's customers, page by page, for the CRM of a partner; `crm_sync.py` is one.
//!
//! ```text
//! cargo run --example customers_api -- --listen 127.0.0.1:8082 --audience customers \
//!     --issuer http://127.0.0.1:9443 --jwks-url http://127.0.0.1:9443/.well-known/jwks.json
//! ```
//!
//! `GET /customers?page=1` demands `read:customers`. Its answer names the next page, until there is
//! none.

use std::process::ExitCode;

use axum::extract::Query;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use clap::Parser;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::log::Failure;
use crate::serving::Serving;

#[path = "support/log.rs"]
mod log;
#[path = "support/serving.rs"]
mod serving;

const CUSTOMERS: [(u32, &str); 5] = [
    (1, "Ada Lovelace"),
    (2, "Grace Hopper"),
    (3, "Barbara Liskov"),
    (4, "Radia Perlman"),
    (5, "Frances Allen"),
];

const A_PAGE: usize = 2;

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
    let routes = Router::new()
        .route("/customers", get(customers))
        .route_layer(guard.require(["read:customers"]))
        // After the guard's layer, so that anyone may ask.
        .route("/health/live", get(|| async { "alive" }));
    Ok(axum::serve(serving.listener().await?, routes).await?)
}

#[derive(Deserialize)]
struct Page {
    /// From 1 on.
    #[serde(default = "first_page")]
    page: usize,
}

fn first_page() -> usize {
    1
}

async fn customers(Query(Page { page }): Query<Page>) -> (StatusCode, Json<Value>) {
    let pages = CUSTOMERS.len().div_ceil(A_PAGE);
    let Some(customers) = page.checked_sub(1).and_then(|page| CUSTOMERS.chunks(A_PAGE).nth(page))
    else {
        let problem = format!("there are pages 1 to {pages}");
        return (StatusCode::NOT_FOUND, Json(json!({ "error": problem })));
    };
    let customers: Vec<Value> =
        customers.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect();
    let next_page = (page < pages).then_some(page + 1);
    (StatusCode::OK, Json(json!({ "customers": customers, "page": page, "next_page": next_page })))
}
