//! What a client can prove itself with: its credentials. Each kind has a file.

mod certificate_name;
mod public_key;
mod secret;

pub use self::certificate_name::{
    CertificateName, CertificateNameKind, CertificateNames, InvalidCertificate,
    InvalidCertificateName,
};
pub use self::secret::{ClientSecret, SecretHash};

pub(super) use self::public_key::signer;
pub(super) use self::secret::matching;

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_mesh::claims::Timestamp;
use countersign_mesh::keys::PublicKey;
use serde::{Deserialize, Serialize};

/// A credential as it is kept.
#[derive(Debug)]
pub struct Credential {
    /// Its name among the client's credentials.
    pub id: CredentialId,
    /// What it is.
    pub kind: CredentialKind,
    /// When it was made or registered.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, for people and for `retire_when_idle`.
    pub last_use: LastUse,
    /// It is revoked once nobody has used it for this long, and somebody a newer one of its kind.
    pub retire_when_idle: Option<Duration>,
}

/// The kinds of credentials, each with what is kept of it.
#[derive(Debug, Clone)]
pub enum CredentialKind {
    /// A secret: enough to recognise it, not to use it.
    Secret(SecretHash),
    /// A public key that the client signs assertions with, under our name for it.
    PublicKey(Box<PublicKey>),
    /// A name in the certificate that the client connects with.
    CertificateName(CertificateName),
}

impl CredentialKind {
    /// How many credentials of a kind a client can have at a time.
    pub const MAX_OF_EACH: usize = 8;

    /// The kind in one word, as the store and the audit log have it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Secret(_) => "secret",
            Self::PublicKey(_) => "public_key",
            Self::CertificateName(_) => "certificate_name",
        }
    }

    /// Whether both are of the same kind, whatever is kept of them.
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Credential {
    /// A credential that works from now on.
    pub fn new(
        id: CredentialId,
        kind: CredentialKind,
        now: Timestamp,
        ttl: Option<Duration>,
    ) -> Self {
        Self {
            id,
            kind,
            created_at: now,
            expires_at: ttl.map(|ttl| now + ttl),
            last_use: LastUse::default(),
            retire_when_idle: None,
        }
    }

    /// Whether it works no more.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The same credential, to be revoked once nobody has used it for this long. A use that is noted in
    /// this one from now on is not in that one.
    pub fn retiring_when_idle(&self, span: Duration) -> Self {
        Self {
            id: self.id.clone(),
            kind: self.kind.clone(),
            created_at: self.created_at,
            expires_at: self.expires_at,
            last_use: self.last_use.copy(),
            retire_when_idle: Some(span),
        }
    }

    /// What there is to tell of it.
    pub fn info(&self) -> CredentialInfo {
        CredentialInfo {
            id: self.id.clone(),
            content: match &self.kind {
                CredentialKind::Secret(_) => CredentialContent::Secret,
                CredentialKind::PublicKey(key) => CredentialContent::PublicKey(*key.as_bytes()),
                CredentialKind::CertificateName(name) => {
                    CredentialContent::CertificateName(name.clone())
                }
            },
            created_at: self.created_at,
            expires_at: self.expires_at,
            last_used_at: self.last_use.time(),
            retire_when_idle: self.retire_when_idle,
        }
    }
}

/// What there is to tell of a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialInfo {
    /// Its name among the client's credentials.
    pub id: CredentialId,
    /// What it is.
    pub content: CredentialContent,
    /// When it was made or registered.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
    /// It is revoked once nobody has used it for this long, and somebody a newer one of its kind.
    pub retire_when_idle: Option<Duration>,
}

/// What there is to tell of each kind; of a secret nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialContent {
    /// A secret.
    Secret,
    /// A public key (RFC 8032 §5.1.5).
    PublicKey([u8; 32]),
    /// A name in a certificate.
    CertificateName(CertificateName),
}

impl CredentialContent {
    /// The kind in one word, as [`CredentialKind::as_str`] has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::PublicKey(_) => "public_key",
            Self::CertificateName(_) => "certificate_name",
        }
    }
}

/// The name of a credential among its client's: of a secret eight hexadecimal digits, of a public key its
/// `kid`, of a certificate name its kind and text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct CredentialId(Box<str>);

/// Text that cannot name a credential. It is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidCredentialId;

impl fmt::Display for InvalidCredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the id of a credential, as the client's list of credentials shows it")
    }
}

impl std::error::Error for InvalidCredentialId {}

impl CredentialId {
    /// No id is longer than a certificate name with its kind, in bytes.
    const MAX_LEN: usize = CertificateName::MAX_LEN + "subject_dn:".len();

    /// The id, as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of a new secret: the first bits of its hash that are not taken.
    pub fn of_secret(hash: &SecretHash, is_taken: impl Fn(&Self) -> bool) -> Self {
        let bits = hash.as_bytes().windows(4);
        let mut free = bits
            .map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .map(|bits| Self(format!("{bits:08x}").into()))
            .filter(|id| !is_taken(id));
        free.next().expect("29 ids are more than a client's secrets can take")
    }

    /// The id of a public key: its `kid`.
    pub fn of_public_key(key: &PublicKey) -> Self {
        Self(key.kid().as_str().into())
    }

    /// The id of a certificate name: itself.
    pub fn of_certificate_name(name: &CertificateName) -> Self {
        Self(name.to_string().into())
    }
}

impl FromStr for CredentialId {
    type Err = InvalidCredentialId;
    fn from_str(text: &str) -> Result<Self, InvalidCredentialId> {
        // A secret that was given for its id is neither looked up nor repeated.
        if text.is_empty() || text.len() > Self::MAX_LEN || ClientSecret::looks_like_one(text) {
            return Err(InvalidCredentialId);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for CredentialId {
    type Error = InvalidCredentialId;
    fn try_from(text: String) -> Result<Self, InvalidCredentialId> {
        text.parse()
    }
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// When a credential was last used. Noted in memory by whoever authenticates with it, and written to
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

    fn copy(&self) -> Self {
        Self {
            noted: self.noted.load(Ordering::Relaxed).into(),
            written: self.written.load(Ordering::Relaxed).into(),
        }
    }

    /// Notes a use.
    pub(super) fn note(&self, now: Timestamp) {
        // Within a second, only the first of many users writes to the shared cache line.
        if self.noted.load(Ordering::Relaxed) < now.as_unix() {
            self.noted.store(now.as_unix(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_no_id_and_an_id_no_secret() {
        let secret = ClientSecret::generate().expect("randomness");
        let hash = SecretHash::of(secret.expose());
        let first = CredentialId::of_secret(&hash, |_| false);
        let second = CredentialId::of_secret(&hash, |id| *id == first);
        assert_ne!(first, second);
        for id in [first, second] {
            assert_eq!(id.as_str().len(), 8);
            assert_eq!(id.as_str().parse(), Ok(id.clone()));
        }
        for bad in [secret.expose(), "", &"x".repeat(2000)] {
            assert_eq!(bad.parse::<CredentialId>(), Err(InvalidCredentialId));
        }
    }

    #[test]
    fn what_is_told_of_a_secret_is_not_its_hash() {
        let hash = SecretHash::of("csec_hush");
        let id = CredentialId::of_secret(&hash, |_| false);
        let secret =
            Credential::new(id, CredentialKind::Secret(hash), Timestamp::from_unix(1), None);
        let told = serde_json::to_value(secret.info()).expect("it is JSON");
        assert_eq!(told["content"], "secret");
        assert!(format!("{secret:?}").contains("Secret(SecretHash)"), "{secret:?}");
    }
}
