//! The `Authorization` header of HTTP Basic, as OAuth 2.0 uses it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::server::oauth::form::decode;

/// Longer than the longest id and secret that there can be, every byte of them percent-encoded.
const MAX_LEN: usize = 4096;

/// A client's id and secret from HTTP Basic (RFC 6749 §2.3.1): each was form-encoded before the two
/// were joined.
pub struct BasicCredentials {
    /// The id.
    pub client_id: Zeroizing<String>,
    /// The secret.
    pub client_secret: Zeroizing<String>,
}

impl BasicCredentials {
    /// Reads the value of an `Authorization` header. `None` when it is not well-formed HTTP Basic.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let space = header.iter().position(|byte| *byte == b' ')?;
        let (scheme, encoded) = (&header[..space], header[space..].trim_ascii());
        if !scheme.eq_ignore_ascii_case(b"basic") || encoded.len() > MAX_LEN {
            return None;
        }
        // The alphabet, the padding and the unused bits of RFC 4648 §4, and none other: RFC 7617 §2 allows no
        // second way to write the same.
        let joined = Zeroizing::new(STANDARD.decode(encoded).ok()?);
        let colon = joined.iter().position(|byte| *byte == b':')?;
        let client_id = decode(&joined[..colon]).ok()?;
        let client_secret = decode(&joined[colon + 1..]).ok()?;
        Some(Self { client_id, client_secret })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(header: &str) -> Option<(String, String)> {
        let credentials = BasicCredentials::parse(header.as_bytes())?;
        Some((credentials.client_id.to_string(), credentials.client_secret.to_string()))
    }

    /// Every byte percent-encoded.
    fn encode(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02X}")).collect()
    }

    fn basic(joined: &str) -> Option<(String, String)> {
        parse(&format!("Basic {}", STANDARD.encode(joined)))
    }

    #[test]
    fn both_parts_are_form_decoded_after_the_first_colon_splits_them() {
        let pair = |id: &str, secret: &str| Some((id.to_owned(), secret.to_owned()));
        assert_eq!(basic("order:csec_a-b~c.d"), pair("order", "csec_a-b~c.d"));
        assert_eq!(basic("a+b%3Ac:d:e%2B+"), pair("a b:c", "d:e+ "));
        assert_eq!(basic("order:"), pair("order", ""));
        // From RFC 7617 §2.
        assert_eq!(parse("bAsIc QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), pair("Aladdin", "open sesame"));
        assert_eq!(parse("Basic  QWxhZGRpbjpvcGVuIHNlc2FtZQ== "), pair("Aladdin", "open sesame"));
    }

    #[test]
    fn what_is_malformed_is_nothing() {
        for bad in ["", "Basic", "Basic ", "Basic !", "Basic b3JkZXI=", "Bearer YTpi", "BasicYTpi"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
        // Without its padding, with too much of it, in the URL-safe alphabet, with bits that mean nothing.
        for bad in [
            "QWxhZGRpbjpvcGVuIHNlc2FtZQ",
            "QWxhZGRpbjpvcGVuIHNlc2FtZQ=",
            "YTo_Pz8-",
            "YTpiYg=",
            "YTpiYh==",
        ] {
            assert_eq!(parse(&format!("Basic {bad}")), None, "{bad}");
        }
        assert_eq!(parse("Basic YTo/Pz8+"), Some(("a".to_owned(), "???>".to_owned())));
        for bad in ["a%:b", "a:b%4", "a:%FF", "a:%00", "no colon"] {
            assert_eq!(basic(bad), None, "{bad}");
        }
        assert!(basic(&format!("a:{}", "b".repeat(3000))).is_some());
        assert_eq!(basic(&format!("a:{}", "b".repeat(4000))), None);
    }

    proptest! {
        #[test]
        fn any_header_is_credentials_or_is_not(header in proptest::collection::vec(any::<u8>(), 0..200)) {
            let with_scheme = [b"Basic ".as_slice(), &header].concat();
            for header in [header, with_scheme] {
                let Some(credentials) = BasicCredentials::parse(&header) else { continue };
                // What was read is what the header says, and there is no other way to say it.
                let joined = format!("{}:{}", encode(&credentials.client_id), encode(&credentials.client_secret));
                let again = BasicCredentials::parse(format!("Basic {}", STANDARD.encode(joined)).as_bytes());
                let again = again.expect("it is well-formed");
                prop_assert_eq!(&credentials.client_id, &again.client_id);
                prop_assert_eq!(&credentials.client_secret, &again.client_secret);
                let encoded = header[6..].trim_ascii();
                let decoded = STANDARD.decode(encoded).expect("it was");
                prop_assert_eq!(STANDARD.encode(decoded).into_bytes(), encoded);
            }
        }

        #[test]
        fn any_joined_text_is_credentials_or_is_not(joined in proptest::collection::vec(any::<u8>(), 0..100)) {
            let header = format!("Basic {}", STANDARD.encode(&joined));
            if let Some(credentials) = BasicCredentials::parse(header.as_bytes()) {
                prop_assert!(!credentials.client_id.contains(':') || joined.contains(&b'%'));
            }
        }
    }
}
