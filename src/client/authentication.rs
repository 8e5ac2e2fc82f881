//! Client authentication: what a client presents, and the checks that turn it into proof.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use countersign_mesh::claims::{ClientId, Issuer, Timestamp};
use countersign_mesh::keys::{PublicKey, SigningKey};
use countersign_mesh::token::Assertion;

use crate::client::credential::{certified, matching, signer};
use crate::client::used_assertions::{Unusable, UsedAssertions};
use crate::client::{CertificateNames, Client, CredentialKind};

/// The credential that a client presents to prove who it is.
#[derive(Clone, Copy)]
pub enum PresentedCredential<'a> {
    /// A client secret.
    Secret(&'a str),
    /// A JWT that the client signed with one of its keys (RFC 7523 §2.2).
    Assertion(&'a str),
    /// The names in the client certificate of the connection. The TLS handshake has verified it.
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

/// Why authentication failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthenticationError {
    /// The client did not prove who it is.
    Rejected(NotAuthenticated),
    /// The assertion is valid, but this process cannot make sure that it is used only once: its memory of
    /// used assertions is full, or began too recently to know whether this one was used. The client may
    /// try again later with a new assertion.
    CannotRemember,
}

/// Why a client was rejected. The reason is only for the log and the audit log. On the wire all reasons look
/// alike, so that nobody learns which client ids exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotAuthenticated {
    /// No client has this id.
    UnknownClient,
    /// The client is disabled.
    Disabled,
    /// The secret matches none of the client's.
    WrongSecret,
    /// The secret matches one of the client's that has expired.
    ExpiredSecret,
    /// The assertion cannot be read, or its `iss` or `sub` is not the client (RFC 7523 §3).
    BadAssertion,
    /// The assertion's `aud` is not this issuer.
    AssertionAudience,
    /// The assertion has expired, is not valid yet, or lives too long.
    AssertionTime,
    /// None of the client's keys signed the assertion.
    WrongKey,
    /// One of the client's keys signed the assertion, but that key has expired.
    ExpiredKey,
    /// The assertion was used before, or may have been.
    AssertionUsed,
    /// The certificate has none of the names that the client is registered with.
    WrongCertificate,
    /// The certificate has one of those names, but that credential has expired.
    ExpiredCertificate,
}

impl NotAuthenticated {
    /// The reason in one word, as it stands in the audit log.
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

/// Checks assertions: their audience, their times, and that each is used only once.
pub struct AssertionDesk {
    /// The values that are accepted in `aud`.
    audiences: [Box<str>; 3],
    /// Since when this process remembers which assertions were used.
    since: Timestamp,
    used: UsedAssertions,
    /// The key to verify with where a client has none, so that the work is the same. Its private half is
    /// no secret; a signature of it proves nothing.
    decoy: PublicKey,
}

impl AssertionDesk {
    /// How far a client's clock may differ from ours, in either direction.
    pub const SKEW: Duration = Duration::from_secs(5);

    /// Opens a desk that accepts assertions for this issuer from now on. Their `aud` may be the issuer itself
    /// or one of its token endpoints (RFC 7523 §3, item 3).
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

    /// Reads an assertion and makes all checks that do not need the client's keys.
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

    /// Marks an assertion as used. Call it last, so that an assertion that is refused for another reason
    /// can still be used.
    fn use_up(
        &self,
        assertion: &Assertion,
        client_id: &ClientId,
        now: Timestamp,
    ) -> Result<(), AuthenticationError> {
        // The process before this one may have accepted it: until this one started, it took assertions
        // dated up to `SKEW` ahead.
        let remembered_from = self.since + Self::SKEW;
        if assertion.issued_at <= remembered_from {
            // Shortly after the start even a fresh assertion is too old, so the client may try again.
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

/// The client that an assertion claims to be from: its `sub`. Nothing is verified. It only tells which client
/// to authenticate when the request has no `client_id` (RFC 7521 §4.2).
pub fn unverified_subject(assertion: &str) -> Option<ClientId> {
    Assertion::parse(assertion).ok().and_then(|assertion| ClientId::new(&assertion.subject).ok())
}

/// Authenticates a client by the credential that it presents. `candidate` is the registered client with
/// this id, if there is one.
///
/// The amount of work does not depend on the outcome, nor on whether the client exists:
///
/// - a secret takes one hash and [`CredentialKind::MAX_OF_EACH`] comparisons in constant time;
/// - a readable assertion takes one signature verification if it names its key (`kid`), and
///   [`CredentialKind::MAX_OF_EACH`] if it does not.
///
/// Names in certificates are public, so comparing them need not take constant time.
///
/// # Errors
/// When the client does not exist or is disabled, when the credential is not one of its own or has expired,
/// or when this process cannot remember that an assertion was used.
pub fn authenticate(
    client_id: &ClientId,
    candidate: Option<&Arc<Client>>,
    presented: PresentedCredential<'_>,
    assertions: &AssertionDesk,
    now: Timestamp,
) -> Result<AuthenticatedClient, AuthenticationError> {
    let known = candidate.map(AsRef::as_ref);
    // All the work comes before the first decision, so that an unknown client costs the same.
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
    // These two are checked after the match: only the holder of a credential gets this far.
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
    fn each_of_several_secrets_authenticates_and_its_use_is_noted() {
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
    fn the_subject_of_an_assertion_is_read_without_verifying_it() {
        let id = ClientId::new("order").expect("client id");
        let key = SigningKey::from_seed(&[1; 32]);
        let signed = sign_assertion(&key, &id, "https://issuer", NOW, [1; 16]);
        assert_eq!(unverified_subject(signed.expose()), Some(id));
        assert_eq!(unverified_subject("noise"), None);
        assert_eq!(unverified_subject(""), None);
    }

    #[test]
    fn each_failed_authentication_is_rejected_for_its_own_reason() {
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
