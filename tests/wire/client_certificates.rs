//! Clients that prove who they are with the certificate of their connection (RFC 8705 §2.1).

use std::sync::Arc;
use std::time::Duration;

use countersign::rpc;
use countersign::rpc::certificate_name::Name;
use countersign::rpc::create_client_credential_request::Kind;
use countersign::rpc::token_service_client::TokenServiceClient;
use countersign::server::{Options, Tls};
use countersign_mesh::claims::{ScopeSet, Timestamp};
use countersign_mesh::session::{Credentials, NoToken, Session, SessionError};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Error, Identity};
use tonic::{Code, Status};

use crate::caller::new_credential;
use crate::pki::{Ca, Certified, Files};
use crate::support::{START, TestServer, ask, assert_refused, id};

/// A server that asks for client certificates, and the authority whose certificates it accepts.
pub struct Mutual {
    pub server: TestServer,
    server_ca: Ca,
    pub client_ca: Ca,
    _files: Files,
}

impl Mutual {
    /// Starts a server with a client `backup` that has the certificate name `backup.example`.
    pub async fn start() -> Self {
        let (server_ca, client_ca) = (Ca::new(), Ca::new());
        let files = Files::new(&server_ca.certify("one.test"), Some(&client_ca));
        let tls = Arc::new(Tls::load(files.tls(), START).expect("good files"));
        let options = Options { tls: Some(tls), ..Options::default() };
        let server = TestServer::start_with(options, Some(server_ca.pem.clone())).await;
        server.register("backup", &[("shop", &["stock:read", "stock:write"])], &[]).await;
        let name = Name::SanDns("backup.example".to_owned());
        let name = Kind::CertificateName(rpc::CertificateName { name: Some(name) });
        let request = new_credential("backup", name);
        let request = server.as_operator(request).await;
        server.clients().create_client_credential(request).await.expect("the name is registered");
        Self { server, server_ca, client_ca, _files: files }
    }

    /// A channel that presents a certificate.
    async fn channel(&self, certificate: Option<&Certified>) -> Result<Channel, Error> {
        let ca = Certificate::from_pem(&self.server_ca.pem);
        let mut tls = ClientTlsConfig::new().ca_certificate(ca);
        if let Some(Certified { cert, key }) = certificate {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        Channel::from_shared(self.server.url.clone())
            .expect("a valid address")
            .tls_config(tls)
            .expect("a certificate")
            .connect()
            .await
    }

    /// A TLS connection that presents a certificate, with no request sent yet.
    pub async fn stream(&self, Certified { cert, key }: &Certified) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.server_ca.pem.as_bytes());
        roots.add(ca.expect("a certificate")).expect("an authority");
        let cert = CertificateDer::from_pem_slice(cert.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![cert], key)
            .expect("the key belongs to the certificate");
        let stream = TcpStream::connect(self.server.address()).await.expect("the server listens");
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .expect("the handshake succeeds")
    }

    async fn issue(
        &self,
        certificate: Option<&Certified>,
        request: rpc::IssueTokenRequest,
    ) -> Result<rpc::IssueTokenResponse, Status> {
        let channel = self.channel(certificate).await.expect("the handshake succeeds");
        TokenServiceClient::new(channel).issue_token(request).await.map(tonic::Response::into_inner)
    }
}

/// A request without a credential in it.
fn bare(client_id: &str) -> rpc::IssueTokenRequest {
    rpc::IssueTokenRequest { credential: None, ..ask(client_id, "", "shop", &[]) }
}

#[tokio::test]
async fn the_certificate_of_the_connection_authenticates_the_client() {
    let mutual = Mutual::start().await;
    let own = mutual.client_ca.certify("backup.example");
    let issued = mutual.issue(Some(&own), bare("backup")).await.expect("a token");
    assert_eq!(issued.scopes, ["stock:read", "stock:write"]);

    let other = mutual.client_ca.certify("elsewhere.example");
    let refused = mutual.issue(Some(&other), bare("backup")).await;
    assert_refused(refused, Code::Unauthenticated, "CLIENT_REJECTED");
    let refused = mutual.issue(Some(&own), bare("nobody")).await;
    assert_refused(refused, Code::Unauthenticated, "CLIENT_REJECTED");
    let refused = mutual.issue(None, bare("backup")).await;
    assert_refused(refused, Code::InvalidArgument, "REQUEST_INVALID");
}

#[tokio::test]
async fn a_certificate_from_an_untrusted_authority_gets_no_connection() {
    let mutual = Mutual::start().await;
    for stranger in [
        Ca::new().certify("backup.example"),
        mutual.server_ca.certify("backup.example"),
        mutual.client_ca.certify_until("backup.example", 2020),
    ] {
        // With TLS 1.3 a client finishes its handshake before the server has checked the certificate. So the
        // refusal may only show in the first call.
        if let Ok(channel) = mutual.channel(Some(&stranger)).await {
            let answer = TokenServiceClient::new(channel).issue_token(bare("backup")).await;
            let status = answer.expect_err("the certificate is refused");
            assert_ne!(status.code(), Code::Unauthenticated, "it reached the service: {status}");
        }
    }
}

#[tokio::test]
async fn a_certificate_is_optional_and_a_credential_in_the_request_takes_precedence() {
    let mutual = Mutual::start().await;
    let server = &mutual.server;
    server.operator_token().await;
    let secret = server.new_secret("backup").await;
    mutual.issue(None, ask("backup", &secret, "shop", &[])).await.expect("a token");

    let own = mutual.client_ca.certify("backup.example");
    let refused = mutual.issue(Some(&own), ask("backup", "csec_wrong", "shop", &[])).await;
    assert_refused(refused, Code::Unauthenticated, "CLIENT_REJECTED");
}

#[tokio::test]
async fn a_connection_does_not_outlive_its_certificate() {
    let mutual = Mutual::start().await;
    let own = mutual.client_ca.certify_until("backup.example", 2100);
    let ends = Timestamp::from_unix(4_102_444_800);
    for (left, lives) in [(5, 5), (1000, 10)] {
        mutual.server.clock.set(ends.before(Duration::from_secs(left)));
        let mut stream = mutual.stream(&own).await;
        tokio::time::pause();
        let begun = Instant::now();
        let _ = stream.read(&mut [0; 1]).await;
        // A connection without a request is closed after ten seconds in any case.
        let lived = begun.elapsed().as_secs();
        assert!(lived.abs_diff(lives) <= 1, "{left}: {lived}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_port_that_does_not_ask_for_certificates_ignores_them() {
    let ca = Ca::new();
    let files = Files::new(&ca.certify("one.test"), None);
    let tls = Arc::new(Tls::load(files.tls(), START).expect("good files"));
    let options = Options { tls: Some(tls), ..Options::default() };
    let server = TestServer::start_with(options, Some(ca.pem.clone())).await;
    let Certified { cert, key } = ca.certify("operator");
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&ca.pem))
        .identity(Identity::from_pem(cert, key));
    let endpoint = Channel::from_shared(server.url.clone()).expect("a valid address");
    let channel = endpoint.tls_config(tls).expect("a certificate").connect().await;
    let mut tokens = TokenServiceClient::new(channel.expect("the handshake succeeds"));
    let refused = tokens.issue_token(bare("operator")).await;
    assert_refused(refused, Code::InvalidArgument, "REQUEST_INVALID");
}

#[tokio::test]
async fn a_session_presents_its_certificate_and_reloads_a_new_one() {
    let mutual = Mutual::start().await;
    // The session reads its certificate and key from two files, as a server does.
    let files = Files::new(&mutual.client_ca.certify("elsewhere.example"), None);
    let (cert, key) = (files.path("tls.crt"), files.path("tls.key"));
    let session = |url: &str| {
        let credentials = Credentials::certificate_files(id("backup"), &cert, &key);
        Session::builder(url, credentials).ca_certificate(mutual.server_ca.pem.as_bytes()).connect()
    };
    let connected = session(&mutual.server.url).expect("good files");
    let token = async |scopes| {
        let scopes = ScopeSet::parse(scopes).expect("scopes");
        let source = connected.token_source("shop".parse().expect("an audience"), scopes);
        source.token(Instant::now() + Duration::from_secs(20)).await
    };
    let refused = token("stock:read").await;
    assert!(matches!(refused, Err(NoToken::Refused(_))), "{refused:?}");
    files.put(&mutual.client_ca.certify("backup.example"));
    // The session remembers a refusal for a while, so this asks for other scopes.
    token("stock:read stock:write").await.expect("a token");

    let plaintext = session(&mutual.server.url.replace("https", "http"));
    assert!(matches!(plaintext, Err(SessionError::CertificateInPlaintext)), "{plaintext:?}");
    let (one, other) = (mutual.client_ca.certify("a.test"), mutual.client_ca.certify("b.test"));
    files.put(&Certified { cert: one.cert, key: other.key });
    let mismatch = session(&mutual.server.url);
    assert!(matches!(mismatch, Err(SessionError::BadClientCertificate)), "{mismatch:?}");
}
