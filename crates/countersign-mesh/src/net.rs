//! What calls and addresses say of themselves: a call's deadline, and whether a host is this machine.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;

/// How long the caller of a gRPC method waits, if it says so in `grpc-timeout`: up to eight digits and
/// a unit. A malformed value counts as none, as in tonic.
pub fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (count, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let count = Some(count).filter(|count| (1..=8).contains(&count.len()))?.parse().ok()?;
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
