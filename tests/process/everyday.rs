//! What people type every day: lists that are filtered, questions before something is lost, hints that fit.

use std::fs;

use serde_json::Value;

use crate::support::{Finished, PROGRAM, Sandbox, Server, finish};

const OPERATOR: &str = "countersign-dev/operator.toml";

fn start() -> (Sandbox, Server) {
    let sandbox = Sandbox::new();
    let server = sandbox.dev();
    for create in [
        &["client", "create", "inventory", "--serves", "inventory", "--no-secret"][..],
        &["client", "create", "order", "--grant", "inventory=stock:read", "--out", "order.toml"],
        &["client", "create", "cron", "--description", "nightly backup", "--no-secret"],
        &[
            "operator",
            "create",
            "auditor",
            "--scope",
            "audit:read,keys:read",
            "--out",
            "auditor.toml",
        ],
    ] {
        sandbox.run(create).ok();
    }
    (sandbox, server)
}

fn names(answer: &Value) -> Vec<String> {
    let clients = answer["clients"].as_array().expect("a list");
    clients.iter().map(|client| client["client_id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn clients_are_listed_by_text_audience_and_last_use() {
    let (sandbox, server) = start();
    let list =
        |flags: &[&str]| names(&sandbox.json(OPERATOR, &[&["client", "list"], flags].concat()));
    assert_eq!(list(&["--filter", "backup"]), ["cron"]);
    assert_eq!(list(&["--audience", "inventory"]), ["inventory", "order"]);
    assert_eq!(list(&["--filter", "or", "--audience", "inventory"]), ["inventory", "order"]);
    assert!(list(&["--unused", "1d"]).contains(&"order".to_owned()), "never used");
    assert!(!list(&["--unused", "1d"]).contains(&"operator".to_owned()), "used right now");
    let operators = names(&sandbox.json(OPERATOR, &["operator", "list"]));
    assert_eq!(operators, ["auditor", "operator"]);
    let auditor = sandbox.json(OPERATOR, &["client", "get", "auditor"]);
    assert_eq!(auditor["grants"][0]["scopes"], serde_json::json!(["audit:read", "keys:read"]));
    server.stop();
}

#[test]
fn audit_events_are_listed_by_actor_action_target_and_time() {
    let (sandbox, server) = start();
    let list = |flags: &[&str]| {
        let answer = sandbox.json("auditor.toml", &[&["audit", "list"], flags].concat());
        let events = answer["events"].as_array().expect("a list").clone();
        events.iter().map(|it| format!("{} {}", it["action"], it["target"])).collect::<Vec<_>>()
    };
    assert_eq!(list(&["--target", "cron"]), [r#""client.create" "cron""#]);
    let made = list(&["--actor", "operator", "--action", "client.create"]);
    assert!(
        made.len() >= 4 && made.iter().all(|event| event.contains("client.create")),
        "{made:?}"
    );
    assert_eq!(list(&["--action", "client.create", "--limit", "2"]).len(), 2);
    assert_eq!(list(&["--actor", "nobody"]), [""; 0]);
    assert_eq!(list(&["--since", "1h"]), list(&[]));
    server.stop();
}

#[test]
fn audit_events_are_followed_as_they_come() {
    let (sandbox, server) = start();
    let mut command = sandbox.program(PROGRAM);
    let follow =
        ["audit", "list", "--follow", "--action", "client.", "--credentials", "auditor.toml"];
    let mut following = Server::spawn(command.args(follow));
    // What there is, oldest first.
    following.wait_for_output("client.create  inventory");
    following.wait_for_output("client.create  cron");
    sandbox.run(&["keys", "rotate"]).ok();
    sandbox.run(&["client", "delete", "cron"]).ok();
    let line = following.wait_for_output("client.delete");
    assert!(line.contains("operator  client.delete  cron  ok"), "{line}");
    following.kill();
    server.stop();
}

#[test]
fn audiences_and_scopes_are_given_in_the_same_ways() {
    let (sandbox, server) = start();
    let update = |flags: &[&str]| {
        sandbox.json(OPERATOR, &[&["client", "update", "inventory"], flags].concat())["serves"]
            .clone()
    };
    assert_eq!(update(&["--add-serves", "stock"]), serde_json::json!(["inventory", "stock"]));
    assert_eq!(update(&["--remove-serves", "stock"]), serde_json::json!(["inventory"]));
    let both = ["client", "update", "order", "--grant", "inventory=stock:read,stock:write"];
    sandbox.run(&both).ok();
    let issued =
        sandbox.json("order.toml", &["token", "issue", "--scope", "stock:read,stock:write"]);
    assert_eq!(issued["scope"], "stock:read stock:write");
    server.stop();
}

#[test]
fn a_grant_for_an_audience_that_nobody_serves_is_warned_of_or_refused() {
    let (sandbox, server) = start();
    let create = ["client", "create", "typo", "--grant", "inventroy=stock:read", "--no-secret"];
    let strict = [&create[..], &["--strict"]].concat();
    let line = sandbox.run(&[&strict[..], &["--credentials", OPERATOR]].concat()).failed(1);
    assert!(line.contains("nobody serves audience inventroy; did you mean inventory?"), "{line}");
    sandbox.run(&["client", "show", "typo"]).code.filter(|code| *code == 3).expect("not made");

    let warned = sandbox.run(&create);
    assert_eq!(warned.code, Some(0), "{warned:?}");
    assert!(
        warned.stderr.contains("nobody serves audience inventroy yet; did you mean"),
        "{warned:?}"
    );
    let known =
        sandbox.run(&["client", "update", "typo", "--grant", "inventory=stock:read", "--strict"]);
    assert!(known.code == Some(0) && !known.stderr.contains("nobody serves"), "{known:?}");
    // What it is itself, somebody serves.
    let own = ["client", "create", "till", "--serves", "till", "--grant", "till=a", "--no-secret"];
    assert!(!sandbox.run(&own).stderr.contains("nobody serves"));
    server.stop();
}

#[test]
fn a_dev_server_that_moved_says_which_name_its_tokens_keep() {
    let sandbox = Sandbox::new();
    let mut server = sandbox.dev();
    let first = server.url.clone();
    server.wait_for_output("State is in countersign-dev");
    server.stop();
    let mut moved = sandbox.dev();
    assert_ne!(moved.url, first);
    moved.wait_for_output(&format!("The issuer stays {first}"));
    moved.stop();
}

/// Types a command at a terminal, and an answer to what it asks.
fn at_a_terminal(sandbox: &Sandbox, command: &str, answer: &str) -> Finished {
    let command = format!("{PROGRAM} {command}");
    finish(sandbox.program("script").args(["-qec", &command, "/dev/null"]), answer)
}

#[test]
fn a_person_is_asked_before_something_is_lost_and_a_script_is_not() {
    let (sandbox, server) = start();
    if std::process::Command::new("script").arg("--version").output().is_err() {
        assert!(std::env::var_os("COUNTERSIGN_CI").is_none(), "CI has no script(1)");
        return;
    }
    sandbox.run(&["token", "issue", "--credentials", "order.toml"]).ok();
    let asked = at_a_terminal(&sandbox, "client delete order", "n\n");
    assert_eq!(asked.code, Some(1), "{asked:?}");
    assert!(asked.stdout.contains("client order is deleted: 1 grant, last used"), "{asked:?}");
    assert!(asked.stdout.contains("Go on? [y/N]") && asked.stdout.contains("nothing was changed"));

    let active = sandbox.json(OPERATOR, &["keys", "list"])["keys"][1]["kid"].clone();
    let active = active.as_str().expect("a kid");
    let asked = at_a_terminal(&sandbox, &format!("keys revoke {active}"), "\n");
    assert!(asked.stdout.contains(&format!("the active key {active} is revoked")), "{asked:?}");
    assert_eq!(asked.code, Some(1), "{asked:?}");

    let only = sandbox.json(OPERATOR, &["client", "show", "order"])["credentials"][0].clone();
    let only = only["credential_id"].as_str().expect("an id");
    let revoke = format!("client credential revoke order {only}");
    let asked = at_a_terminal(&sandbox, &revoke, "y\n");
    assert!(asked.stdout.contains("client order loses its only credential"), "{asked:?}");
    assert_eq!(asked.code, Some(0), "{asked:?}");
    let shown = sandbox.run(&["client", "show", "order"]).ok();
    assert!(
        shown.contains("It has no credential and gets no tokens; run: countersign client"),
        "{shown}"
    );

    assert_eq!(at_a_terminal(&sandbox, "client delete order --yes", "").code, Some(0));
    sandbox.run(&["client", "delete", "cron"]).ok();
    server.stop();
}

#[test]
fn tables_fit_the_terminal_and_are_whole_in_a_pipe() {
    let (sandbox, server) = start();
    let piped = sandbox.run(&["keys", "list"]).ok();
    assert!(piped.contains("SIGNED UNTIL") && !piped.contains('\u{1b}'), "{piped}");
    assert!(!sandbox.run(&["keys", "list", "--no-headers"]).ok().contains("KID"));
    if std::process::Command::new("script").arg("--version").output().is_err() {
        assert!(std::env::var_os("COUNTERSIGN_CI").is_none(), "CI has no script(1)");
        return;
    }
    let at = |columns: u16, flags: &str| {
        let command = format!("stty cols {columns}; {PROGRAM} keys list {flags}");
        let shown =
            finish(sandbox.program("script").args(["-qec", &command, "/dev/null"]), "").ok();
        shown.replace('\r', "")
    };
    let narrow = at(80, "");
    let visible = |line: &str| {
        line.replace("\u{1b}[32m", "").replace("\u{1b}[36m", "").replace("\u{1b}[0m", "")
    };
    assert!(narrow.lines().all(|line| visible(line).chars().count() <= 80), "{narrow}");
    assert!(
        narrow.contains("\u{1b}[32mactive\u{1b}[0m") && narrow.contains("--wide shows more:"),
        "{narrow}"
    );
    assert!(at(80, "--wide").contains("SIGNED UNTIL"));
    assert!(at(200, "").contains("SIGNED UNTIL"));
    server.stop();
}

#[test]
fn a_client_with_a_key_gets_its_credentials_file() {
    let (sandbox, server) = start();
    // RFC 8410 §10.3.
    let private = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    // RFC 8410 §10.1.
    let public = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";
    fs::write(sandbox.path("cron.key"), private).expect("it is ours");
    fs::write(sandbox.path("cron.pub"), public).expect("it is ours");
    sandbox.set_mode("cron.key", 0o600);
    let add = ["client", "credential", "add", "cron", "--key", "cron.pub", "--out", "cron.toml"];
    let which = sandbox.run(&add).failed(2);
    assert!(which.contains("give it with --private-key-file"), "{which}");
    sandbox.run(&[&add[..], &["--private-key-file", "cron.key"]].concat()).ok();
    assert_eq!(sandbox.mode("cron.toml"), 0o600);
    assert_eq!(sandbox.credential("cron.toml", "issuer"), server.url);
    sandbox.run(&["client", "update", "cron", "--grant", "inventory=stock:read"]).ok();
    let issued = sandbox.run(&["token", "issue", "--credentials", "cron.toml"]);
    // In its first five seconds the server says so to a good assertion, and to no other.
    assert!(issued.code == Some(0) || issued.stderr.contains("ASSERTIONS_BUSY"), "{issued:?}");
    server.stop();
}

#[test]
fn a_context_is_a_name_for_a_credentials_file() {
    let (sandbox, server) = start();
    let context = |args: &[&str]| sandbox.run(&[&["context"], args].concat());
    assert!(context(&["list"]).ok().contains("there is no context"));
    let absent = context(&["add", "prod", "absent.toml"]).failed(1);
    assert!(absent.contains("cannot read absent.toml"), "{absent}");
    context(&["add", "prod", OPERATOR]).ok();
    context(&["add", "staging", "auditor.toml"]).ok();
    let listed = context(&["list"]).ok();
    assert!(listed.contains(&server.url) && listed.contains("*  prod"), "{listed}");

    let audit = ["audit", "list", "--limit", "1"];
    let as_named = |name: &str| sandbox.run(&[&audit[..], &["--context", name]].concat());
    assert_eq!(as_named("staging").code, Some(0));
    assert!(
        as_named("stagign")
            .failed(1)
            .contains("there is no context stagign; did you mean staging?")
    );
    sandbox
        .run(&["client", "list", "--context", "staging"])
        .code
        .filter(|code| *code == 3)
        .expect("no scope");
    // Elsewhere, where no development server is.
    fs::create_dir(sandbox.path("elsewhere")).expect("it is not there yet");
    let elsewhere = |args: &[&str], name: Option<&str>| {
        let mut command = sandbox.program(PROGRAM);
        command.args(args).current_dir(sandbox.path("elsewhere"));
        finish(command.envs(name.map(|name| ("COUNTERSIGN_CONTEXT", name))), "")
    };
    let current = elsewhere(&["client", "list"], None);
    assert!(current.code == Some(0) && current.stderr.contains("(context prod)"), "{current:?}");
    assert_eq!(elsewhere(&["client", "list"], Some("staging")).code, Some(3));
    context(&["use", "staging"]).ok();
    assert_eq!(elsewhere(&["client", "list"], None).code, Some(3));
    context(&["remove", "staging"]).ok();
    assert!(elsewhere(&["client", "list"], None).failed(1).contains("no credentials"));
    server.stop();
}

#[test]
fn a_life_that_was_cut_is_told() {
    let sandbox = Sandbox::new();
    let server = sandbox.dev();
    let cut = sandbox.run(&["token", "issue", "--ttl", "2h"]);
    assert!(
        cut.stderr.contains("2h was asked for, and 15m is the most that the client may"),
        "{cut:?}"
    );
    let whole = sandbox.run(&["token", "issue", "--ttl", "5m"]);
    assert!(whole.code == Some(0) && !whole.stderr.contains("was asked for"), "{whole:?}");
    server.stop();
}

#[test]
fn hints_name_what_there_is_to_do() {
    let (sandbox, server) = start();
    fs::write(sandbox.path("copy.db"), "something else").expect("the file can be written");
    let backup = ["backup", "--data-dir", "countersign-dev", "--to", "copy.db"];
    let line = sandbox.run(&backup).failed(1);
    assert!(
        line.contains("copy.db is there already, and was not touched; name another file"),
        "{line}"
    );
    assert_eq!(sandbox.text("copy.db"), "something else");

    let last =
        sandbox.run(&["client", "update", "operator", "--disable", "--credentials", OPERATOR]);
    let line = last.failed(3);
    assert!(line.trim_end().ends_with("; make another one first"), "one hint, not two: {line}");
    let line = sandbox.run(&["token", "issue", "--credentials", OPERATOR]).failed(3);
    assert!(line.contains("name it, also if it is countersign"), "{line}");

    let init =
        ["init", "--issuer", "https://a.test", "--data-dir", "d", "--kek-file", "new/deep/kek"];
    sandbox.run(&init).ok();
    assert_eq!((sandbox.mode("new/deep"), sandbox.mode("new/deep/kek")), (0o700, 0o600));
    server.stop();
}
