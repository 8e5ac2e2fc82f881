//! The port over TLS: HTTP/1.1 and HTTP/2, peers without a handshake, and certificate files that change.

use std::fs;
use std::sync::Arc;

use countersign::server::{Options, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
};

use crate::pki::{Ca, Files};
use crate::support::{START, TestServer, ask};

/// A TLS server with its certificate authority, its certificate files and its loaded TLS settings.
struct Secured {
    server: TestServer,
    ca: Ca,
    files: Files,
    tls: Arc<Tls>,
}

impl Secured {
    async fn start() -> Self {
        let ca = Ca::new();
        let files = Files::new(&ca.certify("one.test"), None);
        let tls = Arc::new(Tls::load(files.tls(), START).expect("good files"));
        let options = Options { tls: Some(Arc::clone(&tls)), ..Options::default() };
        let server = TestServer::start_with(options, Some(ca.pem.clone())).await;
        Self { server, ca, files, tls }
    }

    async fn connect(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        self.connect_as(&[&TLS12, &TLS13], protocol).await
    }

    async fn connect_as(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocol: &[u8],
    ) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.pem.as_bytes()).expect("a certificate");
        roots.add(ca).expect("an authority");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("ring speaks them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.server.address()).await.expect("the server listens");
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .expect("the handshake succeeds")
    }

    /// The certificate that a new connection sees.
    async fn certificate(&self) -> CertificateDer<'static> {
        let stream = self.connect(b"h2").await;
        let chain = stream.get_ref().1.peer_certificates().expect("the server has one");
        chain[0].clone().into_owned()
    }

    async fn serves_tokens(&self) {
        self.server.operator_token().await;
    }
}

async fn get_keys(mut stream: TlsStream<TcpStream>) -> String {
    let request = "GET /.well-known/jwks.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the server answers and closes");
    answer
}

#[tokio::test]
async fn one_port_speaks_grpc_and_http_1_over_tls() {
    let secured = Secured::start().await;
    secured.serves_tokens().await;
    for version in [&TLS12, &TLS13] {
        let stream = secured.connect_as(&[version], b"http/1.1").await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        let answer = get_keys(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let stream = secured.connect(b"h2").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
}

#[tokio::test]
async fn the_peer_address_is_recorded_over_tls_too() {
    let secured = Secured::start().await;
    let server = &secured.server;
    server.register("order", &[("shop", &["stock:read"])], &[]).await;
    let request = countersign::rpc::ListAuditEventsRequest::default();
    let events = server.audit().list_audit_events(server.as_operator(request).await).await;
    let events = events.expect("the operator may read").into_inner().events;
    assert!(events[0].peer.starts_with("127.0.0.1:"), "{:?}", events[0]);
}

#[tokio::test]
async fn a_peer_without_a_handshake_is_disconnected_and_delays_nobody() {
    let secured = Secured::start().await;
    let mut silent =
        TcpStream::connect(secured.server.address()).await.expect("the server listens");
    let mut plain = TcpStream::connect(secured.server.address()).await.expect("the server listens");
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("the server reads");
    let mut answer = Vec::new();
    // The server may send a TLS alert or nothing, but no HTTP response.
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    secured.serves_tokens().await;

    // With the clock paused and nothing else to do, tokio advances it until the handshake times out.
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let read = silent.read(&mut [0; 1]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    assert!(begun.elapsed().as_secs() <= 11, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn new_connections_use_changed_certificate_files_and_old_ones_continue() {
    let secured = Secured::start().await;
    let first = secured.certificate().await;
    secured.tls.refresh(START);
    assert_eq!(secured.certificate().await, first);

    secured.files.put(&secured.ca.certify("two.test"));
    assert_eq!(secured.certificate().await, first, "nobody has looked yet");
    secured.tls.refresh(START);
    let second = secured.certificate().await;
    assert_ne!(second, first);
    // The test's channel is a connection from before the change.
    secured.serves_tokens().await;

    let (third, another) = (secured.ca.certify("three.test"), secured.ca.certify("four.test"));
    for broken in [
        crate::pki::Certified { cert: third.cert.clone(), key: another.key },
        crate::pki::Certified { cert: "noise".to_owned(), key: third.key.clone() },
        crate::pki::Certified { cert: third.cert.clone(), key: String::new() },
    ] {
        secured.files.put(&broken);
        secured.tls.refresh(START);
        assert_eq!(secured.certificate().await, second);
    }
    fs::remove_file(secured.files.path("tls.key")).expect("the file can be removed");
    secured.tls.refresh(START);
    assert_eq!(secured.certificate().await, second);

    secured.files.put(&third);
    secured.tls.refresh(START);
    assert_ne!(secured.certificate().await, second);
}

#[tokio::test]
async fn a_plaintext_port_refuses_tls_and_a_tls_port_refuses_plaintext() {
    let plain = TestServer::start().await;
    let https = plain.url.replace("http://", "https://");
    let tls = tonic::transport::ClientTlsConfig::new()
        .ca_certificate(tonic::transport::Certificate::from_pem(Ca::new().pem));
    let endpoint = tonic::transport::Channel::from_shared(https).expect("a valid address");
    assert!(endpoint.tls_config(tls).expect("a certificate").connect().await.is_err());

    let secured = Secured::start().await;
    let http = secured.server.url.replace("https://", "http://");
    let channel = tonic::transport::Channel::from_shared(http).expect("a valid address");
    let mut tokens =
        countersign::rpc::token_service_client::TokenServiceClient::new(channel.connect_lazy());
    let request = ask("operator", &secured.server.operator_secret, "countersign", &[]);
    tokens.issue_token(request).await.expect_err("the port speaks only TLS");
}
