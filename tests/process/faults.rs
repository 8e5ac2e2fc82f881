//! A full disk and a read-only database: the server still issues tokens.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;

use crate::support::{PROGRAM, Sandbox, Server, listing};

const DEV: &str = "countersign-dev";
const DEMO: &str = "countersign-dev/demo.toml";
const OPERATOR: &str = "countersign-dev/operator.toml";

/// Limits the size of files to half a MiB. A shell sets the limit, because Rust has no safe call for it. The shell
/// also ignores the signal SIGXFSZ, so that writing fails as on a full disk.
const LIMITED: &str = "trap '' XFSZ; ulimit -f 1024; exec \"$0\" serve --dev --listen 127.0.0.1:0";

#[test]
fn with_a_full_disk_only_writes_fail() {
    let sandbox = Sandbox::new();
    let server = Server::start(sandbox.program("sh").args(["-c", LIMITED, PROGRAM]));
    let create = |n: usize| {
        let (id, description) = (format!("c{n}"), "x".repeat(200));
        let args = ["client", "create", &id, "--no-secret", "--description", &description];
        sandbox.run(&[&args[..], &["--credentials", OPERATOR]].concat())
    };
    // Some writes need more room than others. The disk counts as full once several were refused.
    let (mut acknowledged, mut refused) = (clients(&sandbox), 0);
    for n in 0.. {
        match create(n) {
            created if created.code == Some(0) => acknowledged += 1,
            failed => {
                let line = failed.failed(4);
                assert!(line.contains("STORE_UNAVAILABLE): nothing was changed"), "{line}");
                assert!(line.contains("try again in 5s"), "{line}");
                refused += 1;
            }
        }
        if refused == 3 {
            break;
        }
    }
    sandbox.json(DEMO, &["token", "issue"]);
    assert_eq!(clients(&sandbox), acknowledged);
    server.signal("TERM");
    assert_eq!(server.end().code, Some(0));

    // Without the limit, all acknowledged changes are there and writing works.
    let server = sandbox.dev();
    assert_eq!(clients(&sandbox), acknowledged);
    create(1000).ok();
    assert_eq!(clients(&sandbox), acknowledged + 1);
    sandbox.run(&["audit", "verify", "--data-dir", DEV]).ok();
    server.stop();
}

#[test]
fn with_a_read_only_database_only_writes_fail() {
    let sandbox = Sandbox::new();
    sandbox.dev().stop();
    sandbox.set_mode("countersign-dev/countersign.db", 0o400);
    let mut command = sandbox.program(PROGRAM);
    command.args(["serve", "--dev", "--listen", "127.0.0.1:0"]);
    give_up_root(&sandbox, &mut command);
    let server = Server::start(&mut command);

    sandbox.json(DEMO, &["token", "issue"]);
    let line = sandbox.run(&["keys", "rotate", "--credentials", OPERATOR]).failed(4);
    assert!(line.contains("STORE_UNAVAILABLE): nothing was changed"), "{line}");
    assert!(line.contains("it is read-only"), "{line}");
    server.signal("TERM");
    assert_eq!(server.end().code, Some(0));
}

/// Makes sure that the command does not run as root, which can write to any file. As root, it gives the state to
/// another user and lets the command run as that user.
fn give_up_root(sandbox: &Sandbox, command: &mut std::process::Command) {
    const NOBODY: u32 = 65_534;
    let home = sandbox.path("");
    if home.metadata().expect("the file exists").uid() != 0 {
        return;
    }
    let give = |name: &str| {
        chown(sandbox.path(name), Some(NOBODY), Some(NOBODY)).expect("the test runs as root")
    };
    give("");
    give(DEV);
    listing(&sandbox.path(DEV)).iter().for_each(|file| give(&format!("{DEV}/{file}")));
    command.uid(NOBODY).gid(NOBODY);
}

fn clients(sandbox: &Sandbox) -> usize {
    let listed = sandbox.json(OPERATOR, &["client", "list"]);
    listed["clients"].as_array().map(Vec::len).expect("a list")
}
