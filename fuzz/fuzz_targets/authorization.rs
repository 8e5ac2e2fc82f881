//! Any `Authorization` header: it is HTTP Basic or it is not.

#![no_main]

use countersign::server::BasicCredentials;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for header in [bytes.to_vec(), [b"Basic ", bytes].concat()] {
        let Some(credentials) = BasicCredentials::parse(&header) else { continue };
        assert!(header[..6].eq_ignore_ascii_case(b"basic "));
        assert!(!credentials.client_id.contains('\0') && !credentials.client_secret.contains('\0'));
    }
});
