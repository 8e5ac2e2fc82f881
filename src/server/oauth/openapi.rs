//! `GET /openapi.json`: all of it, for machines and people.

use axum::response::IntoResponse;
use axum::response::Response;
use http::HeaderValue;
use http::header;

/// Written by hand, and held against every answer that a test gets.
const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
    ];
    (headers, DOCUMENT).into_response()
}
