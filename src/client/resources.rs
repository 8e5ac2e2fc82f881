//! Resource URIs (RFC 8707): other names of the audiences that a client serves.

use std::fmt;
use std::sync::Arc;

use countersign_mesh::claims::{Audience, Name, NameRule};
use serde::{Deserialize, Serialize};

/// The location of a service, as OAuth clients name it in the parameter `resource` (RFC 8707 §2): an absolute
/// URI without a fragment (RFC 3986 §4.3), at most 512 bytes. URIs are compared byte for byte.
pub type ResourceUri = Name<ResourceUriRule>;

/// The rule that a [`ResourceUri`] follows.
pub enum ResourceUriRule {}

impl NameRule for ResourceUriRule {
    const KIND: &'static str = "resource";
    const ALLOWED: &'static str = "an absolute URI without a fragment, at most 512 bytes";
    fn allows(text: &str) -> bool {
        let Some((scheme, rest)) = text.split_once(':') else { return false };
        let scheme = scheme.as_bytes();
        text.len() <= 512
            && scheme.first().is_some_and(u8::is_ascii_alphabetic)
            && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
            && !rest.trim_start_matches('/').is_empty()
            && rest.bytes().all(is_uri_character)
            && rest.split('%').skip(1).all(begins_with_two_digits)
    }
}

/// Whether a byte is a URI character (RFC 3986 §2). `#` is not: it would begin a fragment.
fn is_uri_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte)
}

fn begins_with_two_digits(text: &str) -> bool {
    text.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// A URI that stands for an audience.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceAlias {
    /// The URI.
    pub uri: ResourceUri,
    /// The audience.
    pub audience: Audience,
}

/// The resource URIs of a client, sorted and without duplicates: at most [`Resources::MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<ResourceAlias>")]
pub struct Resources(Arc<[ResourceAlias]>);

/// Why a list is not valid as a client's resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidResources {
    /// It has more entries than the maximum.
    TooMany,
    /// It has a URI twice.
    UriTwice,
}

impl fmt::Display for InvalidResources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooMany => "more than 64 of them",
            Self::UriTwice => "a URI is listed twice; it can stand for one audience only",
        })
    }
}

impl std::error::Error for InvalidResources {}

impl Resources {
    /// The largest number of URIs of a client.
    pub const MAX: usize = 64;

    /// The URIs with their audiences, as a slice.
    pub fn as_slice(&self) -> &[ResourceAlias] {
        &self.0
    }
}

impl TryFrom<Vec<ResourceAlias>> for Resources {
    type Error = InvalidResources;
    fn try_from(mut aliases: Vec<ResourceAlias>) -> Result<Self, InvalidResources> {
        aliases.sort_by(|a, b| a.uri.cmp(&b.uri));
        if aliases.len() > Self::MAX {
            return Err(InvalidResources::TooMany);
        }
        if aliases.windows(2).any(|pair| pair[0].uri == pair[1].uri) {
            return Err(InvalidResources::UriTwice);
        }
        Ok(Self(aliases.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_an_absolute_uri_without_a_fragment() {
        for good in [
            "https://api.example.com",
            "https://api.example.com/v1/?a=b%20c",
            "http://[::1]:8080/",
            "urn:example:inventory",
            "a+b-c.1:x",
        ] {
            assert!(ResourceUri::new(good).is_ok(), "{good}");
        }
        let long = format!("https://a/{}", "a".repeat(502));
        assert!(ResourceUri::new(&long).is_ok());
        for bad in [
            "",
            "inventory",
            "/v1",
            "//api.example.com/v1",
            "api.example.com/v1",
            "https:",
            "https://",
            "https://a/#",
            "https://a/#b",
            "https://a/ b",
            "https://a/%2",
            "https://a/%zz",
            "https://a/\u{e4}",
            "https://a/\n",
            "1a:b",
            ":b",
            &format!("{long}a"),
        ] {
            assert!(ResourceUri::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_client_lists_each_uri_once_and_at_most_64() {
        let alias = |uri: &str, audience: &str| ResourceAlias {
            uri: uri.parse().expect("a URI"),
            audience: audience.parse().expect("an audience"),
        };
        let twice = vec![alias("a:b", "x"), alias("a:c", "x"), alias("a:b", "y")];
        assert_eq!(Resources::try_from(twice), Err(InvalidResources::UriTwice));
        let many = |count| (0..count).map(|n| alias(&format!("a:{n}"), "x")).collect::<Vec<_>>();
        assert!(Resources::try_from(many(64)).is_ok());
        assert_eq!(Resources::try_from(many(65)), Err(InvalidResources::TooMany));
    }
}
