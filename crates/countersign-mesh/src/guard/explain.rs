//! Why a token is or is not good for a call, check by check: for people who debug.

use std::fmt;

use crate::claims::{Audience, Claims, ScopeSet, Timestamp};
use crate::guard::layer::Guard;
use crate::guard::policy_table::Demand;
use crate::guard::refusal::Refusal;
use crate::token::{Rejection, SignedToken, UnverifiedToken, unverified_claims};
use crate::trust::TrustBundle;

/// What a guard makes of a token and a path, check by check. `Display` prints it as a table. The
/// token is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    checks: Vec<Check>,
    refusal: Option<Refusal>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is checked: `path`, `trust`, `format`, `issuer`, `key`, `signature`, `time`, `audience`,
    /// `revocation` or `scopes`.
    pub name: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found, for people.
    pub detail: String,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// In order.
    Passed,
    /// Not in order; the first such check decides.
    Failed,
}

impl Explanation {
    /// The checks that were made. Those that depend on one that failed are not made: nothing that a
    /// token says is believed before its signature has held.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Why a call would be refused; `None` when it would be admitted.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    fn pass(&mut self, name: &'static str, detail: impl Into<String>) {
        self.checks.push(Check { name, outcome: Outcome::Passed, detail: detail.into() });
    }

    fn fail(&mut self, name: &'static str, detail: impl Into<String>, refusal: Refusal) {
        self.checks.push(Check { name, outcome: Outcome::Failed, detail: detail.into() });
        self.refusal.get_or_insert(refusal);
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { name, outcome, detail } in &self.checks {
            let outcome = match outcome {
                Outcome::Passed => "ok",
                Outcome::Failed => "FAILED",
            };
            writeln!(f, "{name:<11} {outcome:<7} {detail}")?;
        }
        match &self.refusal {
            None => f.write_str("The call would be admitted."),
            Some(refusal) => write!(f, "The call would be refused: {}.", refusal.reason()),
        }
    }
}

impl Guard {
    /// Checks a token for a call of a path, `/inventory.v1.Inventory/CheckStock`, and lists each
    /// check with its outcome. Nothing is counted, logged or remembered. Report-only mode makes no
    /// difference to it.
    ///
    /// ```
    /// # use countersign_mesh::guard::{Access, MethodPolicy, ServicePolicy};
    /// # use countersign_mesh::testing::TestIssuer;
    /// # const POLICIES: &[ServicePolicy] = &[ServicePolicy {
    /// #     service: "inventory.Inventory",
    /// #     audience: "inventory",
    /// #     methods: &[MethodPolicy { path: "/inventory.Inventory/Restock", access: Access::Scopes(&["stock:write"]) }],
    /// # }];
    /// let issuer = TestIssuer::new();
    /// let guard = issuer.guard(POLICIES).build();
    /// let token = issuer.token("order").audience("inventory").scopes("stock:read").mint();
    /// let explanation = guard.explain(token.expose(), "/inventory.Inventory/Restock");
    /// assert!(explanation.to_string().ends_with("The call would be refused: SCOPE_MISSING."));
    /// ```
    pub fn explain(&self, token: &str, path: &str) -> Explanation {
        let mut explained = Explanation { checks: Vec::new(), refusal: None };
        let Some(method) = self.checks.policies.method(path) else {
            // The path is not repeated: it may be anything that somebody pasted.
            explained.fail("path", "nobody declared this method", Refusal::MethodUndeclared);
            return explained;
        };
        let (audience, scopes) = match &method.demand {
            Demand::Nothing => {
                explained.pass("path", "public: no token is looked at");
                return explained;
            }
            Demand::Token { audience, scopes } => (audience, scopes),
        };
        let demand = if scopes.is_empty() { "no scope" } else { scopes.as_str() };
        explained.pass("path", format!("{} demands {demand}", method.label));
        let Some(bundle) = self.checks.trust.bundle() else {
            explained.fail("trust", "no trust bundle yet", Refusal::TrustUnavailable);
            return explained;
        };
        if self.checks.trust.fails_closed() {
            let detail = format!("epoch {} is stale, and the guard fails closed", bundle.epoch);
            explained.fail("trust", detail, Refusal::TrustStale);
            return explained;
        }
        let keys = bundle.keys.len();
        explained.pass("trust", format!("epoch {} with {keys} keys", bundle.epoch));
        let now = self.checks.clock.now();
        if let Some(signed) = explain_signature(&mut explained, &bundle, token, audience) {
            self.explain_claims(&mut explained, &bundle, &signed, audience, now);
            explain_scopes(&mut explained, signed.claims(), scopes);
        }
        explained
    }

    /// Time, audience and revocation.
    fn explain_claims(
        &self,
        explained: &mut Explanation,
        bundle: &TrustBundle,
        signed: &SignedToken,
        audience: &Audience,
        now: Timestamp,
    ) {
        let claims = signed.claims();
        let leeway = self.checks.leeway;
        let from_to = format!(
            "from {} to {}, now is {}, leeway {} s",
            claims.issued_at.as_unix(),
            claims.expires_at.as_unix(),
            now.as_unix(),
            leeway.as_secs(),
        );
        match signed.check_time(now, leeway) {
            Ok(()) => explained.pass("time", from_to),
            Err(Rejection::NotYetValid) => {
                explained.fail("time", format!("not yet valid: {from_to}"), Refusal::TokenInvalid)
            }
            Err(rejection) => {
                let refusal = Refusal::of(&rejection, audience);
                explained.fail("time", format!("expired: {from_to}"), refusal);
            }
        }
        if claims.audience == *audience {
            explained.pass("audience", audience.as_str());
        } else {
            let refusal = Refusal::AudienceMismatch { audience: audience.clone() };
            explained.fail(
                "audience",
                format!("{}; expected {audience}", claims.audience),
                refusal,
            );
        }
        match bundle.check_revocation(claims, signed.kid()) {
            Ok(()) => explained.pass("revocation", "none of the token, its client and its key"),
            Err(rejection) => {
                let client = &claims.client_id;
                let detail = format!("token {} or client {client} is revoked", claims.token_id);
                explained.fail("revocation", detail, Refusal::of(&rejection, audience));
            }
        }
    }
}

/// Format, issuer, key and signature: what decides whether the token's word is believed.
fn explain_signature(
    explained: &mut Explanation,
    bundle: &TrustBundle,
    token: &str,
    audience: &Audience,
) -> Option<SignedToken> {
    let unverified = match unverified_claims(token) {
        Ok(UnverifiedToken { format: Err(error), .. }) | Err(error) => {
            let refusal = Refusal::of(&Rejection::Malformed(error), audience);
            explained.fail("format", format!("not a token: {error:?}"), refusal);
            return None;
        }
        Ok(unverified) => unverified,
    };
    explained.pass("format", "a JWS in compact form with the claims of RFC 9068");
    let says = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let (issuer, kid) = (says(&unverified.claims["iss"]), says(&unverified.header["kid"]));
    let rejection = match bundle.signed(token) {
        Ok(signed) => {
            explained.pass("issuer", issuer);
            explained.pass("key", kid);
            explained.pass("signature", "of that key");
            return Some(signed);
        }
        Err(rejection) => rejection,
    };
    let refusal = Refusal::of(&rejection, audience);
    // The token's own words are shown with `Debug`, which escapes control characters.
    match rejection {
        Rejection::IssuerMismatch => {
            let detail = format!("{issuer:?}; trusted is {}", bundle.issuer);
            explained.fail("issuer", detail, refusal);
        }
        Rejection::Revoked => {
            explained.pass("issuer", issuer);
            explained.fail("key", format!("{kid:?} is revoked"), refusal);
        }
        Rejection::KeyUnknown => {
            explained.pass("issuer", issuer);
            explained.fail("key", format!("{kid:?} is not among the issuer's keys"), refusal);
        }
        // `signed` looks at neither time nor audience, so only the signature is left.
        Rejection::SignatureInvalid
        | Rejection::Malformed(_)
        | Rejection::Expired
        | Rejection::NotYetValid
        | Rejection::AudienceMismatch => {
            explained.pass("issuer", issuer);
            explained.pass("key", kid);
            explained.fail("signature", "not of that key over these claims", refusal);
        }
    }
    None
}

fn explain_scopes(explained: &mut Explanation, claims: &Claims, scopes: &ScopeSet) {
    let carried = &claims.scopes;
    let says = if carried.is_empty() { "none" } else { carried.as_str() };
    let missing: Vec<&str> = scopes.iter().filter(|scope| !carried.contains(scope)).collect();
    match missing.first() {
        None => explained.pass("scopes", says),
        Some(first) => {
            let refusal = Refusal::ScopeMissing { scope: (*first).into() };
            explained.fail("scopes", format!("{says}; missing {}", missing.join(" ")), refusal);
        }
    }
}
