//! A token at hand.

use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use crate::claims::MAX_TOKEN_LIFE;
use crate::token::Token;

/// A token, and when it expires.
#[derive(Clone)]
pub struct BearerToken {
    header: HeaderValue,
    expires_at: Instant,
    /// Counts the tokens of a source.
    pub(crate) generation: u64,
}

impl BearerToken {
    /// `None` when the text is empty or cannot be in a header, or the token has no life.
    pub(crate) fn new(
        token: &Token,
        asked_at: Instant,
        expires_in: Duration,
        generation: u64,
    ) -> Option<Self> {
        if token.expose().is_empty() || expires_in.is_zero() {
            return None;
        }
        let mut header = HeaderValue::try_from(format!("Bearer {}", token.expose())).ok()?;
        header.set_sensitive(true);
        // Counted from when the token was asked for, by our own clock: it cannot have been issued
        // before. Nobody's tokens are kept for longer than ours can live, which also keeps the sum in
        // range.
        let expires_at = asked_at + expires_in.min(MAX_TOKEN_LIFE);
        Some(Self { header, expires_at, generation })
    }

    /// The value of an `authorization` header (RFC 6750 §2.1), marked as sensitive.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// How long it is still good for.
    pub fn runway(&self) -> Duration {
        self.expires_at.saturating_duration_since(Instant::now())
    }

    pub(crate) fn has_expired(&self) -> bool {
        self.runway().is_zero()
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerToken").field("runway", &self.runway()).finish_non_exhaustive()
    }
}
