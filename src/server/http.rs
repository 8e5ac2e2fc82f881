//! What there is over plain HTTP, beside gRPC on the same port.

use ::http::{HeaderMap, StatusCode, header};
use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use countersign_mesh::claims::Issuer;
use tower::ServiceExt;

use crate::server::oauth;

/// Puts plain HTTP beside the gRPC services, and also below the issuer's path if it has one. A request for neither is
/// answered with 404 here, because tonic would answer it as if it were gRPC.
pub(super) fn beside(grpc: Router, plain: Router, issuer: &Issuer) -> Router {
    let issuer_path = oauth::path_of(issuer);
    // At the root of the port a call without a method is gRPC's to refuse, so that only what is not gRPC gets here.
    let below = plain.clone().merge(oauth::home());
    let otherwise = move |mut request: Request| {
        let (grpc, below) = (grpc.clone(), below.clone());
        let is_root = || (request.uri().path() == "/").then(|| request.uri().clone());
        let meant = oauth::without_path(request.uri(), &issuer_path).or_else(is_root);
        async move {
            if is_grpc(request.headers()) {
                return grpc.oneshot(request).await.into_response();
            }
            let Some(meant) = meant else { return StatusCode::NOT_FOUND.into_response() };
            *request.uri_mut() = meant;
            below.oneshot(request).await.into_response()
        }
    };
    plain.fallback(otherwise)
}

/// Whether a request or an answer is gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
