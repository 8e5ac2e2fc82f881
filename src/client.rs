//! Registered clients, the credentials that they authenticate with, and the proof that they did.
//!
//! A [`Client`] is a registered OAuth client (RFC 6749 §2): its id, its settings and its credentials. An
//! operator registers clients; there are no users.
//!
//! # How a client proves who it is
//!
//! ```text
//! client_id ──▶ candidate: a registered Client, or none ─┐
//!                                                        ├─▶ authenticate ──▶ AuthenticatedClient
//! PresentedCredential: secret, assertion or certificate ─┘         │
//!                                                                  └────────▶ AuthenticationError
//! ```
//!
//! 1. The caller looks the `client_id` up and passes what it found, even if that is nothing.
//! 2. [`authenticate`] finds the [`Credential`] that matches what was presented. Each kind has a file in
//!    `credential/`: a secret (RFC 6749 §2.3.1), a public key that verifies a signed assertion
//!    (`private_key_jwt`, RFC 7523 §2.2), or a name in the client's certificate (`tls_client_auth`,
//!    RFC 8705 §2.1).
//! 3. It checks that the client is enabled and that the credential has not expired. For an assertion, the
//!    [`AssertionDesk`] makes sure that it is used once only.
//! 4. An [`AuthenticatedClient`] is the proof. Whatever needs an authenticated client takes that type.
//!
//! # Invariants
//!
//! - Only [`authenticate`] makes an [`AuthenticatedClient`], so a skipped check does not compile.
//! - With a secret or an assertion, an unknown client costs as much work as a known one, so that nobody can
//!   find out client ids by timing. Comparisons with stored secrets take constant time.
//! - [`Grants`], [`Serves`] and [`Resources`] are valid by construction: bounded, sorted, and without
//!   duplicates.
//! - Secrets are stored as hashes, and are shown once. `Debug` and the `…Info` types never show one.
//!
//! # What it does not do
//!
//! It decides nothing about tokens (`policy` does) and stores nothing (`store` does). It does not verify
//! certificates: the TLS handshake has done so before it hands over [`CertificateNames`].

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
    /// Its id (`client_id`, RFC 6749 §2.2).
    pub id: ClientId,
    /// The part of it that an operator may change.
    pub settings: ClientSettings,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Grows with every change of any client. No value is used twice in one store.
    pub revision: u64,
    /// The credentials that it can authenticate with, oldest first.
    pub credentials: Vec<Arc<Credential>>,
    // A `ThinVec` because it is empty for most clients, and then takes one pointer: that counts with a
    // hundred thousand clients in memory.
    /// The audiences that it was granted until recently, each with the time until which it can have tokens
    /// for it.
    pub former_audiences: ThinVec<(Audience, Timestamp)>,
}

/// The part of a client that an operator may change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSettings {
    /// A note for people: what the client is, and whom to ask about it.
    pub description: Box<str>,
    /// The audiences that it may call, with their scopes.
    pub grants: Grants,
    /// The audiences that it is: services under whose name it is called.
    pub serves: Serves,
    /// The longest life of its tokens. `None` means the server's default.
    pub max_token_ttl: Option<Duration>,
    /// Whether it is disabled. A disabled client gets no tokens.
    pub disabled: bool,
    /// Other names (URIs) of the audiences that it serves. Remembered answers from before this field lack
    /// it, and read as none.
    #[serde(default)]
    pub resources: Resources,
}

/// One grant of a client: an audience that it may call, and the scopes that it may have there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRule {
    /// The audience.
    pub audience: Audience,
    /// The scopes.
    pub scopes: ScopeSet,
}

/// The grants of a client, sorted by audience: at most [`Grants::MAX`], one for each audience, each with at
/// least one scope.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<GrantRule>")]
pub struct Grants(Arc<[GrantRule]>);

/// The audiences that a client serves, sorted and without duplicates: at most [`Serves::MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Audience>")]
pub struct Serves(Arc<[Audience]>);

/// Why a list is not valid as a client's grants or served audiences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidGrants {
    /// It has more entries than the maximum.
    TooMany,
    /// It has two grants for the same audience.
    AudienceTwice,
    /// It has a grant without a scope.
    NoScope,
}

impl fmt::Display for InvalidGrants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooMany => "more than 64 of them",
            Self::AudienceTwice => {
                "an audience is listed twice; put all of its scopes into one grant"
            }
            Self::NoScope => "a grant needs a scope",
        })
    }
}

impl std::error::Error for InvalidGrants {}

impl Grants {
    /// The largest number of grants of a client.
    pub const MAX: usize = 64;

    /// The grants, as a slice.
    pub fn as_slice(&self) -> &[GrantRule] {
        &self.0
    }

    /// The scopes granted for an audience. `None` when the audience is not granted.
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
    /// The largest number of audiences that a client can serve.
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
    /// Makes a client that is registered now and has no credential yet. The store sets its revision when
    /// it is written.
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

    /// The audiences that its unexpired tokens can be for: those granted now, and those granted until
    /// recently.
    pub fn audiences(&self, now: Timestamp) -> Arc<[Audience]> {
        let granted = self.settings.grants.as_slice().iter().map(|rule| &rule.audience);
        let former = self.former_audiences.iter().filter(|(_, until)| *until > now);
        granted.chain(former.map(|(audience, _)| audience)).cloned().collect()
    }

    /// Compares its grants with those of `before`, and notes each audience that it has lost. It can have
    /// tokens for those until `until`.
    ///
    /// When its tokens are revoked later, the verifiers of these audiences have to be told too.
    pub fn note_former_audiences(&mut self, before: &Client, now: Timestamp, until: Timestamp) {
        let grants = &self.settings.grants;
        let taken = before.settings.grants.as_slice().iter().map(|rule| (&rule.audience, until));
        let noted = before.former_audiences.iter().map(|(audience, until)| (audience, *until));
        // Audiences taken away now come first: the first entry of an audience wins, and theirs ends later
        // than any that was noted earlier.
        let mut former: ThinVec<(Audience, Timestamp)> = ThinVec::new();
        for (audience, until) in taken.chain(noted) {
            let known = former.iter().any(|(known, _)| known == audience);
            if grants.scopes(audience.as_str()).is_none() && until > now && !known {
                former.push((audience.clone(), until));
            }
        }
        self.former_audiences = former;
    }

    /// Whether the client has a credential that has not expired at this time.
    pub fn has_usable_credential(&self, now: Timestamp) -> bool {
        self.credentials.iter().any(|credential| !credential.has_expired(now))
    }
}

/// What callers may know about a client: everything except the hashes of its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientInfo {
    /// Its id (`client_id`, RFC 6749 §2.2).
    pub id: ClientId,
    /// The part of it that an operator may change.
    pub settings: ClientSettings,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Identifies this state of the client; every change gives it another.
    pub revision: u64,
    /// Its credentials, oldest first. Remembered answers from an older version lack the field, and read as
    /// none.
    #[serde(default)]
    pub credentials: Vec<CredentialInfo>,
}

impl Client {
    /// Describes the client, without the hashes of its secrets.
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
    fn a_grant_that_was_taken_away_is_remembered_until_its_tokens_have_expired() {
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
        // `a` is granted and taken away once more: the later time counts.
        let again = granted(&granted(&client, &["a"], 1010), &[], 1050);
        assert_eq!(names(&again, 1109), ["a", "b", "c"]);
        assert_eq!(names(&again, 1110), ["a"]);
        assert_eq!(granted(&again, &["d"], 1150).former_audiences.len(), 0);
    }

    #[test]
    fn grants_name_each_audience_once_with_at_least_one_scope() {
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
