//! The credentials that a client can authenticate with.
//!
//! A [`Credential`] is what all kinds have in common: an id, times, and the last use. A
//! [`CredentialKind`] is what differs. Each kind has a file, which says what is stored of it and which
//! credential of a client matches what was presented.
//!
//! | Kind | Stored | Presented |
//! |---|---|---|
//! | [`CredentialKind::Secret`] | its SHA-256 | the secret itself |
//! | [`CredentialKind::PublicKey`] | 32 bytes (RFC 8032 §5.1.5) | a JWT signed with the private key |
//! | [`CredentialKind::CertificateName`] | one name | a certificate that has the name |

mod certificate_name;
mod public_key;
mod secret;

pub use self::certificate_name::{
    CertificateName, CertificateNameKind, CertificateNames, InvalidCertificate,
    InvalidCertificateName,
};
pub use self::secret::{ClientSecret, SecretHash};

pub(super) use self::certificate_name::certified;
pub(super) use self::public_key::signer;
pub(super) use self::secret::matching;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_mesh::claims::Timestamp;
use countersign_mesh::keys::PublicKey;
use serde::{Deserialize, Serialize};

/// A credential as it is stored.
#[derive(Debug)]
pub struct Credential {
    /// Its id, unique among the client's credentials.
    pub id: CredentialId,
    /// Its kind, with what is stored of it.
    pub kind: CredentialKind,
    /// When it was made or registered.
    pub created_at: Timestamp,
    /// When it expires. `None` for never.
    pub expires_at: Option<Timestamp>,
    /// When it was last used: shown to people, and needed for `retire_when_idle`.
    pub last_use: LastUse,
    /// If set, the credential is revoked once it has been unused for this long and a newer one of its kind
    /// has been used.
    pub retire_when_idle: Option<Duration>,
}

/// The kinds of credentials, each with what is stored of it.
#[derive(Debug, Clone)]
pub enum CredentialKind {
    /// A secret. Only its hash is stored, which recognises the secret but cannot be used in its place.
    Secret(SecretHash),
    /// The public half of the key that the client signs assertions with. Its `kid` is derived from it.
    PublicKey(Box<PublicKey>),
    /// A name that the client's certificate must have.
    CertificateName(CertificateName),
}

impl CredentialKind {
    /// The largest number of credentials of one kind that a client can have at a time.
    pub const MAX_OF_EACH: usize = 8;

    /// The kind in one word, as it stands in the store and in the audit log.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Secret(_) => "secret",
            Self::PublicKey(_) => "public_key",
            Self::CertificateName(_) => "certificate_name",
        }
    }

    /// Whether both are of the same kind. Their contents may differ.
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// What is stored of it, as bytes.
    pub fn content(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Secret(hash) => hash.as_bytes().into(),
            Self::PublicKey(key) => key.as_bytes().into(),
            Self::CertificateName(name) => name.to_string().into_bytes().into(),
        }
    }

    /// Reads what [`CredentialKind::as_str`] and [`CredentialKind::content`] wrote. `None` when the kind is
    /// unknown, or the content is not valid for it.
    pub fn from_content(kind: &str, content: &[u8]) -> Option<Self> {
        match kind {
            "secret" => content.try_into().ok().map(SecretHash::from_bytes).map(Self::Secret),
            "public_key" => {
                let key = PublicKey::from_bytes(content.try_into().ok()?).ok()?;
                Some(Self::PublicKey(Box::new(key)))
            }
            "certificate_name" => {
                let name = str::from_utf8(content).ok()?;
                CertificateName::from_canonical(name).map(Self::CertificateName)
            }
            _ => None,
        }
    }

    /// The ids that it can have, in order of preference: a credential gets the first that is free.
    ///
    /// A secret has several, so that two secrets whose hashes begin alike can belong to one client. The other
    /// kinds have exactly one, so that no key or name is registered twice.
    pub fn ids(&self) -> Box<dyn Iterator<Item = CredentialId> + '_> {
        let one = |id: String| Box::new(std::iter::once(CredentialId(id.into())));
        match self {
            Self::Secret(hash) => {
                let bits = hash.as_bytes().windows(4);
                let bits = bits.map(|bytes| [bytes[0], bytes[1], bytes[2], bytes[3]]);
                let texts = bits.map(|bits| format!("{:08x}", u32::from_be_bytes(bits)));
                Box::new(texts.map(|text| CredentialId(text.into())))
            }
            Self::PublicKey(key) => one(key.kid().to_string()),
            Self::CertificateName(name) => one(name.to_string()),
        }
    }
}

impl Credential {
    /// Makes a credential that works from now on, under its preferred id.
    pub fn new(kind: CredentialKind, now: Timestamp, ttl: Option<Duration>) -> Self {
        let id = kind.ids().next().expect("each kind has at least one id");
        Self {
            id,
            kind,
            created_at: now,
            expires_at: ttl.map(|ttl| now + ttl),
            last_use: LastUse::default(),
            retire_when_idle: None,
        }
    }

    /// Whether it has expired at this time.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Returns a copy of this credential that is to be revoked once it has been unused for `span`. Uses that
    /// are noted in this one later do not show in the copy.
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

    /// Describes the credential, without the hash of a secret.
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

/// What callers may know about a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialInfo {
    /// Its id, unique among the client's credentials.
    pub id: CredentialId,
    /// Its kind, with what may be shown of it.
    pub content: CredentialContent,
    /// When it was made or registered.
    pub created_at: Timestamp,
    /// When it expires. `None` for never.
    pub expires_at: Option<Timestamp>,
    /// When it was last used. `None` for never.
    pub last_used_at: Option<Timestamp>,
    /// If set, the credential is revoked once it has been unused for this long and a newer one of its kind
    /// has been used.
    pub retire_when_idle: Option<Duration>,
}

/// What may be shown of a credential of each kind. Nothing is shown of a secret.
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
    /// The kind in one word, the same as [`CredentialKind::as_str`].
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::PublicKey(_) => "public_key",
            Self::CertificateName(_) => "certificate_name",
        }
    }
}

/// The id of a credential, unique among its client's. A secret has eight hexadecimal digits of its hash, a
/// public key its `kid`, a certificate name its kind and text (`san_dns:backup.example`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct CredentialId(Box<str>);

/// The text cannot be the id of a credential. The error does not repeat it: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidCredentialId;

impl fmt::Display for InvalidCredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the id of a credential, as the client's list of credentials shows it")
    }
}

impl std::error::Error for InvalidCredentialId {}

impl CredentialId {
    /// The longest id in bytes: a certificate name of the kind with the longest word.
    const MAX_LEN: usize = CertificateName::MAX_LEN + "subject_dn:".len();

    /// The id, as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CredentialId {
    type Err = InvalidCredentialId;
    fn from_str(text: &str) -> Result<Self, InvalidCredentialId> {
        // Someone may paste a secret where its id belongs. It must not get into logs or lookups.
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

/// When a credential was last used.
///
/// Each authentication notes its time in memory only, so that issuing a token writes nothing. Maintenance
/// writes the times to the store about once a minute. Both times are Unix seconds; 0 means never.
#[derive(Debug, Default)]
pub struct LastUse {
    noted: AtomicU64,
    written: AtomicU64,
}

impl LastUse {
    /// Rebuilds a last use from the store: it is noted and written.
    pub fn from_store(at: Option<Timestamp>) -> Self {
        let at = at.map_or(0, Timestamp::as_unix);
        Self { noted: AtomicU64::new(at), written: AtomicU64::new(at) }
    }

    /// The time of the last use. `None` for never.
    pub fn time(&self) -> Option<Timestamp> {
        match self.noted.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Timestamp::from_unix(at)),
        }
    }

    /// The time of the last use, if the store does not have it yet.
    pub fn unwritten(&self) -> Option<Timestamp> {
        self.time().filter(|at| at.as_unix() != self.written.load(Ordering::Relaxed))
    }

    /// Notes that the store has this time now. A later use stays unwritten.
    pub fn set_written(&self, at: Timestamp) {
        self.written.store(at.as_unix(), Ordering::Relaxed);
    }

    fn copy(&self) -> Self {
        Self {
            noted: self.noted.load(Ordering::Relaxed).into(),
            written: self.written.load(Ordering::Relaxed).into(),
        }
    }

    /// Notes a use in memory.
    pub(super) fn note(&self, now: Timestamp) {
        // Most uses find the time already noted, and do not write to the cache line that all threads share.
        if self.noted.load(Ordering::Relaxed) < now.as_unix() {
            self.noted.store(now.as_unix(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use countersign_mesh::keys::SigningKey;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix(1000);

    fn secret(text: &str) -> CredentialKind {
        CredentialKind::Secret(SecretHash::of(text))
    }

    #[test]
    fn a_secret_has_several_ids_to_choose_from() {
        let text = ClientSecret::generate().expect("randomness");
        let mut ids = secret(text.expose()).ids().collect::<Vec<_>>();
        for id in &ids {
            assert_eq!(id.as_str().len(), 8);
            assert_eq!(id.as_str().parse().as_ref(), Ok(id));
        }
        ids.dedup();
        assert_eq!(ids.len(), 29);
    }

    #[test]
    fn the_text_of_a_secret_is_not_accepted_as_an_id() {
        let text = ClientSecret::generate().expect("randomness");
        for bad in [text.expose(), "", &"x".repeat(2000)] {
            assert_eq!(bad.parse::<CredentialId>(), Err(InvalidCredentialId));
        }
    }

    #[test]
    fn stored_content_is_read_back_as_its_own_kind_and_no_other() {
        let name = CertificateName::new(CertificateNameKind::SanDns, "A.example").expect("a name");
        let key = SigningKey::from_seed(&[1; 32]).public().clone();
        let kinds = [
            secret("csec_hush"),
            CredentialKind::PublicKey(Box::new(key)),
            CredentialKind::CertificateName(name),
        ];
        for kind in &kinds {
            let read = CredentialKind::from_content(kind.as_str(), &kind.content());
            let read = read.expect("it is one");
            assert!(read.is_like(kind) && read.content() == kind.content());
            assert_eq!(read.ids().next(), kind.ids().next());
            assert_eq!(Credential::new(read, NOW, None).info().content.kind(), kind.as_str());
        }
        assert!(!kinds[0].is_like(&kinds[1]));
        for (kind, content) in [
            ("secret", &[1; 31][..]),
            ("secret", &[1; 33]),
            ("public_key", &[0; 32]),
            ("public_key", b"san_dns:a.example"),
            ("certificate_name", b"san_dns:A.example"),
            ("certificate_name", b"a.example"),
            ("certificate_name", b"san_dns:"),
            ("certificate_name", &[0xff; 32]),
            ("password", &[1; 32]),
            ("", &[1; 32]),
        ] {
            assert!(CredentialKind::from_content(kind, content).is_none(), "{kind} {content:?}");
        }
    }

    #[test]
    fn neither_the_info_nor_the_debug_output_shows_the_hash_of_a_secret() {
        let secret = Credential::new(secret("csec_hush"), NOW, None);
        let told = serde_json::to_value(secret.info()).expect("it is JSON");
        assert_eq!(told["content"], "secret");
        assert!(format!("{secret:?}").contains("Secret(SecretHash)"), "{secret:?}");
    }
}
