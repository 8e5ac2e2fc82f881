//! The command line as its users see it, where no server is needed.

use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::{fs, thread};

/// Every variable that the program reads, set to nothing, which is as good as unset.
const VARIABLES: [&str; 22] = [
    "COUNTERSIGN_CLIENT_KEY_FILE",
    "COUNTERSIGN_ISSUER",
    "HOME",
    "XDG_CONFIG_HOME",
    "COUNTERSIGN_URL",
    "COUNTERSIGN_URL_FILE",
    "COUNTERSIGN_CLIENT_ID",
    "COUNTERSIGN_CLIENT_ID_FILE",
    "COUNTERSIGN_CLIENT_SECRET",
    "COUNTERSIGN_CLIENT_SECRET_FILE",
    "COUNTERSIGN_CONFIG",
    "COUNTERSIGN_KEK",
    "COUNTERSIGN_LISTEN",
    "COUNTERSIGN_DATA_DIR",
    "COUNTERSIGN_KEK_FILE",
    "COUNTERSIGN_INSECURE_PLAINTEXT",
    "COUNTERSIGN_WORKERS",
    "COUNTERSIGN_SHUTDOWN_GRACE",
    "COUNTERSIGN_LOG_FORMAT",
    "COUNTERSIGN_LOG_FILTER",
    "COUNTERSIGN_TOKENS_DEFAULT_TTL",
    "COUNTERSIGN_AUDIT_RETENTION",
];

/// After a wanted change: `TRYCMD=overwrite cargo test --test cli`, and review the difference.
#[test]
fn transcripts() {
    let cases = trycmd::TestCases::new();
    for name in VARIABLES {
        cases.env(name, "");
    }
    cases.env("COLUMNS", "100").case("tests/cmd/*.trycmd");
}

/// Runs the program with these variables and no others.
fn run(args: &[&str], variables: &[(&str, &str)], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(args)
        .current_dir(directory)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("the binary was built")
}

/// Runs the program in an empty environment.
fn countersign(args: &[&str], directory: &Path) -> Output {
    run(args, &[], directory)
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("messages are text")
}

/// The exit code and the message.
fn outcome(args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().expect("the temp directory is writable");
    let output = run(args, variables, directory.path());
    assert!(output.stdout.is_empty(), "an error leaves stdout alone");
    (output.status.code(), stderr(&output))
}

fn credentials(url: &str) -> [(&str, &str); 3] {
    [
        ("COUNTERSIGN_URL", url),
        ("COUNTERSIGN_CLIENT_ID", "cron"),
        ("COUNTERSIGN_CLIENT_SECRET", "csec_hush"),
    ]
}

#[test]
fn nobody_listening_is_exit_code_4() {
    let (code, line) = outcome(&["keys", "list"], &credentials("http://127.0.0.1:1"));
    assert_eq!(code, Some(4));
    assert!(
        line.starts_with("countersign: cannot reach http://127.0.0.1:1: Connection refused"),
        "{line}"
    );
    let next =
        "; start a server there (countersign serve), or correct the url in the environment\n";
    assert!(line.ends_with(next), "{line}");
}

#[test]
fn a_server_of_another_kind_is_unreachable_too() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let other = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the program connects");
        stream.write_all(b"220 mail.example.com ESMTP\r\n").expect("it reads");
        // Until the program has had enough.
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    let (code, line) = outcome(&["keys", "list"], &credentials(&url));
    assert_eq!((code, line.lines().count()), (Some(4), 1), "{line}");
    other.join().expect("it did not panic");
}

#[test]
fn a_secret_is_not_sent_in_the_open() {
    let (code, line) = outcome(&["keys", "list"], &credentials("http://192.0.2.1:9443"));
    assert_eq!(code, Some(1));
    assert_eq!(
        line,
        "countersign: http://192.0.2.1:9443 is off loopback, where plaintext would show the secret; use an \
         https:// url, or give --insecure-plaintext if something else encrypts\n"
    );
}

#[test]
fn half_of_the_credentials_is_an_error() {
    let (code, line) = outcome(&["token", "issue"], &credentials("http://127.0.0.1:1")[..2]);
    assert_eq!(code, Some(1));
    assert_eq!(
        line,
        "countersign: the environment holds part of the credentials, but not COUNTERSIGN_CLIENT_SECRET; set \
         COUNTERSIGN_CLIENT_SECRET or COUNTERSIGN_CLIENT_SECRET_FILE\n"
    );
}

#[test]
fn variables_are_settings_and_dev_mode_stays_on_loopback_all_the_same() {
    let (code, line) = outcome(&["serve"], &[("COUNTERSIGN_LISTEN", "here")]);
    assert_eq!(code, Some(1));
    assert!(
        line.starts_with("countersign: listen is \"here\" (from COUNTERSIGN_LISTEN); "),
        "{line}"
    );
    let (code, line) = outcome(&["serve"], &[("COUNTERSIGN_CONFIG", "absent.toml")]);
    assert_eq!(code, Some(1));
    assert!(
        line.starts_with("countersign: cannot read the configuration file absent.toml: "),
        "{line}"
    );
    let open = [("COUNTERSIGN_LISTEN", "0.0.0.0:9443")];
    let (code, line) = outcome(&["serve", "--dev", "--insecure-plaintext"], &open);
    assert_eq!(code, Some(2));
    assert!(line.contains("never leaves loopback"), "{line}");
}

#[test]
fn a_credentials_file_open_to_others_is_refused_and_then_accepted() {
    let directory = tempfile::tempdir().expect("the temp directory is writable");
    let path = directory.path().join("c.toml");
    let text =
        "url = \"http://127.0.0.1:1\"\nclient_id = \"cron\"\nclient_secret = \"csec_hush\"\n";
    fs::write(&path, text).expect("it is ours");

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let refused = countersign(&["keys", "list", "--credentials", "c.toml"], directory.path());
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(
        stderr(&refused),
        "countersign: c.toml can be read by others (mode 0644); run: chmod 600 c.toml\n"
    );

    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let unreachable = countersign(&["keys", "list", "--credentials", "c.toml"], directory.path());
    assert_eq!(unreachable.status.code(), Some(4), "{}", stderr(&unreachable));
}

#[test]
fn an_out_file_that_exists_stops_everything_and_one_that_is_not_needed_goes() {
    let directory = tempfile::tempdir().expect("the temp directory is writable");
    let credentials = directory.path().join("c.toml");
    let text =
        "url = \"http://127.0.0.1:1\"\nclient_id = \"cron\"\nclient_secret = \"csec_hush\"\n";
    fs::write(&credentials, text).expect("it is ours");
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let create = |out| {
        countersign(
            &["client", "create", "x", "--credentials", "c.toml", "--out", out],
            directory.path(),
        )
    };

    // Exit code 1, not 4: the server was not even tried.
    let exists = create("c.toml");
    assert_eq!(exists.status.code(), Some(1));
    assert_eq!(
        stderr(&exists),
        "countersign: c.toml exists already; move it away or name another file\n"
    );
    assert_eq!(fs::read_to_string(&credentials).expect("it is still there"), text);

    assert_eq!(create("new.toml").status.code(), Some(4));
    assert!(!directory.path().join("new.toml").exists());
}

#[test]
fn a_token_given_as_an_argument_is_not_quoted() {
    let directory = tempfile::tempdir().expect("the temp directory is writable");
    for command in ["validate", "revoke", "inspect"] {
        let output = countersign(&["token", command, "eyJhbGciOi.hush"], directory.path());
        assert_eq!(output.status.code(), Some(2));
        assert!(!stderr(&output).contains("hush"), "{}", stderr(&output));
    }
}

/// The encoded descriptors of one service with these methods.
fn descriptors(methods: &str, directory: &Path) -> Vec<u8> {
    let source = format!(
        "syntax = \"proto3\";\npackage acme.v1;\nimport \"countersign/v1/auth.proto\";\n\
         message Empty {{}}\nservice Stock {{\n\
         option (countersign.v1.service).audience = \"stock\";\n{methods}\n}}\n"
    );
    fs::write(directory.join("stock.proto"), source).expect("it is ours");
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut compiler = protox::Compiler::new([directory, &proto]).expect("directories");
    compiler.include_imports(true).include_source_info(true);
    compiler.open_file("stock.proto").expect("it compiles").encode_file_descriptor_set()
}

#[test]
fn the_policy_in_a_descriptor_set_is_shown_as_our_own_is() {
    let directory = tempfile::tempdir().expect("the temp directory is writable");
    let show = |bytes: &[u8], more: &[&str]| {
        fs::write(directory.path().join("d.bin"), bytes).expect("it is ours");
        let args = [&["policy", "show", "--descriptor", "d.bin"], more].concat();
        countersign(&args, directory.path())
    };
    for more in [&[][..], &["--format", "json"]] {
        let own = countersign(&[&["policy", "show"], more].concat(), directory.path());
        let of_descriptors = show(countersign::rpc::DESCRIPTORS, more);
        assert!(own.stdout.len() > 100);
        assert_eq!(of_descriptors.stdout, own.stdout);
    }

    // A method that declares nothing is told, and not listed.
    let partly = descriptors(
        "rpc Open(Empty) returns (Empty) { option (countersign.v1.auth).public = true; }\n\
         rpc Undeclared(Empty) returns (stream Empty);",
        directory.path(),
    );
    let shown = show(&partly, &[]);
    assert_eq!(shown.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "/acme.v1.Stock/Open public\n");
    let remark = stderr(&shown);
    assert!(remark.starts_with("stock.proto:8: Stock.Undeclared says neither"), "{remark}");
    assert!(remark.ends_with("(a guard refuses it until then)\n"), "{remark}");
}

#[test]
fn a_descriptor_set_that_is_none_or_wrong_is_an_error() {
    let directory = tempfile::tempdir().expect("the temp directory is writable");
    let refused = |bytes: &[u8]| {
        fs::write(directory.path().join("d.bin"), bytes).expect("it is ours");
        let output = countersign(&["policy", "show", "--descriptor", "d.bin"], directory.path());
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        let line = stderr(&output);
        assert_eq!(line.lines().count(), 1, "{line}");
        line
    };
    let both = "rpc Both(Empty) returns (Empty) \
                { option (countersign.v1.auth) = { public: true scopes: \"a\" }; }";
    let line = refused(&descriptors(both, directory.path()));
    assert!(
        line.starts_with("countersign: stock.proto:7: Stock.Both demands scopes and is public"),
        "{line}"
    );
    let line = refused(b"not a descriptor set");
    assert!(
        line.starts_with("countersign: d.bin is not a descriptor set with all of its imports: ")
    );
    assert_eq!(
        refused(b""),
        "countersign: d.bin describes no service; give the descriptor set of protos with services\n"
    );

    let absent = countersign(&["policy", "show", "--descriptor", "x.bin"], directory.path());
    assert_eq!(absent.status.code(), Some(1));
    assert!(stderr(&absent).starts_with("countersign: cannot read x.bin: "));
}
