//! Sessions over TLS.

use std::sync::Arc;
use std::time::Duration;

use countersign_mesh::claims::{Audience, ScopeSet};
use countersign_mesh::session::{
    BearerToken, ClientSecret, Credentials, NoToken, OAuthEndpoint, Session, SessionBuilder,
    SessionError, TokenSource,
};
use rcgen::CertifiedKey;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use crate::countersign::{FakeCountersign, USUAL, client};
use crate::endpoint::FakeEndpoint;
use crate::trust::{ISSUER, bundle, until_known};

/// A server's TLS, and its certificate in PEM.
fn server(protocol: &[u8]) -> (TlsAcceptor, String) {
    let names = ["localhost".to_owned()];
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(names).expect("a certificate");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("they belong together");
    config.alpn_protocols = vec![protocol.to_vec()];
    (TlsAcceptor::from(Arc::new(config)), cert.pem())
}

/// The port of a Countersign that speaks TLS, and its certificate.
async fn countersign() -> (u16, String) {
    let (tls, certificate) = server(b"h2");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    let incoming = TcpListenerStream::new(listener).then(move |stream| {
        let tls = tls.clone();
        async move { tls.accept(stream?).await }
    });
    // A connection whose handshake fails must not end the server.
    let incoming = incoming.filter(Result::is_ok);
    let service = FakeCountersign::new(USUAL).service();
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    (port, certificate)
}

fn builder(port: u16) -> SessionBuilder {
    let credentials = Credentials::new(client("order"), "csec_hush");
    Session::builder(&format!("https://localhost:{port}"), credentials)
}

async fn token(session: &Session) -> Result<BearerToken, NoToken> {
    let scopes = ScopeSet::parse("stock:read").expect("scopes");
    let source = session.token_source(Audience::new("shop").expect("an audience"), scopes);
    source.token(Instant::now() + Duration::from_secs(20)).await
}

#[tokio::test]
async fn a_session_trusts_a_server_by_the_authority_that_it_is_given() {
    let (port, certificate) = countersign().await;
    let session = builder(port).ca_certificate(certificate.as_bytes()).connect();
    token(&session.expect("an address")).await.expect("a token");

    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, &certificate).expect("written");
    let lookup = |name: &str| match name {
        "COUNTERSIGN_URL" => Some(format!("https://localhost:{port}")),
        "COUNTERSIGN_CLIENT_ID" => Some("order".to_owned()),
        "COUNTERSIGN_CLIENT_SECRET" => Some("csec_hush".to_owned()),
        "COUNTERSIGN_CA_FILE" => Some(path.to_str().expect("UTF-8").to_owned()),
        _ => None,
    };
    let session =
        SessionBuilder::from_variables(&lookup).expect("the settings are complete").connect();
    token(&session.expect("an address")).await.expect("a token");
}

#[tokio::test]
async fn a_server_of_an_unknown_authority_gets_no_secret() {
    let (port, _) = countersign().await;
    let (_, other) = server(b"h2");
    let session = builder(port).ca_certificate(other.as_bytes()).connect().expect("an address");
    let scopes = ScopeSet::parse("stock:read").expect("scopes");
    let source = session.token_source(Audience::new("shop").expect("an audience"), scopes);
    let refused = source.token(Instant::now() + Duration::from_secs(1)).await;
    assert!(matches!(refused, Err(NoToken::Unavailable(_))), "{refused:?}");

    let noise = builder(port).ca_certificate(b"noise").connect();
    assert!(matches!(noise, Err(SessionError::BadCertificate)), "{noise:?}");
}

#[tokio::test]
async fn key_sets_and_tokens_of_other_issuers_come_over_tls_too() {
    let (tls, certificate) = server(b"http/1.1");
    let endpoint = FakeEndpoint::start(Some(tls)).await;
    endpoint.answers("200 OK", &bundle(ISSUER, 1, 1).to_jwks());
    let session = builder(endpoint.port()).ca_certificate(certificate.as_bytes()).connect();
    until_known(&session.expect("an address").trust(), 1).await;

    let answer = r#"{"access_token":"abc","token_type":"Bearer","expires_in":1000}"#;
    endpoint.answers("200 OK", answer);
    let partner = OAuthEndpoint::with_ca_certificate(
        &format!("https://localhost:{}/token", endpoint.port()),
        "me",
        ClientSecret::new("hush"),
        certificate.as_bytes(),
    );
    let source = TokenSource::oauth(partner.expect("an address"), ScopeSet::default());
    source.token(Instant::now() + Duration::from_secs(20)).await.expect("a token");
}
