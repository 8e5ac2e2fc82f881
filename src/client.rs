//! Registered clients, what they prove themselves with, and the proof that they did.

mod authentication;
mod credential;
mod resources;
mod used_assertions;

pub use self::authentication::{
    AssertionDesk, AuthenticatedClient, AuthenticationError, NotAuthenticated, PresentedCredential,
    authenticate, unverified_subject,
};
pub use self::credential::{
    CertificateName, CertificateNameKind, CertificateNames, ClientSecret, Credential,
    CredentialContent, CredentialId, CredentialInfo, CredentialKind, InvalidCertificate,
    InvalidCertificateName, InvalidCredentialId, LastUse, SecretHash,
};
pub use self::resources::{
    InvalidResources, ResourceAlias, ResourceUri, ResourceUriRule, Resources,
};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use countersign_mesh::claims::{Audience, ClientId, ScopeSet, Timestamp};
use serde::{Deserialize, Serialize};
use thin_vec::ThinVec;

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
    /// What it proves itself with, oldest first.
    pub credentials: Vec<Arc<Credential>>,
    // Most clients have none of these: a pointer, for all of a hundred thousand.
    /// The audiences that it was granted until lately, and until when it can have tokens for them.
    pub former_audiences: ThinVec<(Audience, Timestamp)>,
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
    /// Other names of audiences that it is. Answers that were remembered before there were any have
    /// none.
    #[serde(default)]
    pub resources: Resources,
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
    /// A client that is registered now, without a credential yet. Its revision is set by the store.
    pub fn new(id: ClientId, settings: ClientSettings, now: Timestamp) -> Self {
        Self {
            id,
            settings,
            created_at: now,
            updated_at: now,
            revision: 0,
            credentials: Vec::new(),
            former_audiences: ThinVec::new(),
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
        let mut former: ThinVec<(Audience, Timestamp)> = ThinVec::new();
        for (audience, until) in taken.chain(noted) {
            let known = former.iter().any(|(known, _)| known == audience);
            if grants.scopes(audience.as_str()).is_none() && until > now && !known {
                former.push((audience.clone(), until));
            }
        }
        self.former_audiences = former;
    }

    /// Whether the client has a credential that works at this time.
    pub fn has_usable_credential(&self, now: Timestamp) -> bool {
        self.credentials.iter().any(|credential| !credential.has_expired(now))
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
    /// What it proves itself with, oldest first. Answers kept by an older version have none.
    #[serde(default)]
    pub credentials: Vec<CredentialInfo>,
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
            credentials: self.credentials.iter().map(|credential| credential.info()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix(1000);

    #[test]
    fn a_grant_that_was_taken_away_is_remembered_until_its_tokens_are_gone() {
        let at = Timestamp::from_unix;
        let granted = |before: &Client, audiences: &[&str], now: u64| {
            let rules = audiences.iter().map(|audience| GrantRule {
                audience: Audience::new(audience).expect("audience"),
                scopes: ScopeSet::parse("x").expect("scopes"),
            });
            let mut after = before.clone();
            after.settings.grants = Grants::try_from(rules.collect::<Vec<_>>()).expect("grants");
            after.note_former_audiences(before, at(now), at(now + 100));
            after
        };
        let names = |client: &Client, now| -> Vec<String> {
            client.audiences(at(now)).iter().map(ToString::to_string).collect()
        };
        let id = ClientId::new("order").expect("client id");
        let new = Client::new(id, ClientSettings::default(), NOW);
        let client = granted(&granted(&new, &["a", "b"], 1000), &["b", "c"], 1000);
        assert_eq!(names(&client, 1099), ["b", "c", "a"]);
        assert_eq!(names(&client, 1100), ["b", "c"]);
        // Granted and taken away once more: the later time counts.
        let again = granted(&granted(&client, &["a"], 1010), &[], 1050);
        assert_eq!(names(&again, 1109), ["a", "b", "c"]);
        assert_eq!(names(&again, 1110), ["a"]);
        assert_eq!(granted(&again, &["d"], 1150).former_audiences.len(), 0);
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
