//! Answers in JSON that nobody may keep.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Serialize;

/// Nobody may keep the answer (RFC 6749 §5.1).
pub(super) const UNCACHED: [(header::HeaderName, HeaderValue); 2] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::PRAGMA, HeaderValue::from_static("no-cache")),
];

/// A JSON answer.
pub(super) fn json(body: &impl Serialize) -> Response {
    let body = serde_json::to_string(body).expect("text and numbers are always JSON");
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (content_type, UNCACHED, body).into_response()
}
