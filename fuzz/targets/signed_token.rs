//! Any header and claims, rightly signed: they are those that an issuer of ours makes, or the token is refused. The two
//! have a zero byte between them.

use std::time::Duration;

use countersign_mesh::internals::base64_url;
use countersign_mesh::token::Audiences;
use serde_json::{Map, Value};

use super::token::{NOW, bundle, key};

/// Whether the bytes are header and claims of a good token.
pub fn check(bytes: &[u8]) -> bool {
    let at = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (header, claims) = (&bytes[..at], bytes.get(at + 1..).unwrap_or_default());
    let input = format!("{}.{}", base64_url(header), base64_url(claims));
    let token = format!("{input}.{}", base64_url(&key().sign(input.as_bytes())));
    let Ok(verified) = bundle().verify(&token, Audiences::Any, NOW, Duration::from_secs(30)) else {
        return false;
    };
    // By another parser, which takes more.
    let object = |bytes: &[u8]| -> Map<String, Value> {
        serde_json::from_slice(bytes).expect("an object of JSON")
    };
    let (header, claims) = (object(header), object(claims));
    assert!(header.keys().eq(["alg", "kid", "typ"]), "{header:?}");
    assert_eq!(header["typ"], "at+jwt");
    assert_eq!(header["kid"], key().kid().as_str());
    assert_eq!(claims["sub"], claims["client_id"]);
    assert_eq!(claims["iss"], "https://issuer.test");
    let time = |name: &str| claims[name].as_u64().expect("whole seconds");
    let (issued, expires, now) = (time("iat"), time("exp"), NOW.as_unix());
    assert!(issued < expires && expires - issued <= 24 * 60 * 60, "{claims:?}");
    assert!(issued <= now + 30 && now < expires + 30, "{claims:?}");
    assert_eq!(verified.claims().client_id.as_str(), claims["client_id"]);
    true
}

/// Headers and claims that are good.
pub fn seeds() -> Vec<Vec<u8>> {
    let header = format!(r#"{{"alg":"EdDSA","kid":"{}","typ":"at+jwt"}}"#, key().kid());
    let claims = r#"{"iss":"https://issuer.test","sub":"order","client_id":"order","aud":"inventory","scope":"stock:read","iat":1800000000,"exp":1800000900,"jti":"one"}"#;
    let also =
        claims.replace("\"jti\"", "\"nbf\":1800000000,\"more\":[{\"a\":1,\"b\":null}],\"jti\"");
    [claims, &also].map(|claims| [header.as_bytes(), b"\0", claims.as_bytes()].concat()).to_vec()
}
