//! One verifier's stream: what it is sent and when, what it acknowledges, and why it ends.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use countersign_mesh::claims::Audience;
use countersign_mesh::guard::{ERROR_DOMAIN, Permitted, Refusal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tonic::{Code, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

use crate::authority::{Authority, Seat, Version, Watched};
use crate::ring::ACK_DEADLINE;
use crate::rpc;
use crate::rpc::watch_trust_bundle_request::Event as Said;
use crate::rpc::watch_trust_bundle_response::Event;
use crate::server::desk::Desk;
use crate::server::fields::{wire_duration, wire_time};
use crate::server::grpc::trust_chunks::Chunks;

/// How often a verifier is told that nothing has changed.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How many epochs may be sent without an acknowledgement. After that the next delta waits and grows.
const MOST_OWED: usize = 16;

/// How much longer a verifier may take for each part after the first: 100,000 revocations take a while over a slow
/// line.
const PART_ALLOWANCE: Duration = Duration::from_secs(1);

pub(super) struct VerifierStream {
    authority: Arc<Authority>,
    caller: Permitted,
    told: Watched,
    seat: Arc<Seat>,
    version: watch::Receiver<Version>,
    parts: mpsc::Sender<rpc::WatchTrustBundleResponse>,
    /// The epoch that the verifier has once it has taken all that was sent.
    sent: u64,
    /// Epochs that were sent and are not acknowledged yet, with their deadlines; oldest first.
    owed: VecDeque<(u64, Instant)>,
    /// Whether the token's key is revoked. The verifier is told of that first, and comes back with another token.
    ends_at: Option<u64>,
}

/// What is on its way.
struct Sending {
    parts: Chunks,
    until: Instant,
}

impl VerifierStream {
    pub(super) fn new(
        desk: &Desk,
        caller: &Permitted,
        told: Watched,
        seat: &Arc<Seat>,
        version: watch::Receiver<Version>,
        parts: mpsc::Sender<rpc::WatchTrustBundleResponse>,
    ) -> Self {
        Self {
            authority: Arc::clone(&desk.authority),
            caller: caller.clone(),
            told,
            seat: Arc::clone(seat),
            version,
            parts,
            sent: 0,
            owed: VecDeque::new(),
            ends_at: None,
        }
    }

    /// Serves the verifier from the epoch that it has, until there is a reason to end.
    pub(super) async fn run(
        mut self,
        inbound: Streaming<rpc::WatchTrustBundleRequest>,
        have_epoch: u64,
        stopped: watch::Receiver<()>,
    ) -> Status {
        let parts = self.parts.clone();
        let status = tokio::select! {
            status = self.serve(inbound, have_epoch) => status,
            // Its connection is gone, or it has hung up.
            () = parts.closed() => Status::cancelled("the verifier has gone"),
            () = until_dropped(stopped) => ended(
                Code::Unavailable,
                "SERVER_STOPPING",
                "this server stops; watch another, or come back",
            ),
        };
        self.seat.leave();
        status
    }

    async fn serve(
        &mut self,
        mut inbound: Streaming<rpc::WatchTrustBundleRequest>,
        have_epoch: u64,
    ) -> Status {
        self.sent = have_epoch;
        // Sent even when nothing has changed: only its acknowledgement shows that the verifier has this epoch.
        let mut sending = Some(self.changes());
        let mut heard = Heard::Speaks;
        let parts = self.parts.clone();
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A revocation since the guard let the stream in counts, too.
        self.version.mark_changed();
        loop {
            let due = self.due(sending.as_ref());
            tokio::select! {
                biased;
                changed = self.version.changed() => {
                    if changed.is_err() {
                        return ended(Code::Unavailable, "SERVER_STOPPING", "this server stops");
                    }
                    if let Err(status) = self.check_standing() {
                        return status;
                    }
                }
                said = inbound.message(), if heard == Heard::Speaks => match said {
                    Ok(Some(message)) => {
                        if let Err(status) = self.hear(&message) {
                            return status;
                        }
                    }
                    // The verifier will send nothing more. It is let go, unless it owes no acknowledgement.
                    Ok(None) => heard = Heard::HasEnded,
                    Err(status) => return status,
                },
                () = at(due) => {
                    self.seat.let_go();
                    return ended(
                        Code::Aborted,
                        "VERIFIER_LAGGING",
                        "the verifier did not acknowledge what it was sent in time",
                    );
                }
                permit = parts.reserve(), if sending.is_some() => {
                    let (Ok(permit), Some(now)) = (permit, sending.as_mut()) else { continue };
                    let (event, is_last) = now.parts.next();
                    permit.send(self.message(now.parts.epoch(), event));
                    if is_last {
                        self.sent = now.parts.epoch();
                        self.owed.push_back((self.sent, now.until));
                        sending = None;
                        heartbeat.reset();
                    }
                    // Lets other tasks run: a fast reader would otherwise keep this one busy.
                    tokio::task::yield_now().await;
                }
                _ = heartbeat.tick(), if sending.is_none() => {
                    // If there is no room for a heartbeat, the verifier has something else to read.
                    if let Ok(permit) = parts.try_reserve() {
                        permit.send(self.message(self.sent, Event::Heartbeat(rpc::TrustHeartbeat {})));
                    }
                }
            }
            let newest = self.version.borrow().epoch;
            if sending.is_none() && newest > self.sent && self.owed.len() < MOST_OWED {
                sending = Some(self.changes());
            }
        }
    }

    /// The change from what was sent last to what is published now.
    fn changes(&self) -> Sending {
        let parts = Chunks::new(self.authority.since(self.sent, self.told.serves()));
        let allowance = PART_ALLOWANCE * u32::try_from(parts.count() - 1).unwrap_or(u32::MAX);
        Sending { parts, until: Instant::now() + ACK_DEADLINE + allowance }
    }

    /// When the verifier must have acknowledged something.
    fn due(&self, sending: Option<&Sending>) -> Option<Instant> {
        let owed = self.owed.front().map(|(_, until)| *until);
        owed.or(sending.map(|sending| sending.until))
    }

    fn hear(&mut self, message: &rpc::WatchTrustBundleRequest) -> Result<(), Status> {
        let Some(Said::Ack(rpc::TrustAck { epoch })) = message.event else {
            return Err(ended(
                Code::InvalidArgument,
                "REQUEST_INVALID",
                "after the hello, a verifier only acknowledges",
            ));
        };
        if epoch > self.sent {
            return Err(ended(
                Code::InvalidArgument,
                "REQUEST_INVALID",
                "the verifier acknowledges an epoch that it was not sent",
            ));
        }
        self.owed.retain(|(owed, _)| *owed > epoch);
        self.seat.acknowledge(epoch);
        match self.ends_at {
            Some(last) if epoch >= last => Err(Refusal::TokenRevoked.to_status()),
            _ => Ok(()),
        }
    }

    /// Whether the stream may go on.
    fn check_standing(&mut self) -> Result<(), Status> {
        let client = &self.caller.claims().client_id;
        if self.authority.is_revoked(self.caller.token()) {
            return Err(Refusal::TokenRevoked.to_status());
        }
        if !self.authority.is_still_told(client, &self.told) {
            return Err(ended(
                Code::Unavailable,
                "CLIENT_CHANGED",
                "what the client serves, or may call, was changed; open another stream",
            ));
        }
        if self.ends_at.is_none() && self.authority.is_key_revoked(self.caller.token()) {
            self.ends_at = Some(self.version.borrow().epoch);
        }
        Ok(())
    }

    fn message(&self, epoch: u64, event: Event) -> rpc::WatchTrustBundleResponse {
        let as_of = self.authority.as_of();
        rpc::WatchTrustBundleResponse {
            issuer: self.authority.bundle().issuer.to_string(),
            epoch,
            epoch_proof: epoch_proof(&self.authority, epoch, self.told.serves()),
            as_of: Some(wire_time(as_of)),
            age: Some(wire_duration(self.authority.age())),
            max_staleness: Some(wire_duration(self.authority.max_staleness())),
            event: Some(event),
        }
    }
}

#[derive(PartialEq, Eq)]
enum Heard {
    Speaks,
    HasEnded,
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn until_dropped(mut sender: watch::Receiver<()>) {
    while sender.changed().await.is_ok() {}
}

fn ended(code: Code, reason: &'static str, message: &'static str) -> Status {
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(code, message, details)
}

/// Proves to us that we sent an epoch, and for which audiences.
pub(super) fn epoch_proof(authority: &Authority, epoch: u64, serves: &[Audience]) -> Vec<u8> {
    [authority.epoch_proof(epoch), authority.audiences_proof(serves)].concat()
}
