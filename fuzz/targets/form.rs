//! Any body of a request: it is a form or it is not, and a form reads the same once it is written out.

use countersign::server::Form;

/// Whether the bytes are a form.
pub fn check(bytes: &[u8]) -> bool {
    let Ok(form) = Form::parse(bytes) else { return false };
    for name in ["grant_type", "scope", "audience", "client_id", "client_secret", "token"] {
        let Some(value) = form.get(name) else { continue };
        assert!(!value.is_empty() && !value.contains('\0'));
        assert_eq!(form.all(name).count(), 1);
        let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let again = Form::parse(format!("{name}={encoded}").as_bytes()).expect("well encoded");
        assert_eq!(again.get(name), Some(value));
    }
    assert!(form.all("resource").count() <= Form::MAX_PARAMETERS);
    true
}

/// Forms.
pub fn seeds() -> Vec<Vec<u8>> {
    [
        "grant_type=client_credentials&scope=stock%3Aread+stock%3Awrite&audience=inventory",
        "grant_type=client_credentials&resource=https%3A%2F%2Fa.test%2F&resource=urn:b&client_id=a",
        "token=a.b.c&token_type_hint=access_token&client_id=%F0%9F%A6%80&client_secret=x%2By",
        "a&b=&=c&&scope=",
    ]
    .map(|seed| seed.as_bytes().to_vec())
    .to_vec()
}
