//! Authorization: which tokens a client gets, and what an operator may change.
//!
//! Everything here is a pure function of its arguments. It reads no clock, no store and no network, so that
//! each rule can be tested alone.
//!
//! # Tokens for clients
//!
//! [`decide`] takes an [`AuthenticatedClient`] and a [`TokenRequest`], and returns a [`Grant`] or a
//! [`Denial`]:
//!
//! 1. The audience is the one that the request names, or is inferred from the client's grants.
//! 2. The scopes are those requested, or all that are granted for the audience. One that is not granted
//!    denies the whole request.
//! 3. The life is the client's maximum or the server's default. A request can only shorten it.
//!
//! # Changes by operators
//!
//! An [`Operator`] is a client that acts with administrative scopes. [`may_change`] compares a client's
//! settings before and after a change, and [`may_make_credential`] guards new credentials:
//!
//! - to touch a client that holds an administrative scope, or to make one, takes `operators:write`;
//! - nobody grants an administrative scope that they lack, neither directly nor by making a credential for a
//!   client that has it.
//!
//! # Invariants
//!
//! - Only [`decide`] makes a [`Grant`], and only for a client that has authenticated.
//! - An [`Operator`] comes only from a call that the guard permitted for audience `countersign`, or from an
//!   [`AuthenticatedClient`].
//! - Audience `countersign` is never inferred: a client has to name it.
//!
//! # What it does not do
//!
//! It authenticates nobody (`client` does), signs nothing, and does not know whether a revision is current or
//! whether the last operator would be lost (`authority` checks both).

use std::fmt;
use std::time::Duration;

use countersign_mesh::claims::{Audience, COUNTERSIGN, Claims, ClientId, ScopeSet};
use countersign_mesh::guard::Permitted;

use crate::client::{AuthenticatedClient, Client, ClientSettings, GrantRule};

/// The administrative scopes: those of audience `countersign` that make their holder an operator.
pub const ADMINISTRATIVE_SCOPES: [&str; 7] = [
    "audit:read",
    "clients:read",
    "clients:write",
    "keys:read",
    "keys:rotate",
    "operators:write",
    "tokens:revoke",
];

/// The other scopes of audience `countersign`. They need no grant: every client holds the first one, and a
/// client that serves an audience holds all three.
pub const ORDINARY_SCOPES: [&str; 3] = ["tokens:revoke-own", "tokens:validate", "trust:watch"];

/// A client's request for a token.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// The audience. `None` to have it inferred.
    pub audience: Option<Audience>,
    /// The scopes. An empty set asks for all that are granted.
    pub scopes: ScopeSet,
    /// The life that the client wants. A longer one than it may have is cut short.
    pub requested_ttl: Option<Duration>,
}

/// What a client gets a token for. Only [`decide`] makes one, and only for a client that has authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    client_id: ClientId,
    audience: Audience,
    scopes: ScopeSet,
    ttl: Duration,
}

impl Grant {
    /// The client that gets the token.
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// The audience of the token.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// The scopes of the token.
    pub fn scopes(&self) -> &ScopeSet {
        &self.scopes
    }

    /// The life of the token.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }
}

/// Why a request for a token is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// The client has no grant for this audience.
    AudienceNotGranted(Audience),
    /// The request names no audience, and the client has no single grant that fits it.
    AudienceAmbiguous,
    /// The client was not granted this scope.
    ScopeNotGranted(Box<str>),
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AudienceNotGranted(audience) => {
                write!(f, "the client has no grant for audience {audience}")
            }
            Self::AudienceAmbiguous => f.write_str(
                "the request names no audience, and the client's grants do not tell which one is meant; name it, also if it is countersign",
            ),
            Self::ScopeNotGranted(scope) => {
                write!(f, "the client was not granted the scope {scope}")
            }
        }
    }
}

/// Decides on a request for a token.
///
/// If the request names no audience, it means the client's only grant, or else the only grant that has all
/// the requested scopes. It never means `countersign`. The life is the client's maximum, or `default_ttl` if
/// it has none, or the requested life if that is shorter.
///
/// # Errors
/// See [`Denial`].
pub fn decide(
    authenticated: &AuthenticatedClient,
    request: &TokenRequest,
    default_ttl: Duration,
) -> Result<Grant, Denial> {
    let client = authenticated.client();
    let (audience, granted) = match &request.audience {
        Some(audience) => {
            let granted = granted_scopes(&client.settings, audience)
                .ok_or_else(|| Denial::AudienceNotGranted(audience.clone()))?;
            (audience.clone(), granted)
        }
        None => {
            let rule = infer(&client.settings, &request.scopes)?;
            (rule.audience.clone(), rule.scopes.clone())
        }
    };
    if let Some(missing) = granted.first_missing(&request.scopes) {
        // The ordinary scopes of `countersign` are no grant. Who has none and asks for more asks for a wrong target.
        let has_grant = client.settings.grants.scopes(audience.as_str()).is_some();
        if !has_grant && !ORDINARY_SCOPES.contains(&missing) {
            return Err(Denial::AudienceNotGranted(audience));
        }
        return Err(Denial::ScopeNotGranted(missing.into()));
    }
    let scopes = if request.scopes.is_empty() { granted } else { request.scopes.clone() };
    let longest = client.settings.max_token_ttl.unwrap_or(default_ttl);
    let ttl = request.requested_ttl.map_or(longest, |requested| requested.min(longest));
    Ok(Grant { client_id: client.id.clone(), audience, scopes, ttl })
}

/// The scopes that a client has for an audience: those granted, and for `countersign` also the ordinary ones.
fn granted_scopes(settings: &ClientSettings, audience: &Audience) -> Option<ScopeSet> {
    let granted = settings.grants.scopes(audience.as_str());
    if audience.as_str() != COUNTERSIGN {
        return granted.cloned();
    }
    let held = if settings.serves.as_slice().is_empty() {
        &ORDINARY_SCOPES[..1]
    } else {
        &ORDINARY_SCOPES[..]
    };
    let scopes = granted.iter().flat_map(|scopes| scopes.iter()).chain(held.iter().copied());
    // This fails only with more scopes than a set can hold. `may_change` lets nobody grant unknown ones, so
    // somebody must have edited the database; the granted scopes alone still apply.
    ScopeSet::from_texts(scopes).ok().or_else(|| granted.cloned())
}

/// Infers which grant a request without an audience means.
fn infer<'a>(settings: &'a ClientSettings, asked: &ScopeSet) -> Result<&'a GrantRule, Denial> {
    let mut grants =
        settings.grants.as_slice().iter().filter(|rule| rule.audience.as_str() != COUNTERSIGN);
    if let (Some(only), None) = (grants.next(), grants.next()) {
        return Ok(only);
    }
    if asked.is_empty() {
        return Err(Denial::AudienceAmbiguous);
    }
    let grants =
        || settings.grants.as_slice().iter().filter(|rule| rule.audience.as_str() != COUNTERSIGN);
    let mut fitting = grants().filter(|rule| rule.scopes.first_missing(asked).is_none());
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only),
        _ => match asked.iter().find(|scope| !grants().any(|rule| rule.scopes.contains(scope))) {
            Some(unknown) => Err(Denial::ScopeNotGranted(unknown.into())),
            None => Err(Denial::AudienceAmbiguous),
        },
    }
}

/// A client that acts with administrative scopes. It has shown either a token that the guard permitted, or
/// its own credential.
///
/// A token that was verified but not permitted by the guard makes nobody an operator, whatever its scopes:
///
/// ```compile_fail
/// use countersign::policy::Operator;
/// use countersign_mesh::trust::VerifiedToken;
///
/// fn operator(token: &VerifiedToken) -> Option<Operator> {
///     Operator::permitted(token)
/// }
/// ```
///
/// The guard must have permitted the call:
///
/// ```
/// use countersign::policy::Operator;
/// use countersign_mesh::guard::Permitted;
///
/// fn operator(call: &Permitted) -> Option<Operator> {
///     Operator::permitted(call)
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Operator {
    client_id: ClientId,
    scopes: ScopeSet,
}

impl Operator {
    /// The operator who made this call. `None` when the guard permitted it for another audience than
    /// `countersign`: the same scopes mean something else there.
    pub fn permitted(call: &Permitted) -> Option<Self> {
        let Claims { client_id, audience, scopes, .. } = call.claims();
        (audience.as_str() == COUNTERSIGN)
            .then(|| Self { client_id: client_id.clone(), scopes: scopes.clone() })
    }

    /// A client that has just authenticated, with all scopes that it was granted for `countersign`.
    pub fn authenticated(client: &AuthenticatedClient) -> Self {
        let Client { id, settings, .. } = client.client();
        let scopes = settings.grants.scopes(COUNTERSIGN).cloned().unwrap_or_default();
        Self { client_id: id.clone(), scopes }
    }

    /// The operator's client id.
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// Whether the operator acts with this scope.
    pub fn holds(&self, scope: &str) -> bool {
        self.scopes.contains(scope)
    }
}

/// Why an operator may not change a client in this way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeDenial {
    /// The client holds an administrative scope, or would hold one: such a change takes `operators:write`.
    NeedsOperatorsWrite,
    /// The operator lacks this scope, so it may not grant it.
    LacksScope(Box<str>),
    /// Audience `countersign` has no such scope.
    NoSuchScope(Box<str>),
    /// Only Countersign itself serves audience `countersign`.
    ServesCountersign,
    /// A resource stands for an audience that the client does not serve.
    ResourceNotServed,
}

impl fmt::Display for ChangeDenial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeedsOperatorsWrite => {
                f.write_str("a client with administrative scopes can be touched only with the scope operators:write")
            }
            Self::LacksScope(scope) => write!(f, "nobody grants a scope that they lack: {scope}"),
            Self::NoSuchScope(scope) => write!(f, "audience countersign has no scope {scope}"),
            Self::ServesCountersign => f.write_str("only Countersign itself serves the audience countersign"),
            Self::ResourceNotServed => f.write_str("a resource can stand only for an audience that the client serves"),
        }
    }
}

/// Decides whether an operator may change a client's settings from `before` to `after`. `before` is `None` for
/// a client that is created, `after` for one that is deleted.
///
/// # Errors
/// See [`ChangeDenial`].
pub fn may_change(
    operator: &Operator,
    before: Option<&ClientSettings>,
    after: Option<&ClientSettings>,
) -> Result<(), ChangeDenial> {
    let touches_operator = before.into_iter().chain(after).any(is_operator);
    if touches_operator && !operator.holds("operators:write") {
        return Err(ChangeDenial::NeedsOperatorsWrite);
    }
    let Some(after) = after else { return Ok(()) };
    if after.serves.as_slice().iter().any(|audience| audience.as_str() == COUNTERSIGN) {
        return Err(ChangeDenial::ServesCountersign);
    }
    let serves = after.serves.as_slice();
    if after.resources.as_slice().iter().any(|alias| !serves.contains(&alias.audience)) {
        return Err(ChangeDenial::ResourceNotServed);
    }
    let had = before.and_then(|settings| settings.grants.scopes(COUNTERSIGN));
    for scope in after.grants.scopes(COUNTERSIGN).iter().flat_map(|scopes| scopes.iter()) {
        let is_administrative = ADMINISTRATIVE_SCOPES.contains(&scope);
        if !is_administrative && !ORDINARY_SCOPES.contains(&scope) {
            return Err(ChangeDenial::NoSuchScope(scope.into()));
        }
        // A scope that the client already has may stay, so that an operator can change other settings.
        let is_new = !had.is_some_and(|had| had.contains(scope));
        if is_administrative && is_new && !operator.holds(scope) {
            return Err(ChangeDenial::LacksScope(scope.into()));
        }
    }
    Ok(())
}

/// Decides whether an operator may make a credential for a client. Whoever holds the credential can act as
/// the client, so the operator needs every administrative scope that the client has.
///
/// # Errors
/// See [`ChangeDenial`].
pub fn may_make_credential(
    operator: &Operator,
    client: &ClientSettings,
) -> Result<(), ChangeDenial> {
    may_change(operator, Some(client), Some(client))?;
    let held = client.grants.scopes(COUNTERSIGN);
    match held
        .iter()
        .flat_map(|held| held.iter())
        .find(|scope| ADMINISTRATIVE_SCOPES.contains(scope) && !operator.holds(scope))
    {
        Some(lacking) => Err(ChangeDenial::LacksScope(lacking.into())),
        None => Ok(()),
    }
}

/// Whether a client holds an administrative scope.
pub fn is_operator(settings: &ClientSettings) -> bool {
    holds_any(settings, &ADMINISTRATIVE_SCOPES)
}

/// Whether a client could create and repair operators, provided that it can authenticate. If no client can,
/// that is possible only on the host itself.
pub fn can_administer_operators(client: &Client) -> bool {
    // The scopes to read a client, to change it, and to touch one that is an operator.
    const NEEDED: [&str; 3] = ["clients:read", "clients:write", "operators:write"];
    !client.settings.disabled && NEEDED.iter().all(|scope| holds_any(&client.settings, &[scope]))
}

fn holds_any(settings: &ClientSettings, scopes: &[&str]) -> bool {
    settings
        .grants
        .scopes(COUNTERSIGN)
        .is_some_and(|held| scopes.iter().any(|scope| held.contains(scope)))
}
