//! A disk that takes nothing more, and one that takes nothing at all: tokens are issued all the same.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;

use crate::support::{PROGRAM, Sandbox, Server, listing};

const DEV: &str = "countersign-dev";
const DEMO: &str = "countersign-dev/demo.toml";
const OPERATOR: &str = "countersign-dev/operator.toml";

/// Files may grow to half a MiB at most. A shell says so, because there is no safe call for it; the
/// signal is ignored, so that writing fails as it does on a full disk.
const LIMITED: &str = "trap '' XFSZ; ulimit -f 1024; exec \"$0\" serve --dev --listen 127.0.0.1:0";

#[test]
fn a_disk_that_is_full_fails_writes_and_nothing_else() {
    let sandbox = Sandbox::new();
    let server = Server::start(sandbox.program("sh").args(["-c", LIMITED, PROGRAM]));
    let create = |n: usize| {
        let (id, description) = (format!("c{n}"), "x".repeat(200));
        let args = ["client", "create", &id, "--no-secret", "--description", &description];
        sandbox.run(&[&args[..], &["--credentials", OPERATOR]].concat())
    };
    // One write takes more room than another: it is full when it has refused some.
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

    // With room again all that was acknowledged is there, and writing works.
    let server = sandbox.dev();
    assert_eq!(clients(&sandbox), acknowledged);
    create(1000).ok();
    assert_eq!(clients(&sandbox), acknowledged + 1);
    sandbox.run(&["audit", "verify", "--data-dir", DEV]).ok();
    server.stop();
}

#[test]
fn a_database_that_is_read_only_fails_writes_and_nothing_else() {
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

/// Root writes to whatever it likes: the state gets another owner, and the command runs as that.
fn give_up_root(sandbox: &Sandbox, command: &mut std::process::Command) {
    const NOBODY: u32 = 65_534;
    let home = sandbox.path("");
    if home.metadata().expect("it is there").uid() != 0 {
        return;
    }
    let give =
        |name: &str| chown(sandbox.path(name), Some(NOBODY), Some(NOBODY)).expect("we are root");
    give("");
    give(DEV);
    listing(&sandbox.path(DEV)).iter().for_each(|file| give(&format!("{DEV}/{file}")));
    command.uid(NOBODY).gid(NOBODY);
}

fn clients(sandbox: &Sandbox) -> usize {
    let listed = sandbox.json(OPERATOR, &["client", "list"]);
    listed["clients"].as_array().map(Vec::len).expect("a list")
}
