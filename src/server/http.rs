//! What there is over plain HTTP, beside gRPC on the same port: the public keys.

use std::sync::Arc;

use ::http::HeaderMap;
use ::http::HeaderValue;
use ::http::StatusCode;
use ::http::header;
use axum::Router;
use axum::extract::Request;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use tower::ServiceExt;

use crate::authority::Authority;
use crate::keys::JWKS_MAX_AGE;

/// Puts the routes beside the gRPC services. What is neither is not found: tonic would answer it
/// as if it were gRPC.
pub(super) fn beside(grpc: Router, authority: Arc<Authority>) -> Router {
    let grpc_or_nothing = move |request: Request| {
        let grpc = grpc.clone();
        async move {
            if is_grpc(request.headers()) {
                grpc.oneshot(request).await.into_response()
            } else {
                StatusCode::NOT_FOUND.into_response()
            }
        }
    };
    Router::new()
        .route("/.well-known/jwks.json", get(keys))
        .with_state(authority)
        .fallback(grpc_or_nothing)
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The JWK Set (RFC 7517 §5). Its entity tag is the epoch of the keys. Rotations wait for as long as a
/// poller may keep it.
async fn keys(State(authority): State<Arc<Authority>>, headers: HeaderMap) -> Response {
    let Ok(bundle) = authority.polled_trust().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let tag = HeaderValue::try_from(format!("\"{}\"", bundle.epoch))
        .expect("digits in quotes are a header value");
    let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|value| value == tag);
    let max_age = HeaderValue::try_from(format!("public, max-age={}", JWKS_MAX_AGE.as_secs()))
        .expect("words and digits are a header value");
    let caching = [(header::ETAG, tag), (header::CACHE_CONTROL, max_age)];
    if known {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    (caching, [content_type], bundle.to_jwks()).into_response()
}
