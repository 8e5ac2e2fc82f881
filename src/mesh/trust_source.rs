//! Trust that keeps itself fresh, from an issuer's JWK Set.
//!
//! A poller learns of new keys, not of revocations: a revoked token is accepted until it expires.

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
use crate::mesh::http_client::HttpClient;
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
    /// Countersign's, whose JWK Set says whose it is.
    Countersign,
    /// Those of an issuer that is known beforehand.
    Issuer(Issuer),
}

/// Begins to fetch keys. Ends when the last handle of the trust is dropped.
pub(super) fn poll_keys(client: HttpClient, uri: Uri, keys_of: KeysOf) -> Trust {
    let (bundles, bundle) = watch::channel(None);
    let key_missing = Arc::new(Notify::new());
    tokio::spawn(keep_fresh(client, uri, keys_of, bundles, Arc::clone(&key_missing)));
    Trust::live(bundle, key_missing)
}

async fn keep_fresh(
    client: HttpClient,
    uri: Uri,
    keys_of: KeysOf,
    bundles: watch::Sender<Option<Arc<TrustBundle>>>,
    key_missing: Arc<Notify>,
) {
    let mut fetches = 0;
    loop {
        let fetched_at = Instant::now();
        let fetched = tokio::select! {
            () = bundles.closed() => return,
            fetched = client.get(&uri) => fetched,
        };
        fetches += 1;
        let bundle = fetched.map_err(|problem| problem.to_string()).and_then(|document| {
            read(&document, &keys_of, fetches).map_err(|error| error.to_string())
        });
        let wait = match bundle {
            Ok(bundle) => {
                publish(&bundles, bundle);
                spread(POLL_EVERY)
            }
            Err(problem) => {
                tracing::warn!(%uri, problem, "no keys; those at hand are used on");
                spread(RETRY_AFTER)
            }
        };
        tokio::select! {
            () = bundles.closed() => return,
            () = sleep(wait) => {}
            () = key_missing.notified() => {
                tokio::select! {
                    () = bundles.closed() => return,
                    () = sleep(UNKNOWN_KEY_AT_MOST_EVERY.saturating_sub(fetched_at.elapsed())) => {}
                }
            }
        }
    }
}

fn read(document: &[u8], keys_of: &KeysOf, fetches: u64) -> Result<TrustBundle, InvalidKeySet> {
    let json = str::from_utf8(document).map_err(|_| InvalidKeySet::Malformed)?;
    match keys_of {
        KeysOf::Countersign => TrustBundle::from_jwks(json),
        KeysOf::Issuer(issuer) => Ok(TrustBundle {
            issuer: issuer.clone(),
            epoch: fetches,
            keys: KeySet::from_jwks(json)?,
            revocations: Revocations::default(),
        }),
    }
}

/// Puts a bundle in the place of an older one. Nothing follows an answer from before it, such as a
/// cache in between may give.
fn publish(bundles: &watch::Sender<Option<Arc<TrustBundle>>>, bundle: TrustBundle) {
    bundles.send_if_modified(|current| {
        let is_news = match current {
            None => true,
            Some(known) if bundle.issuer != known.issuer || bundle.epoch < known.epoch => {
                tracing::warn!(issuer = %bundle.issuer, epoch = bundle.epoch, "keys of another issuer or time");
                false
            }
            Some(known) => bundle.keys != known.keys,
        };
        if is_news {
            *current = Some(Arc::new(bundle));
        }
        is_news
    });
}

/// Somewhere in the upper half of a wait, so that a fleet that started together drifts apart.
fn spread(longest: Duration) -> Duration {
    let part = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
    longest.mul_f64(0.5 + part / 2.0)
}
