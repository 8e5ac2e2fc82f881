//! A trust stream whose other end is in the hands of a test.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::rpc::trust_service_server::{TrustService, TrustServiceServer};
use countersign::rpc::watch_trust_bundle_response::Event;
use countersign::rpc::{
    RevokedClient, RevokedToken, TrustContent, TrustDelta, TrustHeartbeat, TrustHello,
    TrustSnapshot, WatchTrustBundleRequest, WatchTrustBundleResponse, watch_trust_bundle_request,
};
use countersign_mesh::keys::{KeySet, SigningKey};
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::trust::ISSUER;

type Messages = mpsc::UnboundedSender<Result<WatchTrustBundleResponse, Status>>;

#[derive(Clone)]
pub struct FakeTrust {
    opened: mpsc::UnboundedSender<Opened>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    refuses: Option<Code>,
    asked_at: Vec<Instant>,
    tokens: Vec<String>,
}

/// The streams as they are opened.
pub struct Openings(mpsc::UnboundedReceiver<Opened>);

/// A stream that a verifier has opened.
pub struct Opened {
    requests: Streaming<WatchTrustBundleRequest>,
    messages: Messages,
}

/// The same once the verifier has said hello.
pub struct Watcher {
    pub hello: TrustHello,
    opened: Opened,
}

impl FakeTrust {
    pub fn new() -> (Self, Openings) {
        let (opened, openings) = mpsc::unbounded_channel();
        (Self { opened, state: Arc::default() }, Openings(openings))
    }

    /// Refuses streams with this code from now on.
    pub fn refuses(&self, code: Option<Code>) {
        self.state.lock().expect("no thread panicked with the lock").refuses = code;
    }

    /// When it was asked for streams.
    pub fn asked_at(&self) -> Vec<Instant> {
        self.state.lock().expect("no thread panicked with the lock").asked_at.clone()
    }

    /// The tokens with which it was asked.
    pub fn tokens(&self) -> Vec<String> {
        self.state.lock().expect("no thread panicked with the lock").tokens.clone()
    }

    pub fn service(&self) -> TrustServiceServer<Self> {
        TrustServiceServer::new(self.clone())
    }
}

#[tonic::async_trait]
impl TrustService for FakeTrust {
    type WatchTrustBundleStream =
        Pin<Box<dyn Stream<Item = Result<WatchTrustBundleResponse, Status>> + Send>>;

    async fn watch_trust_bundle(
        &self,
        request: Request<Streaming<WatchTrustBundleRequest>>,
    ) -> Result<Response<Self::WatchTrustBundleStream>, Status> {
        let token = request.metadata().get("authorization").and_then(|it| it.to_str().ok());
        let token = token.unwrap_or_default().to_owned();
        {
            let mut state = self.state.lock().expect("no thread panicked with the lock");
            state.asked_at.push(Instant::now());
            state.tokens.push(token);
            if let Some(code) = state.refuses {
                return Err(Status::new(code, "as told"));
            }
        }
        let (messages, answer) = mpsc::unbounded_channel();
        let opened = Opened { requests: request.into_inner(), messages };
        self.opened.send(opened).map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(answer))))
    }
}

/// Far longer than anything takes. With the clock paused it takes no time.
const LONG: Duration = Duration::from_secs(60 * 60);

impl Openings {
    /// The next stream, and its hello.
    pub async fn next(&mut self) -> Watcher {
        let opened = tokio::time::timeout(LONG, self.0.recv()).await.expect("in time");
        let mut opened = opened.expect("the server is there");
        let event = opened.said().await.expect("a hello");
        let watch_trust_bundle_request::Event::Hello(hello) = event else {
            panic!("{event:?} is not a hello")
        };
        Watcher { hello, opened }
    }
}

impl Opened {
    async fn said(&mut self) -> Option<watch_trust_bundle_request::Event> {
        let said = tokio::time::timeout(LONG, self.requests.message()).await.expect("in time");
        said.ok().flatten().map(|request| request.event.expect("a request has an event"))
    }
}

impl Watcher {
    pub fn send(&self, message: WatchTrustBundleResponse) {
        // The verifier may have gone away.
        let _ = self.opened.messages.send(Ok(message));
    }

    pub fn fail(self, code: Code) {
        let _ = self.opened.messages.send(Err(Status::new(code, "as told")));
    }

    /// The next epoch that is acknowledged; `None` when the stream ends.
    pub async fn ack(&mut self) -> Option<u64> {
        match self.opened.said().await? {
            watch_trust_bundle_request::Event::Ack(ack) => Some(ack.epoch),
            hello => panic!("{hello:?} is not an ack"),
        }
    }

    /// Sends a whole snapshot and waits until it is acknowledged.
    pub async fn bring(&mut self, epoch: u64, seed: u8) {
        self.send(snapshot(epoch, keys(seed), true));
        assert_eq!(self.ack().await, Some(epoch));
    }
}

fn time(unix: u64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: unix.try_into().expect("small"), nanos: 0 })
}

pub fn duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

/// The key of a seed.
pub fn keys(seed: u8) -> TrustContent {
    let keys = KeySet::from_iter([SigningKey::from_seed(&[seed; 32]).public().clone()]);
    TrustContent { jwks: keys.to_jwks(), ..Default::default() }
}

pub fn and_token(mut content: TrustContent, id: &str, until: u64) -> TrustContent {
    content.tokens.push(RevokedToken { token_id: id.to_owned(), until: time(until) });
    content
}

pub fn and_client(mut content: TrustContent, id: &str, before: u64, until: u64) -> TrustContent {
    let (before, until) = (time(before), time(until));
    content.clients.push(RevokedClient { client_id: id.to_owned(), before, until });
    content
}

/// A message that was true when it was sent.
fn message(epoch: u64, event: Event) -> WatchTrustBundleResponse {
    WatchTrustBundleResponse {
        issuer: ISSUER.to_owned(),
        epoch,
        epoch_proof: proof(epoch),
        as_of: None,
        age: duration(Duration::ZERO),
        max_staleness: duration(Duration::from_secs(60)),
        event: Some(event),
    }
}

/// The proof that comes with an epoch.
pub fn proof(epoch: u64) -> Vec<u8> {
    format!("proof of {epoch}").into_bytes()
}

pub fn snapshot(epoch: u64, content: TrustContent, last: bool) -> WatchTrustBundleResponse {
    message(epoch, Event::Snapshot(TrustSnapshot { content: Some(content), last }))
}

pub fn delta(from_epoch: u64, epoch: u64, content: TrustContent) -> WatchTrustBundleResponse {
    message(epoch, Event::Delta(TrustDelta { from_epoch, content: Some(content), last: true }))
}

pub fn heartbeat(epoch: u64) -> WatchTrustBundleResponse {
    message(epoch, Event::Heartbeat(TrustHeartbeat {}))
}
