//! Any body of a request: it is a form or it is not, and a form reads the same once it is written out.

#![no_main]

use countersign::server::Form;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(form) = Form::parse(bytes) else { return };
    for name in ["grant_type", "scope", "audience", "client_id", "client_secret", "token"] {
        let Some(value) = form.get(name) else { continue };
        assert!(!value.is_empty() && !value.contains('\0'));
        assert_eq!(form.all(name).count(), 1);
        let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let again = Form::parse(format!("{name}={encoded}").as_bytes()).expect("well encoded");
        assert_eq!(again.get(name), Some(value));
    }
    assert!(form.all("resource").count() <= Form::MAX_PARAMETERS);
});
