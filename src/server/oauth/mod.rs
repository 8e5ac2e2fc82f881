//! OAuth 2.0 over plain HTTP: for whatever speaks that, and does not link this crate.

mod authorization;
mod client_auth;
mod errors;
mod form;
mod request;
mod token;

pub use self::authorization::BasicCredentials;
pub use self::form::Form;
pub use self::form::FormError;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::post;
use http::HeaderValue;
use http::header;
use serde::Serialize;

use crate::server::grpc::Desk;
use crate::server::oauth::request::Post;
use crate::server::request_log::RequestNotes;

/// All routes.
pub(super) fn routes(desk: Desk) -> Router {
    Router::new()
        .route("/oauth/token", post(token))
        .route("/oauth2/token", post(token))
        .with_state(desk)
}

async fn token(State(desk): State<Desk>, request: Request) -> Response {
    let notes = notes(&request);
    let answer = async { token::issue(&desk, &Post::read(request).await?).await };
    match answer.await {
        Ok(answer) => json(&answer),
        Err(error) => error.into_response(&notes),
    }
}

fn notes(request: &Request) -> Arc<RequestNotes> {
    request.extensions().get::<Arc<RequestNotes>>().cloned().unwrap_or_default()
}

/// An answer that nobody may keep (RFC 6749 §5.1).
fn json(body: &impl Serialize) -> Response {
    let body = serde_json::to_string(body).expect("text and numbers are always JSON");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::PRAGMA, HeaderValue::from_static("no-cache")),
    ];
    (headers, body).into_response()
}
