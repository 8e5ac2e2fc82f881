//! `Guard::explain`: what people who debug are shown.

use countersign_mesh::guard::{Guard, Outcome};
use countersign_mesh::testing::{TestIssuer, TokenRequest};

use crate::support::{POLICIES, PUBLIC, UNARY, UNDECLARED};

fn rig() -> (TestIssuer, Guard) {
    let issuer = TestIssuer::new();
    let guard = issuer.guard(POLICIES).build();
    (issuer, guard)
}

#[test]
fn a_good_token_passes_every_check() {
    let (issuer, guard) = rig();
    let token = issuer.token("order").audience("echo").scopes("echo:call echo:watch").mint();
    let explanation = guard.explain(token.expose(), UNARY);
    assert_eq!(explanation.refusal(), None);
    assert_eq!(
        explanation.to_string(),
        "\
path        ok      /test.Echo/Unary demands echo:call
trust       ok      epoch 1 with 1 keys
format      ok      a JWS in compact form with the claims of RFC 9068
issuer      ok      https://issuer.test
key         ok      UDDReOZl1ipXAfp9
signature   ok      of that key
time        ok      from 1800000000 to 1800000900, now is 1800000000, leeway 30 s
audience    ok      echo
revocation  ok      none of the token, its client and its key
scopes      ok      echo:call echo:watch
The call would be admitted."
    );
}

#[test]
fn an_explanation_shows_everything_that_is_wrong_at_once() {
    let (issuer, guard) = rig();
    let token = issuer.token("order").audience("payment").scopes("echo:watch").expired().mint();
    issuer.revoke_token(&token);
    let explanation = guard.explain(token.expose(), UNARY);
    let failed: Vec<&str> = explanation
        .checks()
        .iter()
        .filter(|check| check.outcome == Outcome::Failed)
        .map(|check| check.name)
        .collect();
    assert_eq!(failed, ["time", "audience", "revocation", "scopes"]);
    let shown = explanation.to_string();
    assert!(shown.ends_with("The call would be refused: TOKEN_EXPIRED."), "{shown}");
    assert!(shown.contains("audience    FAILED  payment; expected echo"), "{shown}");
    assert!(shown.contains("scopes      FAILED  echo:watch; missing echo:call"), "{shown}");
}

#[test]
fn an_explanation_agrees_with_a_call_and_never_shows_the_token() {
    type Spoil = fn(TokenRequest<'_>) -> TokenRequest<'_>;
    let cases: [(Spoil, &str, &str); 8] = [
        (|token| token.scopes(""), "scopes", "SCOPE_MISSING"),
        (|token| token.audience("payment"), "audience", "AUDIENCE_MISMATCH"),
        (|token| token.issuer("https://other.test"), "issuer", "TOKEN_INVALID"),
        (|token| token.expired(), "time", "TOKEN_EXPIRED"),
        (|token| token.not_yet_valid(), "time", "TOKEN_INVALID"),
        (|token| token.signed_by_stranger(), "key", "KEY_UNKNOWN"),
        (|token| token.forged(), "signature", "TOKEN_INVALID"),
        (|token| token, "revocation", "TOKEN_REVOKED"),
    ];
    for (spoil, check, reason) in cases {
        let (issuer, guard) = rig();
        let token = spoil(issuer.token("order").audience("echo").scopes("echo:call")).mint();
        if reason == "TOKEN_REVOKED" {
            issuer.revoke_token(&token);
        }
        let explanation = guard.explain(token.expose(), UNARY);
        assert_eq!(explanation.refusal().map(|refusal| refusal.reason()), Some(reason));
        let failed = explanation.checks().iter().find(|check| check.outcome == Outcome::Failed);
        assert_eq!(failed.map(|failed| failed.name), Some(check));
        let shown = format!("{explanation}{explanation:?}");
        for part in token.expose().split('.') {
            assert!(!shown.contains(part), "{shown}");
        }
    }
}

#[test]
fn an_explanation_tells_a_revoked_key_from_an_unknown_one() {
    let (issuer, guard) = rig();
    let token = issuer.token("order").audience("echo").scopes("echo:call").mint();
    issuer.revoke_key();
    let shown = guard.explain(token.expose(), UNARY).to_string();
    assert!(shown.contains("is revoked"), "{shown}");
    assert!(shown.ends_with("refused: TOKEN_REVOKED."), "{shown}");
}

#[test]
fn an_explanation_does_not_repeat_text_that_is_no_token() {
    let (_, guard) = rig();
    let noise = guard.explain("hunter2", UNARY);
    assert!(noise.to_string().ends_with("refused: TOKEN_INVALID."));
    assert!(!format!("{noise}{noise:?}").contains("hunter2"));
    assert!(guard.explain("hunter2", UNDECLARED).to_string().ends_with("METHOD_UNDECLARED."));
    assert_eq!(guard.explain("hunter2", PUBLIC).refusal(), None);
}
