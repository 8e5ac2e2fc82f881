//! Any `Authorization` header: it is HTTP Basic or it is not.

use countersign::server::BasicCredentials;

/// Whether the bytes are HTTP Basic, as they are or behind the name of the scheme.
pub fn check(bytes: &[u8]) -> bool {
    let mut any = false;
    for header in [bytes.to_vec(), [b"Basic ", bytes].concat()] {
        let Some(credentials) = BasicCredentials::parse(&header) else { continue };
        assert!(header[..6].eq_ignore_ascii_case(b"basic "));
        assert!(!credentials.client_id.contains('\0') && !credentials.client_secret.contains('\0'));
        // There is one way to write base64.
        let encoded = header[6..].trim_ascii();
        assert!(encoded.len().is_multiple_of(4));
        assert!(!encoded.iter().any(|byte| matches!(byte, b'-' | b'_')));
        any = true;
    }
    any
}

/// `Aladdin:open sesame` (RFC 7617 §2) and others.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        "YSUzQWI6JTJC",
        "b3JkZXI6Y3NlY19hLWJ+Yy5k",
        "Bearer a.b.c",
    ]
    .map(|seed| seed.as_bytes().to_vec())
    .to_vec()
}
