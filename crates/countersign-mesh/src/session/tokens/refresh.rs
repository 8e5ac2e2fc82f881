//! The task behind a token source.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tonic::Status;

use crate::claims::MAX_TOKEN_LIFE;
use crate::session::reach::jitter::Jitter;
use crate::session::tokens::bearer_token::BearerToken;
use crate::session::tokens::current::{Current, Wishes};
use crate::session::tokens::endpoint::Endpoint;
use crate::session::tokens::fetched::{FetchError, Fetched};
use crate::session::tokens::meter::Meter;

/// The first wait after a failure.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The first wait after a refusal: the issuer answers, and asking it often changes nothing.
const RETRY_REFUSED_AFTER: Duration = Duration::from_secs(1);

/// The longest wait after a failure or a refusal.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// The shortest time from one token to the fetch of the next, whatever the issuer says.
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);

/// Fetches a token, and the next when the issuer says so or a caller asks; ends when nobody has the
/// other half of `state` any more.
pub(crate) async fn keep_fresh(
    endpoint: Endpoint,
    state: watch::Sender<Current>,
    wishes: Arc<Wishes>,
    meter: Meter,
    jitter: Jitter,
) {
    let (mut generation, mut failures) = (0, 0);
    loop {
        let asked_at = Instant::now();
        let fetched = tokio::select! {
            () = state.closed() => return,
            fetched = endpoint.fetch() => fetched,
        };
        let token = fetched.and_then(|fetched| {
            BearerToken::new(&fetched.token, asked_at, fetched.expires_in, generation + 1)
                .map(|token| (token, refresh_after(&fetched)))
                .ok_or_else(|| {
                    FetchError::Unavailable(Status::internal("the answer holds no good token"))
                })
        });
        let (wait, refused) = match token {
            Ok((token, refresh_in)) => {
                (generation, failures) = (generation + 1, 0);
                meter.refreshed(token.runway());
                state.send_modify(|current| {
                    current.token = Some(token);
                    current.failure = None;
                    current.tries += 1;
                });
                (refresh_in, false)
            }
            Err(error) => {
                failures += 1;
                let (audience, scopes) = (endpoint.audience(), endpoint.scopes());
                tracing::warn!(audience, %scopes, %error, failures, "no token");
                let wait = backoff(&error, failures, &jitter);
                let refused = matches!(error, FetchError::Refused(_));
                state.send_modify(|current| {
                    current.failure = Some(error);
                    current.tries += 1;
                });
                meter.failed(state.borrow().unexpired().map(|token| token.runway()));
                (wait, refused)
            }
        };
        tokio::select! {
            () = state.closed() => return,
            () = sleep(wait) => {}
            () = wishes.refresh.notified() => continue,
        }
        // After a refusal, wait until somebody needs the token: asking for it over and over helps
        // nobody.
        if refused && state.borrow().unexpired().is_none() {
            tokio::select! {
                () = state.closed() => return,
                () = wishes.asked.notified() => {}
            }
        }
    }
}

/// When to fetch the next token. When the issuer says nothing sensible, at half of the token's life.
fn refresh_after(fetched: &Fetched) -> Duration {
    let life = fetched.expires_in.min(MAX_TOKEN_LIFE);
    let sensible = !fetched.refresh_in.is_zero() && fetched.refresh_in < life;
    let refresh_in = if sensible { fetched.refresh_in } else { life / 2 };
    refresh_in.max(SHORTEST_REFRESH)
}

/// Doubles with every failure, up to the longest wait; somewhere in its upper half, so that a fleet
/// does not come back all at once.
fn backoff(error: &FetchError, failures: u32, jitter: &Jitter) -> Duration {
    let first = match error {
        FetchError::Refused(_) => RETRY_REFUSED_AFTER,
        FetchError::Unavailable(_) => RETRY_AFTER,
    };
    let longest = first.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_BACKOFF);
    jitter.spread(longest)
}
