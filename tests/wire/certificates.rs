//! Clients that prove who they are with the certificate of their connection: `tls_client_auth` (RFC 8705
//! §2.1). Names are registered over the wire; the handshake itself is tested where TLS is.

use countersign::authority::{IssueError, IssuedToken};
use countersign::client::{CertificateNames, NotAuthenticated, PresentedCredential};
use countersign::rpc;
use countersign::rpc::certificate_name::Name;
use countersign::rpc::client_credential::Kind as Known;
use countersign::rpc::create_client_credential_request::Kind;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use tonic::{Code, Status};

use crate::caller::{Caller, client, new_credential};
use crate::support::{START, TestServer, ask, assert_field, assert_refused, bearing, issue_at};

const STOCK: &[(&str, &[&str])] = &[("inventory", &["stock:read"])];

/// A certificate with the subject `CN=cn,O=Example` and these subject alternative names.
fn certificate(cn: &str, others: Vec<SanType>) -> CertificateNames {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Example");
    subject.push(DnType::CommonName, cn);
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.subject_alt_names = others;
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    CertificateNames::from_der(certificate.der()).expect("the certificate has names")
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("ASCII"))
}

async fn issue(
    server: &TestServer,
    client_id: &str,
    names: &CertificateNames,
) -> Result<IssuedToken, IssueError> {
    let credential = PresentedCredential::Certificate(names);
    issue_at(&server.authority(), client_id, credential, "", server.clock.now()).await
}

#[track_caller]
fn assert_rejected(answer: Result<IssuedToken, IssueError>, reason: NotAuthenticated) {
    assert_eq!(answer.expect_err("the credential is rejected"), IssueError::ClientRejected(reason));
}

impl Caller {
    /// Registers a name; `ttl` in seconds.
    async fn new_certificate(
        &self,
        server: &TestServer,
        client_id: &str,
        name: Name,
        ttl: Option<i64>,
    ) -> Result<rpc::ClientCredential, Status> {
        let name = Kind::CertificateName(rpc::CertificateName { name: Some(name) });
        self.add_credential(server, client_id, name, ttl).await
    }
}

async fn start() -> (TestServer, Caller) {
    let server = TestServer::start().await;
    let operator = server.operator().await;
    operator.create(&server, client("backup", STOCK, &[])).await.expect("created");
    (server, operator)
}

#[tokio::test]
async fn each_kind_of_name_matches_only_its_own_certificate() {
    let ip = |text: &str| SanType::IpAddress(text.parse().expect("an address"));
    let uri = |text: &str| SanType::URI(text.try_into().expect("ASCII"));
    let email = |text: &str| SanType::Rfc822Name(text.try_into().expect("ASCII"));
    let cases = [
        (
            Name::SubjectDn("CN=backup,O=Example".to_owned()),
            certificate("backup", vec![]),
            vec![
                certificate("backups", vec![]),
                certificate("Backup", vec![]),
                certificate("backup,O=Example", vec![]),
                certificate("x", vec![dns("backup")]),
            ],
        ),
        (
            Name::SanDns("Backup.Example".to_owned()),
            certificate("x", vec![dns("other.example"), dns("BACKUP.example")]),
            vec![
                certificate("backup.example", vec![]),
                certificate("x", vec![dns("*.example")]),
                certificate("x", vec![dns("backup.example.org")]),
                certificate("x", vec![uri("backup.example")]),
            ],
        ),
        (
            Name::SanUri("spiffe://example/backup".to_owned()),
            certificate("x", vec![uri("spiffe://example/backup")]),
            vec![
                certificate("x", vec![uri("spiffe://example/backup/")]),
                certificate("x", vec![uri("spiffe://example/Backup")]),
            ],
        ),
        (
            Name::SanIp("2001:DB8:0::1".to_owned()),
            certificate("x", vec![ip("10.0.0.1"), ip("2001:db8::1")]),
            vec![
                certificate("x", vec![ip("2001:db8::2")]),
                certificate("x", vec![dns("2001:db8::1")]),
            ],
        ),
        (
            Name::SanEmail("Backup@Example.org".to_owned()),
            certificate("x", vec![email("Backup@example.ORG")]),
            vec![
                certificate("x", vec![email("backup@example.org")]),
                certificate("x", vec![dns("example.org")]),
            ],
        ),
    ];
    let (server, operator) = start().await;
    for (name, right, wrong) in cases {
        let before = issue(&server, "backup", &right).await;
        assert_rejected(before, NotAuthenticated::WrongCertificate);
        let made = operator.new_certificate(&server, "backup", name, None).await;
        let made = made.expect("registered");
        let issued = issue(&server, "backup", &right).await.expect("granted");
        assert_eq!(issued.claims.client_id.as_str(), "backup");
        for wrong in wrong {
            let answer = issue(&server, "backup", &wrong).await;
            assert_rejected(answer, NotAuthenticated::WrongCertificate);
        }
        let answer = issue(&server, "operator", &right).await;
        assert_rejected(answer, NotAuthenticated::WrongCertificate);
        let answer = issue(&server, "nobody", &right).await;
        assert_rejected(answer, NotAuthenticated::UnknownClient);
        let made = made.credential_id;
        operator.revoke_credential(&server, "backup", &made).await.expect("revoked");
        let answer = issue(&server, "backup", &right).await;
        assert_rejected(answer, NotAuthenticated::WrongCertificate);
    }
}

#[tokio::test]
async fn a_name_works_until_it_expires_or_its_client_is_disabled() {
    let (mut server, operator) = start().await;
    let names = certificate("backup", vec![dns("backup.example")]);
    let by_dns = Name::SanDns("BACKUP.example".to_owned());
    let made = operator.new_certificate(&server, "backup", by_dns, Some(60)).await;
    let made = made.expect("registered");
    let as_it_is_compared = Some(Name::SanDns("backup.example".to_owned()));
    let as_it_is_compared = rpc::CertificateName { name: as_it_is_compared };
    assert_eq!(made.kind, Some(Known::CertificateName(as_it_is_compared)));
    assert_eq!(made.credential_id, "san_dns:backup.example");
    assert_eq!(made.expire_time.map(|time| time.seconds as u64), Some(START.as_unix() + 60));
    server.advance(59);
    issue(&server, "backup", &names).await.expect("a second is left");
    server.restart().await;
    let listed = operator.read(&server, "backup").await.expect("the client exists").credentials;
    let used = Some(START.as_unix() + 59);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].last_use_time.map(|time| time.seconds as u64), used);
    server.advance(1);
    let answer = issue(&server, "backup", &names).await;
    assert_rejected(answer, NotAuthenticated::ExpiredCertificate);
    let by_subject = Name::SubjectDn("CN=backup,O=Example".to_owned());
    operator.new_certificate(&server, "backup", by_subject, None).await.expect("registered");
    issue(&server, "backup", &names).await.expect("another of its names is good");
    operator
        .change(&server, "backup", &["disabled"], |client| client.disabled = true)
        .await
        .expect("disabled");
    let answer = issue(&server, "backup", &names).await;
    assert_rejected(answer, NotAuthenticated::Disabled);
}

#[tokio::test]
async fn a_client_has_at_most_eight_certificate_names_and_each_of_them_once() {
    let (server, operator) = start().await;
    let name = |n: u32| Name::SanDns(format!("host-{n}.example"));
    for n in 0..8 {
        let ttl = (n == 0).then_some(60);
        operator
            .new_certificate(&server, "backup", name(n), ttl)
            .await
            .expect("fewer than eight exist");
    }
    let ninth = operator.new_certificate(&server, "backup", name(8), None).await;
    assert_refused(ninth, Code::FailedPrecondition, "CREDENTIAL_LIMIT");
    let upper = Name::SanDns("HOST-1.example".to_owned());
    let again = operator.new_certificate(&server, "backup", upper, None).await;
    assert_refused(again, Code::AlreadyExists, "CREDENTIAL_EXISTS");
    server.advance(60);
    operator.new_certificate(&server, "backup", name(8), None).await.expect("one name has expired");
    let one = "san_dns:host-1.example";
    operator.revoke_credential(&server, "backup", one).await.expect("the client has this name");
    let again = operator.revoke_credential(&server, "backup", one).await;
    assert_refused(again, Code::NotFound, "CREDENTIAL_NOT_FOUND");
    let of_nobody = operator.revoke_credential(&server, "nobody", one).await;
    assert_refused(of_nobody, Code::NotFound, "CLIENT_NOT_FOUND");
    let for_nobody = operator.new_certificate(&server, "nobody", name(1), None).await;
    assert_refused(for_nobody, Code::NotFound, "CLIENT_NOT_FOUND");
}

#[tokio::test]
async fn a_malformed_name_is_refused_with_its_field() {
    let (server, operator) = start().await;
    type Case = (&'static str, fn(String) -> Name, &'static [&'static str]);
    let cases: [Case; 5] = [
        (
            "subject_dn",
            Name::SubjectDn,
            &["", "backup", "CN=a, O=b", "=a", "NOPE=a", "CN=a\\", "CN=a,", ",CN=a", "2.5.4.3=#04"],
        ),
        ("san_dns", Name::SanDns, &["", "*.example", "a..b", "a b", ".a", "a.", "ä.example"]),
        ("san_uri", Name::SanUri, &["", "example", "://x", "a:", "1a:b", "a:b c", "a:\"b\""]),
        ("san_ip", Name::SanIp, &["", "10.0.0", "10.0.0.1/8", "10.0.0.01", "[::1]", "localhost"]),
        ("san_email", Name::SanEmail, &["", "backup", "@example", "a@", "a@b@c", "a b@c", "a@*.c"]),
    ];
    for (kind, name, texts) in cases {
        for text in texts.iter().map(ToString::to_string).chain(["x".repeat(2000)]) {
            let answer =
                operator.new_certificate(&server, "backup", name(text.clone()), None).await;
            assert!(answer.is_err(), "{kind} {text}");
            assert_field(answer, &format!("certificate_name.{kind}"));
        }
    }
    let nameless = Kind::CertificateName(rpc::CertificateName { name: None });
    let answer = operator.add_credential(&server, "backup", nameless, None).await;
    assert_field(answer, "certificate_name");
    let client_id = "backup".to_owned();
    let of_no_kind = rpc::CreateClientCredentialRequest { client_id, ..Default::default() };
    assert_field(operator.create_credential(&server, of_no_kind).await, "kind");
}

#[tokio::test]
async fn a_repeated_request_adds_a_name_only_once_and_is_audited() {
    let (server, operator) = start().await;
    let name = Name::SanUri("spiffe://example/backup".to_owned());
    let kind = Kind::CertificateName(rpc::CertificateName { name: Some(name) });
    let request = || rpc::CreateClientCredentialRequest {
        request_id: "one".to_owned(),
        ..new_credential("backup", kind.clone())
    };
    let create = async || operator.create_credential(&server, request()).await;
    let first = create().await.expect("registered");
    server.advance(10);
    assert_eq!(create().await.expect("the answer of then"), first);
    let request = bearing(&operator.token, rpc::ListAuditEventsRequest::default());
    let events = server.audit().list_audit_events(request).await;
    let events = events.expect("the log").into_inner().events;
    let told: Vec<_> = events
        .iter()
        .filter(|event| event.action == "client.credential.create")
        .map(|event| (event.target.as_str(), event.detail.as_str()))
        .collect();
    assert_eq!(told, [("backup", "certificate_name san_uri:spiffe://example/backup")]);
}

#[tokio::test]
async fn registering_a_name_takes_the_same_scopes_as_creating_a_secret() {
    let (server, _) = start().await;
    let writer = server.operator_with("writer", &["clients:read", "clients:write"]).await;
    let name = || Name::SanDns("backup.example".to_owned());
    writer
        .new_certificate(&server, "backup", name(), None)
        .await
        .expect("the client is no operator");
    let answer = writer.new_certificate(&server, "operator", name(), None).await;
    assert_refused(answer, Code::PermissionDenied, "SCOPE_MISSING");
}

#[tokio::test]
async fn a_request_without_any_credential_is_invalid() {
    let (server, _) = start().await;
    let request = rpc::IssueTokenRequest { credential: None, ..ask("backup", "", "", &[]) };
    assert_field(server.issue(request).await, "credential");
}
