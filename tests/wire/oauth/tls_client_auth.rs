//! `tls_client_auth` (RFC 8705 §2.1) over HTTP/1.1: the id in the form, the proof in the handshake.

use serde_json::json;

use crate::client_certificates::Mutual;
use crate::oauth::call::{Answer, assert_error, basic, send_over};
use crate::oauth::contract::assert_described;
use crate::pki::Certified;

const ENDPOINTS: [&str; 3] = ["/oauth/token", "/oauth/introspect", "/oauth/revoke"];

/// Posts a form over a connection of its own that presents this certificate.
async fn post(
    mutual: &Mutual,
    certificate: &Certified,
    path: &str,
    headers: &str,
    more: &str,
) -> Answer {
    let form = format!("grant_type=client_credentials&token=noise{more}");
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
        form.len(),
    );
    let answer = send_over(mutual.stream(certificate).await, request.as_bytes()).await;
    assert_described("POST", path, &answer);
    answer
}

#[tokio::test]
async fn a_registered_certificate_and_an_id_are_enough_at_every_endpoint() {
    let mutual = Mutual::start().await;
    let own = mutual.client_ca.certify("backup.example");
    for path in ENDPOINTS {
        let answer = post(&mutual, &own, path, "", "&client_id=backup").await;
        assert_eq!(answer.status, 200, "{path} {answer:?}");
    }
    let answer = post(&mutual, &own, "/oauth/token", "", "&client_id=backup").await;
    assert_eq!(answer.text("scope"), "stock:read stock:write");
}

#[tokio::test]
async fn every_other_certificate_is_a_wrong_credential() {
    let mutual = Mutual::start().await;
    let own = mutual.client_ca.certify("backup.example");
    let other = mutual.client_ca.certify("elsewhere.example");
    let wildcard = mutual.client_ca.certify("*.example");
    let mut answers = Vec::new();
    for path in ENDPOINTS {
        for (certificate, more) in [
            (&other, "&client_id=backup"),
            (&wildcard, "&client_id=backup"),
            (&own, "&client_id=operator"),
            (&own, "&client_id=nobody"),
            (&own, "&client_id=backup.example"),
            // The certificate does not say which client it is.
            (&own, ""),
        ] {
            let answer = post(&mutual, certificate, path, "", more).await;
            assert_error(&answer, 401, "invalid_client");
            answers.push(answer.without_id());
        }
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
}

#[tokio::test]
async fn a_credential_in_the_request_counts_before_the_certificate() {
    let mutual = Mutual::start().await;
    let own = mutual.client_ca.certify("backup.example");
    let secret = mutual.server.new_secret("backup").await;
    let right = basic("backup", &secret);
    let answer = post(&mutual, &own, "/oauth/token", &right, "&client_id=backup").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for (headers, more) in [
        (basic("backup", "noise"), ""),
        (basic("backup", "noise"), "&client_id=backup"),
        (String::new(), "&client_id=backup&client_secret=noise"),
    ] {
        let answer = post(&mutual, &own, "/oauth/token", &headers, more).await;
        assert_error(&answer, 401, "invalid_client");
    }
}

#[tokio::test]
async fn failures_with_certificates_are_throttled_like_others() {
    let mutual = Mutual::start().await;
    let own = mutual.client_ca.certify("backup.example");
    let other = mutual.client_ca.certify("elsewhere.example");
    for _ in 0..20 {
        let answer = post(&mutual, &other, "/oauth/token", "", "&client_id=backup").await;
        assert_error(&answer, 401, "invalid_client");
    }
    let answer = post(&mutual, &own, "/oauth/token", "", "&client_id=backup").await;
    assert_error(&answer, 429, "temporarily_unavailable");
    mutual.server.advance(3);
    let answer = post(&mutual, &own, "/oauth/token", "", "&client_id=backup").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn the_metadata_lists_it_where_certificates_are_asked_for() {
    let mutual = Mutual::start().await;
    let stream = mutual.stream(&mutual.client_ca.certify("elsewhere.example")).await;
    let request = b"GET /.well-known/oauth-authorization-server HTTP/1.1\r\nhost: localhost\r\n\
                    connection: close\r\n\r\n";
    let document = send_over(stream, request).await.json();
    for endpoint in ["token", "introspection", "revocation"] {
        assert_eq!(
            document[format!("{endpoint}_endpoint_auth_methods_supported")],
            json!([
                "client_secret_basic",
                "client_secret_post",
                "private_key_jwt",
                "tls_client_auth"
            ])
        );
    }
}
