//! Starting a server: what it creates, what it finds again, and what prevents a start.

use std::fs::{self, File};
use std::net::TcpListener;
use std::process::Stdio;

use crate::support::{PROGRAM, Sandbox, Server, finish};

const DEV: &str = "countersign-dev";
const DEMO: &str = "countersign-dev/demo.toml";
const OPERATOR: &str = "countersign-dev/operator.toml";

#[test]
fn the_created_files_are_private() {
    let sandbox = Sandbox::new();
    let server = sandbox.dev();
    assert_eq!(sandbox.mode(DEV), 0o700);
    let mut files = sandbox.listing(DEV);
    // The mark's name contains the store's random id.
    let mark = files.remove(0);
    assert!(mark.starts_with("countersign-") && mark.ends_with(".epoch"), "{mark}");
    assert_eq!(sandbox.mode(&format!("{DEV}/{mark}")), 0o600);
    assert_eq!(
        files,
        [
            "countersign.db",
            "countersign.db-shm",
            "countersign.db-wal",
            "countersign.lock",
            "demo.toml",
            "kek",
            "operator.toml"
        ]
    );
    for file in files {
        assert_eq!(sandbox.mode(&format!("{DEV}/{file}")), 0o600, "{file}");
    }
    server.stop();
    assert_eq!(
        sandbox.listing(DEV),
        [&mark, "countersign.db", "countersign.lock", "demo.toml", "kek", "operator.toml"]
    );
    assert_eq!(sandbox.listing(""), [DEV]);
}

#[test]
fn a_second_start_finds_the_same_state() {
    let sandbox = Sandbox::new();
    let first = sandbox.dev();
    let first_url = first.url.clone();
    let keys = sandbox.json(OPERATOR, &["keys", "list"]);
    let clients = sandbox.json(OPERATOR, &["client", "list"]);
    let secrets = [DEMO, OPERATOR].map(|file| sandbox.credential(file, "client_secret"));
    let token = sandbox.json(DEMO, &["token", "issue"]);
    first.stop();

    let second = sandbox.dev();
    for file in [DEMO, OPERATOR] {
        assert_eq!(sandbox.credential(file, "url"), second.url);
        assert_eq!(sandbox.mode(file), 0o600);
    }
    assert_eq!([DEMO, OPERATOR].map(|file| sandbox.credential(file, "client_secret")), secrets);
    assert_eq!(sandbox.json(OPERATOR, &["keys", "list"]), keys);
    let ids = |clients: &serde_json::Value| {
        let clients = clients["clients"].as_array().expect("a list").iter();
        clients
            .map(|client| (client["client_id"].clone(), client["etag"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&sandbox.json(OPERATOR, &["client", "list"])), ids(&clients));

    // The second process accepts a token of the first, and the issuer has not changed.
    let token = token["access_token"].as_str().expect("a token");
    let validate = ["token", "validate", "--credentials", DEMO, "--format", "json", "-"];
    let validated = sandbox.run_with_input(&validate, token).json();
    assert_eq!(validated["claims"]["issuer"], first_url);
    second.stop();
}

#[test]
fn a_second_process_on_the_same_store_is_refused_and_changes_nothing() {
    let sandbox = Sandbox::new();
    let server = sandbox.dev();
    let line = sandbox.run(&["serve", "--dev", "--listen", "127.0.0.1:0"]).failed(1);
    assert!(line.contains("another process has the store"), "{line}");
    // The credentials file still has the address of the running server.
    assert_eq!(sandbox.credential(DEMO, "url"), server.url);
    sandbox.json(DEMO, &["token", "issue"]);

    let recover = ["operator", "recover", "--operator-id", "rescue", "--data-dir", DEV];
    let line = sandbox.run(&recover).failed(1);
    assert!(line.contains("another process has the store"), "{line}");
    server.stop();
}

#[test]
fn a_first_start_changes_nothing_while_another_first_start_is_under_way() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path(DEV)).expect("the directory can be created");
    let lock = File::create(sandbox.path("countersign-dev/countersign.lock"))
        .expect("the file can be written");
    lock.lock().expect("nothing else holds the lock");
    // The files that the other first start has created so far.
    for file in [DEMO, "countersign-dev/kek"] {
        fs::write(sandbox.path(file), "theirs").expect("the file can be written");
    }
    for args in [
        &["serve", "--dev", "--listen", "127.0.0.1:0"][..],
        &["init", "--issuer", "https://auth.test", "--data-dir", DEV],
    ] {
        let line = sandbox.run(args).failed(1);
        assert!(line.contains("another process has the store"), "{line}");
        assert_eq!(sandbox.listing(DEV), ["countersign.lock", "demo.toml", "kek"]);
        assert_eq!(sandbox.text(DEMO), "theirs");
    }
}

#[test]
fn credentials_are_complete_before_the_store_exists() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init", "--issuer", "https://auth.test", "--data-dir", "data"]).ok();
    let written = |name: &str| {
        let file = fs::metadata(sandbox.path(&format!("data/{name}"))).expect("the file exists");
        file.modified().expect("the system keeps it")
    };
    assert!(written("kek") <= written("countersign.db"));
    assert!(written("operator.toml") <= written("countersign.db"));
}

#[test]
fn a_failed_first_start_does_not_prevent_the_next() {
    let sandbox = Sandbox::new();
    // A directory at this path keeps the database from being created.
    fs::create_dir_all(sandbox.path("countersign-dev/countersign.new/x"))
        .expect("the directory can be created");
    let dev = ["serve", "--dev", "--listen", "127.0.0.1:0"];
    let init = ["init", "--issuer", "https://auth.test", "--data-dir", DEV];
    for args in [&dev[..], &init] {
        sandbox.run(args).failed(1);
        assert_eq!(sandbox.listing(DEV), ["countersign.lock", "countersign.new", "kek"]);
    }
    fs::remove_dir_all(sandbox.path("countersign-dev/countersign.new"))
        .expect("the file can be removed");

    // A first start that was killed before it created the store leaves its other files behind. `init` never
    // replaces a file that it did not create.
    for file in [DEMO, OPERATOR] {
        fs::write(sandbox.path(file), "stale").expect("the file can be written");
    }
    let line = sandbox.run(&init).failed(1);
    assert!(line.contains("countersign-dev/operator.toml exists already"), "{line}");
    assert_eq!(sandbox.text(OPERATOR), "stale");
    let server = sandbox.dev();
    sandbox.json(DEMO, &["token", "issue"]);
    sandbox.json(OPERATOR, &["keys", "list"]);
    server.stop();
}

#[test]
fn stores_created_concurrently_with_one_kek_all_open() {
    let sandbox = Sandbox::new();
    let stores = ["a", "a", "b", "b", "c", "c"];
    let spawned = stores.map(|store| {
        let args = ["init", "--issuer", "https://auth.test", "--kek-file", "kek", "--data-dir"];
        let mut command = sandbox.program(PROGRAM);
        command.args(args).arg(store).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the program is there")
    });
    let made = spawned.map(|mut child| child.wait().expect("the process ends").success());
    for pair in made.chunks(2) {
        assert_eq!(pair.iter().filter(|made| **made).count(), 1, "{made:?}");
    }
    for store in ["a", "b", "c"] {
        sandbox.run(&["audit", "verify", "--kek-file", "kek", "--data-dir", store]).ok();
        assert_eq!(sandbox.credential(&format!("{store}/operator.toml"), "client_id"), "operator");
    }
    let mut files = sandbox.listing("");
    files.retain(|file| !file.ends_with(".epoch"));
    assert_eq!(files, ["a", "b", "c", "kek"]);
}

#[test]
fn serve_dev_refuses_addresses_off_loopback() {
    let sandbox = Sandbox::new();
    for args in [
        &["serve", "--dev", "--listen", "0.0.0.0:0"][..],
        &["serve", "--dev", "--listen", "[::]:0", "--insecure-plaintext"],
    ] {
        let line = sandbox.run(args).failed(2);
        assert!(line.contains("never leaves loopback"), "{line}");
    }
    assert!(sandbox.listing("").is_empty());
}

#[test]
fn a_port_in_use_is_reported_in_one_line_and_nothing_is_created() {
    let sandbox = Sandbox::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let address = taken.local_addr().expect("the socket is bound").to_string();
    let line = sandbox.run(&["serve", "--dev", "--listen", &address]).failed(1);
    assert_eq!(
        line,
        format!(
            "countersign: {address} is in use by another process; choose another with --listen\n"
        )
    );
    assert!(sandbox.listing("").is_empty());
}

#[test]
fn a_missing_exposed_or_wrong_kek_is_refused_and_changes_nothing() {
    let sandbox = Sandbox::new();
    sandbox.dev().stop();
    let kek = format!("{DEV}/kek");
    let text = sandbox.text(&kek);
    let before = snapshot(&sandbox);
    let refused = |what: &str| {
        for args in [
            &["serve", "--dev", "--listen", "127.0.0.1:0"][..],
            &["audit", "verify", "--data-dir", DEV],
            &["operator", "recover", "--operator-id", "x", "--data-dir", DEV, "--out", "x.toml"],
        ] {
            let line = sandbox.run(args).failed(1);
            assert!(line.contains(what), "{line}");
        }
        assert!(snapshot(&sandbox) == before, "{what}: something was changed");
        assert_eq!(sandbox.listing(""), [DEV]);
    };

    fs::remove_file(sandbox.path(&kek)).expect("the file can be removed");
    refused("cannot read the key-encryption key countersign-dev/kek");

    let another = "ckek_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for (content, what) in [
        ("", "not a key-encryption key"),
        (&text[..20], "not a key-encryption key"),
        (another, "this is not the key-encryption key that the store's keys are sealed with"),
    ] {
        fs::write(sandbox.path(&kek), content).expect("the file can be written");
        sandbox.set_mode(&kek, 0o600);
        refused(what);
    }

    fs::write(sandbox.path(&kek), &text).expect("the file can be written");
    sandbox.set_mode(&kek, 0o644);
    refused(
        "countersign-dev/kek can be read by others (mode 0644); run: chmod 600 countersign-dev/kek",
    );
    sandbox.set_mode(&kek, 0o600);
    sandbox.dev().stop();
}

/// The contents of the files that a refused start must not change.
fn snapshot(sandbox: &Sandbox) -> [Vec<u8>; 3] {
    ["countersign.db", "demo.toml", "operator.toml"]
        .map(|name| fs::read(sandbox.path(&format!("{DEV}/{name}"))).expect("the file exists"))
}

#[test]
fn init_creates_a_store_only_once() {
    let sandbox = Sandbox::new();
    let init = ["init", "--issuer", "https://auth.test", "--data-dir", "data", "--kek-file", "kek"];
    let said = sandbox.run(&init).ok();
    assert!(said.contains("Keep a copy elsewhere"), "{said}");
    assert_eq!(sandbox.listing("data"), ["countersign.db", "countersign.lock", "operator.toml"]);
    assert_eq!(sandbox.mode("data"), 0o700);
    for file in ["kek", "data/countersign.db", "data/countersign.lock", "data/operator.toml"] {
        assert_eq!(sandbox.mode(file), 0o600, "{file}");
    }

    let files = ["kek", "data/countersign.db", "data/operator.toml"];
    let before = files.map(|file| fs::read(sandbox.path(file)).expect("the file exists"));
    let line = sandbox.run(&init).failed(1);
    assert!(line.contains("there is a store at data/countersign.db already"), "{line}");
    let line = sandbox.run(&[&init[..], &["--operator-id", "another"]].concat()).failed(1);
    assert!(
        line.contains("there is a store at data/countersign.db already; it was not touched"),
        "{line}"
    );
    assert!(files.map(|file| fs::read(sandbox.path(file)).expect("the file exists")) == before);
    assert!(!sandbox.path("data/another.toml").exists());

    let server = sandbox.serve(&["--data-dir", "data", "--kek-file", "kek"]);
    let credentials =
        sandbox.text("data/operator.toml").replace("http://127.0.0.1:9443", &server.url);
    fs::write(sandbox.path("data/operator.toml"), credentials).expect("the file can be written");
    let issue =
        ["token", "issue", "--audience", "countersign", "--credentials", "data/operator.toml"];
    let token = sandbox.run(&issue).ok();
    let inspected =
        sandbox.run_with_input(&["token", "inspect", "-", "--format", "json"], &token).json();
    assert_eq!(inspected["claims"]["iss"], "https://auth.test");
    server.stop();

    let line = sandbox.run(&["serve", "--data-dir", "elsewhere"]).failed(1);
    assert!(line.contains("countersign init"), "{line}");
    assert!(!sandbox.path("elsewhere").exists());
}

#[test]
fn a_kek_from_the_environment_is_not_written_to_a_file() {
    let sandbox = Sandbox::new();
    let kek = "ckek_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let dev = || {
        let mut command = sandbox.program(PROGRAM);
        command.args(["serve", "--dev", "--listen", "127.0.0.1:0"]);
        command
    };
    for _ in 0..2 {
        let server = Server::start(dev().env("COUNTERSIGN_KEK", kek));
        sandbox.json(DEMO, &["token", "issue"]);
        server.stop();
        assert!(!sandbox.listing(DEV).contains(&"kek".to_owned()));
    }
    let line = finish(dev().env("COUNTERSIGN_KEK", "nonsense"), "").failed(1);
    assert!(line.contains("COUNTERSIGN_KEK: not a key-encryption key"), "{line}");
    assert!(!line.contains("nonsense"), "{line}");
    // Without the variable the store cannot be opened, and the server generates no new KEK.
    let line = finish(&mut dev(), "").failed(1);
    assert!(line.contains("cannot read the key-encryption key"), "{line}");
    assert!(!sandbox.listing(DEV).contains(&"kek".to_owned()));
}

#[test]
fn a_missing_store_is_reported_before_a_port_that_is_in_use() {
    let sandbox = Sandbox::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let address = taken.local_addr().expect("the socket is bound").to_string();
    let serve = ["serve", "--data-dir", "elsewhere", "--listen", &address];
    let line = sandbox.run(&serve).failed(1);
    assert!(line.contains("elsewhere") && line.contains("countersign init"), "{line}");
    // A store that is in use is also reported before the port.
    let server = sandbox.dev();
    let second = sandbox.run(&["serve", "--data-dir", DEV, "--listen", &address]).failed(1);
    assert!(second.contains("another process has the store"), "{second}");
    server.stop();
    // With the store free, the port is reported.
    let line = sandbox.run(&["serve", "--data-dir", DEV, "--listen", &address]).failed(1);
    assert!(line.contains("is in use by another process"), "{line}");
}

#[test]
fn several_addresses_are_served_and_each_is_printed() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("c.toml"), "listen = [\"127.0.0.1:0\", \"localhost:0\"]\n")
        .expect("the file can be written");
    let mut command = sandbox.program(PROGRAM);
    let mut server = Server::start(command.args(["serve", "--dev", "--config", "c.toml"]));
    let second = server.wait_for_output("Countersign serves on ");
    let urls = [server.url.clone(), second.replace("Countersign serves on ", "")];
    assert_ne!(urls[0], urls[1]);
    for url in &urls {
        let text = sandbox.text(OPERATOR).replace(&urls[0], url);
        fs::write(sandbox.path("o.toml"), text).expect("the file can be written");
        sandbox.set_mode("o.toml", 0o600);
        sandbox.run(&["keys", "list", "--credentials", "o.toml"]).ok();
    }
    server.stop();
}
