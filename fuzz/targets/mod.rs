//! What is fuzzed: functions that take any bytes, say whether they got past the first checks, and panic where a promise
//! does not hold. libFuzzer drives them (`just fuzz`), and so does `tests/fuzz.rs`, with any toolchain.

pub mod assertion;
pub mod authorization;
pub mod form;
pub mod headers;
pub mod jwks;
pub mod signed_token;
pub mod token;
pub mod trust_parts;

/// A target, and what a driver begins with.
#[allow(dead_code, reason = "libFuzzer takes one at a time, by its name")]
pub struct Target {
    /// Its name: that of its corpus, too.
    pub name: &'static str,
    /// Takes any bytes. Whether they were something in the end, and not refused.
    pub check: fn(&[u8]) -> bool,
    /// What is something, to be changed in many ways.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
#[allow(dead_code, reason = "libFuzzer takes one at a time, by its name")]
pub const TARGETS: [Target; 8] = [
    Target { name: "assertion", check: assertion::check, seeds: assertion::seeds },
    Target { name: "authorization", check: authorization::check, seeds: authorization::seeds },
    Target { name: "form", check: form::check, seeds: form::seeds },
    Target { name: "headers", check: headers::check, seeds: headers::seeds },
    Target { name: "jwks", check: jwks::check, seeds: jwks::seeds },
    Target { name: "signed_token", check: signed_token::check, seeds: signed_token::seeds },
    Target { name: "token", check: token::check, seeds: token::seeds },
    Target { name: "trust_parts", check: trust_parts::check, seeds: trust_parts::seeds },
];
