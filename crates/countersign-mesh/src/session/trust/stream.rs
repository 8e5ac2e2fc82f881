//! Countersign's stream of keys and revocations: opened, followed, and opened again.

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use futures_util::stream::poll_fn;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use crate::claims::Issuer;
use crate::rpc::trust_service_client::TrustServiceClient;
use crate::rpc::watch_trust_bundle_request::Event;
use crate::rpc::{TrustAck, TrustHello, WatchTrustBundleRequest, WatchTrustBundleResponse};
use crate::session::reach::jitter::Jitter;
use crate::session::tokens::bearer_token::BearerToken;
use crate::session::tokens::current::NoToken;
use crate::session::tokens::source::TokenSource;
use crate::session::trust::feed::{FedBy, Feed, NotTaken};
use crate::session::trust::parts::{self, Gathering, Nonsense, Update};

/// How often the server sends a heartbeat while nothing changes.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);

/// A stream that says nothing for this long is lost: three heartbeats.
const LONGEST_SILENCE: Duration = HEARTBEAT_EVERY.saturating_mul(3);

/// How long a token, and the answer to the opening of a stream, may take.
const LONGEST_OPENING: Duration = Duration::from_secs(10);

/// The first wait after a stream was lost, at most.
const RECONNECT_AFTER: Duration = Duration::from_millis(100);

/// The longest wait. Less than the 30 seconds that a server which has just started lets its verifiers
/// have to come back, before it rotates without them.
const LONGEST_BACKOFF: Duration = Duration::from_secs(15);

/// How long after a refusal the stream is asked for again.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5 * 60);

/// When refused tokens count as a refusal of the stream: after so many in a row, over at least this
/// time. That is longer than a token source takes to replace a second token, since keys or tokens may
/// be revoked twice in a row.
const BAD_TOKENS: u32 = 4;
const BAD_TOKENS_FOR: Duration = Duration::from_secs(10);

/// The largest message, in bytes. Parts of snapshots are much smaller.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// How many acknowledgements may wait to be sent.
const ACKS: usize = 16;

/// What it takes to open the stream.
pub(crate) struct TrustStream {
    pub(crate) channel: Channel,
    pub(crate) tokens: TokenSource,
    pub(crate) verifier_name: String,
    pub(crate) jitter: Jitter,
}

/// Why a stream is over.
#[derive(Debug)]
enum Over {
    /// Countersign has no stream for us.
    Refused(Status),
    /// The token was refused; another one may be accepted.
    BadToken(Status),
    /// It did not open, or broke off.
    Lost(Status),
    /// The server closed it.
    Closed,
    /// Nothing came for too long.
    Silent,
    /// What came makes no sense.
    Nonsense(Nonsense),
    /// What came is not accepted.
    NotTaken(NotTaken),
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) | Self::BadToken(status) | Self::Lost(status) => {
                write!(f, "{:?}: {}", status.code(), status.message())
            }
            Self::Closed => f.write_str("the server closed it"),
            Self::Silent => f.write_str("nothing came for too long"),
            Self::Nonsense(what) => f.write_str(what),
            Self::NotTaken(why) => why.fmt(f),
        }
    }
}

impl From<Nonsense> for Over {
    fn from(what: Nonsense) -> Self {
        Self::Nonsense(what)
    }
}

impl From<NotTaken> for Over {
    fn from(why: NotTaken) -> Self {
        Self::NotTaken(why)
    }
}

/// Tokens that were refused one after the other.
struct BadTokens {
    since: Instant,
    how_many: u32,
}

impl Default for BadTokens {
    fn default() -> Self {
        Self { since: Instant::now(), how_many: 0 }
    }
}

impl BadTokens {
    /// Counts one more, and says whether the trouble may still pass by itself: there were few so far,
    /// or all of them came within a short time. Time alone would not do: on a slow network even few
    /// take long.
    fn may_pass(&mut self) -> bool {
        self.how_many += 1;
        self.how_many < BAD_TOKENS || self.since.elapsed() < BAD_TOKENS_FOR
    }
}

impl TrustStream {
    /// Feeds from one stream after the other. Never ends.
    pub(crate) async fn feed(&self, feed: &Feed) {
        let mut failures: u32 = 0;
        let mut refused = false;
        let mut bad_tokens: Option<BadTokens> = None;
        loop {
            let began = Instant::now();
            let over = self.follow(feed).await;
            let was_up = *feed.fed_by().borrow() == FedBy::Stream;
            if was_up {
                (refused, bad_tokens) = (false, None);
                feed.watch.lost_stream();
                // A stream that breaks off at once is no success: the waits go on growing.
                if began.elapsed() >= HEARTBEAT_EVERY {
                    failures = 0;
                }
            }
            let wait = match &over {
                Over::BadToken(_) if !refused && bad_tokens.get_or_insert_default().may_pass() => {
                    tracing::warn!(%over, "no trust stream; what is at hand is used on");
                    // The next token comes soon, so the wait stays short.
                    self.backoff(failures.min(4))
                }
                Over::Refused(_) | Over::BadToken(_) => {
                    if !refused {
                        feed.tell_polling(&over);
                    }
                    (refused, failures) = (true, 0);
                    self.jitter.spread(ASK_AGAIN_AFTER)
                }
                Over::Lost(_) | Over::Closed | Over::Silent => {
                    tracing::warn!(%over, "no trust stream; what is at hand is used on");
                    self.backoff(failures)
                }
                Over::Nonsense(_) | Over::NotTaken(_) => {
                    tracing::error!(%over, "the trust stream is not believed; what is at hand is used on");
                    self.backoff(failures)
                }
            };
            if matches!(over, Over::NotTaken(NotTaken::Unfounded)) {
                feed.begin_anew();
            }
            failures = failures.saturating_add(1);
            // A session that was refused goes on polling until a stream is up again.
            feed.is_fed_by(if refused { FedBy::Polling } else { FedBy::Nobody });
            sleep(wait).await;
        }
    }

    /// Opens a stream and follows it to its end.
    async fn follow(&self, feed: &Feed) -> Over {
        let token = match self.token().await {
            Ok(token) => token,
            Err(over) => return over,
        };
        match self.follow_with(feed, &token).await {
            // The token may have been revoked; a new one is not.
            Over::BadToken(status) => {
                let deadline = Instant::now() + LONGEST_OPENING;
                match self.tokens.replace(&token, deadline).await {
                    Some(token) => self.follow_with(feed, &token).await,
                    None => Over::BadToken(status),
                }
            }
            over => over,
        }
    }

    async fn follow_with(&self, feed: &Feed, token: &BearerToken) -> Over {
        let (acks, said) = mpsc::channel(ACKS);
        match self.open(feed, token, &acks, said).await {
            Ok(messages) => read(feed, messages, &acks).await,
            Err(over) => over,
        }
    }

    /// A random wait up to a limit that doubles with every failure, so that a fleet that was cut off
    /// together does not come back together.
    fn backoff(&self, failures: u32) -> Duration {
        let longest = RECONNECT_AFTER.saturating_mul(1 << failures.min(16)).min(LONGEST_BACKOFF);
        longest.mul_f64(self.jitter.fraction())
    }

    async fn token(&self) -> Result<BearerToken, Over> {
        let token = self.tokens.try_now(Instant::now() + LONGEST_OPENING).await;
        token.map_err(|error| match error {
            NoToken::Refused(status) => Over::Refused(status),
            NoToken::Unavailable(status) => Over::Lost(status),
        })
    }

    async fn open(
        &self,
        feed: &Feed,
        token: &BearerToken,
        say: &Said,
        mut said: mpsc::Receiver<WatchTrustBundleRequest>,
    ) -> Result<Streaming<WatchTrustBundleResponse>, Over> {
        let (have_epoch, have_epoch_proof) =
            feed.complete().map_or_else(Default::default, |held| (held.epoch, held.proof));
        let verifier_name = self.verifier_name.clone();
        let hello = TrustHello { verifier_name, have_epoch, have_epoch_proof };
        say_in_time(say, Event::Hello(hello)).await?;
        let mut request = Request::new(poll_fn(move |cx| said.poll_recv(cx)));
        let header = token.header().to_str().ok().and_then(|header| header.parse().ok());
        let mut header: AsciiMetadataValue = header.ok_or("a token that is no header")?;
        header.set_sensitive(true);
        request.metadata_mut().insert("authorization", header);
        let mut client =
            TrustServiceClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        match timeout(LONGEST_OPENING, client.watch_trust_bundle(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(over(status)),
            Err(_) => Err(Over::Silent),
        }
    }
}

type Said = mpsc::Sender<WatchTrustBundleRequest>;

/// Sends a message. A server that does not read for [`LONGEST_SILENCE`] counts as gone.
async fn say_in_time(say: &Said, event: Event) -> Result<(), Over> {
    let message = WatchTrustBundleRequest { event: Some(event) };
    match timeout(LONGEST_SILENCE, say.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Over::Closed),
        Err(_) => Err(Over::Silent),
    }
}

fn over(status: Status) -> Over {
    match status.code() {
        Code::PermissionDenied | Code::Unimplemented => Over::Refused(status),
        Code::Unauthenticated => Over::BadToken(status),
        _ => Over::Lost(status),
    }
}

/// Reads messages until the stream is over, and says why it is.
async fn read(feed: &Feed, mut messages: Streaming<WatchTrustBundleResponse>, say: &Said) -> Over {
    let (mut parts, mut acked) = (Gathering::default(), 0);
    loop {
        let message = match timeout(LONGEST_SILENCE, messages.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return Over::Closed,
            Ok(Err(status)) => {
                // When a stream ends before anything came, its status is the answer to its opening.
                let was_up = *feed.fed_by().borrow() == FedBy::Stream;
                return if was_up { Over::Lost(status) } else { over(status) };
            }
            Err(_) => return Over::Silent,
        };
        let held = match take_on(feed, &mut parts, message) {
            Ok(Some(epoch)) => epoch,
            Ok(None) => continue,
            Err(over) => return over,
        };
        feed.is_fed_by(FedBy::Stream);
        if acked != held {
            acked = held;
            if let Err(over) = say_in_time(say, Event::Ack(TrustAck { epoch: held })).await {
                return over;
            }
        }
    }
}

/// Applies what a message brings. Returns the epoch that is held, once the message completes something;
/// guards see that epoch by then.
fn take_on(
    feed: &Feed,
    parts: &mut Gathering,
    mut message: WatchTrustBundleResponse,
) -> Result<Option<u64>, Over> {
    // Taken first, so that the time it takes to apply a snapshot counts as age.
    let heard_at = Instant::now();
    feed.check_issuer(&message.issuer)?;
    let (age, max_staleness) = (parts::age(&message), parts::max_staleness(&message));
    let confirm = || {
        if let Some(age) = age {
            feed.watch.confirm(heard_at, age, max_staleness);
        }
    };
    let epoch = message.epoch;
    let proof = parts::proof(&mut message)?;
    match parts.add(epoch, message.event)? {
        Update::Snapshot(snapshot) => {
            let issuer = Issuer::new(&message.issuer).map_err(|_| "an issuer that is none")?;
            feed.replace(issuer, snapshot, proof)?;
        }
        Update::Delta(delta) => feed.change(delta, proof)?,
        Update::Part => return Ok(None),
        Update::Nothing(epoch) => {
            let held = feed.complete().map_or(0, |held| held.epoch);
            return match epoch.cmp(&held) {
                Ordering::Less => Err(NotTaken::Older { held, got: epoch }.into()),
                // The parts of that epoch are still on their way.
                Ordering::Greater if parts.has_some() => Ok(None),
                Ordering::Greater => Err(NotTaken::Unfounded.into()),
                Ordering::Equal => {
                    confirm();
                    Ok(Some(held))
                }
            };
        }
    }
    confirm();
    Ok(Some(epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refused_tokens_count_as_a_refusal_once_they_are_many_over_some_time() {
        let mut slow = BadTokens::default();
        for _ in 1..BAD_TOKENS {
            tokio::time::advance(BAD_TOKENS_FOR * 2).await;
            assert!(slow.may_pass(), "the network took its time");
        }
        assert!(!slow.may_pass());

        let mut quick = BadTokens::default();
        assert!((0..BAD_TOKENS * 2).all(|_| quick.may_pass()));
        tokio::time::advance(BAD_TOKENS_FOR).await;
        assert!(!quick.may_pass());
    }
}
