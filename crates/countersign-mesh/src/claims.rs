//! What a token says, in types that are valid by construction.
//!
//! A [`Scope`] that exists is a valid scope: text becomes one of these types once, at the edge,
//! and is never checked again.
//!
//! - [`Claims`] is the content of an access token (RFC 9068 §2.2).
//! - [`ClientId`], [`Audience`], [`Scope`], [`TokenId`], [`Kid`] and [`Issuer`] are texts, each a
//!   [`Name`] with a [`NameRule`] of its own. They are cheap to clone.
//! - [`ScopeSet`] is the `scope` claim in its one canonical spelling, so that equal sets are equal text.
//! - [`Timestamp`] counts whole seconds. Only the edges read a [`Clock`]; everything else takes `now`.
//!
//! An error of this room never repeats the text that it refuses: that may be a misplaced secret.

mod clock;

pub use self::clock::{Clock, SteadyClock};

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Add;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::encoding::base64_url;

/// The longest life that any token can have.
pub const MAX_TOKEN_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// How far a verifier's clock may be off from the issuer's before valid tokens are refused.
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);

/// The audience of Countersign's own services.
pub const COUNTERSIGN: &str = "countersign";

/// What an access token says (RFC 9068 §2.2). `sub` is not here: it is the client's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who issued it (`iss`).
    pub issuer: Issuer,
    /// Whom it was issued to (`client_id`, and `sub`).
    pub client_id: ClientId,
    /// The one service that it is for (`aud`).
    pub audience: Audience,
    /// What it allows (`scope`).
    pub scopes: ScopeSet,
    /// When it was issued (`iat`).
    pub issued_at: Timestamp,
    /// When it expires (`exp`).
    pub expires_at: Timestamp,
    /// Its unique id (`jti`).
    pub token_id: TokenId,
}

/// The name of a registered client: 1 to 64 unreserved URI characters (RFC 3986 §2.3).
pub type ClientId = Name<ClientIdRule>;

/// The name of a service that tokens are for: 1 to 255 of the unreserved URI characters and `:` `/`.
pub type Audience = Name<AudienceRule>;

/// One permission (RFC 6749 §3.3): 1 to 128 printable ASCII characters but space, `"` and `\`.
pub type Scope = Name<ScopeRule>;

/// The unique id of a token: 1 to 64 printable ASCII characters.
pub type TokenId = Name<TokenIdRule>;

/// The name of a signing key: 1 to 128 printable ASCII characters.
pub type Kid = Name<KidRule>;

/// Who issues tokens: an absolute `http` or `https` URL without query and fragment (RFC 8414 §2),
/// at most 255 characters.
pub type Issuer = Name<IssuerRule>;

/// Text that follows a rule. Cheap to clone; compares and hashes as its text.
pub struct Name<R>(Arc<str>, PhantomData<fn() -> R>);

/// What text must look like to be a certain kind of [`Name`].
pub trait NameRule {
    /// The kind, for messages: `client id`.
    const KIND: &'static str;
    /// What is allowed, for messages.
    const ALLOWED: &'static str;
    /// Whether this text is allowed.
    fn allows(text: &str) -> bool;
}

/// Text that is not what it should be. The text itself is not repeated: it may be a misplaced secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidName {
    kind: &'static str,
    allowed: &'static str,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a valid {}: expected {}", self.kind, self.allowed)
    }
}

impl std::error::Error for InvalidName {}

impl<R: NameRule> Name<R> {
    /// Takes text that follows the rule.
    ///
    /// # Errors
    /// When the text does not follow it.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if !R::allows(text) {
            return Err(InvalidName { kind: R::KIND, allowed: R::ALLOWED });
        }
        Ok(Self(text.into(), PhantomData))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TokenId {
    /// How many characters the ids that are made here have.
    pub const LEN: usize = 16;

    /// An id of 96 random bits, as text of 16 characters.
    pub fn from_random(bits: [u8; 12]) -> Self {
        Self(base64_url(&bits).into(), PhantomData)
    }
}

/// The rule of [`ClientId`].
pub enum ClientIdRule {}
/// The rule of [`Audience`].
pub enum AudienceRule {}
/// The rule of [`Scope`].
pub enum ScopeRule {}
/// The rule of [`TokenId`].
pub enum TokenIdRule {}
/// The rule of [`Kid`].
pub enum KidRule {}
/// The rule of [`Issuer`].
pub enum IssuerRule {}

impl NameRule for ClientIdRule {
    const KIND: &'static str = "client id";
    const ALLOWED: &'static str = "1 to 64 of the characters A-Z a-z 0-9 . _ ~ -";
    fn allows(text: &str) -> bool {
        (1..=64).contains(&text.len()) && text.bytes().all(is_unreserved)
    }
}

impl NameRule for AudienceRule {
    const KIND: &'static str = "audience";
    const ALLOWED: &'static str = "1 to 255 of the characters A-Z a-z 0-9 . _ ~ : / -";
    fn allows(text: &str) -> bool {
        (1..=255).contains(&text.len())
            && text.bytes().all(|byte| is_unreserved(byte) || byte == b':' || byte == b'/')
    }
}

impl NameRule for ScopeRule {
    const KIND: &'static str = "scope";
    const ALLOWED: &'static str =
        "1 to 128 printable ASCII characters without space, quote and backslash";
    fn allows(text: &str) -> bool {
        (1..=128).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
    }
}

impl NameRule for TokenIdRule {
    const KIND: &'static str = "token id";
    const ALLOWED: &'static str = "1 to 64 printable ASCII characters";
    fn allows(text: &str) -> bool {
        (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

impl NameRule for KidRule {
    const KIND: &'static str = "key id";
    const ALLOWED: &'static str = "1 to 128 printable ASCII characters";
    fn allows(text: &str) -> bool {
        (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

impl NameRule for IssuerRule {
    const KIND: &'static str = "issuer";
    const ALLOWED: &'static str =
        "an http or https URL of at most 255 characters without query and fragment";
    fn allows(text: &str) -> bool {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        text.len() <= 255
            && rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"\\<>^`{|}".contains(&byte))
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-')
}

impl<R> Clone for Name<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0), PhantomData)
    }
}

impl<R> PartialEq for Name<R> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<R> Eq for Name<R> {}

impl<R> PartialOrd for Name<R> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> Ord for Name<R> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl<R> Hash for Name<R> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<R> Borrow<str> for Name<R> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<R> fmt::Display for Name<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<R> fmt::Debug for Name<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<R: NameRule> FromStr for Name<R> {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::new(text)
    }
}

impl<R> Serialize for Name<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, R: NameRule> Deserialize<'de> for Name<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// A set of scopes, kept as the text that a token carries: sorted, each once, single spaces between.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct ScopeSet(Arc<str>);

impl ScopeSet {
    /// The longest text of a set, so that every token stays within what verifiers read.
    pub const MAX_LEN: usize = 4096;

    /// Reads scopes separated by single spaces (RFC 6749 §3.3), in any order. Empty text is the empty set.
    ///
    /// # Errors
    /// When one of them is not a scope, or all together exceed [`ScopeSet::MAX_LEN`].
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        Self::from_texts(text.split(' '))
    }

    /// Reads scopes one by one, in any order.
    ///
    /// # Errors
    /// As for [`ScopeSet::parse`].
    pub fn from_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidName> {
        let invalid = InvalidName { kind: ScopeRule::KIND, allowed: ScopeRule::ALLOWED };
        let mut scopes: Vec<&str> = texts.into_iter().collect();
        if !scopes.iter().all(|scope| ScopeRule::allows(scope)) {
            return Err(invalid);
        }
        scopes.sort_unstable();
        scopes.dedup();
        let joined = scopes.join(" ");
        if joined.len() > Self::MAX_LEN {
            return Err(InvalidName {
                kind: "set of scopes",
                allowed: "at most 4096 characters in all",
            });
        }
        Ok(Self(joined.into()))
    }

    /// The scopes in order, separated by single spaces.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The scopes in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ').filter(|scope| !scope.is_empty())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this scope is one of them.
    pub fn contains(&self, scope: &str) -> bool {
        self.iter().any(|own| own == scope)
    }

    /// The first scope of the other set that is missing here.
    pub fn first_missing<'a>(&self, other: &'a ScopeSet) -> Option<&'a str> {
        other.iter().find(|scope| !self.contains(scope))
    }
}

impl FromStr for ScopeSet {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        Self::parse(text)
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for ScopeSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ScopeSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A point in time: whole seconds since the Unix epoch (`NumericDate`, RFC 7519 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From seconds since the Unix epoch.
    pub const fn from_unix(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Seconds since the Unix epoch.
    pub const fn as_unix(self) -> u64 {
        self.0
    }

    /// How long this is after an earlier time; zero when it is not after it.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// This time minus a duration, but no earlier than the epoch.
    pub fn before(self, duration: Duration) -> Timestamp {
        Self(self.0.saturating_sub(duration.as_secs()))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, duration: Duration) -> Timestamp {
        Self(self.0.saturating_add(duration.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_accept_their_alphabet_and_nothing_else() {
        for good in ["a", "order-service", "A.b_c~1", &"x".repeat(64)] {
            assert!(ClientId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "a:b", "ä", "a\0", &"x".repeat(65)] {
            assert!(ClientId::new(bad).is_err(), "{bad}");
        }
        assert!(Audience::new("https://api.example.com/v1").is_ok());
        assert!(Audience::new("a b").is_err());
        assert!(Scope::new("!#[]~stock:read").is_ok());
        for bad in ["", "a b", "a\"b", "a\\b", "a\x7f", "é"] {
            assert!(Scope::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_issuer_is_a_url_without_query_and_fragment() {
        for good in ["http://127.0.0.1:9443", "https://token.example/tenant"] {
            assert!(Issuer::new(good).is_ok(), "{good}");
        }
        for bad in
            ["", "https://", "https:///x", "ftp://x", "https://x?y", "https://x#y", "https://x y"]
        {
            assert!(Issuer::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn scope_sets_are_sorted_and_unique_whatever_the_order() {
        let set = ScopeSet::parse("b a b c").expect("valid scopes");
        assert_eq!(set.as_str(), "a b c");
        assert!(set.contains("b") && !set.contains("ab") && !set.contains(""));
        assert_eq!(set.first_missing(&ScopeSet::parse("a d").expect("valid")), Some("d"));
        assert_eq!(set.first_missing(&ScopeSet::default()), None);
    }

    #[test]
    fn scope_text_with_empty_or_foreign_scopes_is_refused() {
        for bad in [" ", "a  b", " a", "a ", "a\tb", "a\"b"] {
            assert!(ScopeSet::parse(bad).is_err(), "{bad:?}");
        }
        let many: Vec<String> = (0..60).map(|n| format!("{n:0>100}")).collect();
        assert!(ScopeSet::from_texts(many.iter().map(String::as_str)).is_err());
    }
}
