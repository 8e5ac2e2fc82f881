//! The proof that a token was verified.

use std::time::Duration;

use crate::claims::{Claims, Kid, Timestamp};
use crate::token::{Audiences, Rejection, SignedToken};
use crate::trust::TrustBundle;

/// A token that was good when a [`TrustBundle`] verified it: signature, issuer, time, audience and
/// revocation.
///
/// Only [`TrustBundle::verify`] makes one, so a check that was skipped does not compile:
///
/// ```compile_fail
/// use countersign_mesh::claims::{Claims, Kid};
/// use countersign_mesh::trust::VerifiedToken;
///
/// fn forged(claims: Claims, kid: Kid) -> VerifiedToken {
///     VerifiedToken { claims, kid }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedToken {
    claims: Claims,
    kid: Kid,
}

impl VerifiedToken {
    /// What it says.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The key that signed it.
    pub fn kid(&self) -> &Kid {
        &self.kid
    }
}

impl TrustBundle {
    /// Verifies a token: signature, issuer, time, audience and revocation.
    ///
    /// # Errors
    /// The first reason not to accept it.
    pub fn verify(
        &self,
        token: &str,
        audiences: Audiences<'_>,
        now: Timestamp,
        leeway: Duration,
    ) -> Result<VerifiedToken, Rejection> {
        let token = self.signed(token)?;
        token.check_time(now, leeway)?;
        token.check_audience(audiences)?;
        self.check_revocation(token.claims(), token.kid())?;
        let (claims, kid) = token.into_parts();
        Ok(VerifiedToken { claims, kid })
    }

    /// The first step of [`TrustBundle::verify`]: our issuer has signed it, with a key that it has not
    /// withdrawn.
    ///
    /// # Errors
    /// The first reason not to believe it.
    pub(crate) fn signed(&self, token: &str) -> Result<SignedToken, Rejection> {
        crate::token::signed(token, &self.issuer, |kid| {
            self.keys.key(kid).ok_or_else(|| {
                // The token is refused either way. The bearer is told which refusal it is.
                if self.revocations.key(kid) { Rejection::Revoked } else { Rejection::KeyUnknown }
            })
        })
    }

    /// Looks again at a token that was verified earlier, perhaps against an older bundle: its time,
    /// its key, and revocation. The signature cannot have changed.
    ///
    /// # Errors
    /// The first reason not to accept it any longer.
    pub fn recheck(
        &self,
        verified: &VerifiedToken,
        now: Timestamp,
        leeway: Duration,
    ) -> Result<(), Rejection> {
        self.check_revocation(&verified.claims, &verified.kid)?;
        if self.keys.key(verified.kid.as_str()).is_none() {
            return Err(Rejection::KeyUnknown);
        }
        if verified.claims.has_expired(now, leeway) {
            return Err(Rejection::Expired);
        }
        Ok(())
    }

    /// The last step of [`TrustBundle::verify`]: neither the token nor its client nor its key is revoked.
    ///
    /// # Errors
    /// [`Rejection::Revoked`].
    pub(crate) fn check_revocation(&self, claims: &Claims, kid: &Kid) -> Result<(), Rejection> {
        let revoked = self.revocations.token(&claims.token_id).is_some()
            || self
                .revocations
                .client(&claims.client_id)
                .is_some_and(|client| claims.issued_at < client.before)
            || self.revocations.key(kid.as_str());
        if revoked { Err(Rejection::Revoked) } else { Ok(()) }
    }
}
