//! The latest committed state as readers see it, and how the store's writer publishes it.
//!
//! Three views are published, in this order: the snapshot, which issuing reads; the trust bundle, which
//! verifiers are sent; and the version, which wakes those who wait for a change.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use countersign_mesh::claims::{Claims, Clock, Timestamp, TokenId};
use countersign_mesh::token::Minter;
use countersign_mesh::trust::TrustBundle;
use tokio::sync::watch;

use crate::authority::lease::Reached;
use crate::authority::{IssuedToken, MOST_AHEAD, Verifiers, Version};
use crate::policy::Grant;
use crate::store::State;

/// One committed state, with its active key made ready to sign.
pub(super) struct Snapshot {
    pub(super) state: State,
    minter: Minter,
}

/// A snapshot that a request holds while it is answered.
pub(super) type Held = Guard<Arc<Snapshot>>;

/// The latest snapshot and the latest trust bundle.
pub(super) struct Published {
    snapshot: Arc<ArcSwap<Snapshot>>,
    trust: watch::Receiver<Option<Arc<TrustBundle>>>,
    version: watch::Receiver<Version>,
}

/// Those who must hear of a new state before any reader can see it.
pub(super) struct Witness {
    pub(super) verifiers: Arc<Verifiers>,
    pub(super) reached: Arc<Reached>,
    pub(super) clock: Clock,
}

impl Published {
    /// Makes the readers' end, and the function with which the writer publishes a state.
    pub(super) fn channel(
        first: &State,
        witness: Witness,
    ) -> (Self, impl Fn(&State) + Send + 'static) {
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::of(first)));
        let (bundles, trust) = watch::channel(Some(Arc::new(bundle(first))));
        let (versions, version) = watch::channel(Version::of(first));
        let readers = Self { snapshot: Arc::clone(&snapshot), trust, version };
        let publish = move |state: &State| {
            let version = Version::of(state);
            let changed = *versions.borrow() != version;
            if changed {
                // A change was committed just now, so the store was reached: that renews the lease.
                let now = witness.clock.now();
                witness.reached.note(witness.reached.moment(now));
                // Before anyone can be sent the epoch: the gate must know it before it is acknowledged.
                witness.verifiers.publish(&state.ring, state.epoch);
            }
            snapshot.store(Arc::new(Snapshot::of(state)));
            let epoch = bundles.borrow().as_ref().map(|bundle| bundle.epoch);
            if epoch != Some(state.epoch) {
                bundles.send_replace(Some(Arc::new(bundle(state))));
            }
            // Last of all: whoever this wakes must find the new snapshot and the new bundle.
            if changed {
                versions.send_replace(version);
            }
        };
        (readers, publish)
    }

    /// The latest snapshot. Reading it takes no lock.
    pub(super) fn snapshot(&self) -> Held {
        self.snapshot.load()
    }

    /// The latest trust bundle.
    pub(super) fn bundle(&self) -> Arc<TrustBundle> {
        self.trust.borrow().clone().expect("the first state is published with a bundle")
    }

    /// Watches the version of the latest state. Whoever sees a version here reads that state or a later one.
    pub(super) fn version(&self) -> watch::Receiver<Version> {
        self.version.clone()
    }

    /// Watches the trust bundle: the receiver always holds the latest one.
    pub(super) fn trust(&self) -> watch::Receiver<Option<Arc<TrustBundle>>> {
        self.trust.clone()
    }
}

fn bundle(state: &State) -> TrustBundle {
    TrustBundle {
        issuer: state.issuer.clone(),
        epoch: state.epoch,
        keys: state.ring.key_set(),
        revocations: state.revocations.clone(),
    }
}

impl Snapshot {
    fn of(state: &State) -> Self {
        Self { state: state.clone(), minter: Minter::new(Arc::clone(&state.ring.active().key)) }
    }

    /// Signs a token for a grant. The same grant, time and random bits give the same token. `None` while the
    /// token would have to be dated too far ahead.
    pub(super) fn mint(
        &self,
        grant: &Grant,
        now: Timestamp,
        bits: [u8; 12],
    ) -> Option<IssuedToken> {
        // Verifiers reject the client's tokens that are dated before its cut. So a new one is dated at the cut,
        // even if that lies ahead.
        let revoked = self.state.revocations.client(grant.client_id());
        let issued_at = revoked.map_or(now, |revoked| revoked.before.max(now));
        if issued_at > now + MOST_AHEAD {
            return None;
        }
        // The life counts from now, also for a token that is dated ahead. But `exp` must be after `iat`.
        let expires_at = (now + grant.ttl()).max(issued_at + Duration::from_secs(1));
        let life = expires_at.since(now);
        let claims = Claims {
            issuer: self.state.issuer.clone(),
            client_id: grant.client_id().clone(),
            audience: grant.audience().clone(),
            scopes: grant.scopes().clone(),
            issued_at,
            expires_at,
            token_id: TokenId::from_random(bits),
        };
        Some(IssuedToken {
            token: self.minter.mint(&claims),
            expires_in: life,
            refresh_in: refresh_in(life, bits),
            claims,
        })
    }
}

/// When to refresh a token: after 40 % to 60 % of its life. The random bits of its id spread the time evenly,
/// so that a fleet of clients that started together does not refresh together.
fn refresh_in(life: Duration, bits: [u8; 12]) -> Duration {
    let spread = u64::from(u16::from_be_bytes([bits[0], bits[1]]));
    let millis = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(millis * 2 / 5 + millis * spread / (5 * 65_536))
}

#[cfg(test)]
mod tests {
    use countersign_mesh::claims::{Issuer, ScopeSet};
    use countersign_mesh::internals::CowMap;
    use countersign_mesh::keys::SigningKey;
    use countersign_mesh::trust::Revocations;

    use super::*;
    use crate::client::{
        AssertionDesk, Client, ClientSecret, ClientSettings, Credential, CredentialKind, GrantRule,
        Grants, PresentedCredential, SecretHash, authenticate,
    };
    use crate::policy::{TokenRequest, decide};
    use crate::ring::{KeyRing, Listeners};
    use crate::store::ResourceIndex;

    const NOW: Timestamp = Timestamp::from_unix(1_800_000_000);

    fn snapshot() -> Snapshot {
        let key = |seed| SigningKey::from_seed(&[seed; 32]);
        Snapshot::of(&State {
            issuer: "https://issuer.test".parse().expect("a valid issuer"),
            epoch: 1,
            revision: 1,
            clients: CowMap::default(),
            resources: ResourceIndex::default(),
            ring: Arc::new(KeyRing::new(key(1), key(2), NOW)),
            listeners: Listeners::default(),
            revocations: Revocations::default(),
        })
    }

    /// Makes a grant. Only a client that has authenticated can have one, so there is no shorter way.
    fn grant() -> Grant {
        let secret = ClientSecret::generate().expect("randomness");
        let rule = GrantRule {
            audience: "inventory".parse().expect("a valid audience"),
            scopes: ScopeSet::parse("stock:read").expect("a valid scope"),
        };
        let settings = ClientSettings {
            grants: Grants::try_from(vec![rule]).expect("one grant"),
            ..ClientSettings::default()
        };
        let kind = CredentialKind::Secret(SecretHash::of(secret.expose()));
        let stored = Credential::new(kind, NOW, None);
        let client = Client {
            credentials: vec![Arc::new(stored)],
            ..Client::new("order".parse().expect("a valid id"), settings, NOW)
        };
        let id = client.id.clone();
        let desk = AssertionDesk::open(&Issuer::new("https://issuer").expect("an issuer"), NOW);
        let secret = PresentedCredential::Secret(secret.expose());
        let client = authenticate(&id, Some(&Arc::new(client)), secret, &desk, NOW);
        let client = client.expect("its secret");
        let request =
            TokenRequest { audience: None, scopes: ScopeSet::default(), requested_ttl: None };
        decide(&client, &request, Duration::from_secs(900)).expect("granted")
    }

    #[test]
    fn the_same_grant_time_and_random_bits_give_the_same_token() {
        let (snapshot, grant) = (snapshot(), grant());
        let mint = |grant: &Grant, now, bits| {
            snapshot.mint(grant, now, bits).expect("nothing was cut off")
        };
        let first = mint(&grant, NOW, [7; 12]);
        let second = mint(&grant, NOW, [7; 12]);
        assert_eq!(first.token.expose(), second.token.expose());
        assert_eq!(first.refresh_in, second.refresh_in);

        let other_id = mint(&grant, NOW, [8; 12]);
        assert_ne!(first.token.expose(), other_id.token.expose());
        let later = mint(&grant, NOW + Duration::from_secs(1), [7; 12]);
        assert_ne!(first.token.expose(), later.token.expose());
    }

    #[test]
    fn a_refresh_is_due_after_40_to_60_percent_of_a_tokens_life() {
        let ttl = Duration::from_secs(900);
        assert_eq!(refresh_in(ttl, [0; 12]), Duration::from_secs(360));
        let latest = refresh_in(ttl, [0xff; 12]);
        assert!(
            latest > Duration::from_secs(539) && latest <= Duration::from_secs(540),
            "{latest:?}"
        );
        assert_eq!(refresh_in(Duration::from_secs(1), [0; 12]), Duration::from_millis(400));
    }
}
