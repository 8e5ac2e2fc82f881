//! A service whose guard gets its trust from its session's trust stream, against a real server. It refuses revoked
//! tokens and accepts valid ones, through rotations and restarts.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::rpc::revoke_token_request::Target;
use countersign_mesh::guard::{Access, Guard, MethodPolicy, ServicePolicy, Trust};
use countersign_mesh::session::{Credentials, FedBy, Session};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::{TestServer, assert_refused, bearing, id};

/// The callee is a health service: it answers calls, and has a stream that stays open. Any service would do.
const SHOP: &[ServicePolicy] = &[ServicePolicy {
    service: "grpc.health.v1.Health",
    audience: "shop",
    methods: &[
        MethodPolicy {
            path: "/grpc.health.v1.Health/Check",
            access: Access::Scopes(&["shop:look"]),
        },
        MethodPolicy {
            path: "/grpc.health.v1.Health/Watch",
            access: Access::Scopes(&["shop:look"]),
        },
    ],
}];

const LOOK: &[(&str, &[&str])] = &[("shop", &["shop:look"])];

/// How long anything may take before a test fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to the server, which may have another address after a restart.
#[derive(Clone)]
struct Line {
    to: Arc<Mutex<SocketAddr>>,
    /// How many bytes the server has sent.
    heard: Arc<AtomicUsize>,
}

impl Line {
    fn to(server: &TestServer) -> Self {
        Self { to: Arc::new(Mutex::new(server.address())), heard: Arc::default() }
    }

    fn leads_to(&self, server: &TestServer) {
        *self.to.lock().expect("no panic") = server.address();
    }

    fn channel(&self) -> Channel {
        let line = self.clone();
        let connect = move |_| {
            let line = line.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(line.connect().await?)) }
        };
        Endpoint::from_static("http://countersign.test")
            .connect_with_connector_lazy(tower::service_fn(connect))
    }

    async fn connect(self) -> io::Result<DuplexStream> {
        let to = *self.to.lock().expect("no panic");
        let (mut from_server, mut to_server) = TcpStream::connect(to).await?.into_split();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (mut from_near, mut to_near) = tokio::io::split(far);
        tokio::spawn(async move {
            let mut bytes = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
                self.heard.fetch_add(count, Ordering::SeqCst);
                if to_near.write_all(&bytes[..count]).await.is_err() {
                    break;
                }
            }
            // The reader learns that the connection has ended.
            let _ = to_near.shutdown().await;
        });
        tokio::spawn(async move {
            // Either side may end the connection, so an error here is no fault.
            let _ = tokio::io::copy(&mut from_near, &mut to_server).await;
        });
        Ok(near)
    }
}

/// A shop behind a guard that its own session feeds.
struct Shop {
    session: Session,
    trust: Trust,
    channel: Channel,
}

impl Shop {
    /// Opens a shop and returns once its guard knows the keys. Its client serves the audience `shop`.
    async fn open(server: &TestServer, line: &Line, client: &str, secret: &str) -> Self {
        // Nothing listens at this address, so the session cannot poll the JWK Set instead.
        let session = Session::builder("http://127.0.0.1:1", Credentials::new(id(client), secret))
            .channel(line.channel())
            .connect()
            .expect("a loopback address");
        let guard = Guard::builder(&session).services(SHOP).clock(server.clock.clone()).build();
        session.ready(PATIENCE).await.expect("the keys are there");
        assert_eq!(session.health().fed_by, FedBy::Stream);
        let (_, health) = tonic_health::server::health_reporter();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let serving = Server::builder()
            .layer(guard)
            .add_service(health)
            .serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(serving);
        let channel =
            Channel::from_shared(format!("http://{address}")).expect("valid").connect_lazy();
        let trust = session.trust();
        Self { session, trust, channel }
    }

    async fn call(&self, token: &str) -> Result<(), Status> {
        let request = bearing(token, HealthCheckRequest::default());
        HealthClient::new(self.channel.clone()).check(request).await.map(drop)
    }

    /// Opens a stream that stays open, and returns once it has begun.
    async fn watch(&self, token: &str) -> Streaming<HealthCheckResponse> {
        let request = bearing(token, HealthCheckRequest::default());
        let answer = HealthClient::new(self.channel.clone()).watch(request).await;
        let mut stream = answer.expect("allowed").into_inner();
        stream.message().await.expect("the stream begins").expect("the stream begins");
        stream
    }

    /// Waits until the guard refuses a token for this reason.
    async fn until_refused(&self, token: &str, reason: &str) {
        let mut trust = self.trust.clone();
        let refused: Result<(), Status> = in_time(async {
            loop {
                self.call(token).await?;
                trust.changed().await;
            }
        })
        .await;
        assert_refused(refused, Code::Unauthenticated, reason);
    }
}

async fn in_time<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(PATIENCE, what).await.expect("it ends before the deadline of the test")
}

/// An act that revokes one token of a client, or all of them.
#[derive(Debug, Clone, Copy)]
enum Act {
    RevokeToken,
    RevokeTokens,
    Disable,
    Delete,
    RevokeKey,
}

impl Act {
    async fn on(self, server: &TestServer, client: &str, token: &str) {
        let operator = server.operator().await;
        match self {
            Self::RevokeToken => {
                let target = Target::Token(token.to_owned());
                operator.revoke_token(server, target).await.expect("revoked");
            }
            Self::RevokeTokens => {
                operator.revoke_tokens(server, client).await.expect("revoked");
            }
            Self::Disable => {
                operator
                    .change(server, client, &["disabled"], |client| client.disabled = true)
                    .await
                    .expect("disabled");
            }
            Self::Delete => {
                let etag = operator.read(server, client).await.expect("the client exists").etag;
                operator.delete(server, client, &etag).await.expect("deleted");
            }
            Self::RevokeKey => {
                let active = operator.keys(server).await.expect("allowed")[1].kid.clone();
                operator.revoke_key(server, &active).await.expect("revoked");
            }
        }
    }
}

#[tokio::test]
async fn a_revoked_token_is_refused_whether_cached_or_not_and_its_streams_end() {
    let server = TestServer::start_today().await;
    let secret = server.register("shop", &[], &["shop"]).await;
    let shop = Shop::open(&server, &Line::to(&server), "shop", &secret).await;
    let other = server.register("other", LOOK, &[]).await;
    for act in [Act::RevokeToken, Act::RevokeTokens, Act::Disable, Act::Delete, Act::RevokeKey] {
        let client = format!("order-{act:?}");
        let secret = server.register(&client, LOOK, &[]).await;
        let remembered = server.token(&client, &secret, "shop").await.token;
        let unseen = server.token(&client, &secret, "shop").await.token;
        let bystander = server.token("other", &other, "shop").await.token;
        let mut stream = shop.watch(&remembered).await;
        shop.call(&remembered).await.expect("allowed");
        shop.call(&bystander).await.expect("allowed");

        act.on(&server, &client, &remembered).await;
        shop.until_refused(&remembered, "TOKEN_REVOKED").await;
        let over = in_time(stream.message()).await.map(|_| "it goes on");
        assert_refused(over, Code::Unauthenticated, "TOKEN_REVOKED");
        match act {
            Act::RevokeToken => shop.call(&unseen).await.expect("only the other token was revoked"),
            _ => shop.until_refused(&unseen, "TOKEN_REVOKED").await,
        }
        match act {
            Act::RevokeKey => shop.until_refused(&bystander, "TOKEN_REVOKED").await,
            _ => shop.call(&bystander).await.expect("the token of another client stays valid"),
        }
        // A client that may still get tokens gets a new valid one at once.
        if matches!(act, Act::RevokeToken | Act::RevokeTokens | Act::RevokeKey) {
            let fresh = server.token(&client, &secret, "shop").await.token;
            shop.call(&fresh).await.expect("the token was issued after the act");
        }
    }
}

#[tokio::test]
async fn successive_rotations_wait_only_for_acknowledgements() {
    // The server's clock stands still. If a rotation waited for possible pollers, it would wait forever.
    let server = TestServer::start_today().await;
    let secret = server.register("shop", &[], &["shop"]).await;
    let line = Line::to(&server);
    let mut shops = Vec::new();
    for _ in 0..3 {
        shops.push(Shop::open(&server, &line, "shop", &secret).await);
    }
    let order = server.register("order", LOOK, &[]).await;
    let first = server.token("order", &order, "shop").await.token;
    let operator = server.operator().await;
    for _ in 0..5 {
        server.all_hold_next().await;
        operator.rotate(&server).await.expect("every verifier holds the next key");
        let newest = server.token("order", &order, "shop").await.token;
        for shop in &shops {
            shop.call(&newest).await.expect("the key came before its tokens");
            shop.call(&first).await.expect("retired keys still verify");
        }
    }
}

#[tokio::test]
async fn a_session_resumes_its_trust_stream_when_the_server_is_back() {
    const REVOKED: usize = 1000;
    let mut server = TestServer::start_today().await;
    let secret = server.register("shop", &[], &["shop"]).await;
    let operator = server.operator().await;
    for n in 0..REVOKED {
        let target = Target::TokenId(format!("token-number-{n}"));
        operator.revoke_token(&server, target).await.expect("revoked");
    }
    let line = Line::to(&server);
    let shop = Shop::open(&server, &line, "shop", &secret).await;
    let whole = line.heard.load(Ordering::SeqCst);
    assert!(whole > 10 * REVOKED, "{whole} bytes");
    let order = server.register("order", LOOK, &[]).await;
    let token = server.token("order", &order, "shop").await.token;
    server.all_hold_next().await;

    server.stop().await;
    shop.call(&token).await.expect("the guard needs no server to verify");
    server.restart().await;
    let before = line.heard.load(Ordering::SeqCst);
    line.leads_to(&server);
    let target = Target::Token(token.clone());
    server.operator().await.revoke_token(&server, target).await.expect("revoked");
    shop.until_refused(&token, "TOKEN_REVOKED").await;
    let known = shop.trust.bundle().expect("the session has a trust bundle");
    assert!(known.revocations.token(&"token-number-7".parse().expect("an id")).is_some());
    let heard = line.heard.load(Ordering::SeqCst) - before;
    assert!(heard < whole / 2, "{heard} bytes of {whole}: only what changed");
    assert_eq!(shop.session.health().fed_by, FedBy::Stream);

    // Other verifiers may still be reconnecting.
    assert_refused(operator.rotate(&server).await, Code::FailedPrecondition, "VERIFIERS_BEHIND");
    server.advance(31);
    server.all_hold_next().await;
    operator.rotate(&server).await.expect("everyone is back");
    let newest = server.token("order", &order, "shop").await.token;
    shop.call(&newest).await.expect("the key came before its tokens");
}
