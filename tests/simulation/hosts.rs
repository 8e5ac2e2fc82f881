//! Who takes part: the issuer on its store, guarded services, clients, and an operator.

use std::future::pending;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use countersign::authority::{Authority, Settings};
use countersign::ring::KeyState;
use countersign::rpc;
use countersign::rpc::client_service_client::ClientServiceClient;
use countersign::rpc::issue_token_request::Credential;
use countersign::rpc::key_service_client::KeyServiceClient;
use countersign::rpc::revoke_token_request::Target as RevokeTarget;
use countersign::rpc::token_service_client::TokenServiceClient;
use countersign::server::{self, Options};
use countersign::store::{Kek, Writes};
use countersign_mesh::claims::Clock;
use countersign_mesh::guard::{Access, Guard, MethodPolicy, Refusal, ServicePolicy, WhenStale};
use countersign_mesh::session::{Credentials, Jitter, Session};
use tokio::time::sleep;
use tonic::transport::{Channel, Server};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::Service;
use tower::layer::layer_fn;

use crate::dice::Dice;
use crate::network::{channel, incoming};
use crate::oracle::{MAX_STALENESS, Oracle, Target, now};

pub type Outcome = turmoil::Result;

/// The service behind each guard: gRPC health checking, the smallest that there is.
const METHODS: &[MethodPolicy] =
    &[MethodPolicy { path: "/grpc.health.v1.Health/Check", access: Access::Scopes(&["call"]) }];

/// The longest life of a client's token here: some expire while the simulation runs.
const LONGEST_LIFE: i64 = 150;

/// How many tokens a client keeps, old and revoked ones among them.
const KEPT: usize = 12;

/// Where the issuer's store is.
#[derive(Clone)]
pub struct Place {
    pub directory: PathBuf,
    pub kek: String,
}

/// The real server, on its store.
pub async fn issuer(place: Place, clock: Clock, oracle: Oracle) -> Outcome {
    let kek: Kek = place.kek.parse().expect("its own text");
    let kek = kek.with_epoch_dir(place.directory.clone());
    let settings = Settings {
        // Longer than the simulation: the issuer spreads refreshes by randomness of its own, so that
        // they would not follow from the seed.
        default_ttl: Duration::from_secs(4 * 60 * 60),
        max_staleness: MAX_STALENESS,
        writes: Writes::InPlace,
        ..Settings::default()
    };
    let database = place.directory.join("countersign.db");
    let authority = Arc::new(Authority::open(&database, kek, settings, &clock)?);
    oracle.lock().issuer_is_up(now(), Arc::downgrade(&authority));
    let (options, stop) = (Options::default(), pending());
    server::serve_on(incoming().await?, authority, clock, options, stop, Duration::ZERO).await?;
    Ok(())
}

/// A service behind a guard that a session feeds.
pub async fn service(
    name: &'static str,
    secret: String,
    when_stale: WhenStale,
    clock: Clock,
    jitter: Jitter,
    oracle: Oracle,
) -> Outcome {
    let credentials = Credentials::new(name.parse()?, &secret);
    // Nobody listens at this address: keys come by the stream.
    let session = Session::builder("http://127.0.0.1:1", credentials)
        .channel(channel("issuer"))
        .when_stale(when_stale)
        .verifier_name(name)
        .clock(clock.clone())
        .jitter(jitter)
        .connect()?;
    let policy =
        ServicePolicy { service: "grpc.health.v1.Health", audience: name, methods: METHODS };
    let guard = Guard::builder(&session).services(&[policy]).clock(clock).build();
    let watcher = (session.clone(), oracle.clone());
    tokio::spawn(async move {
        let (session, oracle) = watcher;
        let mut trust = session.trust();
        loop {
            trust.changed().await;
            oracle.lock().look(name, &session.health());
        }
    });
    let eye = layer_fn(move |inner| Watched {
        inner,
        name,
        session: session.clone(),
        oracle: oracle.clone(),
    });
    let (_, health) = tonic_health::server::health_reporter();
    Server::builder()
        .layer(eye)
        .layer(guard)
        .add_service(health)
        .serve_with_incoming(incoming().await?)
        .await?;
    Ok(())
}

/// Tells the oracle what a guard decides, and what the guard held at that moment.
#[derive(Clone)]
struct Watched<S> {
    inner: S,
    name: &'static str,
    session: Session,
    oracle: Oracle,
}

impl<S, B, R> Service<http::Request<B>> for Watched<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|header| header.strip_prefix("Bearer ")).map(str::to_owned);
        let (name, oracle) = (self.name, self.oracle.clone());
        let answer = self.inner.call(request);
        // By now the guard has decided: it does so in `call`, before anything is awaited.
        let health = self.session.health();
        oracle.lock().look(name, &health);
        Box::pin(async move {
            let response = answer.await?;
            let refusal = response.extensions().get::<Refusal>();
            if let Some(token) = token {
                oracle.lock().decided(name, &token, refusal, &health);
            }
            Ok(response)
        })
    }
}

/// Gets tokens, keeps them for too long, and calls with them.
pub async fn client(
    name: &'static str,
    secret: String,
    services: Vec<&'static str>,
    mut dice: Dice,
    oracle: Oracle,
    tokens: Tokens,
) -> Outcome {
    let issuer = channel("issuer");
    let callees: Vec<_> = services.iter().map(|name| HealthClient::new(channel(name))).collect();
    let mut kept: Vec<(usize, String)> = Vec::new();
    loop {
        sleep(dice.millis(300, 1500)).await;
        let many = services.len().try_into().expect("few");
        if kept.is_empty() || dice.below(6) == 0 {
            let which = usize::try_from(dice.below(many)).expect("few");
            let life = 20 + i64::try_from(dice.below(130)).expect("small");
            let life = life.min(LONGEST_LIFE);
            if let Some(token) =
                fetch(&issuer, name, &secret, services[which], Some(life), &oracle).await
            {
                if kept.len() == KEPT {
                    kept.remove(0);
                }
                kept.push((which, token.clone()));
                tokens.lock().expect("no thread panicked with the lock").push(token);
            }
            continue;
        }
        let index = usize::try_from(dice.below(kept.len().try_into().expect("few"))).expect("few");
        let (which, token) = kept[index].clone();
        let mut callee = callees[which].clone();
        // Not awaited: a service that is cut off must not keep the client from calling the others.
        tokio::spawn(async move {
            let _ = callee.check(bearing(&token, HealthCheckRequest::default())).await;
        });
    }
}

/// Every token that any client got.
pub type Tokens = Arc<std::sync::Mutex<Vec<String>>>;

async fn fetch(
    issuer: &Channel,
    name: &'static str,
    secret: &str,
    audience: &str,
    life: Option<i64>,
    oracle: &Oracle,
) -> Option<String> {
    let asked_at = now();
    let request = rpc::IssueTokenRequest {
        client_id: name.to_owned(),
        credential: Some(Credential::ClientSecret(secret.to_owned())),
        audience: audience.to_owned(),
        scopes: Vec::new(),
        requested_ttl: life.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
    };
    match TokenServiceClient::new(issuer.clone()).issue_token(request).await {
        Ok(issued) => {
            let issued = issued.into_inner();
            let expires_at = issued.expire_time.expect("tokens expire").seconds;
            let expires_at = expires_at.try_into().expect("after 1970");
            oracle.lock().issued(name, &issued.access_token, asked_at, expires_at);
            Some(issued.access_token)
        }
        Err(status) => {
            oracle.lock().note(now(), format_args!("{name} got no token: {:?}", status.code()));
            None
        }
    }
}

fn bearing<M>(token: &str, message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(5));
    let value = format!("Bearer {token}").parse().expect("a token is ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

/// Rotates and revokes.
pub struct Operator {
    pub secret: String,
    pub clients: Vec<&'static str>,
    pub tokens: Tokens,
    pub oracle: Oracle,
    pub dice: Dice,
}

impl Operator {
    /// Rotates and revokes at random until the troubles end, then tries until a rotation goes through.
    pub async fn run(mut self, troubles_end: Duration, end: Duration) -> Outcome {
        let issuer = channel("issuer");
        let mut key_revocations = 1;
        while now() < troubles_end {
            sleep(self.dice.millis(500, 6000)).await;
            let Some(token) = self.token(&issuer).await else { continue };
            match self.dice.below(12) {
                0..6 => drop(self.rotate(&issuer, &token).await),
                6..10 => {
                    let known =
                        self.tokens.lock().expect("no thread panicked with the lock").clone();
                    // One of the latest tokens: most of the others have expired.
                    let latest = known.len().saturating_sub(10);
                    if known.len() > latest {
                        let target = Target::Token(self.pick(&known[latest..]));
                        self.revoke(&issuer, &token, target).await;
                    }
                }
                10 => {
                    let client = self.dice.pick(&self.clients);
                    self.revoke(&issuer, &token, Target::Client(client)).await;
                }
                _ if key_revocations > 0 => {
                    key_revocations -= 1;
                    let active = self.oracle.lock().key(KeyState::Active);
                    if let Some(kid) = active {
                        self.revoke(&issuer, &token, Target::Key(kid)).await;
                    }
                }
                _ => {}
            }
        }
        let mut rotated = false;
        while !rotated && now() < end {
            sleep(Duration::from_secs(2)).await;
            if let Some(token) = self.token(&issuer).await {
                rotated = self.rotate(&issuer, &token).await.is_ok();
            }
        }
        self.oracle.lock().must(now(), rotated, "no rotation went through once all was well");
        Ok(())
    }

    fn pick(&mut self, of: &[String]) -> String {
        let index = self.dice.below(of.len().try_into().expect("few"));
        of[usize::try_from(index).expect("few")].clone()
    }

    async fn token(&self, issuer: &Channel) -> Option<String> {
        fetch(issuer, "operator", &self.secret, "countersign", None, &self.oracle).await
    }

    async fn rotate(&self, issuer: &Channel, token: &str) -> Result<(), Status> {
        let mut keys = KeyServiceClient::new(issuer.clone());
        let answer = keys.rotate_keys(bearing(token, rpc::RotateKeysRequest::default())).await;
        let mut known = self.oracle.lock();
        match answer {
            Ok(_) => {
                known.counts.rotations += 1;
                known.note(now(), "operator has rotated");
                Ok(())
            }
            Err(status) => {
                if status.code() == tonic::Code::FailedPrecondition {
                    known.counts.rotations_blocked += 1;
                }
                known.note(now(), format_args!("operator has not rotated: {:?}", status.code()));
                Err(status)
            }
        }
    }

    async fn revoke(&self, issuer: &Channel, token: &str, target: Target) {
        let asked_at = now();
        self.oracle.lock().revocation_asked(&target);
        let (what, answer) = match target.clone() {
            Target::Token(revoked) => {
                let what = self.oracle.lock().name_of(&revoked);
                let request =
                    rpc::RevokeTokenRequest { target: Some(RevokeTarget::Token(revoked)) };
                let mut tokens = TokenServiceClient::new(issuer.clone());
                let answer = tokens.revoke_token(bearing(token, request)).await;
                (what, answer.map(drop))
            }
            Target::Client(client) => {
                let request = rpc::RevokeClientTokensRequest {
                    client_id: client.to_owned(),
                    ..Default::default()
                };
                let mut clients = ClientServiceClient::new(issuer.clone());
                let answer = clients.revoke_client_tokens(bearing(token, request)).await;
                (format!("what {client} had"), answer.map(drop))
            }
            Target::Key(kid) => {
                let request = rpc::RevokeKeyRequest { kid, ..Default::default() };
                let mut keys = KeyServiceClient::new(issuer.clone());
                let answer = keys.revoke_key(bearing(token, request)).await;
                ("the active key".to_owned(), answer.map(drop))
            }
        };
        let mut known = self.oracle.lock();
        match answer {
            Ok(()) => {
                known.revocation_done(&target, asked_at);
                known.note(now(), format_args!("operator has revoked {what}"));
            }
            Err(status) => {
                let code = status.code();
                known.note(now(), format_args!("operator may have revoked {what}: {code:?}"));
            }
        }
    }
}
