//! Trust that keeps itself fresh, from an issuer's JWK Set.
//!
//! A poller learns of new keys, not of revocations: a revoked token is accepted until it expires.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::sleep;

use crate::claims::Issuer;
use crate::guard::Trust;
use crate::keys::InvalidKeySet;
use crate::keys::KeySet;
use crate::mesh::address::Plaintext;
use crate::mesh::address::Roots;
use crate::mesh::address::address;
use crate::mesh::builder::SessionError;
use crate::mesh::http_client::HttpClient;
use crate::mesh::refresh::random_fraction;
use crate::mesh::trust_file;
use crate::mesh::trust_file::Disbelief;
use crate::trust::Revocations;
use crate::trust::TrustBundle;

/// How often keys are fetched: Countersign lets them be kept for a minute.
const POLL_EVERY: Duration = Duration::from_secs(60);

/// How long until the next try, when keys could not be fetched.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How often a token with an unknown key may have keys fetched.
const UNKNOWN_KEY_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// Whose keys are fetched.
#[derive(Debug, Clone)]
pub(super) enum KeysOf {
    /// Countersign's, whose JWK Set says whose it is; it must be this issuer, if one is named.
    Countersign(Option<Issuer>),
    /// Those of an issuer that is known beforehand.
    Issuer(Issuer),
}

/// Where keys are, and where the last good ones are kept.
#[derive(Clone)]
pub(super) struct Jwks {
    pub(super) uri: Uri,
    pub(super) http: HttpClient,
    pub(super) keys_of: KeysOf,
    pub(super) file: Option<PathBuf>,
}

/// Trust in any one issuer whose keys are at this address, fetched from now on and kept fresh. Ends
/// when the last handle of it is dropped. Must be called within a tokio runtime.
///
/// # Errors
/// When the address is not one, or not on this machine and in plaintext.
pub fn trust_in(issuer: Issuer, jwks_url: &str) -> Result<Trust, SessionError> {
    let uri = address(jwks_url, Plaintext::OnLoopback)?;
    let http = HttpClient::new(Roots::default().for_http(&uri)?);
    Ok(Jwks { uri, http, keys_of: KeysOf::Issuer(issuer), file: None }.poll())
}

type Bundles = watch::Sender<Option<Arc<TrustBundle>>>;

impl Jwks {
    /// Begins to fetch keys. Ends when the last handle of the trust is dropped.
    pub(super) fn poll(self) -> Trust {
        let (bundles, bundle) = watch::channel(self.kept().map(Arc::new));
        let key_missing = Arc::new(Notify::new());
        tokio::spawn(self.keep_fresh(bundles, Arc::clone(&key_missing)));
        Trust::live(bundle, key_missing)
    }

    /// What the file holds from an earlier run.
    fn kept(&self) -> Option<TrustBundle> {
        let (Some(path), KeysOf::Countersign(Some(issuer))) = (&self.file, &self.keys_of) else {
            return None;
        };
        match trust_file::read(path, issuer) {
            Ok(bundle) => {
                tracing::info!(path = %path.display(), epoch = bundle.epoch, "keys from the trust file");
                Some(bundle)
            }
            Err(Disbelief::Absent) => None,
            Err(disbelief) => {
                tracing::warn!(path = %path.display(), %disbelief, "the trust file is ignored");
                None
            }
        }
    }

    async fn keep_fresh(self, bundles: Bundles, key_missing: Arc<Notify>) {
        let mut fetches = 0;
        loop {
            let fetched_at = Instant::now();
            let fetched = tokio::select! {
                () = bundles.closed() => return,
                fetched = self.http.get(&self.uri) => fetched,
            };
            fetches += 1;
            let bundle = fetched.map_err(|problem| problem.to_string()).and_then(|document| {
                self.read(&document, fetches).map_err(|error| error.to_string())
            });
            let wait = match bundle {
                Ok(bundle) => {
                    self.adopt(&bundles, bundle).await;
                    spread(POLL_EVERY)
                }
                Err(problem) => {
                    let uri = &self.uri;
                    tracing::warn!(%uri, problem, "no keys; those at hand are used on");
                    spread(RETRY_AFTER)
                }
            };
            tokio::select! {
                () = bundles.closed() => return,
                () = sleep(wait) => {}
                () = key_missing.notified() => {
                    let soonest = fetched_at + UNKNOWN_KEY_AT_MOST_EVERY;
                    tokio::select! {
                        () = bundles.closed() => return,
                        () = tokio::time::sleep_until(soonest) => {}
                    }
                }
            }
        }
    }

    fn read(&self, document: &[u8], fetches: u64) -> Result<TrustBundle, InvalidKeySet> {
        let json = str::from_utf8(document).map_err(|_| InvalidKeySet::Malformed)?;
        match &self.keys_of {
            KeysOf::Countersign(_) => TrustBundle::from_jwks(json),
            KeysOf::Issuer(issuer) => Ok(TrustBundle {
                issuer: issuer.clone(),
                epoch: fetches,
                keys: KeySet::from_jwks(json)?,
                revocations: Revocations::default(),
            }),
        }
    }

    /// Puts a bundle in the place of an older one: in the file first, so that what was trusted once
    /// is not forgotten for something older.
    async fn adopt(&self, bundles: &Bundles, bundle: TrustBundle) {
        let known = bundles.borrow().clone();
        if let Err(why) = self.is_to_follow(known.as_deref(), &bundle) {
            tracing::warn!(issuer = %bundle.issuer, epoch = bundle.epoch, uri = %self.uri, why, "keys that are not trusted");
            return;
        }
        let is_newer = known.as_ref().is_none_or(|known| known.epoch < bundle.epoch);
        let has_other_keys = known.is_none_or(|known| known.keys != bundle.keys);
        if !is_newer && !has_other_keys {
            return;
        }
        let bundle = Arc::new(bundle);
        if let Some(path) = self.file.clone() {
            self.keep(path, Arc::clone(&bundle)).await;
        }
        bundles.send_if_modified(|current| {
            *current = Some(bundle);
            has_other_keys
        });
    }

    /// Nothing follows the keys of someone else, nor an answer from before, such as a cache in
    /// between may give.
    fn is_to_follow(
        &self,
        known: Option<&TrustBundle>,
        bundle: &TrustBundle,
    ) -> Result<(), &'static str> {
        let named = match &self.keys_of {
            KeysOf::Countersign(issuer) => issuer.as_ref(),
            KeysOf::Issuer(issuer) => Some(issuer),
        };
        match named.or(known.map(|known| &known.issuer)) {
            Some(issuer) if *issuer != bundle.issuer => return Err("they are another issuer's"),
            _ => {}
        }
        match known {
            Some(known) if bundle.epoch < known.epoch => Err("they are older than those at hand"),
            _ => Ok(()),
        }
    }

    async fn keep(&self, path: PathBuf, bundle: Arc<TrustBundle>) {
        let shown = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || trust_file::write(&path, &bundle)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(path = shown, %error, "the trust file is not written"),
            Err(error) => tracing::warn!(path = shown, %error, "the trust file is not written"),
        }
    }
}

/// Somewhere in the upper half of a wait, so that a fleet that started together drifts apart.
fn spread(longest: Duration) -> Duration {
    longest.mul_f64(0.5 + random_fraction() / 2.0)
}
