//! The log: one line for each request, as text or as JSON.

use serde_json::Value;

use crate::support::{Sandbox, post};

const DEMO: &str = "countersign-dev/demo.toml";

#[test]
fn each_request_is_logged_in_one_line_with_caller_method_and_outcome() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve(&["--dev", "--log-format", "json"]);
    sandbox.json(DEMO, &["token", "issue"]);
    let other = ["token", "issue", "--credentials", DEMO, "--audience", "demo", "--scope", "other"];
    sandbox.run(&other).failed(3);
    sandbox.run_with_input(&["token", "validate", "--credentials", DEMO, "-"], "noise");
    let log = server.stop().stderr;

    let lines = log.lines().map(|line| serde_json::from_str(line).expect("each line is JSON"));
    let requests: Vec<Value> = lines.filter(|line: &Value| line["message"] == "request").collect();
    let told = |key: &str| {
        let values = requests.iter().map(|request| request[key].as_str().expect("text").to_owned());
        values.collect::<Vec<_>>()
    };
    let path = |method: &str| format!("{:?}", format!("/countersign.v1.TokenService/{method}"));
    assert_eq!(told("path"), ["IssueToken", "IssueToken", "IssueToken", "ValidateToken"].map(path));
    assert_eq!(told("client"), ["demo"; 4]);
    assert_eq!(told("outcome"), ["ok", "SCOPE_DENIED", "ok", "ok"]);
    assert_eq!(told("audience"), ["demo", "demo", "countersign", ""]);
    let why = "the client was not granted the scope other";
    assert_eq!(told("detail"), ["", why, "", ""]);
    let scopes: Vec<_> = requests.iter().map(|request| request["scopes"].as_str()).collect();
    assert_eq!(scopes, [None, Some("other"), None, None]);
    assert!(
        requests.iter().all(|request| request["micros"].is_u64() && request["level"] == "INFO")
    );
    let mut ids = told("id");
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[test]
fn requests_over_plain_http_are_logged_the_same_way() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve(&["--dev", "--log-format", "json"]);
    let secret = sandbox.credential(DEMO, "client_secret");
    for (client, scope) in [("demo", "demo:read"), ("demo", "other"), ("nobody", "")] {
        let form = format!(
            "grant_type=client_credentials&scope={scope}&client_id={client}&client_secret={secret}"
        );
        post(&sandbox, DEMO, "/oauth/token?a=b", "", &form);
    }
    post(&sandbox, DEMO, "/health/live", "", "");
    let log = server.stop().stderr;
    let lines = log.lines().map(|line| serde_json::from_str(line).expect("each line is JSON"));
    let requests: Vec<Value> = lines.filter(|line: &Value| line["message"] == "request").collect();
    let told = |key: &str| requests.iter().map(|line| line[key].clone()).collect::<Vec<_>>();
    assert_eq!(told("path"), ["\"/oauth/token\""; 3]);
    assert_eq!(told("client"), ["demo", "demo", ""]);
    assert_eq!(told("audience"), ["demo", "", ""]);
    assert_eq!(told("outcome"), ["ok", "invalid_scope", "invalid_client"]);
    let why = "the client was not granted the scope other";
    assert_eq!(told("detail"), ["", why, "unknown_client"]);
    assert_eq!(requests[1]["scopes"], "other");
}

#[test]
fn at_level_warn_a_healthy_server_logs_nothing() {
    let sandbox = Sandbox::new();
    let server = sandbox.serve(&["--dev", "--log-filter", "warn"]);
    sandbox.json(DEMO, &["token", "issue"]);
    assert_eq!(server.stop().stderr, "");
}
