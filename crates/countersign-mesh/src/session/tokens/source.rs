//! One token that keeps itself fresh.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::claims::ScopeSet;
use crate::guard::ERROR_DOMAIN;
use crate::session::reach::jitter::Jitter;
use crate::session::tokens::bearer_token::BearerToken;
use crate::session::tokens::current::{Current, Forced, NoToken, Wishes};
use crate::session::tokens::endpoint::Endpoint;
use crate::session::tokens::meter::Meter;
use crate::session::tokens::oauth::OAuthEndpoint;
use crate::session::tokens::refresh::keep_fresh;

/// The reasons of a call that gets no token, where the issuer gives none of its own.
const TOKEN_REFUSED: &str = "TOKEN_REFUSED";
const TOKEN_UNAVAILABLE: &str = "TOKEN_UNAVAILABLE";

/// How often a token may be replaced because a callee refused it, at most.
const FORCED_AT_MOST_EVERY: Duration = Duration::from_secs(5);

/// A token for one audience and one set of scopes, refreshed in the background for as long as a
/// handle of it is there: a clone of it, or the session that it came from. Cheap to clone.
#[derive(Clone)]
pub struct TokenSource {
    current: watch::Receiver<Current>,
    wishes: Arc<Wishes>,
    meter: Meter,
}

impl TokenSource {
    /// Tokens of any issuer that has an OAuth 2.0 token endpoint (RFC 6749 §4.4), such as a
    /// partner's. Begins to fetch; ends when the last handle is dropped. Must be called within a
    /// tokio runtime.
    pub fn oauth(endpoint: OAuthEndpoint, scopes: ScopeSet) -> Self {
        Self::start(Endpoint::OAuth { endpoint: Box::new(endpoint), scopes }, Jitter::system())
    }

    /// Begins to fetch. Ends when the last handle is dropped.
    pub(crate) fn start(endpoint: Endpoint, jitter: Jitter) -> Self {
        let (state, current) = watch::channel(Current::default());
        let wishes = Arc::<Wishes>::default();
        let meter = Meter::new(endpoint.audience(), endpoint.scopes());
        tokio::spawn(keep_fresh(endpoint, state, Arc::clone(&wishes), meter.clone(), jitter));
        Self { current, wishes, meter }
    }

    /// The token at hand, if there is one that has not expired. Never waits.
    pub fn current(&self) -> Option<BearerToken> {
        self.current.borrow().unexpired()
    }

    /// The token at hand, or the first one that comes before the deadline.
    ///
    /// # Errors
    /// At once when the issuer refuses to issue one; at the deadline when there is none by then.
    pub async fn token(&self, deadline: Instant) -> Result<BearerToken, NoToken> {
        if let Some(answer) = self.answer() {
            return answer;
        }
        let began = Instant::now();
        let answer = self.first_token(deadline).await;
        self.meter.waited(began.elapsed());
        answer
    }

    async fn first_token(&self, deadline: Instant) -> Result<BearerToken, NoToken> {
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
            Err(_) => Err(self.current.borrow().not_in_time()),
        }
    }

    /// The token at hand, or what comes of one more try, made now: for a caller that does its own
    /// backing off, and cannot wait for that of the source too.
    pub(crate) async fn try_now(&self, deadline: Instant) -> Result<BearerToken, NoToken> {
        let tries = self.current.borrow().tries;
        match self.answer() {
            Some(Ok(token)) => return Ok(token),
            // `answer` has asked for another try.
            Some(Err(_)) => {}
            None if tries > 0 => self.wishes.refresh.notify_one(),
            // The first try is under way.
            None => {}
        }
        let mut current = self.current.clone();
        let tried = current.wait_for(|current| current.tries > tries);
        // What came of the try, or that there was none in time, is seen below.
        drop(timeout_at(deadline, tried).await);
        self.at_hand()
    }

    /// What there is to say without waiting: a token, or why there is none yet.
    pub(crate) fn at_hand(&self) -> Result<BearerToken, NoToken> {
        self.answer().unwrap_or_else(|| Err(self.current.borrow().not_in_time()))
    }

    /// What a call ends with that gets no token: UNAUTHENTICATED or UNAVAILABLE, with an `ErrorInfo` that names what
    /// the token was for. Its reason is the issuer's own.
    pub(crate) fn status(&self, error: NoToken) -> Status {
        let (audience, scopes) = (self.meter.audience(), self.meter.scopes());
        let (code, otherwise, issuers) = match &error {
            // Whatever code the issuer chose: for this call it means that the caller cannot authenticate.
            NoToken::Refused(status) => (Code::Unauthenticated, TOKEN_REFUSED, status),
            NoToken::Unavailable(status) => (status.code(), TOKEN_UNAVAILABLE, status),
        };
        let info = issuers.get_details_error_info().filter(|info| info.domain == ERROR_DOMAIN);
        let reason = info.map_or_else(|| otherwise.to_owned(), |info| info.reason);
        let metadata = [("audience", audience), ("scopes", scopes)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, HashMap::from(metadata));
        let message = format!("{error} (audience {audience}, scopes {scopes:?})");
        Status::with_error_details(code, message, details)
    }

    fn answer(&self) -> Option<Result<BearerToken, NoToken>> {
        let answer = self.current.borrow().answer();
        if let Some(Err(NoToken::Refused(_))) = answer {
            self.wishes.asked.notify_one();
        }
        answer
    }

    /// Another token than one that a callee refused, such as with a 401: one that has come since, or a
    /// new one. `None` when there is none by the deadline, or when new ones are refused too: a callee
    /// that refuses everything cannot drive issuance, which takes place once in five seconds at most.
    ///
    /// Calls through [`Session::attach`](crate::session::Session::attach) do this by themselves.
    pub async fn replace(&self, refused: &BearerToken, deadline: Instant) -> Option<BearerToken> {
        let mut current = self.current.clone();
        let forced = self.force_refresh(refused);
        let arrived = timeout_at(deadline, async {
            loop {
                {
                    // The borrow is a lock on the channel: it must end before the next wait.
                    let state = current.borrow_and_update();
                    let newer =
                        state.unexpired().filter(|token| token.generation > refused.generation);
                    let failed = forced.is_none_or(|forced| state.tries > forced.tries);
                    if newer.is_some() || failed {
                        return newer;
                    }
                }
                current.changed().await.ok()?;
            }
        });
        arrived.await.ok().flatten()
    }

    /// Starts to fetch a token in place of a refused one, unless that was replaced already, or one was
    /// replaced a moment ago. Returns what to wait for; `None` when a newer token is here.
    fn force_refresh(&self, refused: &BearerToken) -> Option<Forced> {
        // Held throughout, so that of many calls with the same refused token only one starts a fetch.
        let mut last = self.wishes.forced.lock().unwrap_or_else(PoisonError::into_inner);
        let (newest, tries) = {
            let current = self.current.borrow();
            (current.token.as_ref().map_or(0, |token| token.generation), current.tries)
        };
        if newest > refused.generation {
            return None;
        }
        match *last {
            // A replacement is on its way because of another call, or has failed a moment ago.
            Some(forced) if forced.at.elapsed() < FORCED_AT_MOST_EVERY => Some(forced),
            _ => {
                let forced = Forced { at: Instant::now(), tries };
                *last = Some(forced);
                self.wishes.refresh.notify_one();
                Some(forced)
            }
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource").field("current", &self.current()).finish_non_exhaustive()
    }
}
