//! Heads of HTTP/1 that two servers could read differently, one of them in front of us: refused, and the
//! connection closed. hyper lets them through.

use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version};

use crate::server::inbound::Seen;

/// Why a head is refused, and with which status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Misframed {
    pub(super) status: StatusCode,
    pub(super) why: &'static str,
}

const fn bad(why: &'static str) -> Misframed {
    Misframed { status: StatusCode::BAD_REQUEST, why }
}

const HOSTLESS: Misframed = bad("an HTTP/1.1 request has one Host header");
const TWO_HOSTS: Misframed = bad("a request has one Host header, not two");
const BAD_HOST: Misframed = bad("the Host header is not a host with or without a port");
const TWO_FRAMINGS: Misframed =
    bad("a request has Transfer-Encoding or Content-Length, and not both");
const CHUNKED_TWICE: Misframed = bad("a body is chunked once, and last of all");
const UNKNOWN_CODING: Misframed = Misframed {
    status: StatusCode::NOT_IMPLEMENTED,
    why: "no other Transfer-Encoding than chunked is understood",
};

/// The requests of one connection, as their framing goes.
#[derive(Debug, Default)]
pub(super) struct Framing {
    /// How many lines with a length hyper has handed on.
    content_lengths: AtomicU64,
}

impl Framing {
    /// Looks at a head.
    ///
    /// # Errors
    /// When it is one to refuse.
    pub(super) fn check<B>(&self, request: &Request<B>, seen: &Seen) -> Result<(), Misframed> {
        let version = request.version();
        if version >= Version::HTTP_2 {
            return Ok(());
        }
        let headers = request.headers();
        one_host(headers, version)?;
        let lengths = headers.get_all(CONTENT_LENGTH).iter().count() as u64;
        let handed_on = self.content_lengths.fetch_add(lengths, Ordering::Relaxed) + lengths;
        if !headers.contains_key(TRANSFER_ENCODING) {
            return Ok(());
        }
        // One that came and was not handed on was dropped from this head. Were it that of a request which was
        // sent along behind this one, a refusal would do no harm but to ask for a new connection.
        if seen.content_lengths() > handed_on {
            return Err(TWO_FRAMINGS);
        }
        chunked_once(headers)
    }
}

/// RFC 9112 §3.2.
fn one_host(headers: &HeaderMap, version: Version) -> Result<(), Misframed> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_11 => Err(HOSTLESS),
        (None, _) => Ok(()),
        (Some(host), None) if is_host(host) => Ok(()),
        (Some(_), None) => Err(BAD_HOST),
        (Some(_), Some(_)) => Err(TWO_HOSTS),
    }
}

/// `Host = uri-host [ ":" port ]` (RFC 9110 §7.2). An empty one is a host without a name.
fn is_host(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    if bytes.is_empty() {
        return true;
    }
    // What an authority may have beside it.
    if bytes.contains(&b'@') {
        return false;
    }
    let Ok(authority) = Authority::try_from(bytes) else { return false };
    let after_host = &authority.as_str()[authority.host().len()..];
    let port = after_host.strip_prefix(':').unwrap_or(after_host);
    !authority.host().is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// RFC 9112 §6.1: `chunked` once, and the last; of other codings we know none.
fn chunked_once(headers: &HeaderMap) -> Result<(), Misframed> {
    let values = headers.get_all(TRANSFER_ENCODING).iter();
    let codings = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let (mut chunked, mut others) = (0, 0);
    for coding in codings.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty()) {
        if coding.eq_ignore_ascii_case(b"chunked") {
            chunked += 1;
        } else {
            others += 1;
        }
    }
    match (chunked, others) {
        (1, 0) => Ok(()),
        (1, _) => Err(UNKNOWN_CODING),
        _ => Err(CHUNKED_TWICE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(version: Version, headers: &[(&'static str, &str)]) -> Result<(), Misframed> {
        let mut request = Request::new(());
        *request.version_mut() = version;
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().expect("a value"));
        }
        Framing::default().check(&request, &Seen::default())
    }

    #[test]
    fn a_host_is_one_and_is_well_formed() {
        let host = |value| check(Version::HTTP_11, &[("host", value)]);
        for good in ["localhost", "localhost:9443", "127.0.0.1:1", "[::1]:9443", "[::1]", "a:", ""]
        {
            assert_eq!(host(good), Ok(()), "{good}");
        }
        for bad in ["a b", "a/b", "u@a", "a:b", "a:1:2", "[::1", ":1", "http://a", "a?b", "a#b"] {
            assert_eq!(host(bad), Err(BAD_HOST), "{bad}");
        }
        assert_eq!(check(Version::HTTP_11, &[]), Err(HOSTLESS));
        assert_eq!(check(Version::HTTP_10, &[]), Ok(()));
        assert_eq!(check(Version::HTTP_2, &[]), Ok(()));
        for version in [Version::HTTP_10, Version::HTTP_11] {
            assert_eq!(check(version, &[("host", "a"), ("host", "a")]), Err(TWO_HOSTS));
        }
    }

    #[test]
    fn a_body_is_chunked_once() {
        let coded = |codings: &[&str]| {
            let mut headers = vec![("host", "a")];
            headers.extend(codings.iter().map(|coding| ("transfer-encoding", *coding)));
            check(Version::HTTP_11, &headers)
        };
        assert_eq!(coded(&["chunked"]), Ok(()));
        assert_eq!(coded(&["Chunked"]), Ok(()));
        assert_eq!(coded(&["chunked, chunked"]), Err(CHUNKED_TWICE));
        assert_eq!(coded(&["chunked", "chunked"]), Err(CHUNKED_TWICE));
        assert_eq!(coded(&["gzip, chunked"]), Err(UNKNOWN_CODING));
        assert_eq!(coded(&["identity", "chunked"]), Err(UNKNOWN_CODING));
        assert_eq!(coded(&["gzip"]), Err(CHUNKED_TWICE));
        assert_eq!(coded(&[""]), Err(CHUNKED_TWICE));
    }
}
