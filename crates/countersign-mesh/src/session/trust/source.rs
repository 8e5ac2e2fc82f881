//! Trust that keeps itself fresh: from Countersign's stream, or from an issuer's JWK Set where there
//! is no stream.
//!
//! A poller learns of new keys, but not of revocations of tokens and clients: a revoked token is
//! accepted until it expires.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::Uri;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::claims::{Clock, Issuer};
use crate::guard::{Trust, WhenStale};
use crate::keys::{InvalidKeySet, KeySet};
use crate::session::reach::address::{Plaintext, Roots, address};
use crate::session::reach::error::SessionError;
use crate::session::reach::http_client::HttpClient;
use crate::session::reach::jitter::Jitter;
use crate::session::trust::feed::{FedBy, Feed};
use crate::session::trust::freshness::Watch;
use crate::session::trust::health::Health;
use crate::session::trust::stream::TrustStream;
use crate::trust::{Revocations, TrustBundle};

/// How often keys are fetched: Countersign lets them be cached for a minute.
const POLL_EVERY: Duration = Duration::from_secs(60);

/// How long until the next try, when keys could not be fetched.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How long the stream may take to bring its first bundle. After that keys are polled, so that calls
/// can begin. No shorter, since the issuer makes rotations wait for whoever has polled.
const STREAM_COMES_WITHIN: Duration = Duration::from_secs(3);

/// How often tokens with unknown keys may cause a fetch, at most.
const UNKNOWN_KEY_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// Whose keys are fetched.
#[derive(Debug, Clone)]
pub(crate) enum KeysOf {
    /// Countersign's keys. The JWK Set says which issuer it is of; if an issuer is named here, it must
    /// be that one.
    Countersign(Option<Issuer>),
    /// The keys of an issuer that is known beforehand.
    Issuer(Issuer),
}

/// Where keys are.
#[derive(Clone)]
pub(crate) struct Jwks {
    pub(crate) uri: Uri,
    pub(crate) http: HttpClient,
    pub(crate) keys_of: KeysOf,
    pub(crate) jitter: Jitter,
}

/// Where keys and revocations come from, and how they are treated.
#[derive(Clone)]
pub(crate) struct TrustSource {
    pub(crate) jwks: Jwks,
    /// Where the last good ones are kept.
    pub(crate) file: Option<PathBuf>,
    pub(crate) when_stale: WhenStale,
    pub(crate) max_staleness: Option<Duration>,
    pub(crate) clock: Clock,
}

/// A trust that is being kept fresh.
pub(crate) struct LiveTrust {
    pub(crate) trust: Trust,
    feed: Weak<Feed>,
}

/// Trust in any one issuer whose keys are at this address, fetched from now on and kept fresh. Ends
/// when the last handle of it is dropped. Must be called within a tokio runtime.
///
/// # Errors
/// When the address is not one, or not on this machine and in plaintext.
pub fn trust_in(issuer: Issuer, jwks_url: &str) -> Result<Trust, SessionError> {
    let uri = address(jwks_url, Plaintext::OnLoopback)?;
    let http = HttpClient::new(Roots::default().for_http(&uri)?);
    let source = TrustSource {
        jwks: Jwks { uri, http, keys_of: KeysOf::Issuer(issuer), jitter: Jitter::system() },
        file: None,
        when_stale: WhenStale::default(),
        max_staleness: None,
        clock: Clock::system(),
    };
    Ok(source.keep_fresh(None).trust)
}

impl TrustSource {
    /// Begins to fetch: from the stream, if there may be one, or else from the JWK Set.
    /// Ends when the last handle of the trust is dropped.
    pub(crate) fn keep_fresh(self, stream: Option<TrustStream>) -> LiveTrust {
        let source = self.jwks.uri.authority().map_or("", |authority| authority.as_str());
        let watch = Watch::new(source, self.max_staleness, self.when_stale);
        let issuer = self.jwks.keys_of.named().cloned();
        let feed = Arc::new(Feed::new(issuer, self.file, watch, self.clock));
        let key_missing = Arc::new(Notify::new());
        let trust = Trust::live(feed.subscribe(), Arc::clone(&key_missing))
            .with_freshness(feed.watch.subscribe(), self.when_stale);
        let live = LiveTrust { trust, feed: Arc::downgrade(&feed) };
        tokio::spawn(async move {
            let streaming = async {
                match &stream {
                    Some(stream) => stream.feed(&feed).await,
                    None => {
                        feed.is_fed_by(FedBy::Polling);
                        std::future::pending().await
                    }
                }
            };
            tokio::select! {
                // When the last handle of the trust is gone, all of the others are dropped with it.
                () = feed.closed() => {}
                () = streaming => {}
                () = self.jwks.poll(&feed, &key_missing) => {}
                () = feed.keep_house() => {}
                () = feed.watch.keep_looking() => {}
            }
        });
        live
    }
}

impl LiveTrust {
    pub(crate) fn health(&self) -> Health {
        let feed = self.feed.upgrade();
        Health {
            is_fresh: self.trust.is_fresh(),
            age: feed.as_ref().and_then(|feed| feed.watch.age()),
            epoch: self.trust.bundle().map(|bundle| bundle.epoch),
            fed_by: feed.map_or(FedBy::Nobody, |feed| *feed.fed_by().borrow()),
        }
    }
}

impl KeysOf {
    fn named(&self) -> Option<&Issuer> {
        match self {
            Self::Countersign(issuer) => issuer.as_ref(),
            Self::Issuer(issuer) => Some(issuer),
        }
    }
}

impl Jwks {
    /// Polls for as long as there is no stream. Never ends.
    async fn poll(&self, feed: &Feed, key_missing: &Notify) {
        let (mut fetches, mut confirmed_at) = (0, None);
        let mut fed_by = feed.fed_by();
        let stream_due = Instant::now() + STREAM_COMES_WITHIN;
        loop {
            until_needed(feed, &mut fed_by, stream_due).await;
            let fetched_at = Instant::now();
            let fetched = self.http.get(&self.uri).await;
            fetches += 1;
            let bundle = fetched.map_err(|problem| problem.to_string()).and_then(|document| {
                self.read(&document, fetches).map_err(|error| error.to_string())
            });
            let wait = match bundle {
                Ok(bundle) => {
                    if self.hand_on(feed, bundle).await {
                        confirmed_at = Some(fetched_at);
                    }
                    self.jitter.spread(POLL_EVERY)
                }
                Err(problem) => {
                    let uri = &self.uri;
                    tracing::warn!(%uri, problem, "no keys; those at hand are used on");
                    self.jitter.spread(RETRY_AFTER)
                }
            };
            let next = async {
                tokio::select! {
                    () = sleep(wait) => {}
                    () = key_missing.notified() => {
                        sleep_until(fetched_at + UNKNOWN_KEY_AT_MOST_EVERY).await;
                    }
                }
            };
            let mut next = pin!(next);
            loop {
                // Only without a stream does a fetch confirm anything: where revocations come by a
                // stream, keys alone make nothing fresh.
                if *fed_by.borrow_and_update() == FedBy::Polling
                    && let Some(at) = confirmed_at
                {
                    feed.watch.confirm(at, Duration::ZERO, None);
                }
                tokio::select! {
                    () = &mut next => break,
                    _ = fed_by.changed() => {}
                }
            }
        }
    }

    /// Hands keys on to the feed. False when they are not accepted, and so confirm nothing.
    async fn hand_on(&self, feed: &Feed, bundle: TrustBundle) -> bool {
        let (issuer, epoch) = (bundle.issuer.clone(), bundle.epoch);
        let taken = feed.take_keys(bundle).await;
        if let Err(why) = &taken {
            tracing::warn!(%issuer, epoch, uri = %self.uri, %why, "keys that are not trusted");
        }
        taken.is_ok()
    }

    fn read(&self, document: &[u8], fetches: u64) -> Result<TrustBundle, InvalidKeySet> {
        let json = str::from_utf8(document).map_err(|_| InvalidKeySet::Malformed)?;
        match &self.keys_of {
            KeysOf::Countersign(_) => TrustBundle::from_jwks(json),
            KeysOf::Issuer(issuer) => Ok(TrustBundle {
                issuer: issuer.clone(),
                // A plain JWK Set has no epoch. The number of the fetch makes each one newer than the
                // last.
                epoch: fetches,
                keys: KeySet::from_jwks(json)?,
                revocations: Revocations::default(),
            }),
        }
    }
}

/// Waits until keys have to be polled: there is no stream for us, or none has come up in time. A stream
/// that was up and is lost will come again, and bring the keys with it.
async fn until_needed(feed: &Feed, fed_by: &mut watch::Receiver<FedBy>, stream_due: Instant) {
    loop {
        let feeder = *fed_by.borrow_and_update();
        let overdue = async {
            match feeder {
                FedBy::Polling => {}
                FedBy::Nobody if !feed.had_stream() => sleep_until(stream_due).await,
                FedBy::Nobody | FedBy::Stream => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = overdue => return,
            _ = fed_by.changed() => {}
        }
    }
}
