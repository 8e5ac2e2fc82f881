//! The clients, which call services without a pause.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::rpc;
use countersign_mesh::claims::{Audience, ClientId};
use countersign_mesh::session::{Credentials, Session};
use http::{Request, Response};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::Service;

use crate::figures::{Figures, random};
use crate::guards::{Mesh, SCOPE, SERVICE, reason};
use crate::operator::Operator;

/// The life of their tokens: so short that new ones come all the time, and so long that these outlast a
/// restart of the server.
const TTL: i64 = 20;

/// How long one waits between two calls.
const PAUSE: Duration = Duration::from_millis(10);

pub struct Caller {
    pub id: String,
    pub secret: String,
    session: Session,
    services: Vec<(Audience, Channel)>,
    pub cut: Arc<Mutex<Cut>>,
    figures: Arc<Figures>,
}

/// What is revoked of a client's tokens.
#[derive(Default)]
pub struct Cut {
    /// Whether a revocation of all so far is being asked for.
    pub asked: bool,
    /// Those issued before this are.
    pub before: i64,
    /// When that was acknowledged last.
    pub at: Option<Instant>,
}

impl Caller {
    pub async fn register(
        url: &str,
        operator: &Operator,
        mesh: &Mesh,
        count: usize,
        figures: &Arc<Figures>,
    ) -> Vec<Arc<Self>> {
        let mut callers = Vec::new();
        for n in 0..count {
            let id = format!("caller-{n}");
            let secret = operator.register(client(&id, mesh, Some(TTL))).await;
            let named = ClientId::new(&id).expect("a client id");
            let session = Session::builder(url, Credentials::new(named, secret.as_str()))
                .connect()
                .expect("a loopback address");
            let services = mesh
                .guards
                .iter()
                .map(|guard| (guard.audience.parse().expect("an audience"), guard.channel.clone()));
            let (services, cut) = (services.collect(), Arc::default());
            let figures = Arc::clone(figures);
            callers.push(Arc::new(Self { id, secret, session, services, cut, figures }));
        }
        callers
    }

    /// Calls one service after the other until it is over.
    pub async fn call_on(self: Arc<Self>, over: Arc<AtomicBool>) {
        let mut services: Vec<_> = self
            .services
            .iter()
            .map(|(audience, channel)| {
                let (channel, cut) = (channel.clone(), Arc::clone(&self.cut));
                let transport = Tries { channel, cut, figures: Arc::clone(&self.figures) };
                HealthClient::new(
                    self.session.audience(audience.clone()).attach(transport, SERVICE),
                )
            })
            .collect();
        let figures = &self.figures;
        while !over.load(Ordering::SeqCst) {
            let at = usize::try_from(random(services.len() as u64)).expect("it is small");
            match services[at].check(HealthCheckRequest::default()).await {
                Ok(_) => figures.one(&figures.calls),
                Err(status) => self.judge(&status),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Refusals by a guard have been judged where they came in.
    fn judge(&self, status: &Status) {
        let has_no_token =
            status.code() == Code::Unavailable && status.message().starts_with("no token in time");
        if has_no_token {
            self.figures.one(&self.figures.without_token);
        } else if reason(status).is_empty() {
            self.figures.refused(format!("{}: {status:?}", self.id));
        }
    }
}

/// A client that may call every service.
pub fn client(id: &str, mesh: &Mesh, ttl: Option<i64>) -> rpc::Client {
    let grant = |audience| rpc::Grant { audience, scopes: vec![SCOPE.to_owned()] };
    rpc::Client {
        client_id: id.to_owned(),
        grants: mesh.audiences().map(grant).collect(),
        max_token_ttl: ttl.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    }
}

/// Judges each try by itself: another one, with another token, must not hide what a guard refused.
#[derive(Clone)]
struct Tries {
    channel: Channel,
    cut: Arc<Mutex<Cut>>,
    figures: Arc<Figures>,
}

impl Service<Request<Body>> for Tries {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let issued_at = issued_at(&request);
        let answer = self.channel.call(request);
        let (cut, figures) = (Arc::clone(&self.cut), Arc::clone(&self.figures));
        Box::pin(async move {
            let response = answer.await?;
            if let Some(status) = Status::from_header_map(response.headers())
                && status.code() != Code::Ok
            {
                let is_revoked = {
                    let cut = cut.lock().expect("no panic");
                    cut.asked || issued_at < cut.before
                };
                if is_revoked && reason(&status) == "TOKEN_REVOKED" {
                    figures.one(&figures.retries);
                } else {
                    figures.refused(format!("a token of {issued_at}: {status:?}"));
                }
            }
            Ok(response)
        })
    }
}

/// When the token of a request was issued, as it says.
fn issued_at(request: &Request<Body>) -> i64 {
    let header = request.headers()["authorization"].to_str().expect("it is ASCII");
    let claims = header.split('.').nth(1).expect("a token has three parts");
    let claims = URL_SAFE_NO_PAD.decode(claims).expect("it is base64url");
    let claims: serde_json::Value = serde_json::from_slice(&claims).expect("it is JSON");
    claims["iat"].as_i64().expect("it has one")
}
