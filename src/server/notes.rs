//! What is found out about a request on its way, for the log.

use std::sync::OnceLock;

use countersign_mesh::claims::{Audience, ClientId};

use crate::policy::{Denial, TokenRequest};

/// The reason of a request that was turned away before anything was done for it. It is no error of ours, and in an
/// overload there are too many of them to log each as one.
pub(super) const OVERLOADED: &str = "OVERLOADED";

/// What handlers find out about a request. The request log writes it down.
#[derive(Debug, Default)]
pub(super) struct RequestNotes {
    /// Who asks.
    pub(super) client: OnceLock<ClientId>,
    /// For which audience.
    pub(super) audience: OnceLock<Audience>,
    /// What a client that proved who it is asked for and was denied: the scopes, and why not, in words. Both are
    /// bounded, and made of names that are well-formed.
    pub(super) denied: OnceLock<Denied>,
    /// Why it failed: the reason that the caller is told, and a detail that only the log gets.
    pub(super) failure: OnceLock<(&'static str, &'static str)>,
}

/// What a client asked for and was denied.
#[derive(Debug)]
pub(super) struct Denied {
    scopes: String,
    why: String,
}

impl Denied {
    /// The longest text of scopes in a line, in bytes. A request may name sixty-four.
    const MAX_SCOPES: usize = 256;

    pub(super) fn new(request: &TokenRequest, denial: &Denial) -> Self {
        let asked = request.scopes.as_str();
        // Scopes are ASCII (RFC 6749 §3.3), so that every place is between two characters.
        let scopes = match asked.get(..Self::MAX_SCOPES) {
            Some(begin) if asked.len() > begin.len() => format!("{begin}…"),
            _ => asked.to_owned(),
        };
        Self { scopes, why: denial.to_string() }
    }

    /// The scopes that were asked for.
    pub(super) fn scopes(&self) -> &str {
        &self.scopes
    }

    /// Why not, in words.
    pub(super) fn why(&self) -> &str {
        &self.why
    }
}

#[cfg(test)]
mod tests {
    use countersign_mesh::claims::ScopeSet;

    use super::*;

    #[test]
    fn the_scopes_in_a_line_are_bounded() {
        let of = |scopes: &str| {
            let scopes = ScopeSet::parse(scopes).expect("scopes");
            let request = TokenRequest { audience: None, scopes, requested_ttl: None };
            Denied::new(&request, &Denial::AudienceAmbiguous).scopes
        };
        assert_eq!(of("b a"), "a b");
        let scopes = |count: usize| {
            let names: Vec<_> =
                (10..10 + count).map(|number| format!("{number}{}", "x".repeat(14))).collect();
            names.join(" ")
        };
        assert_eq!(of(&scopes(15)).len(), 15 * 17 - 1);
        let long = of(&scopes(16));
        assert!(long.ends_with('…') && long.len() == 256 + '…'.len_utf8(), "{long}");
    }
}
