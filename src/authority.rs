//! The use cases: issue, validate, revoke, rotate, administer. Start reading here.
//!
//! [`Authority`] is the token service without the wire. It has two paths:
//!
//! ```text
//! issue   credential ─▶ authenticate ─▶ Proven ─▶ decide ─▶ Granted ─▶ sign ─▶ IssuedToken
//! change  operator ─▶ decide on the latest state ─▶ write with audit event ─▶ publish ─▶ answer
//! ```
//!
//! *Issue* works on one snapshot of the state and touches neither disk nor lock, except that used assertions
//! are remembered under a lock. It has three steps so that the server can apply a client's rate limit after
//! the decision and before the signature.
//!
//! *Change* is decided in the store's one writer, where nobody else changes the state before the commit. The
//! decision is pure. `act` is the frame that all changes share; `clients`, `credentials` and `keys` use it.
//!
//! Around these: `snapshot` publishes, `watching` and `verifiers` serve the trust stream, `maintenance` and
//! `retirement` run on a timer, `refusals` feeds the audit log, and [`host`] acts without a server.
//!
//! # Invariants
//!
//! - A token is decided and signed on the state in which its client authenticated.
//! - A change is durable before it is published, and published before it is answered.
//! - Nothing is signed after the signing lease (`lease`), or from a store known to be an old copy (`epochs`).
//!
//! It parses no requests, limits no rates and knows no status codes: `server` does. It has no SQL: `store` has.

mod act;
mod authentication;
mod clients;
mod credentials;
mod epochs;
mod facts;
pub mod host;
mod keys;
mod lease;
mod maintenance;
mod refusals;
mod retirement;
mod snapshot;
mod verifiers;
mod watching;

pub use self::act::{Act, ActError, Refusal};
pub use self::clients::ClientPatch;
pub use self::credentials::{CreatedCredential, NewCredential, TokensSoFar};
pub use self::facts::NoAudience;
pub use self::keys::{RingChange, Rotation};
pub use self::verifiers::{Behind, Seat, TooManyStreams, Verifiers};
pub use self::watching::{NotSeated, Version, Watched};

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign_mesh::claims::{
    Audience, Claims, ClientId, Clock, DEFAULT_LEEWAY, MAX_TOKEN_LIFE, Timestamp, TokenId,
};
use countersign_mesh::token::{Audiences, Rejection, Token};
use countersign_mesh::trust::{TrustBundle, VerifiedToken};
use tokio::sync::watch;

use crate::authority::lease::Reached;
use crate::authority::refusals::{RefusalNote, Refusals, Sort};
use crate::authority::retirement::Kept;
use crate::authority::snapshot::{Held, Published, Witness};
use crate::authority::watching::Deltas;
use crate::client::{AssertionDesk, AuthenticatedClient, NotAuthenticated};
use crate::policy::{Denial, Grant, TokenRequest, decide};
use crate::ring::ClockBehind;
use crate::store::{AuditRow, Change, Committed, Kek, State, Store, StoreError, Writes};

/// The signing lease: how long tokens are still signed after the store was last reached.
pub const SIGNING_LEASE: Duration = Duration::from_secs(60 * 60);

/// How far ahead of the clock a cut lies. A cut revokes a client's tokens dated before it; the allowance
/// covers tokens that were dated by a clock ahead of ours.
pub const SKEW_ALLOWANCE: Duration = Duration::from_secs(5);

/// How far ahead of the clock a client's tokens may be dated after several cuts in quick succession. It is
/// less than the verifiers' leeway, so that they accept such tokens.
const MOST_AHEAD: Duration = Duration::from_secs(20);

/// How long after its `exp` a token may still be accepted somewhere: a verifier's clock may be behind ours
/// by the leeway, and the verifier grants the leeway on top.
const OTHER_CLOCKS: Duration = Duration::from_secs(2 * DEFAULT_LEEWAY.as_secs());

/// How long a token can outlive the retirement of its key: see [`KeyRing::rotate`](crate::ring::KeyRing::rotate).
pub const TAIL: Duration = Duration::from_secs(
    SIGNING_LEASE.as_secs()
        + MAX_TOKEN_LIFE.as_secs()
        + SKEW_ALLOWANCE.as_secs()
        + 1
        + DEFAULT_LEEWAY.as_secs(),
);

/// The settings of an authority, read once at the start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The life of the tokens of clients that have no maximum of their own.
    pub default_ttl: Duration,
    /// How long audit events are kept.
    pub audit_retention: Duration,
    /// How old a trust bundle may become before a verifier that fails closed refuses to use it.
    pub max_staleness: Duration,
    /// How many trust streams a client may have at a time.
    pub max_streams: usize,
    /// How long a key signs before it is rotated by schedule. `None` for no schedule.
    pub rotate_every: Option<Duration>,
    /// Which thread writes to the store.
    pub writes: Writes,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_ttl: Duration::from_secs(15 * 60),
            audit_retention: Duration::from_secs(365 * 24 * 60 * 60),
            max_staleness: Duration::from_secs(5 * 60),
            max_streams: 256,
            rotate_every: None,
            writes: Writes::default(),
        }
    }
}

/// Why an authority cannot be opened.
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
    assertions: AssertionDesk,
    verifiers: Arc<Verifiers>,
    deltas: Deltas,
    reached: Arc<Reached>,
    /// The latest time at which a token was signed, in Unix seconds. The clock may be set back later.
    dated: Arc<AtomicU64>,
    /// Held while the signing lease is renewed, so that only one caller at a time asks the store.
    renewing: tokio::sync::Mutex<()>,
    /// Set once it is known that the store is an old copy that was put back.
    put_back: AtomicBool,
    /// Since when every use of a credential is known. A process that crashes loses the latest uses.
    uses_known_since: Timestamp,
    kept_idle: Mutex<Kept>,
}

/// A client that has authenticated, and the state in which it did. Its grant is decided and signed on that
/// same state: a token that a revocation overtakes is then dated before the revocation, and dies with it.
pub struct Proven {
    snapshot: Held,
    client: AuthenticatedClient,
}

/// What policy granted to a client, on the state in which it authenticated.
pub struct Granted {
    snapshot: Held,
    grant: Grant,
}

impl Proven {
    /// The client.
    pub fn client(&self) -> &AuthenticatedClient {
        &self.client
    }
}

impl Granted {
    /// The grant.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }
}

/// A token that was issued.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token.
    pub token: Token,
    /// Its claims.
    pub claims: Claims,
    /// How long from now it is valid.
    pub expires_in: Duration,
    /// How long from now the client should fetch the next one.
    pub refresh_in: Duration,
}

/// Why no token was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssueError {
    /// The client did not prove who it is.
    ClientRejected(NotAuthenticated),
    /// See [`AuthenticationError::CannotRemember`](crate::client::AuthenticationError::CannotRemember).
    CannotRemember,
    /// The client was not granted what it asks for.
    Denied(Denial),
    /// The store has been out of reach for longer than the signing lease.
    LeaseOver,
    /// The store is an old copy that was put back: its keys may have been revoked since.
    PutBack,
    /// The client's tokens were revoked so often in the last seconds that a new one would be dated too far
    /// ahead for verifiers.
    CutTooOften,
    /// The system has no randomness to give.
    NoRandomness,
}

/// The caller may not ask about a token, since it does not serve this audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotServed;

/// The token to revoke.
pub enum RevocationTarget<'a> {
    /// The token itself.
    Token(&'a str),
    /// Its id (`jti`).
    TokenId(TokenId),
}

impl Authority {
    /// Opens a store and starts its writer. A clock behind the store's keys is refused: tokens would be dated
    /// before the key that signs them.
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
        let mut opened = Store::open(path, kek).map_err(OpenError::Store)?;
        opened.state().ring.check_clock(now).map_err(OpenError::ClockBehind)?;
        let uses_known_since = opened.begin_noting_uses(now).map_err(OpenError::Store)?;
        let State { issuer, ring, epoch, listeners, .. } = opened.state();
        // Read the clock again: only now that the store is ours does no other process accept assertions.
        let assertions = AssertionDesk::open(issuer, clock.now());
        let verifiers = Arc::new(Verifiers::new(ring, *epoch, *listeners, clock));
        let reached = Arc::new(Reached::new(clock));
        let (published, publish) = Published::channel(
            opened.state(),
            Witness {
                verifiers: Arc::clone(&verifiers),
                reached: Arc::clone(&reached),
                clock: clock.clone(),
            },
        );
        let store =
            opened.start(clock.clone(), publish, settings.writes).map_err(OpenError::Store)?;
        Ok(Self {
            settings,
            store,
            published,
            refusals: Refusals::default(),
            assertions,
            verifiers,
            deltas: Deltas::default(),
            reached,
            dated: Arc::default(),
            renewing: tokio::sync::Mutex::default(),
            put_back: AtomicBool::new(false),
            uses_known_since,
            kept_idle: Mutex::default(),
        })
    }

    /// Decides whether a client gets the token that it asks for.
    ///
    /// # Errors
    /// See [`Denial`].
    pub fn decide(&self, proven: Proven, request: &TokenRequest) -> Result<Granted, Denial> {
        let Proven { snapshot, client } = proven;
        let grant = decide(&client, request, self.settings.default_ttl)?;
        Ok(Granted { snapshot, grant })
    }

    /// Signs a token for what was granted. It waits only if the signing lease is over and has to be renewed.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub async fn sign(&self, granted: &Granted, now: Timestamp) -> Result<IssuedToken, IssueError> {
        // Only after authentication: a stranger must neither make us ask the store nor learn its state.
        self.may_sign(now).await?;
        let mut bits = [0; 12];
        getrandom::fill(&mut bits).map_err(|_| IssueError::NoRandomness)?;
        // Noted before the token exists, so that a cut that is decided afterwards lies behind its date.
        self.dated.fetch_max(now.as_unix(), Ordering::Relaxed);
        granted.snapshot.mint(&granted.grant, now, bits).ok_or(IssueError::CutTooOften)
    }

    /// Validates a token for a caller that serves its audience.
    ///
    /// # Errors
    /// When the caller names an audience that it does not serve. An invalid token is not an error but an
    /// answer: the inner [`Rejection`].
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
        let verified = bundle.verify(token, Audiences::OneOf(audiences), now, DEFAULT_LEEWAY);
        // The leeway is for clocks that differ, and this is the clock that the token was dated by. It stays for `iat`,
        // which is ahead of the clock after a cut.
        Ok(verified.and_then(|token| match token.claims().has_expired(now, Duration::ZERO) {
            true => Err(Rejection::Expired),
            false => Ok(token),
        }))
    }

    /// Revokes one token (RFC 7009 §2). A client may revoke its own tokens, an operator with `tokens:revoke`
    /// any. Revoking an invalid token succeeds and changes nothing (RFC 7009 §2.2).
    ///
    /// # Errors
    /// When an operator without `tokens:revoke` names another client's token, or names a token by its id.
    pub async fn revoke_token(
        &self,
        act: Act,
        target: RevocationTarget<'_>,
    ) -> Result<(), ActError> {
        let (id, until, audience) = match target {
            RevocationTarget::Token(token) => {
                let Ok(token) = self.may_be_valid(token, act.now) else { return Ok(()) };
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
                (claims.token_id.clone(), claims.expires_at + OTHER_CLOCKS, audience)
            }
            RevocationTarget::TokenId(id) => {
                if !act.operator.holds("tokens:revoke") {
                    let refusal = Refusal::ScopeMissing("tokens:revoke");
                    return Err(self.refuse(&act, "token.revoke", id.as_str(), refusal));
                }
                // Only the id is known. So it is remembered for as long as any token can live, and every
                // verifier is told, whatever its audience.
                (id, act.now + TAIL, None)
            }
        };
        let target = id.to_string();
        self.act(act, "token.revoke", &target, move |state, _, _| {
            // A repeated request must not make a new epoch.
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

    /// Verifies a token as the most lenient verifier would: with a clock as far behind ours as is allowed.
    /// After our clock was set back, a token may be dated far ahead; it counts because its time will come.
    fn may_be_valid(&self, token: &str, now: Timestamp) -> Result<VerifiedToken, Rejection> {
        let bundle = self.published.bundle();
        match bundle.verify(token, Audiences::Any, now, OTHER_CLOCKS) {
            Err(Rejection::NotYetValid) => bundle.verify(token, Audiences::Any, now, TAIL),
            verified => verified,
        }
    }

    /// A page of audit events, newest first: those before the sequence number `before`, if it is given.
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

    /// Watches the trust bundle: the receiver always holds the latest one.
    pub fn trust(&self) -> watch::Receiver<Option<Arc<TrustBundle>>> {
        self.published.trust()
    }

    /// Notes for the audit log that a client called one of our methods without a scope that it demands.
    pub fn note_refused_call(
        &self,
        client: &ClientId,
        path: &str,
        reason: &'static str,
        peer: &str,
    ) {
        let (actor, target) = (client.as_str(), path);
        self.refusals.note(&RefusalNote {
            sort: Sort::Act,
            actor,
            action: "call",
            target,
            reason,
            peer,
        });
    }
}

fn no_randomness() -> ActError {
    ActError::Store(StoreError::Unavailable("the system has no randomness to give".to_owned()))
}
