//! Registered clients, what they prove themselves with, and the proof that they did.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::Serialize;
use sha2::Digest;
use sha2::Sha256;
use subtle::Choice;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;
use zeroize::Zeroizing;

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
}

/// What an operator may change of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<GrantRule>")]
pub struct Grants(Arc<[GrantRule]>);

/// The audiences that a client is: at most [`Serves::MAX`], each once, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

    /// Whether a secret of the client works at this time.
    pub fn has_usable_secret(&self, now: Timestamp) -> bool {
        self.secrets.iter().any(|secret| !secret.has_expired(now))
    }
}

/// What is kept of a secret: enough to recognise it, not to use it.
#[derive(Debug)]
pub struct StoredSecret {
    /// Its name among the client's secrets.
    pub id: SecretId,
    /// What it hashes to.
    pub hash: SecretHash,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, for people.
    pub last_use: LastUse,
}

impl StoredSecret {
    /// Whether it works no more.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
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

/// What there is to tell of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretInfo {
    /// Its name among the client's secrets.
    pub id: SecretId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
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

impl StoredSecret {
    /// What there is to tell of it.
    pub fn info(&self) -> SecretInfo {
        SecretInfo {
            id: self.id,
            created_at: self.created_at,
            expires_at: self.expires_at,
            last_used_at: self.last_use.time(),
        }
    }
}

/// The name of a secret: eight hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretId(pub u32);

impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Text that does not name a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidSecretId;

impl fmt::Display for InvalidSecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a secret id: expected eight hexadecimal digits")
    }
}

impl std::error::Error for InvalidSecretId {}

impl FromStr for SecretId {
    type Err = InvalidSecretId;
    fn from_str(text: &str) -> Result<Self, InvalidSecretId> {
        if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidSecretId);
        }
        u32::from_str_radix(text, 16).map(Self).map_err(|_| InvalidSecretId)
    }
}

/// When a secret was last used. Noted in memory by whoever authenticates with it, and written to
/// the store now and then by someone else.
#[derive(Debug, Default)]
pub struct LastUse {
    noted: AtomicU64,
    written: AtomicU64,
}

impl LastUse {
    /// As the store remembers it.
    pub fn from_store(at: Option<Timestamp>) -> Self {
        let at = at.map_or(0, Timestamp::as_unix);
        Self { noted: AtomicU64::new(at), written: AtomicU64::new(at) }
    }

    /// The time, if there was one.
    pub fn time(&self) -> Option<Timestamp> {
        match self.noted.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Timestamp::from_unix(at)),
        }
    }

    /// The time, if the store does not have it yet.
    pub fn unwritten(&self) -> Option<Timestamp> {
        self.time().filter(|at| at.as_unix() != self.written.load(Ordering::Relaxed))
    }

    /// The store has it now.
    pub fn set_written(&self, at: Timestamp) {
        self.written.store(at.as_unix(), Ordering::Relaxed);
    }

    fn note(&self, now: Timestamp) {
        // Within a second, only the first of many users writes to the shared cache line.
        if self.noted.load(Ordering::Relaxed) < now.as_unix() {
            self.noted.store(now.as_unix(), Ordering::Relaxed);
        }
    }
}

/// The SHA-256 of a secret. No slow hash: the secrets are ours, with 256 bits of randomness each.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// What a secret hashes to.
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// As it was kept.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// For keeping.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

/// A secret itself: `csec_` and 48 characters of base64url, which are 256 random bits and the first
/// 32 bits of their SHA-256 under that prefix, so that a scanner can tell a leaked one from noise.
pub struct ClientSecret(String);

impl ClientSecret {
    /// What every secret begins with.
    pub const PREFIX: &'static str = "csec_";

    /// Makes one from the operating system's randomness.
    ///
    /// # Errors
    /// When the operating system has none to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = Zeroizing::new([0; 36]);
        getrandom::fill(&mut bytes[..32])?;
        let checksum = Self::checksum(&bytes[..32]);
        bytes[32..].copy_from_slice(&checksum);
        let mut text = String::with_capacity(Self::PREFIX.len() + 48);
        text.push_str(Self::PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes.as_slice(), &mut text);
        Ok(Self(text))
    }

    /// Whether text has the form and the checksum of a secret: what a scanner asks.
    pub fn looks_like_one(text: &str) -> bool {
        text.strip_prefix(Self::PREFIX)
            .and_then(|rest| URL_SAFE_NO_PAD.decode(rest).ok())
            .is_some_and(|bytes| bytes.len() == 36 && bytes[32..] == Self::checksum(&bytes[..32]))
    }

    /// The text, to be shown once.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn checksum(random: &[u8]) -> [u8; 4] {
        let digest = Sha256::new().chain_update(Self::PREFIX).chain_update(random).finalize();
        [digest[0], digest[1], digest[2], digest[3]]
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret([redacted])")
    }
}

impl Drop for ClientSecret {
    fn drop(&mut self) {
        self.0.zeroize();
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
        let same: Choice = presented.0.ct_eq(hash);
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
        Arc::new(Client {
            id: ClientId::new("order").expect("client id"),
            settings: ClientSettings {
                description: "".into(),
                grants: Grants::try_from(vec![]).expect("no grants"),
                serves: Serves::try_from(vec![]).expect("no audiences"),
                max_token_ttl: None,
                disabled,
            },
            created_at: NOW,
            updated_at: NOW,
            revision: 1,
            secrets: secrets.collect(),
        })
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
    fn a_secret_has_a_form_that_scanners_can_tell() {
        let secret = secret();
        assert!(ClientSecret::looks_like_one(secret.expose()));
        assert_eq!(secret.expose().len(), 53);
        let typo = secret.expose().replacen(&secret.expose()[10..11], "-", 1);
        assert!(typo == secret.expose() || !ClientSecret::looks_like_one(&typo));
        assert!(!ClientSecret::looks_like_one("csec_short"));
        assert_eq!(format!("{secret:?}"), "ClientSecret([redacted])");
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
