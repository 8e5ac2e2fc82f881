//! One token that keeps itself fresh.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout_at;
use tonic::Status;

use crate::claims::Audience;
use crate::claims::ScopeSet;
use crate::mesh::endpoint::Endpoint;
use crate::mesh::endpoint::FetchError;
use crate::mesh::endpoint::Fetched;

/// The shortest and the longest wait between two tries to get a token.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// How often a token may be replaced because a callee refused it.
const FORCED_AT_MOST_EVERY: Duration = Duration::from_secs(5);

/// A token for one audience and one set of scopes, refreshed in the background for as long as a
/// handle of it is there. Cheap to clone.
#[derive(Clone)]
pub struct TokenSource {
    current: watch::Receiver<Current>,
    refresh: Arc<Notify>,
    forced_at: Arc<Mutex<Option<Instant>>>,
}

/// A token that is good, and when it stops to be.
#[derive(Clone)]
pub struct BearerToken {
    header: HeaderValue,
    expires_at: Instant,
    /// Counts the tokens of a source.
    generation: u64,
    fetched_at: Instant,
}

/// Why there is no token.
#[derive(Debug, Clone)]
pub enum NoToken {
    /// Countersign refuses to issue it.
    Refused(Status),
    /// Countersign has not answered in time.
    Unavailable(Status),
}

/// What there is: a token perhaps, and what became of the last try to get one.
#[derive(Default)]
struct Current {
    token: Option<BearerToken>,
    failure: Option<FetchError>,
}

impl TokenSource {
    /// Begins to fetch. Ends when the last handle is dropped.
    pub(super) fn start(endpoint: Endpoint, audience: Audience, scopes: ScopeSet) -> Self {
        let (state, current) = watch::channel(Current::default());
        let refresh = Arc::new(Notify::new());
        tokio::spawn(keep_fresh(endpoint, audience, scopes, state, Arc::clone(&refresh)));
        Self { current, refresh, forced_at: Arc::default() }
    }

    /// The token at hand, if there is one that has not expired. Never waits.
    pub fn current(&self) -> Option<BearerToken> {
        self.current.borrow().unexpired()
    }

    /// The token at hand, or the first one that comes before the deadline.
    ///
    /// # Errors
    /// At once when Countersign refuses to issue one; at the deadline when there is none by then.
    pub async fn token(&self, deadline: Instant) -> Result<BearerToken, NoToken> {
        let mut current = self.current.clone();
        let arrived = timeout_at(deadline, async {
            loop {
                if let Some(answer) = current.borrow_and_update().answer() {
                    return answer;
                }
                if current.changed().await.is_err() {
                    return Err(NoToken::Unavailable(Status::unavailable("the session has ended")));
                }
            }
        });
        match arrived.await {
            Ok(answer) => answer,
            Err(_) => Err(NoToken::Unavailable(match &self.current.borrow().failure {
                Some(FetchError::Unavailable(status)) => {
                    Status::unavailable(format!("no token in time: {}", status.message()))
                }
                _ => Status::unavailable("no token in time"),
            })),
        }
    }

    /// Another token than one that a callee refused: one that has come since, or a new one. `None`
    /// when there is none by the deadline, or when new ones are refused too: a callee that refuses
    /// everything cannot drive issuance.
    pub(super) async fn replace(
        &self,
        refused: &BearerToken,
        deadline: Instant,
    ) -> Option<BearerToken> {
        let newer = |current: &Current| {
            current.unexpired().filter(|token| token.generation != refused.generation)
        };
        let mut current = self.current.clone();
        if let Some(token) = newer(&current.borrow_and_update()) {
            return Some(token);
        }
        if !self.force_refresh(refused) {
            return None;
        }
        let arrived = timeout_at(deadline, async {
            loop {
                current.changed().await.ok()?;
                let state = current.borrow_and_update();
                if state.failure.is_some() || newer(&state).is_some() {
                    return newer(&state);
                }
            }
        });
        arrived.await.ok().flatten()
    }

    /// Has a new token fetched, unless that was asked for a moment ago. Says whether there is one to
    /// wait for.
    fn force_refresh(&self, refused: &BearerToken) -> bool {
        let mut forced_at = self.forced_at.lock().unwrap_or_else(PoisonError::into_inner);
        match *forced_at {
            // It is on its way: another call of the same refused token has asked for it.
            Some(at) if at >= refused.fetched_at => true,
            Some(at) if at.elapsed() < FORCED_AT_MOST_EVERY => false,
            _ => {
                *forced_at = Some(Instant::now());
                self.refresh.notify_one();
                true
            }
        }
    }
}

impl Current {
    fn unexpired(&self) -> Option<BearerToken> {
        self.token.as_ref().filter(|token| Instant::now() < token.expires_at).cloned()
    }

    /// What there is to say without waiting any longer.
    fn answer(&self) -> Option<Result<BearerToken, NoToken>> {
        match (self.unexpired(), &self.failure) {
            (Some(token), _) => Some(Ok(token)),
            (None, Some(FetchError::Refused(status))) => {
                Some(Err(NoToken::Refused(status.clone())))
            }
            (None, Some(FetchError::Unavailable(_)) | None) => None,
        }
    }
}

impl BearerToken {
    fn new(fetched: &Fetched, asked_at: Instant, generation: u64) -> Option<Self> {
        let mut header =
            HeaderValue::try_from(format!("Bearer {}", fetched.token.expose())).ok()?;
        header.set_sensitive(true);
        // Counted from when it was asked for: it cannot have been issued before.
        let expires_at = asked_at + fetched.expires_in;
        Some(Self { header, expires_at, generation, fetched_at: asked_at })
    }

    /// The value of an `authorization` header, marked as sensitive.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// How long it is still good for.
    pub fn runway(&self) -> Duration {
        self.expires_at.saturating_duration_since(Instant::now())
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerToken").field("runway", &self.runway()).finish_non_exhaustive()
    }
}

async fn keep_fresh(
    endpoint: Endpoint,
    audience: Audience,
    scopes: ScopeSet,
    state: watch::Sender<Current>,
    refresh: Arc<Notify>,
) {
    let (mut generation, mut failures) = (0, 0);
    loop {
        let asked_at = Instant::now();
        let fetched = tokio::select! {
            () = state.closed() => return,
            fetched = endpoint.fetch(&audience, &scopes) => fetched,
        };
        let token = fetched.and_then(|fetched| {
            let token = BearerToken::new(&fetched, asked_at, generation + 1);
            let token = token
                .ok_or_else(|| FetchError::Refused(Status::internal("no token in the answer")))?;
            Ok((token, fetched.refresh_in))
        });
        let wait = match token {
            Ok((token, refresh_in)) => {
                (generation, failures) = (generation + 1, 0);
                state.send_replace(Current { token: Some(token), failure: None });
                refresh_in.max(BACKOFF.0)
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(%audience, %scopes, ?error, failures, "no token");
                state.send_modify(|current| current.failure = Some(error));
                backoff(failures)
            }
        };
        tokio::select! {
            () = state.closed() => return,
            () = sleep(wait) => {}
            () = refresh.notified() => {}
        }
    }
}

/// Doubles with every failure, up to the longest wait; somewhere in its upper half, so that a fleet
/// does not come back all at once.
fn backoff(failures: u32) -> Duration {
    let longest = BACKOFF.0.saturating_mul(1 << failures.min(16)).min(BACKOFF.1);
    let spread = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
    longest.mul_f64(0.5 + spread / 2.0)
}
