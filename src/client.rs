//! Registered clients, what they prove themselves with, and the proof that they did.

mod secret;

pub use self::secret::ClientSecret;
pub use self::secret::InvalidSecretId;
pub use self::secret::LastUse;
pub use self::secret::SecretHash;
pub use self::secret::SecretId;
pub use self::secret::SecretInfo;
pub use self::secret::StoredSecret;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use subtle::Choice;
use subtle::ConstantTimeEq;

use crate::claims::Audience;
use crate::claims::ClientId;
use crate::claims::ScopeSet;
use crate::claims::Timestamp;

/// A registered client (RFC 6749 §2).
#[derive(Debug, Clone)]
pub struct Client {
    /// Its name.
    pub id: ClientId,
    /// What an operator may change of it.
    pub settings: ClientSettings,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Grows with every change of any client, and is never used twice.
    pub revision: u64,
    /// Its secrets, oldest first.
    pub secrets: Vec<Arc<StoredSecret>>,
    /// The audiences that it was granted until lately, and until when it can have tokens for them.
    pub former_audiences: Vec<(Audience, Timestamp)>,
}

/// What an operator may change of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSettings {
    /// For people: what it is and whom to ask.
    pub description: Box<str>,
    /// What it may call.
    pub grants: Grants,
    /// The audiences that it is.
    pub serves: Serves,
    /// The longest life of its tokens; the server's default when absent.
    pub max_token_ttl: Option<Duration>,
    /// Whether it gets no tokens.
    pub disabled: bool,
}

/// What policy allows a client to call: one audience and scopes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRule {
    /// The service.
    pub audience: Audience,
    /// What it may do there.
    pub scopes: ScopeSet,
}

/// The grants of a client: at most [`Grants::MAX`], one an audience, each with a scope at least; in
/// the order of the audiences.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<GrantRule>")]
pub struct Grants(Arc<[GrantRule]>);

/// The audiences that a client is: at most [`Serves::MAX`], each once, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Audience>")]
pub struct Serves(Arc<[Audience]>);

/// Why something is not a client's grants or audiences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidGrants {
    /// More than the maximum.
    TooMany,
    /// An audience twice.
    AudienceTwice,
    /// A grant without a scope.
    NoScope,
}

impl fmt::Display for InvalidGrants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooMany => "more than 64 of them",
            Self::AudienceTwice => "an audience stands twice; put all of its scopes into one grant",
            Self::NoScope => "a grant needs a scope",
        })
    }
}

impl std::error::Error for InvalidGrants {}

impl Grants {
    /// How many grants a client can have.
    pub const MAX: usize = 64;

    /// The grants, as a slice.
    pub fn as_slice(&self) -> &[GrantRule] {
        &self.0
    }

    /// The scopes granted for an audience.
    pub fn scopes(&self, audience: &str) -> Option<&ScopeSet> {
        self.0.iter().find(|rule| rule.audience.as_str() == audience).map(|rule| &rule.scopes)
    }
}

impl TryFrom<Vec<GrantRule>> for Grants {
    type Error = InvalidGrants;
    fn try_from(mut rules: Vec<GrantRule>) -> Result<Self, InvalidGrants> {
        rules.sort_by(|a, b| a.audience.cmp(&b.audience));
        if rules.len() > Self::MAX {
            return Err(InvalidGrants::TooMany);
        }
        if rules.iter().any(|rule| rule.scopes.is_empty()) {
            return Err(InvalidGrants::NoScope);
        }
        if rules.windows(2).any(|pair| pair[0].audience == pair[1].audience) {
            return Err(InvalidGrants::AudienceTwice);
        }
        Ok(Self(rules.into()))
    }
}

impl Serves {
    /// How many audiences a client can be.
    pub const MAX: usize = 64;

    /// The audiences, as a slice.
    pub fn as_slice(&self) -> &[Audience] {
        &self.0
    }
}

impl TryFrom<Vec<Audience>> for Serves {
    type Error = InvalidGrants;
    fn try_from(mut audiences: Vec<Audience>) -> Result<Self, InvalidGrants> {
        audiences.sort();
        audiences.dedup();
        if audiences.len() > Self::MAX {
            return Err(InvalidGrants::TooMany);
        }
        Ok(Self(audiences.into()))
    }
}

impl Client {
    /// How many secrets a client can have at a time.
    pub const MAX_SECRETS: usize = 8;

    /// A client that is registered now, without a credential yet. Its revision is set by the store.
    pub fn new(id: ClientId, settings: ClientSettings, now: Timestamp) -> Self {
        Self {
            id,
            settings,
            created_at: now,
            updated_at: now,
            revision: 0,
            secrets: Vec::new(),
            former_audiences: Vec::new(),
        }
    }

    /// Whom its tokens can be for: what it is granted, and what it was until lately.
    pub fn audiences(&self, now: Timestamp) -> Arc<[Audience]> {
        let granted = self.settings.grants.as_slice().iter().map(|rule| &rule.audience);
        let former = self.former_audiences.iter().filter(|(_, until)| *until > now);
        granted.chain(former.map(|(audience, _)| audience)).cloned().collect()
    }

    /// Notes which audiences it is granted no longer, compared with what it was before, and that it can
    /// have tokens for them until `until`.
    pub fn note_former_audiences(&mut self, before: &Client, now: Timestamp, until: Timestamp) {
        let grants = &self.settings.grants;
        let taken = before.settings.grants.as_slice().iter().map(|rule| (&rule.audience, until));
        let noted = before.former_audiences.iter().map(|(audience, until)| (audience, *until));
        // Those taken now come first: their time is later than any that was noted for the same.
        let mut former: Vec<(Audience, Timestamp)> = Vec::new();
        for (audience, until) in taken.chain(noted) {
            let known = former.iter().any(|(known, _)| known == audience);
            if grants.scopes(audience.as_str()).is_none() && until > now && !known {
                former.push((audience.clone(), until));
            }
        }
        self.former_audiences = former;
    }

    /// Whether a secret of the client works at this time.
    pub fn has_usable_secret(&self, now: Timestamp) -> bool {
        self.secrets.iter().any(|secret| !secret.has_expired(now))
    }
}

/// What there is to tell of a client: all but the hashes of its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientInfo {
    /// Its name.
    pub id: ClientId,
    /// What an operator may change of it.
    pub settings: ClientSettings,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Tells this state of the client from every other.
    pub revision: u64,
    /// Its secrets, oldest first.
    pub secrets: Vec<SecretInfo>,
}

impl Client {
    /// What there is to tell of it.
    pub fn info(&self) -> ClientInfo {
        ClientInfo {
            id: self.id.clone(),
            settings: self.settings.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            revision: self.revision,
            secrets: self.secrets.iter().map(|secret| secret.info()).collect(),
        }
    }
}

/// A client that has proven who it is. Only [`authenticate`] makes one.
#[derive(Debug, Clone)]
pub struct AuthenticatedClient(Arc<Client>);

impl AuthenticatedClient {
    /// The client.
    pub fn client(&self) -> &Client {
        &self.0
    }
}

/// Why a client is not believed. For the log and the audit only: on the wire they are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotAuthenticated {
    /// No client has this name.
    UnknownClient,
    /// It has been disabled.
    Disabled,
    /// None of its secrets is this one.
    WrongSecret,
    /// One of its secrets is, but its time is over.
    ExpiredSecret,
}

impl NotAuthenticated {
    /// The reason in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownClient => "unknown_client",
            Self::Disabled => "disabled_client",
            Self::WrongSecret => "wrong_secret",
            Self::ExpiredSecret => "expired_secret",
        }
    }
}

/// Believes a client that presents one of its secrets.
///
/// The work is the same whatever comes of it: one hash and [`Client::MAX_SECRETS`] comparisons in
/// constant time, also for a client that does not exist.
///
/// # Errors
/// When there is no such client, it is disabled, or the secret is not one of its, or no longer.
pub fn authenticate(
    candidate: Option<&Arc<Client>>,
    secret: &str,
    now: Timestamp,
) -> Result<AuthenticatedClient, NotAuthenticated> {
    let presented = SecretHash::of(secret);
    let stored = candidate.map_or(&[][..], |client| &client.secrets);
    let mut matched = None;
    for slot in 0..Client::MAX_SECRETS {
        let hash = stored.get(slot).map_or(&NO_HASH, |secret| secret.hash.as_bytes());
        let same: Choice = presented.as_bytes().ct_eq(hash);
        if bool::from(same) {
            matched = stored.get(slot);
        }
    }
    let client = candidate.ok_or(NotAuthenticated::UnknownClient)?;
    let secret = matched.ok_or(NotAuthenticated::WrongSecret)?;
    if client.settings.disabled {
        return Err(NotAuthenticated::Disabled);
    }
    if secret.has_expired(now) {
        return Err(NotAuthenticated::ExpiredSecret);
    }
    secret.last_use.note(now);
    Ok(AuthenticatedClient(Arc::clone(client)))
}

/// Stands where a client has no secret; nothing is known that hashes to it.
const NO_HASH: [u8; 32] = [0; 32];

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix(1000);

    fn client(secrets: &[(&ClientSecret, Option<u64>)], disabled: bool) -> Arc<Client> {
        let secrets = secrets.iter().enumerate().map(|(at, (secret, expires_at))| {
            Arc::new(StoredSecret {
                id: SecretId(at as u32),
                hash: SecretHash::of(secret.expose()),
                created_at: NOW,
                expires_at: expires_at.map(Timestamp::from_unix),
                last_use: LastUse::default(),
            })
        });
        let id = ClientId::new("order").expect("client id");
        let settings = ClientSettings { disabled, ..ClientSettings::default() };
        Arc::new(Client { secrets: secrets.collect(), ..Client::new(id, settings, NOW) })
    }

    fn secret() -> ClientSecret {
        ClientSecret::generate().expect("randomness")
    }

    #[test]
    fn each_of_several_secrets_is_accepted_and_its_use_noted() {
        let secrets: Vec<ClientSecret> = (0..8).map(|_| secret()).collect();
        let client =
            client(&secrets.iter().map(|secret| (secret, None)).collect::<Vec<_>>(), false);
        for (at, secret) in secrets.iter().enumerate() {
            assert_eq!(client.secrets[at].last_use.time(), None);
            assert!(authenticate(Some(&client), secret.expose(), NOW).is_ok());
            assert_eq!(client.secrets[at].last_use.unwritten(), Some(NOW));
        }
    }

    #[test]
    fn whoever_does_not_prove_it_is_not_believed() {
        let (right, expiring) = (secret(), secret());
        let known = client(&[(&right, None), (&expiring, Some(1000))], false);
        let refusal =
            |candidate, secret: &str| authenticate(candidate, secret, NOW).expect_err("refused");

        assert_eq!(refusal(None, right.expose()), NotAuthenticated::UnknownClient);
        assert_eq!(refusal(Some(&known), secret().expose()), NotAuthenticated::WrongSecret);
        assert_eq!(refusal(Some(&known), ""), NotAuthenticated::WrongSecret);
        assert_eq!(refusal(Some(&known), expiring.expose()), NotAuthenticated::ExpiredSecret);
        assert!(authenticate(Some(&known), expiring.expose(), Timestamp::from_unix(999)).is_ok());

        let disabled = client(&[(&right, None)], true);
        assert_eq!(refusal(Some(&disabled), right.expose()), NotAuthenticated::Disabled);
        assert_eq!(
            refusal(Some(&client(&[], false)), right.expose()),
            NotAuthenticated::WrongSecret
        );
    }

    #[test]
    fn grants_name_each_audience_once_and_some_scope() {
        let rule = |audience: &str, scopes: &str| GrantRule {
            audience: Audience::new(audience).expect("audience"),
            scopes: ScopeSet::parse(scopes).expect("scopes"),
        };
        let grants = Grants::try_from(vec![rule("b", "x"), rule("a", "y z")]).expect("good grants");
        assert_eq!(grants.scopes("a").map(ScopeSet::as_str), Some("y z"));
        assert_eq!(grants.scopes("c"), None);
        assert_eq!(
            Grants::try_from(vec![rule("a", "x"), rule("a", "y")]),
            Err(InvalidGrants::AudienceTwice)
        );
        assert_eq!(Grants::try_from(vec![rule("a", "")]), Err(InvalidGrants::NoScope));
        let many = (0..65).map(|n| rule(&format!("a{n}"), "x")).collect::<Vec<_>>();
        assert_eq!(Grants::try_from(many), Err(InvalidGrants::TooMany));
    }
}
