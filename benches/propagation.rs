//! How long a revocation takes from its acknowledgement to the last of 100 guards refusing the token,
//! over loopback. Target: 1 second at most.
//!
//! One process holds all of it, so that the time is of the work for 100 guards on the cores of one
//! machine: of a mesh, each guard has its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign::authority::host::{self, NewClient};
use countersign::authority::{Authority, Settings};
use countersign::client::{GrantRule, Grants, Serves};
use countersign::rpc::issue_token_request::Credential;
use countersign::rpc::revoke_token_request::Target;
use countersign::rpc::token_service_client::TokenServiceClient;
use countersign::store::{self, Kek};
use countersign::{rpc, server};
use countersign_mesh::claims::{COUNTERSIGN, Clock, Issuer, ScopeSet};
use countersign_mesh::guard::{Access, Guard, MethodPolicy, ServicePolicy};
use countersign_mesh::session::{Credentials, FedBy, Session};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const GUARDS: usize = 100;
const ROUNDS: usize = 200;

/// Long enough for anything.
const PATIENCE: Duration = Duration::from_secs(60);

const SHOP: &[ServicePolicy] = &[ServicePolicy {
    service: "grpc.health.v1.Health",
    audience: "shop",
    methods: &[MethodPolicy {
        path: "/grpc.health.v1.Health/Check",
        access: Access::Scopes(&["shop:look"]),
    }],
}];

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime").block_on(measure());
}

#[expect(clippy::print_stdout, reason = "the times are what this is for")]
async fn measure() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let kek = Kek::generate().expect("randomness");
    let now = Clock::system().now();
    let operator = NewClient::operator("operator".parse().expect("an id"), "", now);
    let operator = operator.expect("randomness");
    let order = client("order", &["shop"], &[]);
    let shop = client("shop", &[], &["shop"]);
    let secrets = [&operator, &order, &shop].map(|client| client.secret.expose().to_owned());
    let issuer: Issuer = "https://token.example.com".parse().expect("an issuer");
    let database = dir.path().join("countersign.db");
    let place = store::reserve(&database).expect("nothing is there");
    host::init(&place, &kek, &issuer, &[operator, order, shop], now).expect("a fresh store");
    drop(place);

    let clock = Clock::system();
    let kek = kek.with_epoch_dir(dir.path().to_owned());
    let authority = Authority::open(&database, kek, Settings::default(), &clock);
    let authority = Arc::new(authority.expect("the store opens"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
    tokio::spawn(server::serve(listener, authority, clock, std::future::pending(), Duration::ZERO));

    let mut guards = Vec::new();
    for _ in 0..GUARDS {
        guards.push(Guarded::start(&url, &secrets[2]).await);
    }
    let channel = Channel::from_shared(url).expect("an address").connect_lazy();
    let mut tokens = TokenServiceClient::new(channel);
    let ours = issue(&mut tokens, "operator", &secrets[0], COUNTERSIGN).await;
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let token = issue(&mut tokens, "order", &secrets[1], "shop").await;
        for guard in &mut guards {
            // It remembers the token from now on.
            guard.call(&token).await.expect("it is good");
        }
        let (said, told) = tokio::sync::watch::channel(None::<Instant>);
        let mut refusing = JoinSet::new();
        for guard in &guards {
            let (mut guard, token, mut told) = (guard.clone(), token.clone(), told.clone());
            refusing.spawn(async move {
                let mut trust = guard.session.trust();
                told.wait_for(Option::is_some).await.expect("it is said");
                loop {
                    match guard.call(&token).await {
                        Ok(()) => trust.changed().await,
                        Err(Code::Unauthenticated) => return Instant::now(),
                        Err(code) => panic!("{code:?}"),
                    }
                }
            });
        }
        let target = Some(Target::Token(token));
        let revoke = bearing(&ours, rpc::RevokeTokenRequest { target });
        tokens.revoke_token(revoke).await.expect("revoked");
        let acknowledged = Instant::now();
        said.send(Some(acknowledged)).expect("they listen");
        let refused = refusing.join_all().await;
        let last = refused.into_iter().max().expect("there are guards");
        times.push(last - acknowledged);
    }
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 100];
    let longest = times[times.len() - 1];
    println!("{ROUNDS} revocations, each until the last of {GUARDS} guards refuses (target: 1 s)");
    println!("p50 {:.1?}, p99 {:.1?}, max {longest:.1?}", at(50), at(99));
}

fn client(id: &str, calls: &[&str], serves: &[&str]) -> NewClient {
    let rule = |audience: &&str| GrantRule {
        audience: audience.parse().expect("an audience"),
        scopes: ScopeSet::parse("shop:look").expect("a scope"),
    };
    let grants: Vec<_> = calls.iter().map(rule).collect();
    let serves: Vec<_> = serves.iter().map(|name| name.parse().expect("an audience")).collect();
    NewClient::new(
        id.parse().expect("an id"),
        "",
        Grants::try_from(grants).expect("grants"),
        Serves::try_from(serves).expect("audiences"),
        Clock::system().now(),
    )
    .expect("randomness")
}

async fn issue(
    tokens: &mut TokenServiceClient<Channel>,
    client_id: &str,
    secret: &str,
    audience: &str,
) -> String {
    let request = rpc::IssueTokenRequest {
        client_id: client_id.to_owned(),
        credential: Some(Credential::ClientSecret(secret.to_owned())),
        audience: audience.to_owned(),
        ..Default::default()
    };
    tokens.issue_token(request).await.expect("a token").into_inner().access_token
}

fn bearing<M>(token: &str, message: M) -> Request<M> {
    let mut request = Request::new(message);
    let header = format!("Bearer {token}").parse().expect("a token is ASCII");
    request.metadata_mut().insert("authorization", header);
    request
}

/// A service behind a guard that a session of its own feeds.
#[derive(Clone)]
struct Guarded {
    session: Session,
    health: HealthClient<Channel>,
}

impl Guarded {
    async fn start(url: &str, secret: &str) -> Self {
        let credentials = Credentials::new("shop".parse().expect("an id"), secret);
        let session = Session::builder(url, credentials).connect().expect("a loopback address");
        let guard = Guard::builder(&session).services(SHOP).without_refusal_log().build();
        let (_, health) = tonic_health::server::health_reporter();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let serving = Server::builder()
            .layer(guard)
            .add_service(health)
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(serving);
        session.ready(PATIENCE).await.expect("the keys are there");
        // It says so a moment after the first keys are there.
        while session.health().fed_by != FedBy::Stream {
            tokio::task::yield_now().await;
        }
        let channel = Channel::from_shared(format!("http://{address}")).expect("an address");
        Self { session, health: HealthClient::new(channel.connect_lazy()) }
    }

    async fn call(&mut self, token: &str) -> Result<(), Code> {
        let request = bearing(token, HealthCheckRequest::default());
        self.health.check(request).await.map(drop).map_err(|status| status.code())
    }
}
