//! What calls and addresses say of themselves: a call's deadline, and whether a host is this machine.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;

/// How long the caller of a gRPC method waits, if it says so in `grpc-timeout`: up to eight digits and
/// a unit. A malformed value counts as none, as in tonic.
pub fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (count, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let digits = (1..=8).contains(&count.len()) && count.bytes().all(|byte| byte.is_ascii_digit());
    let count = Some(count).filter(|_| digits)?.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 60 * 60),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Whether a host is this machine. Plaintext goes to no other host, unless someone asks for it.
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or_else(
        |_| host.eq_ignore_ascii_case("localhost"),
        |address| address.to_canonical().is_loopback(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        let timeout = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", value.parse().expect("a value"));
            grpc_timeout(&headers)
        };
        assert_eq!(timeout("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(timeout("0S"), Some(Duration::ZERO));
        for malformed in ["", "S", "1", "1s", "+1S", "-1S", "123456789S", "1 S", "1.5S", "S1"] {
            assert_eq!(timeout(malformed), None, "{malformed:?}");
        }
    }
}
