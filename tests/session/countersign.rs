//! A Countersign in memory. It answers as the test tells it, and counts requests. It uses no sockets,
//! so time can be paused.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::rpc;
use countersign::rpc::issue_token_request::Credential;
use countersign::rpc::token_service_server::{TokenService, TokenServiceServer};
use countersign_mesh::claims::ClientId;
use countersign_mesh::session::{Credentials, Session};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::server::Router;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};

use crate::trust_server::FakeTrust;

/// What it answers.
#[derive(Clone, Copy)]
pub enum Answer {
    /// A token with this life, to be refreshed after that time.
    Token { expires_in: u64, refresh_in: u64 },
    /// The same after a while.
    Late(u64),
    /// The usual token for this secret. Any other secret is refused after five seconds.
    Only(&'static str),
    /// An error.
    Error(Code),
    /// Nothing, ever.
    Nothing,
}

/// The usual: fifteen minutes, refreshed half way.
pub const USUAL: Answer = Answer::Token { expires_in: 900, refresh_in: 450 };

#[derive(Clone)]
pub struct FakeCountersign {
    state: Arc<Mutex<State>>,
}

struct State {
    answer: Answer,
    asked: Vec<rpc::IssueTokenRequest>,
    asked_at: Vec<Instant>,
}

impl FakeCountersign {
    pub fn new(answer: Answer) -> Self {
        Self {
            state: Arc::new(Mutex::new(State { answer, asked: Vec::new(), asked_at: Vec::new() })),
        }
    }

    pub fn answers(&self, answer: Answer) {
        self.state.lock().expect("no thread panicked with the lock").answer = answer;
    }

    /// How many tokens it was asked for.
    pub fn asked(&self) -> usize {
        self.state.lock().expect("no thread panicked with the lock").asked.len()
    }

    /// When it was asked.
    pub fn asked_at(&self) -> Vec<Instant> {
        self.state.lock().expect("no thread panicked with the lock").asked_at.clone()
    }

    /// The secret of the last request.
    pub fn last_secret(&self) -> String {
        let state = self.state.lock().expect("no thread panicked with the lock");
        match state.asked.last().and_then(|request| request.credential.clone()) {
            Some(Credential::ClientSecret(secret)) => secret,
            Some(Credential::ClientAssertion(_)) => panic!("it has a key and no secret"),
            None => panic!("nobody asked"),
        }
    }

    /// The assertion of the last request.
    pub fn last_assertion(&self) -> String {
        let state = self.state.lock().expect("no thread panicked with the lock");
        match state.asked.last().and_then(|request| request.credential.clone()) {
            Some(Credential::ClientAssertion(assertion)) => assertion,
            Some(Credential::ClientSecret(_)) => panic!("it has a secret and no key"),
            None => panic!("nobody asked"),
        }
    }

    pub fn service(&self) -> TokenServiceServer<Self> {
        TokenServiceServer::new(self.clone())
    }

    /// A channel to it. It has no trust stream.
    pub fn channel(&self) -> Channel {
        connected(Server::builder().add_service(self.service()))
    }

    /// A channel to it, with a trust stream.
    pub fn channel_beside(&self, trust: &FakeTrust) -> Channel {
        connected(Server::builder().add_service(self.service()).add_service(trust.service()))
    }

    /// A session with it.
    pub fn session(&self) -> Session {
        self.session_as(Credentials::new(client("order"), "csec_hush"))
    }

    pub fn session_as(&self, credentials: Credentials) -> Session {
        Session::builder("http://127.0.0.1:1", credentials)
            .channel(self.channel())
            .issuer("https://issuer.test".parse().expect("a valid issuer"))
            .connect()
            .expect("a loopback address")
    }
}

/// A channel to a server in memory.
fn connected(server: Router) -> Channel {
    let (connections, incoming) = mpsc::unbounded_channel::<Result<DuplexStream, Status>>();
    tokio::spawn(server.serve_with_incoming(UnboundedReceiverStream::new(incoming)));
    let connect = tower::service_fn(move |_| {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let connected = connections.send(Ok(theirs)).map(|()| TokioIo::new(ours));
        std::future::ready(connected.map_err(|_| std::io::Error::other("it is gone")))
    });
    Endpoint::from_static("http://countersign").connect_with_connector_lazy(connect)
}

pub fn client(text: &str) -> ClientId {
    ClientId::new(text).expect("a valid client id")
}

fn secret_of(text: &str) -> Option<Credential> {
    Some(Credential::ClientSecret(text.to_owned()))
}

fn seconds(seconds: u64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: seconds.try_into().expect("small"), nanos: 0 })
}

#[tonic::async_trait]
impl TokenService for FakeCountersign {
    async fn issue_token(
        &self,
        request: Request<rpc::IssueTokenRequest>,
    ) -> Result<Response<rpc::IssueTokenResponse>, Status> {
        let request = request.into_inner();
        let (answer, number) = {
            let mut state = self.state.lock().expect("no thread panicked with the lock");
            state.asked.push(request.clone());
            state.asked_at.push(Instant::now());
            (state.answer, state.asked.len())
        };
        let (expires_in, refresh_in) = match answer {
            Answer::Token { expires_in, refresh_in } => (expires_in, refresh_in),
            Answer::Late(wait) => {
                tokio::time::sleep(Duration::from_secs(wait)).await;
                (900, 450)
            }
            Answer::Only(secret) if request.credential == secret_of(secret) => (900, 450),
            Answer::Only(_) => {
                tokio::time::sleep(Duration::from_secs(5)).await;
                return Err(Status::unauthenticated("as told"));
            }
            Answer::Error(code) => return Err(Status::new(code, "as told")),
            Answer::Nothing => std::future::pending().await,
        };
        Ok(Response::new(rpc::IssueTokenResponse {
            access_token: format!("{number}/{}/{}", request.audience, request.scopes.join("+")),
            token_type: "Bearer".to_owned(),
            expires_in: seconds(expires_in),
            refresh_in: seconds(refresh_in),
            ..Default::default()
        }))
    }

    async fn validate_token(
        &self,
        _: Request<rpc::ValidateTokenRequest>,
    ) -> Result<Response<rpc::ValidateTokenResponse>, Status> {
        Err(Status::unimplemented("it only issues"))
    }

    async fn revoke_token(
        &self,
        _: Request<rpc::RevokeTokenRequest>,
    ) -> Result<Response<rpc::RevokeTokenResponse>, Status> {
        Err(Status::unimplemented("it only issues"))
    }
}
