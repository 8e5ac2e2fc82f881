//! Secrets do not leak: after a busy run, everything that the run wrote is searched for them.

use std::collections::BTreeSet;
use std::fs;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::support::{Sandbox, listing, post};

const DEV: &str = "countersign-dev";
const DEMO: &str = "countersign-dev/demo.toml";
const OPERATOR: &str = "countersign-dev/operator.toml";

/// A run that collects every secret and token that occurs in it.
struct BusyRun {
    sandbox: Sandbox,
    secrets: BTreeSet<String>,
    /// The key-encryption key itself.
    kek: Vec<u8>,
    /// What the commands printed for people.
    said: String,
}

impl BusyRun {
    fn secret(&mut self, text: &str) -> String {
        assert!(text.len() >= 32, "{text:?} is no secret");
        self.secrets.insert(text.to_owned());
        text.to_owned()
    }

    /// Runs a command. Its stdout may be a secret; its stderr must never contain one.
    fn run(&mut self, credentials: &str, line: &str, input: &str) -> String {
        let args: Vec<&str> = line.split(' ').chain(["--credentials", credentials]).collect();
        let end = self.sandbox.run_with_input(&args, input);
        self.said.push_str(&end.stderr);
        end.stdout.trim().to_owned()
    }

    fn operate(&mut self, line: &str) -> String {
        self.run(OPERATOR, line, "")
    }

    fn token(&mut self, credentials: &str) -> String {
        let token = self.run(credentials, "token issue", "");
        self.secret(&token)
    }

    fn credentials(&mut self, name: &str, client_id: &str, secret: &str) -> String {
        let url = self.sandbox.credential(DEMO, "url");
        let text =
            format!("url = {url:?}\nclient_id = {client_id:?}\nclient_secret = {secret:?}\n");
        fs::write(self.sandbox.path(name), text).expect("the sandbox is ours");
        self.sandbox.set_mode(name, 0o600);
        name.to_owned()
    }
}

#[test]
fn no_log_audit_event_or_database_file_contains_a_secret() {
    for format in ["human", "json"] {
        let sandbox = Sandbox::new();
        let server = sandbox.serve(&["--dev", "--log-filter", "trace", "--log-format", format]);
        let mut run =
            BusyRun { sandbox, secrets: BTreeSet::new(), kek: Vec::new(), said: String::new() };
        be_busy(&mut run);
        // While the server runs, recent changes are in the write-ahead log.
        assert_clean(&run, &database(&run.sandbox), "the running database");
        let audit = run.operate("audit list --limit 100000 --format json");
        assert!(audit.contains("keys.rotate"), "{audit}");
        assert_clean(&run, audit.as_bytes(), "the audit log");

        let end = server.stop();
        for part in ["IssueToken", "unknown_client", "wrong_secret", "h2::"] {
            assert!(end.stderr.contains(part), "{part} is in the log");
        }
        assert_clean(&run, end.stderr.as_bytes(), "the log");
        assert_clean(&run, end.stdout.as_bytes(), "what the server prints");
        assert_clean(&run, run.said.as_bytes(), "what the commands say");
        assert_clean(&run, &database(&run.sandbox), "the database");
    }
}

/// Runs every command, correctly and wrongly, with secrets in every place where one may be put by mistake.
fn be_busy(run: &mut BusyRun) {
    let kek = run.sandbox.text("countersign-dev/kek").trim().to_owned();
    let bytes =
        URL_SAFE_NO_PAD.decode(kek.trim_start_matches("ckek_")).expect("the KEK is base64url");
    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for shape in [kek, hex, STANDARD.encode(&bytes)] {
        run.secret(&shape);
    }
    run.kek = bytes;
    for file in [DEMO, OPERATOR] {
        let secret = run.sandbox.credential(file, "client_secret");
        run.secret(&secret);
    }

    let cron = run.operate("client create cron --grant demo=demo:read --serves cron");
    let cron = run.secret(&cron);
    let second = run.operate("client credential add cron --secret");
    let second = run.secret(&second);
    let third = run.operate("client secret rotate cron --retire-when-idle 1h");
    let third = run.secret(&third);
    let third_file = run.credentials("third.toml", "cron", &third);
    run.token(&third_file);
    let operator = run.operate("operator create another");
    let operator = run.secret(&operator);
    let cron_file = run.credentials("cron.toml", "cron", &cron);
    let another_file = run.credentials("another.toml", "another", &operator);

    let token = run.token(DEMO);
    run.run(DEMO, "token validate -", &token);
    run.run(DEMO, "token inspect -", &token);
    run.run(&cron_file, "token validate -", &token);
    run.run(&cron_file, "token validate - --scope demo:write", &token);
    let cron_token = run.token(&cron_file);
    run.run(DEMO, "token revoke -", &cron_token);
    run.run(DEMO, "token revoke -", &token);
    run.run(&another_file, "keys rotate", "");
    run.run(&another_file, "keys rotate --force", "");
    for line in [
        "client list",
        "client show cron",
        "client update cron --description nightly",
        "client revoke-tokens cron",
        "keys list",
        "audit list",
        "policy show",
    ] {
        run.operate(line);
    }

    over_http(run, &cron_file, &cron);

    // Mistakes: a secret or a token in the place of a name, and invalid credentials.
    let revoked = second.replace(|c: char| c.is_ascii_lowercase(), "x");
    let wrong = run.secret(&revoked);
    for (n, (client_id, secret)) in [
        ("cron", wrong.as_str()),
        ("nobody", second.as_str()),
        (second.as_str(), second.as_str()),
        (wrong.as_str(), cron.as_str()),
        ("cron", token.as_str()),
        (token.as_str(), cron.as_str()),
    ]
    .into_iter()
    .enumerate()
    {
        let file = run.credentials(&format!("mistake-{n}.toml"), client_id, secret);
        assert_eq!(run.run(&file, "token issue", ""), "");
    }
    for line in [
        "client show ",
        "client delete ",
        "client credential add --secret ",
        "client credential revoke cron ",
        "keys revoke ",
        "token revoke --token-id ",
    ] {
        for secret in [&second, &token] {
            run.operate(&format!("{line}{secret}"));
        }
    }
    run.run(DEMO, "token validate -", &second);
    run.operate("client delete cron");
}

/// The same over plain HTTP: credentials in the right places and in wrong ones.
fn over_http(run: &mut BusyRun, cron_file: &str, cron: &str) {
    let encoded = STANDARD.encode(format!("cron:{cron}"));
    let encoded = run.secret(&encoded);
    let basic = format!("authorization: Basic {encoded}\r\n");
    let grant = "grant_type=client_credentials";
    let in_form = format!("{grant}&client_id=cron&client_secret={cron}");
    let mistaken = format!("{grant}&client_id={cron}&client_secret=cron&scope={cron}&{cron}=a");
    let in_query = format!("/oauth/token?client_secret={cron}");
    for (path, headers, form) in [
        ("/oauth/token", basic.as_str(), grant),
        ("/oauth/token", "", &in_form),
        ("/oauth/token", &basic, &in_form),
        ("/oauth/token", "", &mistaken),
        (&in_query, &basic, grant),
    ] {
        let answer = post(&run.sandbox, cron_file, path, headers, form);
        if let Some((_, token)) = answer.split_once("\"access_token\":\"") {
            let token = run.secret(token.split('"').next().expect("the process ends"));
            for path in ["/oauth/introspect", "/oauth/revoke"] {
                let form = format!("token={token}");
                let answer = post(&run.sandbox, cron_file, path, &basic, &form);
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            }
        } else {
            assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
            assert!(!answer.contains(cron), "{answer}");
        }
    }
}

/// The contents of all files of the database, one after another.
fn database(sandbox: &Sandbox) -> Vec<u8> {
    let directory = sandbox.path(DEV);
    let names = listing(&directory).into_iter().filter(|name| name.starts_with("countersign."));
    names.flat_map(|name| fs::read(directory.join(name)).expect("the file exists")).collect()
}

#[track_caller]
fn assert_clean(run: &BusyRun, haystack: &[u8], what: &str) {
    let text = String::from_utf8_lossy(haystack);
    for secret in &run.secrets {
        let before = text.find(secret).map(|at| text[..at].lines().last().unwrap_or_default());
        assert_eq!(before, None, "{what} holds a secret");
    }
    assert!(!haystack.windows(32).any(|window| window == run.kek), "{what} holds the KEK");
}
