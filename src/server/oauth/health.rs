//! Whether it is up, for whoever starts and watches processes.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use crate::server::oauth::Endpoints;
use crate::server::oauth::json;

#[derive(Serialize)]
struct Body {
    status: &'static str,
}

/// `GET /health/live`: the process serves.
pub(super) async fn live() -> Response {
    json(&Body { status: "live" })
}

/// `GET /health/ready`: the process can issue tokens, and goes on to serve.
pub(super) async fn ready(State(endpoints): State<Endpoints>) -> Response {
    let (authority, now) = (&endpoints.desk.authority, endpoints.desk.clock.now());
    if endpoints.is_stopping() {
        unready("stopping")
    } else if authority.can_issue(now) || authority.renew_lease(now).await {
        json(&Body { status: "ready" })
    } else {
        unready("store_unavailable")
    }
}

fn unready(status: &'static str) -> Response {
    let mut response = json(&Body { status });
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}
