//! `GET /.well-known/jwks.json`: the public keys (RFC 7517 §5, RFC 8037 §2).

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::ring::JWKS_MAX_AGE;
use crate::server::notes::RequestNotes;
use crate::server::oauth::endpoints::Endpoints;
use crate::server::oauth::errors::OAuthError;

/// The JWK Set. Its entity tag is the epoch of the keys. Rotations wait for as long as a poller may keep
/// it.
pub(super) async fn keys(State(endpoints): State<Endpoints>, headers: HeaderMap) -> Response {
    let Ok(bundle) = endpoints.desk.authority.polled_trust().await else {
        let error = OAuthError::Unavailable("the keys cannot be told now; try again later");
        return error.into_response(&RequestNotes::default());
    };
    let tag = format!("\"{}\"", bundle.epoch);
    let is_known = knows(&headers, &tag);
    let tag = HeaderValue::try_from(tag).expect("digits in quotes are a header value");
    let max_age = HeaderValue::try_from(format!("public, max-age={}", JWKS_MAX_AGE.as_secs()))
        .expect("words and digits are a header value");
    let caching = [(header::ETAG, tag), (header::CACHE_CONTROL, max_age)];
    if is_known {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    (caching, [content_type], bundle.to_jwks()).into_response()
}

/// Whether `If-None-Match` names what there is: by its tag, weak or strong, or by `*` (RFC 9110
/// §13.1.2).
fn knows(headers: &HeaderMap, tag: &str) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    // None of our tags has a comma in it.
    lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}
