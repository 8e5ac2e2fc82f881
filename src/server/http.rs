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
use tokio::sync::watch;
use tower::ServiceExt;

use crate::trust::TrustBundle;

/// How long a poller may keep the keys. Operators are told to leave more than that between rotations.
const KEYS_MAX_AGE: &str = "public, max-age=60";

type Trust = watch::Receiver<Option<Arc<TrustBundle>>>;

/// Puts the routes beside the gRPC services. What is neither is not found: tonic would answer it
/// as if it were gRPC.
pub(super) fn beside(grpc: Router, oauth: Router, trust: Trust) -> Router {
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
        .with_state(trust)
        .merge(oauth)
        .fallback(grpc_or_nothing)
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The JWK Set (RFC 7517 §5). Its entity tag is the epoch of the keys.
async fn keys(State(trust): State<Trust>, headers: HeaderMap) -> Response {
    let Some(bundle) = trust.borrow().clone() else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let tag = HeaderValue::try_from(format!("\"{}\"", bundle.epoch))
        .expect("digits in quotes are a header value");
    let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|value| value == tag);
    let caching =
        [(header::ETAG, tag), (header::CACHE_CONTROL, HeaderValue::from_static(KEYS_MAX_AGE))];
    if known {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    (caching, [content_type], bundle.to_jwks()).into_response()
}
