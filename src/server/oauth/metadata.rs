//! The server's metadata (RFC 8414): what there is and where. It names only what works.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use countersign_mesh::claims::Issuer;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri, header};
use serde::Serialize;

use crate::server::oauth::endpoints::Endpoints;

/// How a client can authenticate, at all three endpoints alike.
const AUTH_METHODS: [&str; 4] =
    ["client_secret_basic", "client_secret_post", "private_key_jwt", "tls_client_auth"];

/// The algorithm of assertions, by both of its names (RFC 8037, RFC 9864).
const ALGORITHMS: [&str; 2] = ["EdDSA", "Ed25519"];

const MAX_AGE: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// RFC 8414 §2.
#[derive(Serialize)]
struct Metadata<'a> {
    issuer: &'a str,
    token_endpoint: String,
    jwks_uri: String,
    introspection_endpoint: String,
    revocation_endpoint: String,
    grant_types_supported: [&'static str; 1],
    /// Required, and empty, because there is no authorization endpoint.
    response_types_supported: [&'static str; 0],
    token_endpoint_auth_methods_supported: &'a [&'static str],
    introspection_endpoint_auth_methods_supported: &'a [&'static str],
    revocation_endpoint_auth_methods_supported: &'a [&'static str],
    token_endpoint_auth_signing_alg_values_supported: [&'static str; 2],
    introspection_endpoint_auth_signing_alg_values_supported: [&'static str; 2],
    revocation_endpoint_auth_signing_alg_values_supported: [&'static str; 2],
}

/// `GET /.well-known/oauth-authorization-server`, and what OpenID Connect calls it.
pub(super) async fn metadata(State(endpoints): State<Endpoints>) -> Response {
    let issuer = endpoints.desk.authority.issuer();
    let base = issuer.as_str().trim_end_matches('/');
    let at = |path: &str| format!("{base}{path}");
    let methods = match endpoints.takes_certificates {
        true => &AUTH_METHODS[..],
        false => &AUTH_METHODS[..3],
    };
    let metadata = Metadata {
        issuer: issuer.as_str(),
        token_endpoint: at("/oauth/token"),
        jwks_uri: at("/.well-known/jwks.json"),
        introspection_endpoint: at("/oauth/introspect"),
        revocation_endpoint: at("/oauth/revoke"),
        grant_types_supported: ["client_credentials"],
        response_types_supported: [],
        token_endpoint_auth_methods_supported: methods,
        introspection_endpoint_auth_methods_supported: methods,
        revocation_endpoint_auth_methods_supported: methods,
        token_endpoint_auth_signing_alg_values_supported: ALGORITHMS,
        introspection_endpoint_auth_signing_alg_values_supported: ALGORITHMS,
        revocation_endpoint_auth_signing_alg_values_supported: ALGORITHMS,
    };
    let body = serde_json::to_string(&metadata).expect("text is always JSON");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, MAX_AGE),
    ];
    (headers, body).into_response()
}

/// The path of an issuer's URL, without the slash at its end: empty for most.
pub(in crate::server) fn path_of(issuer: &Issuer) -> String {
    let after_scheme = issuer.as_str().split_once("://").map_or("", |(_, rest)| rest);
    let path = after_scheme.find('/').map_or("", |at| &after_scheme[at..]);
    path.trim_end_matches('/').to_owned()
}

/// The address that a request means. If the issuer has a path, everything is also found below it. The metadata is also
/// found where RFC 8414 §3.1 puts it: with its own path before the issuer's.
pub(in crate::server) fn without_path(uri: &Uri, issuer_path: &str) -> Option<Uri> {
    if issuer_path.is_empty() {
        return None;
    }
    let path = uri.path();
    let meant = match path.strip_suffix(issuer_path) {
        Some(
            well_known @ ("/.well-known/oauth-authorization-server"
            | "/.well-known/openid-configuration"),
        ) => well_known,
        _ => path.strip_prefix(issuer_path).filter(|rest| rest.starts_with('/'))?,
    };
    let mut parts = uri.clone().into_parts();
    let meant = match uri.query() {
        Some(query) => format!("{meant}?{query}"),
        None => meant.to_owned(),
    };
    parts.path_and_query = Some(PathAndQuery::try_from(meant).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_an_issuer_ends_without_a_slash() {
        for (issuer, path) in [
            ("https://auth.test", ""),
            ("https://auth.test/", ""),
            ("http://auth.test:1/a", "/a"),
            ("https://auth.test/a/b/", "/a/b"),
        ] {
            assert_eq!(path_of(&issuer.parse().expect("an issuer")), path, "{issuer}");
        }
    }

    #[test]
    fn what_is_below_the_issuers_path_is_what_is_below_none() {
        let meant = |uri: &str, path: &str| {
            without_path(&Uri::try_from(uri).expect("a URI"), path).map(|uri| uri.to_string())
        };
        let found = |uri: &str| Some(uri.to_owned());
        assert_eq!(meant("/a/oauth/token?b=c", "/a"), found("/oauth/token?b=c"));
        let well_known = "/.well-known/oauth-authorization-server";
        assert_eq!(meant(&format!("{well_known}/a"), "/a"), found(well_known));
        assert_eq!(meant("http://h:1/a/oauth/token", "/a"), found("http://h:1/oauth/token"));
        for elsewhere in ["/a", "/ab/oauth/token", "/b/oauth/token", "/.well-known/jwks.json/a"] {
            assert_eq!(meant(elsewhere, "/a"), None, "{elsewhere}");
        }
        assert_eq!(meant("/oauth/token", ""), None);
    }
}
