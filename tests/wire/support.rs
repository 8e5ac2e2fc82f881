//! A real server on a real socket, with a store in a temporary directory and a clock that tests set.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use countersign::authority::host::{self, NewClient};
use countersign::authority::{Authority, IssueError, IssuedToken, Settings};
use countersign::policy::TokenRequest;
use countersign::rpc::audit_service_client::AuditServiceClient;
use countersign::rpc::client_service_client::ClientServiceClient;
use countersign::rpc::create_client_credential_request::Kind;
use countersign::rpc::issue_token_request::Credential;
use countersign::rpc::key_service_client::KeyServiceClient;
use countersign::rpc::token_service_client::TokenServiceClient;
use countersign::server::{self, LimitSettings, Options};
use countersign::store::{self, Kek};
use countersign::{client, rpc};
use countersign_mesh::claims::{Audience, ClientId, Clock, Issuer, ScopeSet, Timestamp};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::caller::new_credential;

/// The time at which every server starts: 2027-01-15T08:00:00Z.
pub const START: Timestamp = Timestamp::from_unix(1_800_000_000);

pub const ISSUER: &str = "https://issuer.test";

/// A server, its store and its clock. Dropping it stops the server and deletes the store.
pub struct TestServer {
    options: Options,
    ca: Option<String>,
    pub clock: Clock,
    pub operator_secret: String,
    pub url: String,
    pub channel: Channel,
    dir: TempDir,
    kek: String,
    settings: Settings,
    running: Option<Running>,
}

struct Running {
    address: SocketAddr,
    authority: Weak<Authority>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl TestServer {
    /// A server with a fresh store, whose only client is the operator `operator`.
    pub async fn start() -> Self {
        Self::start_fresh(ISSUER, Settings::default(), Options::default(), None, START).await
    }

    /// Like [`start`](Self::start), at the current time, for code that reads the system clock itself.
    pub async fn start_today() -> Self {
        let now = Clock::system().now();
        Self::start_fresh(ISSUER, Settings::default(), Options::default(), None, now).await
    }

    /// Like [`start`](Self::start), with another issuer.
    pub async fn start_as(issuer: &str) -> Self {
        Self::start_fresh(issuer, Settings::default(), Options::default(), None, START).await
    }

    /// Like [`start`](Self::start), with these settings.
    pub async fn start_set(settings: Settings) -> Self {
        Self::start_fresh(ISSUER, settings, Options::default(), None, START).await
    }

    /// Like [`start`](Self::start), without a limit on failed authentications.
    pub async fn start_unthrottled() -> Self {
        let limits = LimitSettings { failures: false, ..LimitSettings::default() };
        Self::start_with(Options { limits, ..Options::default() }, None).await
    }

    /// Like [`start`](Self::start), with these options. With TLS, `ca` is the authority of the server's certificate.
    pub async fn start_with(options: Options, ca: Option<String>) -> Self {
        Self::start_fresh(ISSUER, Settings::default(), options, ca, START).await
    }

    async fn start_fresh(
        issuer: &str,
        settings: Settings,
        options: Options,
        ca: Option<String>,
        now: Timestamp,
    ) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let kek = Kek::generate().expect("the system has randomness");
        let operator = NewClient::operator(id("operator"), "for tests", now)
            .expect("the system has randomness");
        let issuer = Issuer::new(issuer).expect("a valid issuer");
        let place = store::reserve(&database(dir.path())).expect("nothing is there");
        host::init(&place, &kek, &issuer, std::slice::from_ref(&operator), now)
            .expect("a fresh store");
        drop(place);
        let clock = Clock::fixed(now);
        let kek = kek.expose().to_string();
        let (running, url, channel) =
            run(dir.path(), &kek, &settings, &clock, options.clone(), ca.as_deref()).await;
        let operator_secret = operator.secret.expose().to_owned();
        let running = Some(running);
        Self { options, ca, clock, operator_secret, url, channel, dir, kek, settings, running }
    }

    /// Stops in order and starts again on the same store.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }

    /// Ends without an orderly stop, as after a kill, and starts again on the same store.
    pub async fn crash(&mut self) {
        let running = self.running.take().expect("the program runs");
        running.ended.abort();
        running.ended.await.expect_err("the connection is cut off");
        // Each connection holds the store until its task has noticed the end.
        while running.authority.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
        self.start_again().await;
    }

    async fn start_again(&mut self) {
        let (dir, options) = (self.dir.path(), self.options.clone());
        let (running, url, channel) =
            run(dir, &self.kek, &self.settings, &self.clock, options, self.ca.as_deref()).await;
        self.running = Some(running);
        self.url = url;
        self.channel = channel;
    }

    /// Stops in order; the store stays.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.send(()).expect("the server runs until it is told to stop");
            drop(running.authority);
            running.ended.await.expect("the server ends without a panic");
        }
    }

    /// The address that the server listens on.
    pub fn address(&self) -> SocketAddr {
        self.running.as_ref().expect("the program runs").address
    }

    /// The authority behind the server, for what no call can reach.
    pub fn authority(&self) -> Arc<Authority> {
        let running = self.running.as_ref().expect("the program runs");
        running.authority.upgrade().expect("the program runs")
    }

    pub fn database(&self) -> PathBuf {
        database(self.dir.path())
    }

    pub fn kek(&self) -> Kek {
        self.kek.parse().expect("a KEK parses its own text")
    }

    /// Lets time pass.
    pub fn advance(&self, seconds: u64) {
        self.clock.set(self.clock.now() + Duration::from_secs(seconds));
    }

    pub fn tokens(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(self.channel.clone())
    }

    pub fn keys(&self) -> KeyServiceClient<Channel> {
        KeyServiceClient::new(self.channel.clone())
    }

    pub fn clients(&self) -> ClientServiceClient<Channel> {
        ClientServiceClient::new(self.channel.clone())
    }

    pub fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone())
    }

    /// Asks for a token with the given secret; the other fields are as in `request`.
    pub async fn issue(
        &self,
        request: rpc::IssueTokenRequest,
    ) -> Result<rpc::IssueTokenResponse, Status> {
        self.tokens().issue_token(request).await.map(tonic::Response::into_inner)
    }

    /// The operator's token for audience `countersign` with all of its scopes.
    pub async fn operator_token(&self) -> String {
        let request = ask("operator", &self.operator_secret, "countersign", &[]);
        self.issue(request).await.expect("the operator gets a token").access_token
    }

    /// A request with the operator's token.
    pub async fn as_operator<M>(&self, message: M) -> Request<M> {
        bearing(&self.operator_token().await, message)
    }

    /// Registers a client with these grants, `audience` and `scopes`, and audiences that it serves;
    /// gives it a secret.
    pub async fn register(
        &self,
        client_id: &str,
        grants: &[(&str, &[&str])],
        serves: &[&str],
    ) -> String {
        let client = rpc::Client {
            client_id: client_id.to_owned(),
            grants: grants.iter().map(|(audience, scopes)| grant(audience, scopes)).collect(),
            serves: serves.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let request = rpc::CreateClientRequest { client: Some(client), ..Default::default() };
        self.clients()
            .create_client(self.as_operator(request).await)
            .await
            .expect("the client is registered");
        self.new_secret(client_id).await
    }

    pub async fn new_secret(&self, client_id: &str) -> String {
        let request = new_credential(client_id, Kind::Secret(rpc::ClientSecret {}));
        self.clients()
            .create_client_credential(self.as_operator(request).await)
            .await
            .expect("the client gets a secret")
            .into_inner()
            .client_secret
    }
}

async fn run(
    dir: &Path,
    kek: &str,
    settings: &Settings,
    clock: &Clock,
    options: Options,
    ca: Option<&str>,
) -> (Running, String, Channel) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let kek: Kek = kek.parse().expect("a KEK parses its own text");
    let kek = kek.with_epoch_dir(dir.to_owned());
    let authority = Authority::open(&database(dir), kek, settings.clone(), clock);
    let authority = Arc::new(authority.expect("the store opens"));
    let weak = Arc::downgrade(&authority);
    let (stop, stopped) = oneshot::channel();
    let stopped = async {
        // An error means that the test has dropped the sender, which stops the server too.
        let _ = stopped.await;
    };
    let serving = server::serve_with(
        vec![listener],
        authority,
        clock.clone(),
        options,
        stopped,
        Duration::from_secs(5),
    );
    let ended =
        tokio::spawn(async move { serving.await.expect("the server ends without an error") });
    let scheme = if ca.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}");
    let mut endpoint = Channel::from_shared(url.clone()).expect("a valid address");
    if let Some(ca) = ca {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        endpoint = endpoint.tls_config(tls).expect("a certificate");
    }
    let channel = endpoint.connect().await.expect("the server listens");
    (Running { address, authority: weak, stop, ended }, url, channel)
}

fn database(dir: &Path) -> PathBuf {
    dir.join("countersign.db")
}

pub fn id(text: &str) -> ClientId {
    ClientId::new(text).expect("a valid client id")
}

pub fn grant(audience: &str, scopes: &[&str]) -> rpc::Grant {
    rpc::Grant {
        audience: audience.to_owned(),
        scopes: scopes.iter().map(ToString::to_string).collect(),
    }
}

/// A request for a token.
pub fn ask(
    client_id: &str,
    secret: &str,
    audience: &str,
    scopes: &[&str],
) -> rpc::IssueTokenRequest {
    rpc::IssueTokenRequest {
        client_id: client_id.to_owned(),
        credential: Some(Credential::ClientSecret(secret.to_owned())),
        audience: audience.to_owned(),
        scopes: scopes.iter().map(ToString::to_string).collect(),
        requested_ttl: None,
    }
}

/// A request with a bearer token.
pub fn bearing<M>(token: &str, message: M) -> Request<M> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("a token is ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

/// Asserts that an answer is a refusal with this code and this reason in its `ErrorInfo`.
#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, reason: &str) {
    let status = answer.expect_err("the request is refused");
    let info = status.get_details_error_info().expect("every error carries ErrorInfo");
    assert_eq!(
        (status.code(), info.reason.as_str(), info.domain.as_str()),
        (code, reason, "countersign.dev"),
        "{}",
        status.message(),
    );
}

/// Asserts that an answer is a refusal that names this field.
#[track_caller]
pub fn assert_field<T: std::fmt::Debug>(answer: Result<T, Status>, field: &str) {
    let status = answer.expect_err("the request is refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{}", status.message());
    let bad_request = status.get_details_bad_request().expect("a field is at fault");
    assert_eq!(bad_request.field_violations[0].field, field, "{}", status.message());
}

/// Issues a token with all scopes that the client is granted, directly at the authority and so without limits. An
/// empty `audience` is inferred.
pub async fn issue_at(
    authority: &Authority,
    client_id: &str,
    credential: client::PresentedCredential<'_>,
    audience: &str,
    now: Timestamp,
) -> Result<IssuedToken, IssueError> {
    let audience = (!audience.is_empty()).then(|| Audience::new(audience).expect("an audience"));
    let proven = authority.authenticate("token.issue", &id(client_id), credential, "", now)?;
    let everything = TokenRequest { audience, scopes: ScopeSet::default(), requested_ttl: None };
    let granted = authority.decide(proven, &everything).map_err(IssueError::Denied)?;
    authority.sign(&granted, now).await
}
