//! What a client presents, and how it comes to be believed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use countersign_mesh::claims::{ClientId, Issuer, Timestamp};
use countersign_mesh::keys::{PublicKey, SigningKey};
use countersign_mesh::token::Assertion;

use crate::client::credential::{certified, matching, signer};
use crate::client::used_assertions::{Unusable, UsedAssertions};
use crate::client::{CertificateNames, Client, CredentialKind};

/// What a client presents to prove who it is.
#[derive(Clone, Copy)]
pub enum PresentedCredential<'a> {
    /// One of its secrets.
    Secret(&'a str),
    /// A JWT signed with one of its keys (RFC 7523 §2.2).
    Assertion(&'a str),
    /// The certificate of the connection, which the TLS handshake has verified.
    Certificate(&'a CertificateNames),
}

impl fmt::Debug for PresentedCredential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(_) => f.write_str("Secret([redacted])"),
            Self::Assertion(_) => f.write_str("Assertion([redacted])"),
            Self::Certificate(names) => f.debug_tuple("Certificate").field(names).finish(),
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

/// Why a client is not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthenticationError {
    /// It is not believed.
    Rejected(NotAuthenticated),
    /// Its assertion is good, but cannot be remembered, so that it could be used again: there is no
    /// room, or the memory is younger than the assertion's time. Another one later may do.
    CannotRemember,
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
    /// The assertion is not one, or does not say what it must.
    BadAssertion,
    /// The assertion is for someone else than this issuer.
    AssertionAudience,
    /// The assertion's time is over, has not come, or is too long.
    AssertionTime,
    /// None of its keys has signed the assertion.
    WrongKey,
    /// One of its keys has, but that key's time is over.
    ExpiredKey,
    /// The assertion has been used before, or may have been.
    AssertionUsed,
    /// The certificate has none of the names that the client was registered with.
    WrongCertificate,
    /// It has one of them, but that name's time is over.
    ExpiredCertificate,
}

impl NotAuthenticated {
    /// The reason in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownClient => "unknown_client",
            Self::Disabled => "disabled_client",
            Self::WrongSecret => "wrong_secret",
            Self::ExpiredSecret => "expired_secret",
            Self::BadAssertion => "bad_assertion",
            Self::AssertionAudience => "assertion_audience",
            Self::AssertionTime => "assertion_time",
            Self::WrongKey => "wrong_key",
            Self::ExpiredKey => "expired_key",
            Self::AssertionUsed => "assertion_used",
            Self::WrongCertificate => "wrong_certificate",
            Self::ExpiredCertificate => "expired_certificate",
        }
    }
}

/// What assertions are held against: whom they must be for, since when they are remembered, and which
/// have been used.
pub struct AssertionDesk {
    audiences: [Box<str>; 3],
    since: Timestamp,
    used: UsedAssertions,
    decoy: PublicKey,
}

impl AssertionDesk {
    /// How far a client's clock may be off from ours.
    pub const SKEW: Duration = Duration::from_secs(5);

    /// Accepts assertions for this issuer, by its name or as one of its token endpoints, from now on.
    pub fn open(issuer: &Issuer, now: Timestamp) -> Self {
        let base = issuer.as_str().trim_end_matches('/');
        Self {
            audiences: [
                issuer.as_str().into(),
                format!("{base}/oauth/token").into(),
                format!("{base}/oauth2/token").into(),
            ],
            since: now,
            used: UsedAssertions::default(),
            decoy: SigningKey::from_seed(&[0; 32]).public().clone(),
        }
    }

    /// Reads an assertion and checks what can be told without knowing any client.
    fn read(
        &self,
        text: &str,
        client_id: &ClientId,
        now: Timestamp,
    ) -> Result<Assertion, NotAuthenticated> {
        let assertion = Assertion::parse(text).map_err(|_| NotAuthenticated::BadAssertion)?;
        let is_own = [&assertion.issuer, &assertion.subject]
            .into_iter()
            .all(|name| **name == *client_id.as_str());
        if !is_own {
            return Err(NotAuthenticated::BadAssertion);
        }
        if !assertion.audiences.iter().any(|audience| self.audiences.contains(audience)) {
            return Err(NotAuthenticated::AssertionAudience);
        }
        let (issued_at, expires_at) = (assertion.issued_at, assertion.expires_at);
        let begins_at = assertion.not_before.unwrap_or(issued_at).max(issued_at);
        let in_time = begins_at <= now + Self::SKEW
            && now < expires_at + Self::SKEW
            && expires_at <= issued_at + Assertion::MAX_LIFE
            && expires_at > issued_at;
        if in_time { Ok(assertion) } else { Err(NotAuthenticated::AssertionTime) }
    }

    /// Uses an assertion up, once all else is right.
    fn use_up(
        &self,
        assertion: &Assertion,
        client_id: &ClientId,
        now: Timestamp,
    ) -> Result<(), AuthenticationError> {
        // Another process may have accepted it until this one started, from a clock that is ahead.
        let remembered_from = self.since + Self::SKEW;
        if assertion.issued_at <= remembered_from {
            return Err(if now <= remembered_from {
                AuthenticationError::CannotRemember
            } else {
                AuthenticationError::Rejected(NotAuthenticated::AssertionUsed)
            });
        }
        let end = assertion.expires_at + Self::SKEW;
        self.used.use_up(client_id, &assertion.id, end, now).map_err(|unusable| match unusable {
            Unusable::Used => AuthenticationError::Rejected(NotAuthenticated::AssertionUsed),
            Unusable::NoRoom => AuthenticationError::CannotRemember,
        })
    }
}

/// The client that an assertion says it is from. Nothing of it is verified: it tells which client to
/// authenticate when a request does not name it otherwise (RFC 7521 §4.2).
pub fn unverified_subject(assertion: &str) -> Option<ClientId> {
    Assertion::parse(assertion).ok().and_then(|assertion| ClientId::new(&assertion.subject).ok())
}

/// Believes a client that presents one of its credentials.
///
/// The work is the same whatever comes of it, also for a client that does not exist: for a secret one
/// hash and [`CredentialKind::MAX_OF_EACH`] comparisons in constant time; for an assertion that can be one, one
/// verification if it names its key and as many if not. The names in certificates are no secrets:
/// comparing them takes what it takes.
///
/// # Errors
/// When there is no such client, it is disabled, or the credential is not one of its, or no longer; or
/// when an assertion cannot be remembered.
pub fn authenticate(
    client_id: &ClientId,
    candidate: Option<&Arc<Client>>,
    presented: PresentedCredential<'_>,
    assertions: &AssertionDesk,
    now: Timestamp,
) -> Result<AuthenticatedClient, AuthenticationError> {
    let known = candidate.map(AsRef::as_ref);
    // Before anything is decided, so that a client that is not there costs the same work.
    let (matched, assertion) = match presented {
        PresentedCredential::Secret(secret) => {
            (matching(known, secret).ok_or(NotAuthenticated::WrongSecret), None)
        }
        PresentedCredential::Assertion(text) => match assertions.read(text, client_id, now) {
            Ok(assertion) => {
                let signer = signer(known, &assertion, &assertions.decoy);
                (signer.ok_or(NotAuthenticated::WrongKey), Some(assertion))
            }
            Err(error) => (Err(error), None),
        },
        PresentedCredential::Certificate(names) => {
            (certified(known, names, now).ok_or(NotAuthenticated::WrongCertificate), None)
        }
    };
    let rejected = AuthenticationError::Rejected;
    let client = candidate.ok_or(rejected(NotAuthenticated::UnknownClient))?;
    let credential = matched.map_err(rejected)?;
    if client.settings.disabled {
        return Err(rejected(NotAuthenticated::Disabled));
    }
    if credential.has_expired(now) {
        return Err(rejected(match credential.kind {
            CredentialKind::Secret(_) => NotAuthenticated::ExpiredSecret,
            CredentialKind::PublicKey(_) => NotAuthenticated::ExpiredKey,
            CredentialKind::CertificateName(_) => NotAuthenticated::ExpiredCertificate,
        }));
    }
    if let Some(assertion) = assertion {
        assertions.use_up(&assertion, client_id, now)?;
    }
    credential.last_use.note(now);
    Ok(AuthenticatedClient(Arc::clone(client)))
}

#[cfg(test)]
mod tests {
    use countersign_mesh::token::sign_assertion;

    use super::*;
    use crate::client::{ClientSecret, ClientSettings, Credential, SecretHash};

    const NOW: Timestamp = Timestamp::from_unix(1000);

    fn client(secrets: &[(&ClientSecret, Option<u64>)], disabled: bool) -> Arc<Client> {
        let credentials = secrets.iter().map(|(secret, expires_at)| {
            let kind = CredentialKind::Secret(SecretHash::of(secret.expose()));
            let expires_at = expires_at.map(Timestamp::from_unix);
            Arc::new(Credential { expires_at, ..Credential::new(kind, NOW, None) })
        });
        let id = ClientId::new("order").expect("client id");
        let settings = ClientSettings { disabled, ..ClientSettings::default() };
        Arc::new(Client { credentials: credentials.collect(), ..Client::new(id, settings, NOW) })
    }

    fn by_secret(
        candidate: Option<&Arc<Client>>,
        secret: &str,
        now: Timestamp,
    ) -> Result<AuthenticatedClient, AuthenticationError> {
        let id = ClientId::new("order").expect("client id");
        let desk = AssertionDesk::open(&Issuer::new("https://issuer").expect("an issuer"), NOW);
        authenticate(&id, candidate, PresentedCredential::Secret(secret), &desk, now)
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
            assert_eq!(client.credentials[at].last_use.time(), None);
            assert!(by_secret(Some(&client), secret.expose(), NOW).is_ok());
            assert_eq!(client.credentials[at].last_use.unwritten(), Some(NOW));
        }
    }

    #[test]
    fn an_assertion_names_its_client_before_anything_is_verified() {
        let id = ClientId::new("order").expect("client id");
        let key = SigningKey::from_seed(&[1; 32]);
        let signed = sign_assertion(&key, &id, "https://issuer", NOW, [1; 16]);
        assert_eq!(unverified_subject(signed.expose()), Some(id));
        assert_eq!(unverified_subject("noise"), None);
        assert_eq!(unverified_subject(""), None);
    }

    #[test]
    fn whoever_does_not_prove_it_is_not_believed() {
        let (right, expiring) = (secret(), secret());
        let known = client(&[(&right, None), (&expiring, Some(1000))], false);
        let refusal = |candidate, secret: &str| match by_secret(candidate, secret, NOW) {
            Err(AuthenticationError::Rejected(reason)) => reason,
            other => panic!("{other:?}"),
        };

        assert_eq!(refusal(None, right.expose()), NotAuthenticated::UnknownClient);
        assert_eq!(refusal(Some(&known), secret().expose()), NotAuthenticated::WrongSecret);
        assert_eq!(refusal(Some(&known), ""), NotAuthenticated::WrongSecret);
        assert_eq!(refusal(Some(&known), expiring.expose()), NotAuthenticated::ExpiredSecret);
        assert!(by_secret(Some(&known), expiring.expose(), Timestamp::from_unix(999)).is_ok());

        let disabled = client(&[(&right, None)], true);
        assert_eq!(refusal(Some(&disabled), right.expose()), NotAuthenticated::Disabled);
        assert_eq!(
            refusal(Some(&client(&[], false)), right.expose()),
            NotAuthenticated::WrongSecret
        );
    }
}
