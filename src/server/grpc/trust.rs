//! `TrustService`: who may watch, and from which epoch on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use countersign_mesh::claims::Audience;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::authority::{Authority, NotSeated, Seat};
use crate::rpc;
use crate::rpc::trust_service_server::TrustService;
use crate::rpc::watch_trust_bundle_request::Event;
use crate::server::desk::Desk;
use crate::server::errors::CallError;
use crate::server::fields::InvalidField;
use crate::server::grpc::verifier_stream::{VerifierStream, epoch_proof};
use crate::server::grpc::{Call, end};

/// How long a verifier may take to say who it is.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);

/// The longest name of a verifier.
const MAX_NAME: usize = 128;

pub(in crate::server) struct TrustStreams {
    pub(in crate::server) desk: Desk,
    /// Its sender is dropped when the server stops: streams would outlast every other call.
    pub(in crate::server) stopped: watch::Receiver<()>,
}

/// What a verifier holds when it comes.
pub(super) struct Hello {
    name: String,
    /// The epoch to go on from; 0 for none.
    have_epoch: u64,
}

#[tonic::async_trait]
impl TrustService for TrustStreams {
    type WatchTrustBundleStream = Updates;

    async fn watch_trust_bundle(
        &self,
        request: Request<Streaming<rpc::WatchTrustBundleRequest>>,
    ) -> Result<Response<Updates>, Status> {
        let call = Call::permitted(request)?;
        let notes = Arc::clone(&call.notes);
        end(&notes, self.open(call).await)
    }
}

impl TrustStreams {
    async fn open(
        &self,
        mut call: Call<Streaming<rpc::WatchTrustBundleRequest>>,
    ) -> Result<Updates, CallError> {
        let authority = &self.desk.authority;
        let client = &call.caller.claims().client_id;
        // Subscribed before the store is read, so that no change in between is missed.
        let version = authority.version();
        let told = authority.told(client).ok_or(CallError::ClientGone)?;
        let hello = hello(&mut call.message).await?;
        let have_epoch = have_epoch(authority, &hello, told.serves())?;
        let hello = Hello { name: hello.verifier_name, have_epoch };
        let seat =
            authority.seat_verifier(client, &hello.name).await.map_err(|error| match error {
                NotSeated::TooMany(limit) => CallError::TooManyStreams(limit),
                NotSeated::Store(error) => CallError::Store(error),
            })?;
        let seat = Arc::new(seat);
        // Room for one part: for a slow reader no further part is made, and its next delta is larger instead.
        let (parts, taken) = mpsc::channel(1);
        let (ended, end) = oneshot::channel();
        let session = VerifierStream::new(&self.desk, &call.caller, told, &seat, version, parts);
        let (inbound, stopped) = (call.message, self.stopped.clone());
        let from = hello.have_epoch;
        tokio::spawn(async move {
            let status = session.run(inbound, from, stopped).await;
            // Nobody is told when the verifier has gone.
            let _ = ended.send(status);
        });
        Ok(Updates { parts: taken, end: Some(end), _seat: seat })
    }
}

async fn hello(
    inbound: &mut Streaming<rpc::WatchTrustBundleRequest>,
) -> Result<rpc::TrustHello, InvalidField> {
    let missing = || InvalidField::new("hello", "it must be the first message, within 10 seconds");
    let first = tokio::time::timeout(HELLO_DEADLINE, inbound.message()).await;
    let Ok(Ok(Some(rpc::WatchTrustBundleRequest { event: Some(Event::Hello(hello)) }))) = first
    else {
        return Err(missing());
    };
    let name = hello.verifier_name.as_bytes();
    if name.len() > MAX_NAME || !name.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        let problem = "longer than 128 characters, or not printable ASCII";
        return Err(InvalidField::new("hello.verifier_name", problem));
    }
    Ok(hello)
}

/// The epoch that a verifier goes on from. It is the one that it proves, if it was told of the same audiences then
/// as it is now. Otherwise it begins anew, from 0.
///
/// # Errors
/// When the verifier proves a later epoch than ours: our state would make it forget revocations.
fn have_epoch(
    authority: &Authority,
    hello: &rpc::TrustHello,
    serves: &[Audience],
) -> Result<u64, CallError> {
    let epoch = hello.have_epoch;
    let proof = &hello.have_epoch_proof;
    if authority.verifier_is_ahead(epoch, &proof[..proof.len().min(16)]) {
        return Err(CallError::PutBack);
    }
    let known =
        epoch <= authority.bundle().epoch && *proof == epoch_proof(authority, epoch, serves);
    Ok(if known { epoch } else { 0 })
}

/// The stream that a verifier is sent. It ends as soon as there is a reason to, whatever is still to be sent.
pub(in crate::server) struct Updates {
    parts: mpsc::Receiver<rpc::WatchTrustBundleResponse>,
    /// None once it has ended.
    end: Option<oneshot::Receiver<Status>>,
    /// A client's stream counts until it is gone, and not just until it has ended: what the client does not read stays
    /// in our memory.
    _seat: Arc<Seat>,
}

impl Stream for Updates {
    type Item = Result<rpc::WatchTrustBundleResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(end) = self.end.as_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(status) = Pin::new(end).poll(cx) {
            self.end = None;
            return Poll::Ready(status.ok().map(Err));
        }
        match self.parts.poll_recv(cx) {
            Poll::Ready(Some(part)) => Poll::Ready(Some(Ok(part))),
            // The reason follows at once.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
