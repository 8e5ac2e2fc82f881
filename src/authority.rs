//! The use cases: issue, validate, revoke, rotate. Start reading here.
//!
//! *Issue* runs on one snapshot and touches neither disk nor lock:
//! request → [`authenticate`] → `AuthenticatedClient` → [`decide`] → `Grant` → `Claims` → mint.
//!
//! *Changes* go through the store: operator → pure decision on the latest state → written together
//! with its audit event → published → answered. Clients are administered in `clients`.

mod act;
mod clients;
pub mod host;
mod maintenance;
mod refusals;
mod snapshot;

pub use self::act::Act;
pub use self::act::ActError;
pub use self::act::Refusal;
pub use self::clients::ClientPatch;
pub use self::clients::CreatedSecret;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use tokio::sync::watch;

use crate::authority::refusals::Refusals;
use crate::authority::refusals::Refused;
use crate::authority::refusals::Sort;
use crate::authority::snapshot::Published;
use crate::claims::Audience;
use crate::claims::Claims;
use crate::claims::ClientId;
use crate::claims::Clock;
use crate::claims::DEFAULT_LEEWAY;
use crate::claims::MAX_TOKEN_LIFE;
use crate::claims::Timestamp;
use crate::claims::TokenId;
use crate::client::NotAuthenticated;
use crate::client::authenticate;
use crate::keys::ClockBehind;
use crate::keys::KeyInfo;
use crate::keys::KeyRing;
use crate::keys::RevokeKeyError;
use crate::keys::SigningKey;
use crate::policy::Denial;
use crate::policy::TokenRequest;
use crate::policy::decide;
use crate::store::AuditRow;
use crate::store::Change;
use crate::store::Committed;
use crate::store::Kek;
use crate::store::Store;
use crate::store::StoreError;
use crate::token::Audiences;
use crate::token::Rejection;
use crate::token::Token;
use crate::token::VerifiedToken;
use crate::trust::TrustBundle;

/// How long tokens are signed after the store was last reached.
pub const SIGNING_LEASE: Duration = Duration::from_secs(60 * 60);

/// How far ahead of the clock a cut lies, so that tokens from a clock that is ahead are before it too.
pub const SKEW_ALLOWANCE: Duration = Duration::from_secs(5);

/// How far ahead a client's tokens may be dated, after cuts one soon after the other: within the leeway
/// of verifiers.
const MOST_AHEAD: Duration = Duration::from_secs(20);

/// How long a token can outlive the retirement of its key: see [`KeyRing::rotate`].
pub const TAIL: Duration = Duration::from_secs(
    SIGNING_LEASE.as_secs()
        + MAX_TOKEN_LIFE.as_secs()
        + SKEW_ALLOWANCE.as_secs()
        + 1
        + DEFAULT_LEEWAY.as_secs(),
);

/// What an authority is told once, at the start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The life of tokens of clients that have no maximum of their own.
    pub default_ttl: Duration,
    /// How long audit events are kept.
    pub audit_retention: Duration,
}

/// Why an authority does not go to work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// The store cannot be opened.
    Store(StoreError),
    /// See [`ClockBehind`].
    ClockBehind(ClockBehind),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::ClockBehind(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

/// The token service itself, without the wire.
pub struct Authority {
    settings: Settings,
    store: Store,
    published: Published,
    refusals: Refusals,
    store_reached_at: AtomicU64,
    renewing: tokio::sync::Mutex<()>,
}

/// A client's request for a token, with what it proves itself with.
pub struct IssueRequest<'a> {
    /// Who the client says it is.
    pub client_id: &'a ClientId,
    /// One of its secrets.
    pub client_secret: &'a str,
    /// What it asks for.
    pub token: TokenRequest,
    /// Where the request came from, for the audit.
    pub peer: &'a str,
}

/// A token as it was issued.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token.
    pub token: Token,
    /// What it says.
    pub claims: Claims,
    /// How long it is good for.
    pub expires_in: Duration,
    /// When to fetch the next one.
    pub refresh_in: Duration,
}

/// Why no token was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssueError {
    /// The client is not believed.
    ClientRejected(NotAuthenticated),
    /// The client was not granted what it asks for.
    Denied(Denial),
    /// The store has been out of reach for longer than the signing lease.
    LeaseOver,
    /// The client's tokens were cut off so often in the last seconds that a new one would be dated too
    /// far ahead for verifiers.
    CutTooOften,
    /// The system has no randomness to give.
    NoRandomness,
}

/// Why a token could not be asked about: the caller does not serve this audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotServed;

/// The keys after a change of the ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingChange {
    /// The key that signs from now on.
    pub active: KeyInfo,
    /// The key that will sign after the next rotation.
    pub next: KeyInfo,
    /// The key that was retired or revoked.
    pub ended: KeyInfo,
}

/// Names a token to revoke.
pub enum RevocationTarget<'a> {
    /// By itself.
    Token(&'a str),
    /// By its id.
    TokenId(TokenId),
}

impl Authority {
    /// Opens a store and goes to work on it. A clock behind the store's keys is refused: tokens would
    /// be dated before the key that signs them.
    ///
    /// # Errors
    /// When the store cannot be opened, or the clock is behind its keys.
    pub fn open(
        path: &Path,
        kek: Kek,
        settings: Settings,
        clock: &Clock,
    ) -> Result<Self, OpenError> {
        let now = clock.now();
        let opened = Store::open(path, kek).map_err(OpenError::Store)?;
        opened.state().ring.check_clock(now).map_err(OpenError::ClockBehind)?;
        let (published, publish) = Published::channel(opened.state());
        let store = opened.start(clock.clone(), publish).map_err(OpenError::Store)?;
        Ok(Self {
            settings,
            store,
            published,
            refusals: Refusals::default(),
            store_reached_at: AtomicU64::new(now.as_unix()),
            renewing: tokio::sync::Mutex::default(),
        })
    }

    /// Issues a token to a client that proves who it is.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn issue(
        &self,
        request: &IssueRequest<'_>,
        now: Timestamp,
    ) -> Result<IssuedToken, IssueError> {
        let snapshot = self.published.snapshot();
        let candidate = snapshot.state.clients.get(request.client_id);
        let authenticated = authenticate(candidate, request.client_secret, now)
            .map_err(|reason| self.reject(request, reason))?;
        let grant = decide(&authenticated, &request.token, self.settings.default_ttl)
            .map_err(IssueError::Denied)?;
        // After the proof: until then nobody learns, or costs, more than that.
        self.check_lease(now)?;
        let mut bits = [0; 12];
        getrandom::fill(&mut bits).map_err(|_| IssueError::NoRandomness)?;
        snapshot.mint(&grant, now, bits).ok_or(IssueError::CutTooOften)
    }

    /// Says whether a token is good right now for a caller that serves its audience.
    ///
    /// # Errors
    /// When the caller names an audience that it does not serve. A token that is not good is an
    /// answer: the inner error.
    pub fn validate(
        &self,
        caller: &ClientId,
        token: &str,
        audience: Option<&Audience>,
        now: Timestamp,
    ) -> Result<Result<VerifiedToken, Rejection>, NotServed> {
        let snapshot = self.published.snapshot();
        let caller = snapshot.state.clients.get(caller).ok_or(NotServed)?;
        let serves = caller.settings.serves.as_slice();
        let audiences = match audience {
            Some(audience) if serves.contains(audience) => std::slice::from_ref(audience),
            Some(_) => return Err(NotServed),
            None => serves,
        };
        let bundle = self.published.bundle();
        Ok(bundle.verify(token, Audiences::OneOf(audiences), now, DEFAULT_LEEWAY))
    }

    /// Revokes one token (RFC 7009 §2): a client its own, an operator with `tokens:revoke` any. A
    /// token that is not valid anyway needs no revoking, and that is fine.
    ///
    /// # Errors
    /// When the token is another client's, or named by its id, without `tokens:revoke`.
    pub async fn revoke_token(
        &self,
        act: Act,
        target: RevocationTarget<'_>,
    ) -> Result<(), ActError> {
        let (id, until, audience) = match target {
            RevocationTarget::Token(token) => {
                let bundle = self.published.bundle();
                let Ok(token) = bundle.verify(token, Audiences::Any, act.now, DEFAULT_LEEWAY)
                else {
                    return Ok(());
                };
                let claims = token.claims();
                if claims.client_id != *act.operator.client_id()
                    && !act.operator.holds("tokens:revoke")
                {
                    return Err(self.refuse(
                        &act,
                        "token.revoke",
                        claims.token_id.as_str(),
                        Refusal::NotOwnToken,
                    ));
                }
                let audience = Some(claims.audience.clone());
                (claims.token_id.clone(), claims.expires_at + DEFAULT_LEEWAY, audience)
            }
            RevocationTarget::TokenId(id) => {
                if !act.operator.holds("tokens:revoke") {
                    let refusal = Refusal::ScopeMissing("tokens:revoke");
                    return Err(self.refuse(&act, "token.revoke", id.as_str(), refusal));
                }
                // Nothing but the id is known: it is remembered for as long as any token can live, and
                // every verifier is told.
                (id, act.now + TAIL, None)
            }
        };
        let target = id.to_string();
        self.act(act, "token.revoke", &target, move |state, _, _| {
            let known = state.revocations.token(&id).is_some_and(|known| {
                let told = known.audience.is_none() || known.audience == audience;
                known.until >= until && told
            });
            let change = Change::RevokeToken { id, until, audience };
            Ok((if known { vec![] } else { vec![change] }, ()))
        })
        .await
        .map(Committed::into_answer)
    }

    /// Promotes the next key to active, retires the active one, makes a new next.
    ///
    /// # Errors
    /// When the clock is behind the ring, or the store cannot be written.
    pub async fn rotate_keys(&self, act: Act, force: bool) -> Result<RingChange, ActError> {
        let fresh = fresh_key()?;
        // Nobody can be behind yet, so `force` has nothing to override; it is recorded all the same.
        let action = if force { "keys.rotate.force" } else { "keys.rotate" };
        self.act(act, action, "", move |state, event, now| {
            let ring = state.ring.rotate(fresh, now, TAIL).map_err(Refusal::ClockBehind)?;
            let kid = state.ring.active().key.kid().clone();
            event.target = ring.active().key.kid().to_string();
            event.detail = format!("retired {kid}");
            let change = ring_change(&ring, kid.as_str());
            Ok((vec![Change::ReplaceRing(Arc::new(ring))], change))
        })
        .await
        .map(Committed::into_answer)
    }

    /// Revokes a key: every token that it signed is rejected from now on.
    ///
    /// # Errors
    /// When there is no such key, it is revoked already, the clock is behind the ring, or the store cannot be
    /// written.
    pub async fn revoke_key(&self, act: Act, kid: String) -> Result<RingChange, ActError> {
        let fresh = fresh_key()?;
        let target = kid.clone();
        self.act(act, "keys.revoke", &target, move |state, _, now| {
            let ring = state.ring.revoke(&kid, fresh, now, TAIL).map_err(|error| match error {
                RevokeKeyError::Unknown => Refusal::NoSuchKey,
                RevokeKeyError::AlreadyRevoked => Refusal::KeyRevoked,
                RevokeKeyError::ClockBehind(behind) => Refusal::ClockBehind(behind),
            })?;
            let change = ring_change(&ring, &kid);
            Ok((vec![Change::ReplaceRing(Arc::new(ring))], change))
        })
        .await
        .map(Committed::into_answer)
    }

    /// All keys: next, active, then the others, newest first.
    pub fn keys(&self) -> Vec<KeyInfo> {
        self.published.snapshot().state.ring.keys()
    }

    /// A page of audit events, newest first, from before a sequence.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn audit_events(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<AuditRow>, StoreError> {
        self.store.audit_events(before, limit).await
    }

    /// What verifiers need, always the latest.
    pub fn trust(&self) -> watch::Receiver<Option<Arc<TrustBundle>>> {
        self.published.trust()
    }

    /// Renews the signing lease, if the store is there: for a process that slept for longer. Says
    /// whether it was renewed. One try at a time: who comes meanwhile is told no.
    pub async fn renew_lease(&self, now: Timestamp) -> bool {
        let Ok(_one) = self.renewing.try_lock() else { return false };
        let reached = self.store.reach().await.is_ok();
        if reached {
            self.store_reached_at.store(now.as_unix(), Ordering::Relaxed);
        }
        reached
    }

    /// Notes for the audit log that a client called a method of ours without a scope that it takes.
    pub fn note_refused_call(
        &self,
        client: &ClientId,
        path: &str,
        reason: &'static str,
        peer: &str,
    ) {
        let (actor, target) = (client.as_str(), path);
        self.refusals.note(&Refused {
            sort: Sort::Act,
            actor,
            action: "call",
            target,
            reason,
            peer,
        });
    }

    fn reject(&self, request: &IssueRequest<'_>, reason: NotAuthenticated) -> IssueError {
        // Made in any case, so that an unknown client costs the same work as a known one.
        let pseudonym = self.store.pseudonym(request.client_id.as_str());
        let (sort, actor) = match reason {
            NotAuthenticated::UnknownClient => (Sort::Unknown, pseudonym.as_str()),
            NotAuthenticated::Disabled
            | NotAuthenticated::WrongSecret
            | NotAuthenticated::ExpiredSecret => (Sort::Client, request.client_id.as_str()),
        };
        self.refusals.note(&Refused {
            sort,
            actor,
            action: "token.issue",
            target: "",
            reason: reason.as_str(),
            peer: request.peer,
        });
        IssueError::ClientRejected(reason)
    }

    fn check_lease(&self, now: Timestamp) -> Result<(), IssueError> {
        let reached_at = Timestamp::from_unix(self.store_reached_at.load(Ordering::Relaxed));
        if now.since(reached_at) > SIGNING_LEASE { Err(IssueError::LeaseOver) } else { Ok(()) }
    }
}

fn fresh_key() -> Result<SigningKey, ActError> {
    SigningKey::generate().map_err(|_| no_randomness())
}

fn no_randomness() -> ActError {
    ActError::Store(StoreError::Unavailable("the system has no randomness to give".to_owned()))
}

fn ring_change(ring: &KeyRing, ended: &str) -> RingChange {
    let keys = ring.keys();
    let ended = keys
        .iter()
        .find(|key| key.kid.as_str() == ended)
        .expect("a key that was ended stays in the ring");
    RingChange { next: keys[0].clone(), active: keys[1].clone(), ended: ended.clone() }
}
