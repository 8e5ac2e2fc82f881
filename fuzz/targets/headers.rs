//! Any value of `grpc-timeout`, and any address in plain text.

use std::time::Duration;

use countersign_mesh::internals::{grpc_timeout, is_loopback};
use http::{HeaderMap, HeaderValue};

/// Whether the bytes are a timeout.
pub fn check(bytes: &[u8]) -> bool {
    if let Ok(host) = std::str::from_utf8(bytes) {
        let loopback = is_loopback(host);
        assert!(
            !loopback || host.contains("127.") || host.contains("::") || host.len() >= 9,
            "{host}"
        );
    }
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return false };
    let mut headers = HeaderMap::new();
    headers.insert("grpc-timeout", value);
    let Some(timeout) = grpc_timeout(&headers) else { return false };
    // At most eight digits of hours.
    assert!(timeout <= Duration::from_secs(99_999_999 * 3600));
    let (unit, digits) = bytes.split_last().expect("it is not empty");
    assert!(b"HMSmun".contains(unit) && (1..=8).contains(&digits.len()));
    assert!(digits.iter().all(u8::is_ascii_digit));
    true
}

/// Timeouts and hosts.
pub fn seeds() -> Vec<Vec<u8>> {
    ["1S", "99999999H", "250m", "0n", "localhost", "[::1]", "127.0.0.1"]
        .map(|seed| seed.as_bytes().to_vec())
        .to_vec()
}
