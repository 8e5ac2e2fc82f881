//! Who gets what. Pure: facts in, a [`Grant`] or a [`Denial`] out.

use std::fmt;
use std::time::Duration;

use countersign_mesh::claims::{Audience, COUNTERSIGN, Claims, ClientId, ScopeSet};
use countersign_mesh::guard::Permitted;

use crate::client::{AuthenticatedClient, Client, ClientSettings, GrantRule};

/// The scopes of audience `countersign` that make their holder an operator.
pub const ADMINISTRATIVE_SCOPES: [&str; 7] = [
    "audit:read",
    "clients:read",
    "clients:write",
    "keys:read",
    "keys:rotate",
    "operators:write",
    "tokens:revoke",
];

/// The other scopes of audience `countersign`. Every client holds the first, and one that serves an
/// audience holds all, without being granted them.
pub const ORDINARY_SCOPES: [&str; 3] = ["tokens:revoke-own", "tokens:validate", "trust:watch"];

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// The service; none to have it inferred.
    pub audience: Option<Audience>,
    /// The scopes; none for all that were granted.
    pub scopes: ScopeSet,
    /// A shorter life than the client would get.
    pub requested_ttl: Option<Duration>,
}

/// What a client gets. Only [`decide`] makes one, and only for a client that has proven who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    client_id: ClientId,
    audience: Audience,
    scopes: ScopeSet,
    ttl: Duration,
}

impl Grant {
    /// To whom.
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// For which service.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    /// With which scopes.
    pub fn scopes(&self) -> &ScopeSet {
        &self.scopes
    }

    /// For how long.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }
}

/// Why a client does not get what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// It was granted nothing for that audience.
    AudienceNotGranted(Audience),
    /// It named no audience, and what it asks for does not tell which of its grants is meant.
    AudienceAmbiguous,
    /// It was not granted this scope.
    ScopeNotGranted(Box<str>),
}

/// Decides on a request for a token.
///
/// Without an audience, the client's only grant is meant, or the only one that has all the scopes
/// asked for. `countersign` is never meant. The life is the client's maximum, or `default_ttl`, or
/// what was requested if that is shorter.
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
        return Err(Denial::ScopeNotGranted(missing.into()));
    }
    let scopes = if request.scopes.is_empty() { granted } else { request.scopes.clone() };
    let longest = client.settings.max_token_ttl.unwrap_or(default_ttl);
    let ttl = request.requested_ttl.map_or(longest, |requested| requested.min(longest));
    Ok(Grant { client_id: client.id.clone(), audience, scopes, ttl })
}

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
    // Only someone who wrote to the database could have made them too many; then it is those only.
    ScopeSet::from_texts(scopes).ok().or_else(|| granted.cloned())
}

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

/// A client that acts with administrative scopes, by a token that Countersign verified or by its own
/// credential.
///
/// A token that was merely verified makes nobody an operator, whatever its scopes:
///
/// ```compile_fail
/// use countersign::policy::Operator;
/// use countersign_mesh::guard::Permitted;
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
    /// Who made this call. None when it was permitted as a call of some other service: its scopes mean
    /// something else there.
    pub fn permitted(call: &Permitted) -> Option<Self> {
        let Claims { client_id, audience, scopes, .. } = call.claims();
        (audience.as_str() == COUNTERSIGN)
            .then(|| Self { client_id: client_id.clone(), scopes: scopes.clone() })
    }

    /// A client that has just proven who it is, with all the administrative scopes that it was granted.
    pub fn authenticated(client: &AuthenticatedClient) -> Self {
        let Client { id, settings, .. } = client.client();
        let scopes = settings.grants.scopes(COUNTERSIGN).cloned().unwrap_or_default();
        Self { client_id: id.clone(), scopes }
    }

    /// Who it is.
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// Whether it acts with a scope.
    pub fn holds(&self, scope: &str) -> bool {
        self.scopes.contains(scope)
    }
}

/// Why an operator may not change a client the way it wants to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeDenial {
    /// The client holds an administrative scope, or would: that takes `operators:write`.
    NeedsOperatorsWrite,
    /// The operator lacks this scope, so it cannot grant it.
    LacksScope(Box<str>),
    /// Audience `countersign` has no such scope.
    NoSuchScope(Box<str>),
    /// Only Countersign itself serves audience `countersign`.
    ServesCountersign,
    /// A resource means an audience that the client does not serve.
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
            Self::ResourceNotServed => f.write_str("a resource can mean only an audience that the client serves"),
        }
    }
}

/// Decides whether an operator may turn a client's settings `before` into those `after`; `None`
/// for a client that does not exist, before or after.
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
        let is_new = !had.is_some_and(|had| had.contains(scope));
        if is_administrative && is_new && !operator.holds(scope) {
            return Err(ChangeDenial::LacksScope(scope.into()));
        }
    }
    Ok(())
}

/// Decides whether an operator may make a credential for a client: whoever holds one can do what the
/// client can, so it takes every administrative scope that the client has.
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

/// Whether a client could make or mend operators, if it can authenticate: without one such, nobody
/// can, but on the host itself.
pub fn can_administer_operators(client: &Client) -> bool {
    // To read a client, to change it, and to touch one that is an operator.
    const NEEDED: [&str; 3] = ["clients:read", "clients:write", "operators:write"];
    !client.settings.disabled && NEEDED.iter().all(|scope| holds_any(&client.settings, &[scope]))
}

fn holds_any(settings: &ClientSettings, scopes: &[&str]) -> bool {
    settings
        .grants
        .scopes(COUNTERSIGN)
        .is_some_and(|held| scopes.iter().any(|scope| held.contains(scope)))
}
