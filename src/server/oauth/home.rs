//! `GET /`: what this is, for someone who opens the address in a browser or with curl.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};

/// Plain text, so that it reads the same in both.
const PAGE: &str = "\
This is Countersign, a token service: OAuth 2.0 client credentials, over gRPC and HTTP on this port.

/.well-known/oauth-authorization-server   what there is and where (RFC 8414)
/.well-known/jwks.json                    the public keys
/oauth/token                              POST: a token for a client (RFC 6749 section 4.4)
/openapi.json                             all of it as OpenAPI
/health/live, /health/ready               whether it is up

gRPC has server reflection. `countersign --help` is the command line.
";

pub(super) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
    ];
    (headers, PAGE).into_response()
}
