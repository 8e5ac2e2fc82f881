//! `GET /openapi.json`: all of it, for machines and people.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};

/// The document is written by hand. Tests check every answer that they get against it.
const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
    ];
    (headers, DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::DOCUMENT;
    use crate::server::oauth::table;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        let described: Vec<&String> =
            document["paths"].as_object().expect("paths").keys().collect();
        let mut routes = table().map(|(path, _)| path);
        routes.sort_unstable();
        assert_eq!(described, routes);
    }
}
