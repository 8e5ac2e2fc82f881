//! The `Authorization` header of HTTP Basic, as OAuth 2.0 uses it.

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use zeroize::Zeroizing;

use crate::server::oauth::form::decode;

/// Longer than the longest id and secret that there can be, every byte of them percent-encoded.
const MAX_LEN: usize = 4096;

/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

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
        let joined = Zeroizing::new(BASE64.decode(encoded).ok()?);
        let colon = joined.iter().position(|byte| *byte == b':')?;
        let client_id = decode(&joined[..colon]).ok()?;
        let client_secret = decode(&joined[colon + 1..]).ok()?;
        Some(Self { client_id, client_secret })
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn parse(header: &str) -> Option<(String, String)> {
        let credentials = BasicCredentials::parse(header.as_bytes())?;
        Some((credentials.client_id.to_string(), credentials.client_secret.to_string()))
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
        assert_eq!(parse("Basic  QWxhZGRpbjpvcGVuIHNlc2FtZQ "), pair("Aladdin", "open sesame"));
    }

    #[test]
    fn what_is_malformed_is_nothing() {
        for bad in ["", "Basic", "Basic ", "Basic !", "Basic b3JkZXI=", "Bearer YTpi", "BasicYTpi"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
        for bad in ["a%:b", "a:b%4", "a:%FF", "a:%00", "no colon"] {
            assert_eq!(basic(bad), None, "{bad}");
        }
        assert!(basic(&format!("a:{}", "b".repeat(3000))).is_some());
        assert_eq!(basic(&format!("a:{}", "b".repeat(4000))), None);
    }

    proptest! {
        #[test]
        fn any_header_is_credentials_or_is_not(header in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = BasicCredentials::parse(&header);
            let _ = BasicCredentials::parse(&[b"Basic ".as_slice(), &header].concat());
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
