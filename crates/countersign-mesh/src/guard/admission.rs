//! Whether a call is admitted: the bearer token, what it is worth today, and the scopes.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use quick_cache::sync::Cache;

use crate::claims::{Audience, Claims, Clock, ScopeSet, Timestamp};
use crate::guard::live_trust::Trust;
use crate::guard::policy_table::PolicyTable;
use crate::guard::refusal::{Refusal, RefusalDetail};
use crate::guard::report::Reports;
use crate::token::{Audiences, Rejection};
use crate::trust::{TrustBundle, VerifiedToken};

/// How many verified tokens are cached. A client sends the same token with many calls, and a cached
/// token needs no second check of its signature.
const CACHED_TOKENS: usize = 10_000;

/// The proof that a guard let a call through: its token was good for the audience of the called method,
/// and carried all scopes that the method demands. It stands in the extensions of the request; see
/// [`caller`](crate::guard::caller).
///
/// Only a guard makes one. A token that was merely verified permits nothing:
///
/// ```compile_fail
/// use std::sync::Arc;
///
/// use countersign_mesh::guard::Permitted;
/// use countersign_mesh::trust::VerifiedToken;
///
/// fn permitted(token: Arc<VerifiedToken>) -> Permitted {
///     Permitted(token)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permitted(Arc<VerifiedToken>);

impl Permitted {
    /// What the token says.
    pub fn claims(&self) -> &Claims {
        self.0.claims()
    }

    /// The token itself, for whoever looks at it again later: it may be revoked while the call lasts.
    pub fn token(&self) -> &VerifiedToken {
        &self.0
    }
}

/// All that a guard decides by. Its clones and its calls share it.
pub(super) struct Checks {
    pub(super) policies: PolicyTable,
    pub(super) trust: Trust,
    pub(super) clock: Clock,
    pub(super) leeway: Duration,
    pub(super) reports: Reports,
    pub(super) verified: Cache<Box<str>, Arc<VerifiedToken>>,
}

impl Checks {
    pub(super) fn new(
        policies: PolicyTable,
        trust: Trust,
        clock: Clock,
        leeway: Duration,
        reports: Reports,
    ) -> Self {
        let verified = Cache::new(CACHED_TOKENS);
        Self { policies, trust, clock, leeway, reports, verified }
    }

    /// Permits a call if its token is good, for this audience, and carries these scopes.
    pub(super) fn admit(
        &self,
        headers: &HeaderMap,
        audience: &Audience,
        scopes: &ScopeSet,
        now: Timestamp,
    ) -> Result<Permitted, RefusalDetail> {
        let token = bearer(headers, audience)?;
        let bundle = self.trust.bundle().ok_or(Refusal::TrustUnavailable)?;
        if self.trust.fails_closed() {
            return Err(Refusal::TrustStale.into());
        }
        let verified = self.verify(&bundle, token, audience, now).map_err(|rejection| {
            if rejection == Rejection::KeyUnknown {
                self.trust.report_missing_key();
            }
            let refusal = Refusal::of(&rejection, audience);
            RefusalDetail { refusal, rejection: Some(rejection), client: None }
        })?;
        match verified.claims().scopes.first_missing(scopes) {
            Some(scope) => Err(RefusalDetail {
                refusal: Refusal::ScopeMissing { scope: scope.into() },
                rejection: None,
                client: Some(verified.claims().client_id.clone()),
            }),
            None => Ok(Permitted(verified)),
        }
    }

    fn verify(
        &self,
        bundle: &TrustBundle,
        token: &str,
        audience: &Audience,
        now: Timestamp,
    ) -> Result<Arc<VerifiedToken>, Rejection> {
        if let Some(known) = self.verified.get(token) {
            bundle.recheck(&known, now, self.leeway)?;
            // The cache is keyed by the token alone, and one server may have several audiences.
            return if known.claims().audience == *audience {
                Ok(known)
            } else {
                Err(Rejection::AudienceMismatch)
            };
        }
        let audiences = Audiences::OneOf(std::slice::from_ref(audience));
        let verified = Arc::new(bundle.verify(token, audiences, now, self.leeway)?);
        // Only good tokens are cached: those that anyone can make up push none out.
        self.verified.insert(token.into(), Arc::clone(&verified));
        Ok(verified)
    }
}

/// The one bearer token of a call (RFC 6750 §2.1). Two headers, or a header with anything but one
/// token, could be read differently by a proxy before us or a service behind us.
fn bearer<'a>(headers: &'a HeaderMap, audience: &Audience) -> Result<&'a str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value =
        values.next().ok_or_else(|| Refusal::TokenMissing { audience: audience.clone() })?;
    if values.next().is_some() {
        return Err(Refusal::TokenInvalid);
    }
    let (scheme, token) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(Refusal::TokenInvalid)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token) } else { Err(Refusal::TokenInvalid) }
}
