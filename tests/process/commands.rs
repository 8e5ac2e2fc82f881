//! The commands against a real server: their output for scripts, and their exit codes.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Finished, Sandbox};

const DEV: &str = "countersign-dev";
const DEMO: &str = "countersign-dev/demo.toml";
const OPERATOR: &str = "countersign-dev/operator.toml";

/// A sandbox with a server in it. Commands run as the operator unless they say otherwise.
struct Desk {
    sandbox: Sandbox,
    server: crate::support::Server,
}

impl Desk {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let server = sandbox.dev();
        Self { sandbox, server }
    }

    fn json(&self, line: &str) -> Value {
        self.sandbox.json(OPERATOR, &words(line))
    }

    /// Runs a command that the server must refuse. Returns its error line.
    #[track_caller]
    fn refused(&self, line: &str) -> String {
        self.run(line).failed(3)
    }

    fn run(&self, line: &str) -> Finished {
        self.sandbox.run(&[&words(line)[..], &["--credentials", OPERATOR]].concat())
    }

    /// Issues a token with these credentials.
    fn token(&self, credentials: &str) -> String {
        let issued = self.sandbox.json(credentials, &["token", "issue"]);
        issued["access_token"].as_str().expect("a token").to_owned()
    }

    /// Validates a token with these credentials.
    fn validate(&self, credentials: &str, token: &str) -> Finished {
        let validate = ["token", "validate", "--credentials", credentials, "--format", "json", "-"];
        self.sandbox.run_with_input(&validate, token)
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// The values of one key in a list of objects.
fn column<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
    let entries = list.as_array().expect("a list").iter();
    entries.map(|entry| entry[key].as_str().expect("text")).collect()
}

/// The output for people. After an intended change, run `TRYCMD=overwrite cargo test --test process` and review
/// the difference. Ids, times and secrets are `[..]`.
#[test]
fn the_commands_print_what_their_transcripts_show() {
    for transcript in ["clients", "keys"] {
        let Desk { sandbox, server } = Desk::new();
        let cases = trycmd::TestCases::new();
        // An empty variable counts as unset.
        for name in ["URL", "CLIENT_ID", "CLIENT_SECRET"] {
            cases.env(format!("COUNTERSIGN_{name}_FILE"), "");
        }
        cases
            .env("COUNTERSIGN_URL", &server.url)
            .env("COUNTERSIGN_CLIENT_ID", "operator")
            .env("COUNTERSIGN_CLIENT_SECRET", sandbox.credential(OPERATOR, "client_secret"))
            .case(format!("tests/process/transcripts/{transcript}.trycmd"))
            .run();
        server.stop();
    }
}

#[test]
fn a_client_is_created_shown_changed_and_deleted() {
    let desk = Desk::new();
    let made =
        desk.json("client create cron --grant demo=demo:read --secret-ttl 90d --out cron.toml");
    assert_eq!(
        (made["client_id"].as_str(), made["file"].as_str()),
        (Some("cron"), Some("cron.toml"))
    );
    assert!(made["credential"]["expire_time"].is_string(), "{made}");
    assert_eq!(desk.sandbox.mode("cron.toml"), 0o600);
    assert_eq!(desk.sandbox.credential("cron.toml", "url"), desk.server.url);
    let token = desk.token("cron.toml");
    assert_eq!(desk.validate(DEMO, &token).json()["claims"]["client_id"], "cron");

    let listed = desk.json("client list");
    assert_eq!(column(&listed["clients"], "client_id"), ["cron", "demo", "operator"]);
    let shown = desk.json("client show cron");
    assert_eq!(shown["grants"], json!([{ "audience": "demo", "scopes": ["demo:read"] }]));
    assert_eq!((&shown["max_token_ttl"], &shown["disabled"]), (&Value::Null, &json!(false)));
    assert!(!shown.to_string().contains(&desk.sandbox.credential("cron.toml", "client_secret")));

    let changed = desk.json("client update cron --max-token-ttl 5m --add-grant orders=orders:read");
    assert_eq!(
        (&changed["max_token_ttl"], changed["grants"].as_array().map(Vec::len)),
        (&json!(300), Some(2))
    );
    assert_ne!(changed["etag"], shown["etag"]);

    let disabled = desk.json("client update cron --disable");
    assert_eq!(disabled["disabled"], true);
    let rejected = desk.sandbox.run(&["token", "issue", "--credentials", "cron.toml"]).failed(3);
    assert!(rejected.contains("CLIENT_REJECTED"), "{rejected}");
    let inactive = desk.validate(DEMO, &token);
    assert_eq!(inactive.code, Some(3));
    assert!(
        inactive.stdout.contains(r#""active":false,"inactive_reason":"revoked""#),
        "{inactive:?}"
    );

    desk.json("client update cron --enable");
    assert_eq!(desk.json("client delete cron"), json!({ "client_id": "cron" }));
    assert!(desk.refused("client show cron").contains("CLIENT_NOT_FOUND"));
    assert!(desk.refused("client delete cron").contains("CLIENT_NOT_FOUND"));
    desk.server.stop();
}

#[test]
fn a_client_has_several_secrets_each_revoked_by_its_id() {
    let desk = Desk::new();
    let created = desk.run("client create cron --grant demo=demo:read").ok();
    let first = created.trim();
    assert!(first.starts_with("csec_") && created.lines().count() == 1, "{created}");
    let second = desk.json("client credential add cron --secret --out second.toml");
    let listed = desk.json("client credential list cron");
    assert_eq!(column(&listed["credentials"], "credential_id").len(), 2);

    let id = second["credential"]["credential_id"].as_str().expect("an id");
    let token = desk.token("second.toml");
    let revoked = desk.json(&format!("client credential revoke cron {id}"));
    let told = json!({ "client_id": "cron", "credential_id": id, "tokens_revoked": false });
    assert_eq!(revoked, told);
    assert_eq!(desk.sandbox.run(&["token", "issue", "--credentials", "second.toml"]).code, Some(3));
    // The token that the revoked secret got stays valid, and the other secret still works.
    desk.validate(DEMO, &token).json();
    let second = desk.sandbox.text("second.toml");
    let secret = desk.sandbox.credential("second.toml", "client_secret");
    fs::write(desk.sandbox.path("second.toml"), second.replace(&secret, first))
        .expect("the file can be written");
    desk.token("second.toml");
    let listed = desk.json("client credential list cron");
    assert!(listed["credentials"][0]["last_use_time"].is_string(), "{listed}");

    let again = desk.refused(&format!("client credential revoke cron {id}"));
    assert!(again.contains("CREDENTIAL_NOT_FOUND"), "{again}");
    for _ in 0..7 {
        desk.json("client credential add cron --secret");
    }
    assert!(desk.refused("client credential add cron --secret").contains("CREDENTIAL_LIMIT"));
    let full = desk.refused("client secret rotate cron --out third.toml");
    assert!(full.contains("CREDENTIAL_LIMIT") && full.contains("credential list"), "{full}");
    assert!(!desk.sandbox.path("third.toml").exists(), "nothing is left of it");
    desk.server.stop();
}

#[test]
fn rotating_a_secret_marks_the_old_one_to_be_retired() {
    let desk = Desk::new();
    let created = desk.json("client create cron --grant demo=demo:read --out cron.toml");
    desk.token("cron.toml");
    let line = "client secret rotate cron --retire-when-idle 24h --ttl 90d --out new.toml";
    let rotated = desk.json(line);
    let older = rotated["older_credentials"].as_array().expect("a list");
    assert_eq!(older.len(), 1);
    assert_eq!(older[0]["credential_id"], created["credential"]["credential_id"]);
    assert_eq!(older[0]["retire_when_idle"], 86400);
    assert!(older[0]["last_use_time"].is_string(), "{rotated}");
    assert!(rotated["credential"]["expire_time"].is_string(), "{rotated}");
    let listed = desk.json("client credential list cron");
    assert_eq!(listed["credentials"][0], older[0]);
    assert_eq!(listed["credentials"][1]["retire_when_idle"], Value::Null);

    // Both secrets work, until one is revoked together with the tokens.
    desk.token("cron.toml");
    let token = desk.token("new.toml");
    assert!(desk.refused("client secret rotate cron --retire-when-idle 59s").contains("minute"));
    let id = older[0]["credential_id"].as_str().expect("an id");
    let revoked = desk.json(&format!("client credential revoke cron {id} --tokens"));
    assert_eq!(revoked["tokens_revoked"], true);
    assert_eq!(desk.sandbox.run(&["token", "issue", "--credentials", "cron.toml"]).code, Some(3));
    assert_eq!(desk.validate(DEMO, &token).code, Some(3));
    desk.token("new.toml");
    desk.server.stop();
}

#[test]
fn a_client_can_have_keys_and_certificate_names_instead_of_a_secret() {
    // The example keys of RFC 8410 §10: a public key and its private key.
    let public = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    let private = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    let desk = Desk::new();
    let write = |name: &str, text: &str| {
        fs::write(desk.sandbox.path(name), text).expect("the file can be written");
    };
    write("cron.pub", public);
    write("cron.key", private);
    desk.json("client create cron --grant demo=demo:read --no-secret");
    let added = desk.json("client credential add cron --key cron.pub --ttl 90d");
    let kid = added["credential"]["credential_id"].as_str().expect("a kid");
    assert_eq!(added["credential"]["kind"], "public_key");
    assert!(added["credential"]["expire_time"].is_string(), "{added}");

    for bad in ["cron.key", "none.pub", OPERATOR] {
        let told = desk.run(&format!("client credential add cron --key {bad}")).failed(1);
        assert!(!told.contains("MC4C") && told.contains(bad), "{told}");
    }
    let told = desk.run("client credential add cron --key cron.key").failed(1);
    assert!(told.contains("a private key, where the public key should be"), "{told}");
    let again = desk.refused("client credential add cron --key cron.pub");
    assert!(again.contains("CREDENTIAL_EXISTS"), "{again}");

    let by_name = "client credential add cron --certificate-name";
    let named = desk.json(&format!("{by_name} san_dns:CRON.example"));
    assert_eq!(named["credential"]["kind"], "certificate_name");
    assert_eq!(named["credential"]["credential_id"], "san_dns:cron.example");
    desk.json(&format!("{by_name} subject_dn:CN=cron,O=Example"));
    let listed = desk.json("client credential list cron");
    let mut ids = column(&listed["credentials"], "credential_id");
    ids.sort_unstable();
    assert_eq!(ids, [kid, "san_dns:cron.example", "subject_dn:CN=cron,O=Example"]);
    for no_one_kind in ["", " --secret --key cron.pub", " --certificate-name cron.example"] {
        let finished = desk.run(&format!("client credential add cron{no_one_kind}"));
        assert_eq!(finished.code, Some(2), "{finished:?}");
    }
    let told = desk.run(&format!("{by_name} san_ip:nowhere")).failed(3);
    assert!(told.contains("certificate_name.san_ip"), "{told}");

    let shown = desk.json("client show cron");
    assert_eq!(shown["credentials"], listed["credentials"]);
    let people = desk.run("client show cron").ok();
    assert!(people.contains(kid) && people.contains("CN=cron,O=Example"), "{people}");

    for id in [kid, "san_dns:cron.example"] {
        let revoked = desk.json(&format!("client credential revoke cron {id}"));
        assert_eq!(revoked["credential_id"], id);
        let again = desk.refused(&format!("client credential revoke cron {id}"));
        assert!(again.contains("CREDENTIAL_NOT_FOUND"), "{again}");
    }
    desk.server.stop();
}

#[test]
fn tokens_are_issued_validated_inspected_and_revoked() {
    let desk = Desk::new();
    let issued =
        desk.sandbox.json(DEMO, &["token", "issue", "--scope", "demo:read", "--ttl", "5m"]);
    assert_eq!((&issued["token_type"], &issued["scope"]), (&json!("Bearer"), &json!("demo:read")));
    assert_eq!((&issued["expires_in"], &issued["audience"]), (&json!(300), &json!("demo")));
    let token = issued["access_token"].as_str().expect("a token");

    let inspected = desk.sandbox.run_with_input(&words("token inspect - --format json"), token);
    assert!(inspected.stderr.starts_with("NOTHING WAS VERIFIED"), "{}", inspected.stderr);
    let inspected = inspected.json();
    assert_eq!(
        (&inspected["verified"], &inspected["header"]["typ"]),
        (&json!(false), &json!("at+jwt"))
    );

    let validated = desk.validate(DEMO, token).json();
    assert_eq!(
        (&validated["active"], &validated["claims"]["client_id"]),
        (&json!(true), &json!("demo"))
    );
    let jti = inspected["claims"]["jti"].as_str().expect("an id");
    assert_eq!(validated["claims"]["token_id"], jti);

    let revoke = words("token revoke - --format json --credentials countersign-dev/demo.toml");
    assert_eq!(desk.sandbox.run_with_input(&revoke, token).json(), json!({ "revoked": true }));
    assert_eq!(desk.validate(DEMO, token).code, Some(3));

    let another = desk.token(DEMO);
    let inspected =
        desk.sandbox.run_with_input(&words("token inspect - --format json"), &another).json();
    let jti = inspected["claims"]["jti"].as_str().expect("an id");
    // Only an operator may revoke a token by its id.
    let as_demo = ["token", "revoke", "--token-id", jti, "--credentials", DEMO];
    assert!(desk.sandbox.run(&as_demo).failed(3).contains("SCOPE_MISSING"));
    desk.json(&format!("token revoke --token-id {jti}"));
    assert_eq!(desk.validate(DEMO, &another).code, Some(3));

    let third = desk.token(DEMO);
    let cut = desk.json("client revoke-tokens demo");
    assert!(cut["revoked_before"].is_string(), "{cut}");
    assert_eq!(desk.validate(DEMO, &third).code, Some(3));
    let fourth = desk.token(DEMO);
    desk.validate(DEMO, &fourth).json();
    desk.server.stop();
}

#[test]
fn keys_are_listed_rotated_and_revoked() {
    let desk = Desk::new();
    let before = desk.json("keys list");
    assert_eq!(column(&before["keys"], "state"), ["next", "active"]);
    let kids = column(&before["keys"], "kid");
    let token = desk.token(DEMO);

    let rotated = desk.json("keys rotate");
    assert_eq!(
        (&rotated["active"]["kid"], &rotated["retired"]["kid"]),
        (&json!(kids[0]), &json!(kids[1]))
    );
    assert_eq!(rotated["verifiers_behind"], json!([]));
    desk.validate(DEMO, &token).json();

    let revoked = desk.json(&format!("keys revoke {}", kids[1]));
    assert_eq!(
        (&revoked["revoked"]["kid"], &revoked["active"]["kid"]),
        (&json!(kids[1]), &json!(kids[0]))
    );
    assert_eq!(desk.validate(DEMO, &token).code, Some(3));
    assert!(desk.refused(&format!("keys revoke {}", kids[1])).contains("KEY_REVOKED"));
    assert!(desk.refused("keys revoke nothing").contains("KEY_NOT_FOUND"));

    // Revoking the active key promotes the next one at once.
    let next = revoked["next"]["kid"].as_str().expect("a kid");
    let revoked = desk.json(&format!("keys revoke {}", kids[0]));
    assert_eq!(revoked["active"]["kid"], next);
    desk.validate(DEMO, &desk.token(DEMO)).json();
    desk.server.stop();
}

#[test]
fn operators_are_created_by_operators_or_on_the_host() {
    let desk = Desk::new();
    desk.json("operator create auditor --scope audit:read --out auditor.toml");
    desk.sandbox.json("auditor.toml", &["audit", "list"]);
    let denied = ["keys", "rotate", "--credentials", "auditor.toml"];
    assert!(desk.sandbox.run(&denied).failed(3).contains("SCOPE_"));

    let recover =
        words("operator recover --operator-id rescue --out rescue.toml --data-dir countersign-dev");
    let line = desk.sandbox.run(&recover).failed(1);
    assert!(line.contains("another process has the store"), "{line}");
    assert!(!desk.sandbox.path("rescue.toml").exists());
    desk.server.stop();

    desk.sandbox.run(&recover).ok();
    assert_eq!(desk.sandbox.mode("rescue.toml"), 0o600);
    let again = words("operator recover --operator-id rescue --data-dir countersign-dev");
    assert!(desk.sandbox.run(&again).failed(3).contains("there is a client rescue already"));

    let server = desk.sandbox.dev();
    let text = desk.sandbox.text("rescue.toml").replace("http://127.0.0.1:9443", &server.url);
    fs::write(desk.sandbox.path("rescue.toml"), text).expect("the file can be written");
    desk.sandbox.json("rescue.toml", &["operator", "create", "another"]);
    let audit = desk.sandbox.json("rescue.toml", &["audit", "list"]);
    let recovered = audit["events"].as_array().expect("a list").iter();
    let recovered: Vec<_> =
        recovered.filter(|event| event["action"] == "operator.recover").collect();
    assert_eq!(recovered.len(), 1);
    assert_eq!(
        (&recovered[0]["actor"], &recovered[0]["target"]),
        (&json!("host"), &json!("rescue"))
    );
    server.stop();
}

#[test]
fn the_audit_log_is_listed_exported_and_verified() {
    let desk = Desk::new();
    desk.json("keys rotate");
    let listed = desk.json("audit list --limit 1");
    assert_eq!(column(&listed["events"], "action"), ["keys.rotate"]);
    assert_eq!(column(&desk.json("audit list")["events"], "action"), ["keys.rotate", "store.init"]);

    // These commands read the database while the server runs.
    let on_host = |line: &str| desk.sandbox.run(&[&words(line)[..], &["--data-dir", DEV]].concat());
    let head = on_host("audit head --format json").ok();
    fs::write(desk.sandbox.path("head.json"), &head).expect("the sandbox is ours");
    desk.json("keys rotate");
    let verified = on_host("audit verify --head head.json --format json").json();
    assert_eq!(
        (&verified["ok"], &verified["first"], &verified["head"]["sequence"]),
        (&json!(true), &json!(1), &json!(3))
    );

    let other = head.replace(r#""mac":""#, r#""mac":"0"#);
    fs::write(desk.sandbox.path("head.json"), other).expect("the sandbox is ours");
    let line = on_host("audit verify --head head.json").failed(3);
    assert!(line.contains("row 2 is not the one that the exported head names"), "{line}");
    fs::write(desk.sandbox.path("head.json"), "{}").expect("the sandbox is ours");
    assert!(
        on_host("audit verify --head head.json")
            .failed(1)
            .contains("is not a head of the audit log")
    );
    desk.server.stop();
}

#[test]
fn exit_codes_distinguish_wrong_usage_a_refusal_and_no_answer() {
    let desk = Desk::new();
    assert_eq!(desk.run("client").code, Some(2));
    assert_eq!(desk.run("client create cron --grant nonsense").code, Some(2));
    assert_eq!(desk.run("client update cron").code, Some(2));
    assert!(desk.refused("client create operator").contains("CLIENT_EXISTS"));
    assert!(desk.refused("client create a/b").contains("client_id"));
    assert!(desk.refused("token issue --audience elsewhere").contains("AUDIENCE_DENIED"));
    let as_demo = ["keys", "list", "--credentials", DEMO];
    assert!(desk.sandbox.run(&as_demo).failed(3).contains("AUDIENCE_DENIED"));
    let Desk { sandbox, server } = desk;
    server.stop();
    let line = sandbox.run(&["keys", "list", "--credentials", OPERATOR]).failed(4);
    assert!(line.contains("cannot reach http://127.0.0.1:"), "{line}");
}
