//! OAuth 2.0 over plain HTTP, with clients that were created on the command line.

use serde_json::{Value, json};

use crate::support::{Sandbox, post};

const DEMO: &str = "countersign-dev/demo.toml";
const OPERATOR: &str = "countersign-dev/operator.toml";

const SHOP: &str = "https://shop.example.com/api";

/// The body of an answer.
fn body(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    serde_json::from_str(body).expect("JSON")
}

#[test]
fn a_resource_that_an_operator_registered_stands_for_its_audience() {
    let sandbox = Sandbox::new();
    let server = sandbox.dev();
    let operate = |line: &str| sandbox.json(OPERATOR, &line.split(' ').collect::<Vec<_>>());

    let shop = operate(&format!("client create shop --serves shop --resource {SHOP} --no-secret"));
    assert_eq!(shop["resources"], json!([{ "uri": SHOP, "audience": "shop" }]));
    operate("client update demo --grant shop=orders:read");
    let secret = sandbox.credential(DEMO, "client_secret");
    let ask = || {
        let form = format!(
            "grant_type=client_credentials&client_id=demo&client_secret={secret}&resource={SHOP}"
        );
        body(&post(&sandbox, DEMO, "/oauth/token", "", &form))
    };
    assert_eq!(ask()["scope"], "orders:read");

    let shop = operate("client update shop --resource urn:shop=shop");
    assert_eq!(shop["resources"], json!([{ "uri": "urn:shop", "audience": "shop" }]));
    assert_eq!(ask()["error"], "invalid_target");
    let shop = operate("client update shop --no-resources");
    assert_eq!(shop["resources"], json!([]));

    let other = ["client", "update", "shop", "--resource", "urn:a=elsewhere"];
    let refused = sandbox.run(&[&other[..], &["--credentials", OPERATOR]].concat()).failed(3);
    assert!(refused.contains("stand only for an audience that the client serves"), "{refused}");
    server.stop();
}
