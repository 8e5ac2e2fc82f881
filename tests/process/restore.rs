//! Backups: they are made while the server runs, and put back by `restore` or, wrongly, by hand.

use std::fs;
use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::Sandbox;

const DATA: &str = "countersign-dev";
const DATABASE: &str = "countersign-dev/countersign.db";
const DEMO: &str = "countersign-dev/demo.toml";
const OPERATOR: &str = "countersign-dev/operator.toml";

fn token(sandbox: &Sandbox) -> String {
    let issued = sandbox.json(DEMO, &["token", "issue"]);
    issued["access_token"].as_str().expect("a token").to_owned()
}

/// Validates a token. Returns whether it is active, or the reason why not.
fn validated(sandbox: &Sandbox, token: &str) -> Value {
    let validate = ["token", "validate", "--credentials", DEMO, "--format", "json", "-"];
    let finished = sandbox.run_with_input(&validate, token);
    let answer: Value = serde_json::from_str(&finished.stdout).expect("the output is JSON");
    let reason = &answer["inactive_reason"];
    if reason.is_null() { answer["active"].clone() } else { reason.clone() }
}

fn revoke(sandbox: &Sandbox, token: &str) {
    let revoke = ["token", "revoke", "--credentials", OPERATOR, "-"];
    sandbox.run_with_input(&revoke, token).ok();
}

fn epoch(database: &Path) -> u64 {
    let connection = Connection::open(database).expect("the file is a database");
    let bytes: [u8; 8] = connection
        .query_row("SELECT value FROM meta WHERE name = 'epoch'", [], |row| row.get(0))
        .expect("the store has an epoch");
    u64::from_be_bytes(bytes)
}

#[track_caller]
fn assert_begins_a_generation(epoch: Option<u64>) {
    let epoch = epoch.expect("a number");
    assert!(epoch >> 32 > 0 && epoch & 0xffff_ffff == 0, "{epoch:x}");
}

/// A sandbox with a stopped server, a backup of its store, and a token that was revoked after the backup.
fn backed_up_and_revoked() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    let server = sandbox.dev();
    let token = token(&sandbox);
    let backup = sandbox.run(&["backup", "--data-dir", DATA, "--to", "backup.db"]).ok();
    assert!(backup.starts_with("The store was copied to backup.db."), "{backup}");
    revoke(&sandbox, &token);
    assert_eq!(validated(&sandbox, &token), "revoked");
    server.stop();
    (sandbox, token)
}

fn put_back_by_hand(sandbox: &Sandbox) {
    fs::copy(sandbox.path("backup.db"), sandbox.path(DATABASE)).expect("the file can be written");
}

#[test]
fn a_backup_is_of_one_moment_is_private_and_never_overwrites_a_file() {
    let sandbox = Sandbox::new();
    let server = sandbox.dev();
    sandbox.run(&["backup", "--data-dir", DATA, "--to", "backup.db"]).ok();
    assert_eq!(sandbox.mode("backup.db"), 0o600);
    assert_eq!(epoch(&sandbox.path("backup.db")), 1);
    let before = fs::read(sandbox.path("backup.db")).expect("the file exists");
    let again = sandbox.run(&["backup", "--data-dir", DATA, "--to", "backup.db"]).failed(1);
    assert!(again.contains("backup.db"), "{again}");
    assert!(fs::read(sandbox.path("backup.db")).expect("the file exists") == before);
    let nowhere = sandbox.run(&["backup", "--data-dir", "nowhere", "--to", "other.db"]).failed(1);
    assert!(nowhere.contains("there is no store"), "{nowhere}");
    assert!(!sandbox.path("other.db").exists());
    server.stop();
}

#[test]
fn a_copy_put_back_by_hand_is_not_served_until_it_is_restored() {
    let (sandbox, old) = backed_up_and_revoked();
    put_back_by_hand(&sandbox);
    let copy = fs::read(sandbox.path(DATABASE)).expect("the file exists");
    for start in [
        &["serve", "--dev", "--listen", "127.0.0.1:0"][..],
        &["operator", "recover", "--data-dir", DATA, "--operator-id", "rescue"],
    ] {
        let refused = sandbox.run(start).failed(1);
        assert!(refused.contains("old copy that was put back"), "{refused}");
        assert!(refused.contains("run `countersign restore`"), "{refused}");
    }
    assert!(fs::read(sandbox.path(DATABASE)).expect("the file exists") == copy, "it was changed");

    let restored = sandbox.run(&["restore", "--data-dir", DATA, "--format", "json"]).json();
    assert_eq!(restored["backup_epoch"], 1);
    assert_begins_a_generation(restored["epoch"].as_u64());
    let clients: Vec<&Value> =
        restored["clients"].as_array().expect("a list").iter().map(|c| &c["client_id"]).collect();
    assert_eq!(clients, ["demo", "operator"]);
    let secret = &restored["clients"][0]["credentials"][0];
    assert!(secret["create_time"].is_string() && secret["credential_id"].is_string(), "{restored}");

    let server = sandbox.dev();
    assert_eq!(validated(&sandbox, &old), "revoked", "its key is");
    let new = token(&sandbox);
    assert_eq!(validated(&sandbox, &new), true);
    let log = sandbox.json(OPERATOR, &["audit", "list"]);
    let restores = log["events"].as_array().expect("a list").iter();
    let restores: Vec<&Value> = restores.filter(|e| e["action"] == "store.restore").collect();
    assert_eq!(restores.len(), 1, "{log}");
    server.stop();
    sandbox.run(&["audit", "verify", "--data-dir", DATA]).ok();
}

#[test]
fn restoring_a_backup_ends_every_earlier_token_and_keeps_the_previous_store() {
    let (sandbox, old) = backed_up_and_revoked();
    let server = sandbox.dev();
    let later = token(&sandbox);
    let busy = sandbox.run(&["restore", "--data-dir", DATA, "--from", "backup.db"]).failed(1);
    assert!(busy.contains("another process has the store"), "{busy}");
    server.stop();

    let restored = sandbox.run(&["restore", "--data-dir", DATA, "--from", "backup.db"]);
    assert!(restored.stderr.contains("Every token from before is refused"), "{restored:?}");
    let text = restored.ok();
    assert!(text.contains("LAST USED") && text.contains("operator"), "{text}");
    let aside = format!("{DATABASE}.before-restore-1");
    assert_eq!(epoch(&sandbox.path(&aside)), 2);
    assert!(!sandbox.path("countersign-dev/countersign.restoring").exists());

    let server = sandbox.dev();
    for token in [&old, &later] {
        assert_eq!(validated(&sandbox, token), "revoked");
    }
    assert_eq!(validated(&sandbox, &token(&sandbox)), true);
    server.stop();

    // Each restore begins a new generation, above all earlier ones.
    let again =
        sandbox.run(&["restore", "--data-dir", DATA, "--from", "backup.db", "--format", "json"]);
    let again = again.json()["epoch"].as_u64();
    assert_begins_a_generation(again);
    assert!(again > Some(epoch(&sandbox.path(&format!("{DATABASE}.before-restore-2")))));
    assert!(sandbox.path(&format!("{DATABASE}.before-restore-2")).exists());
}

#[test]
fn the_write_ahead_log_of_a_killed_server_is_kept_aside_and_never_read_again() {
    let (sandbox, old) = backed_up_and_revoked();
    let server = sandbox.dev();
    let later = token(&sandbox);
    revoke(&sandbox, &later);
    server.kill();
    assert!(sandbox.path(&format!("{DATABASE}-wal")).exists());
    // A restore that was killed would also leave these files.
    for left_over in ["countersign.restoring", "countersign.restoring-wal"] {
        fs::write(sandbox.path(DATA).join(left_over), "half").expect("the file can be written");
    }
    let restore = ["restore", "--data-dir", DATA, "--from", "backup.db", "--out", "review.json"];
    assert_eq!(sandbox.run(&restore).ok(), "");
    assert_eq!(sandbox.mode("review.json"), 0o600);
    let review: Value =
        serde_json::from_str(&sandbox.text("review.json")).expect("the file is JSON");
    assert_eq!(review["clients"][0]["client_id"], "demo");
    assert_begins_a_generation(Some(epoch(&sandbox.path(DATABASE))));
    assert_eq!(epoch(&sandbox.path(&format!("{DATABASE}.before-restore-1"))), 3);
    let server = sandbox.dev();
    assert_eq!([&old, &later].map(|token| validated(&sandbox, token)), ["revoked", "revoked"]);
    server.stop();
}

#[test]
fn a_missing_store_is_restored_from_a_backup() {
    let (sandbox, old) = backed_up_and_revoked();
    fs::remove_file(sandbox.path(DATABASE)).expect("the file exists");
    let restore = ["restore", "--data-dir", DATA, "--format", "json"];
    let nothing = sandbox.run(&restore).failed(1);
    assert!(nothing.contains("there is no store"), "{nothing}");
    let restored = sandbox.run(&[&restore[..], &["--from", "backup.db"]].concat()).json();
    assert_begins_a_generation(restored["epoch"].as_u64());
    assert_eq!(restored["aside"], Value::Null);
    let server = sandbox.dev();
    assert_eq!(validated(&sandbox, &old), "revoked");
    server.stop();

    // First only the mark knows the previous generation. Then only the store in the place does.
    let first = restored["epoch"].as_u64();
    let again = || {
        let restored = sandbox.run(&[&restore[..], &["--from", "backup.db"]].concat()).json();
        let epoch = restored["epoch"].as_u64();
        assert_begins_a_generation(epoch);
        epoch
    };
    fs::remove_file(sandbox.path(DATABASE)).expect("the file exists");
    let second = again();
    let mark = sandbox.listing(DATA).into_iter().find(|file| file.ends_with(".epoch"));
    fs::remove_file(sandbox.path(DATA).join(mark.expect("the directory has a mark")))
        .expect("the file exists");
    let third = again();
    assert!(first < second && second < third, "{first:?} {second:?} {third:?}");
}

#[test]
fn a_directory_in_which_no_epoch_can_be_kept_is_refused_at_the_start() {
    let sandbox = Sandbox::new();
    let init = ["init", "--issuer", "https://auth.test", "--data-dir", "data", "--epoch-dir"];
    let refused = sandbox.run(&[&init[..], &["nowhere"]].concat()).failed(1);
    assert!(refused.contains("the highest epoch cannot be kept in nowhere/"), "{refused}");
    assert!(refused.contains("--epoch-dir"), "{refused}");
    assert!(!sandbox.path("data/countersign.db").exists());
    fs::create_dir(sandbox.path("marks")).expect("the directory can be created");
    sandbox.run(&[&init[..], &["marks"]].concat()).ok();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", "data", "--epoch-dir"];
    let refused = sandbox.run(&[&serve[..], &["nowhere"]].concat());
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("cannot be kept in nowhere/"), "{refused:?}");
    sandbox.serve(&["--data-dir", "data", "--epoch-dir", "marks"]).stop();
}

#[test]
fn a_damaged_or_wrong_backup_changes_nothing() {
    let (sandbox, _) = backed_up_and_revoked();
    let before = fs::read(sandbox.path(DATABASE)).expect("the file exists");
    let listing = sandbox.listing(DATA);
    let out = ["restore", "--data-dir", DATA, "--from", "backup.db", "--out"];
    let out = |file: &str| sandbox.run(&[&out[..], &[file]].concat());
    assert!(out("backup.db").failed(1).contains("cannot write backup.db"));
    let connection = Connection::open(sandbox.path("backup.db")).expect("the file is a database");
    connection
        .execute("UPDATE audit SET actor = 'nobody'", [])
        .expect("the database can be written");
    drop(connection);
    let restore =
        |from: &str| sandbox.run(&["restore", "--data-dir", DATA, "--from", from]).failed(1);
    assert!(restore("backup.db").contains("the audit log does not hold"));
    out("review.json").failed(1);
    assert!(!sandbox.path("review.json").exists());
    assert!(restore("none.db").contains("there is no backup at none.db; name another with --from"));
    fs::write(sandbox.path("text.db"), "no database at all").expect("the file can be written");
    assert!(restore("text.db").contains("text.db is not a Countersign store; name another"));
    let whole = fs::read(sandbox.path(DATABASE)).expect("the file exists");
    fs::write(sandbox.path("half.db"), &whole[..whole.len() / 2]).expect("the file can be written");
    assert!(restore("half.db").contains("the backup half.db is damaged"));

    let other = Sandbox::new();
    other.dev().stop();
    fs::copy(other.path(DATABASE), sandbox.path("other.db")).expect("the file can be written");
    assert!(restore("other.db").contains("not the key-encryption key"));

    assert!(fs::read(sandbox.path(DATABASE)).expect("the file exists") == before);
    assert_eq!(sandbox.listing(DATA), listing);
}

#[test]
fn restore_lists_every_credential_that_it_brought_back() {
    let sandbox = Sandbox::new();
    let server = sandbox.dev();
    // The example key of RFC 8410 §10.1.
    let key = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";
    fs::write(sandbox.path("demo.pub"), key).expect("the file can be written");
    sandbox.json(OPERATOR, &["client", "credential", "add", "demo", "--key", "demo.pub"]);
    let by_name = ["client", "credential", "add", "demo", "--certificate-name"];
    sandbox.json(OPERATOR, &[&by_name[..], &["san_dns:demo.example"]].concat());
    sandbox.run(&["backup", "--data-dir", DATA, "--to", "backup.db"]).ok();
    server.stop();

    let restore = ["restore", "--data-dir", DATA, "--from", "backup.db"];
    let restored = sandbox.run(&[&restore[..], &["--format", "json"]].concat()).json();
    let demo = &restored["clients"][0];
    let credentials = demo["credentials"].as_array().expect("a list").iter();
    let mut known: Vec<(&Value, &Value)> =
        credentials.map(|known| (&known["kind"], &known["credential_id"])).collect();
    known.retain(|(kind, _)| *kind != "secret");
    known.sort_by_key(|(kind, _)| kind.to_string());
    let name = (&json!("certificate_name"), &json!("san_dns:demo.example"));
    assert_eq!(known, [name, (&json!("public_key"), &json!("3YZxBJ12jO3n_mXt"))], "{restored}");
    let text = sandbox.run(&restore).ok();
    for credential in ["secret ", "public_key 3YZxBJ12jO3n_mXt", "san_dns:demo.example"] {
        assert!(text.contains(credential), "{text}");
    }
}
