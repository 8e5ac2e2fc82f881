//! The use cases: issue, validate, revoke, rotate. Start reading here.
//!
//! *Issue* runs on one snapshot and touches neither disk nor lock:
//! credential → [`Authority::authenticate`] → [`Proven`] → [`Authority::decide`] → [`Granted`] →
//! [`Authority::sign`] → [`IssuedToken`]. Three steps, so that the limit of tokens a client is taken between
//! the decision and the signature.
//!
//! *Changes* go through the store: operator → pure decision on the latest state → written together
//! with its audit event → published → answered. Clients are administered in `clients`, what they
//! prove themselves with in `credentials`.

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

/// How long tokens are signed after the store was last reached.
pub const SIGNING_LEASE: Duration = Duration::from_secs(60 * 60);

/// How far ahead of the clock a cut lies, so that tokens from a clock that is ahead are before it too.
pub const SKEW_ALLOWANCE: Duration = Duration::from_secs(5);

/// How far ahead a client's tokens may be dated, after cuts one soon after the other: within the leeway
/// of verifiers.
const MOST_AHEAD: Duration = Duration::from_secs(20);

/// For how long after its time a token is accepted somewhere: a verifier's clock may be behind ours by as
/// much as the leeway, and it gives that leeway besides.
const OTHER_CLOCKS: Duration = Duration::from_secs(2 * DEFAULT_LEEWAY.as_secs());

/// How long a token can outlive the retirement of its key: see [`KeyRing::rotate`](crate::ring::KeyRing::rotate).
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
    /// How old what a verifier holds may become before one that fails closed refuses to use it.
    pub max_staleness: Duration,
    /// How many trust streams a client may have at a time.
    pub max_streams: usize,
    /// How long a key signs before the next one takes over by itself; none for never.
    pub rotate_every: Option<Duration>,
    /// Whose thread writes to the store.
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
    assertions: AssertionDesk,
    verifiers: Arc<Verifiers>,
    deltas: Deltas,
    reached: Arc<Reached>,
    /// The latest time that a token was dated with.
    dated: Arc<AtomicU64>,
    renewing: tokio::sync::Mutex<()>,
    /// Set once it is known that the store was put back.
    put_back: AtomicBool,
    /// Since when the last use of every credential is known: an end that was not in order loses some.
    uses_known_since: Timestamp,
    kept_idle: Mutex<Kept>,
}

/// A client that has proven who it is, and the state that it was proven in. What it is granted is decided
/// and signed in that same state, so that a revocation in between leaves no token that outlives it.
pub struct Proven {
    snapshot: Held,
    client: AuthenticatedClient,
}

/// What policy granted to a client, in the state in which it has proven who it is.
pub struct Granted {
    snapshot: Held,
    grant: Grant,
}

impl Proven {
    /// Who it is.
    pub fn client(&self) -> &AuthenticatedClient {
        &self.client
    }
}

impl Granted {
    /// What was granted.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }
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
    /// Its assertion cannot be remembered now, so that it could be used twice. A later one may do.
    CannotRemember,
    /// The client was not granted what it asks for.
    Denied(Denial),
    /// The store has been out of reach for longer than the signing lease.
    LeaseOver,
    /// The store is an old copy that was put back: what it would sign with may be revoked.
    PutBack,
    /// The client's tokens were cut off so often in the last seconds that a new one would be dated too
    /// far ahead for verifiers.
    CutTooOften,
    /// The system has no randomness to give.
    NoRandomness,
}

/// Why a token could not be asked about: the caller does not serve this audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotServed;

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
        let mut opened = Store::open(path, kek).map_err(OpenError::Store)?;
        opened.state().ring.check_clock(now).map_err(OpenError::ClockBehind)?;
        let uses_known_since = opened.begin_noting_uses(now).map_err(OpenError::Store)?;
        let State { issuer, ring, epoch, listeners, .. } = opened.state();
        // Read once the store is ours: no other process accepts assertions any more.
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

    /// Decides what a client gets of what it asks for.
    ///
    /// # Errors
    /// See [`Denial`].
    pub fn decide(&self, proven: Proven, request: &TokenRequest) -> Result<Granted, Denial> {
        let Proven { snapshot, client } = proven;
        let grant = decide(&client, request, self.settings.default_ttl)?;
        Ok(Granted { snapshot, grant })
    }

    /// Signs what was granted. Waits only to renew the signing lease, once it is over.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub async fn sign(&self, granted: &Granted, now: Timestamp) -> Result<IssuedToken, IssueError> {
        // After the proof: until then nobody learns, or costs, more than that.
        self.may_sign(now).await?;
        let mut bits = [0; 12];
        getrandom::fill(&mut bits).map_err(|_| IssueError::NoRandomness)?;
        self.dated.fetch_max(now.as_unix(), Ordering::Relaxed);
        granted.snapshot.mint(&granted.grant, now, bits).ok_or(IssueError::CutTooOften)
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

    /// A token that someone may accept, by a clock that is as far behind ours as a clock may be, or once
    /// its time has come: after our clock was set back it may be dated far ahead of it.
    fn may_be_valid(&self, token: &str, now: Timestamp) -> Result<VerifiedToken, Rejection> {
        let bundle = self.published.bundle();
        match bundle.verify(token, Audiences::Any, now, OTHER_CLOCKS) {
            Err(Rejection::NotYetValid) => bundle.verify(token, Audiences::Any, now, TAIL),
            verified => verified,
        }
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

    /// Notes for the audit log that a client called a method of ours without a scope that it takes.
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
