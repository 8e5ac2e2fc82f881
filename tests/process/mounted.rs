//! Secrets as Kubernetes mounts them: files of root that a group can read, behind a symbolic link that is swapped.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{PROGRAM, Sandbox, Server, finish};

/// A user and a group that own nothing on the machine.
const USER: u32 = 54_321;
const GROUP: u32 = 54_322;

/// Whether this process may give files to other users and run programs as them.
fn is_root() -> bool {
    let probe = tempfile::NamedTempFile::new().expect("a temporary file");
    chown(probe.path(), Some(USER), Some(GROUP)).is_ok()
}

/// Runs the program as another user, in a sandbox that belongs to that user.
fn as_other(sandbox: &Sandbox) -> Command {
    // The other user may not be able to enter the build directory, so the program is copied.
    let program = sandbox.path("countersign");
    if !program.exists() {
        fs::copy(PROGRAM, &program).expect("the file can be written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .expect("the test owns the file");
        chown(sandbox.path("."), Some(USER), Some(GROUP)).expect("the test runs as root");
    }
    let mut command = sandbox.program(program.to_str().expect("UTF-8"));
    command.uid(USER).gid(GROUP);
    command
}

/// Mounts files as Kubernetes does: `name` links to `..data/name`, and `..data` links to a directory. The second link
/// is replaced in one step.
fn mount(volume: &Path, version: &str, files: &[(&str, &str)], mode: u32) {
    let directory = volume.join(version);
    fs::create_dir_all(&directory).expect("the directory can be created");
    for (name, text) in files {
        let file = directory.join(name);
        fs::write(&file, text).expect("the file can be written");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode))
            .expect("the test owns the file");
        if is_root() {
            chown(&file, Some(0), Some(GROUP)).expect("the test runs as root");
        }
        let link = volume.join(name);
        if !link.is_symlink() {
            symlink(Path::new("..data").join(name), link).expect("nothing has this name yet");
        }
    }
    let next = volume.join("..data_tmp");
    symlink(version, &next).expect("nothing has this name yet");
    fs::rename(next, volume.join("..data")).expect("the file can be renamed");
}

#[test]
fn a_pod_without_root_reads_secrets_that_belong_to_root_and_its_group() {
    if !is_root() {
        let skipped = "skipped: only root can make the files of a mounted secret\n";
        std::io::Write::write_all(&mut std::io::stderr(), skipped.as_bytes()).expect("stderr");
        return;
    }
    let sandbox = Sandbox::new();
    // A first start creates the store. Its KEK and its operator's credentials then become mounted secrets.
    let init = ["init", "--issuer", "https://auth.test", "--data-dir", "data"];
    let made = finish(as_other(&sandbox).args(init), "");
    assert_eq!(made.code, Some(0), "{made:?}");
    let kek = sandbox.text("data/kek");
    fs::remove_file(sandbox.path("data/kek")).expect("the file exists");
    let volume = sandbox.path("volume");
    mount(&volume, "..2026_1", &[("kek", &kek)], 0o440);

    let serve = |mode: u32| {
        let file = volume.join("..data/kek");
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("the test runs as root");
        let mut command = as_other(&sandbox);
        let args =
            ["serve", "--listen", "127.0.0.1:0", "--data-dir", "data", "--kek-file", "volume/kek"];
        command.args(args).args(["--epoch-dir", "data"]);
        command
    };
    for mode in [0o440, 0o640] {
        Server::start(&mut serve(mode)).stop();
    }
    for mode in [0o444, 0o460, 0o644] {
        let refused = finish(&mut serve(mode), "").failed(1);
        assert!(refused.contains(&format!("mode {mode:04o}")), "{refused}");
    }

    // The same rule applies to a credentials file.
    let mut server = serve(0o440);
    let server = Server::start(&mut server);
    let text = sandbox.text("data/operator.toml");
    let (_, rest) = text.split_once('\n').expect("the file has lines");
    let text = format!("url = \"{}\"\n{rest}", server.url);
    mount(&volume, "..2026_2", &[("kek", &kek), ("operator.toml", &text)], 0o440);
    let list = || {
        finish(
            as_other(&sandbox).args(["keys", "list", "--credentials", "volume/operator.toml"]),
            "",
        )
    };
    assert_eq!(list().code, Some(0), "{:?}", list());
    let file = volume.join("..data/operator.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).expect("the test runs as root");
    assert!(list().failed(1).contains("can be read by others (mode 0444)"));
    // If the file belongs to the user itself, its group must not be able to read it.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).expect("the test runs as root");
    chown(&file, Some(USER), Some(GROUP)).expect("the test runs as root");
    assert!(list().failed(1).contains("chmod 600"));
    server.stop();
}

#[test]
fn a_mounted_secret_that_is_being_swapped_is_read_whole_or_not_at_all() {
    let sandbox = Sandbox::new();
    let server = sandbox.dev();
    let text = sandbox.text("countersign-dev/demo.toml");
    let volume = sandbox.path("volume");
    let mode = if is_root() { 0o440 } else { 0o400 };
    mount(&volume, "..2026_0", &[("demo.toml", &text)], mode);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The secret is swapped again and again, and each previous version is removed.
            for version in 1_u32.. {
                mount(&volume, &format!("..2026_{version}"), &[("demo.toml", &text)], mode);
                fs::remove_dir_all(volume.join(format!("..2026_{}", version - 1)))
                    .expect("the file can be removed");
                if done.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let read = (0..20).map(|_| {
            let issue = ["token", "issue", "--credentials", "volume/demo.toml"];
            sandbox.run(&issue)
        });
        let read: Vec<_> = read.collect();
        done.store(true, Ordering::Relaxed);
        for read in read {
            // A reader that resolved the link just before the directory was removed finds no file, and says so.
            let gone = read.stderr.contains("No such file or directory");
            assert!(read.code == Some(0) || gone, "{read:?}");
        }
    });
    server.stop();
}

#[test]
fn a_byte_order_mark_at_the_start_of_a_file_is_ignored() {
    let sandbox = Sandbox::new();
    let server = sandbox.dev();
    let mark = |from: &str, to: &str| {
        let text = format!("\u{feff}{}", sandbox.text(from));
        fs::write(sandbox.path(to), text).expect("the file can be written");
        sandbox.set_mode(to, 0o600);
    };
    mark("countersign-dev/demo.toml", "demo.toml");
    let token = sandbox.run(&["token", "issue", "--credentials", "demo.toml"]).ok();
    fs::write(sandbox.path("token"), format!("\u{feff}{token}")).expect("the file can be written");
    let args = ["token", "validate", "--token-file", "token"];
    assert!(sandbox.run(&args).ok().starts_with("active:"));

    let secret = sandbox.credential("countersign-dev/demo.toml", "client_secret");
    fs::write(sandbox.path("secret"), format!("\u{feff}{secret}\n"))
        .expect("the file can be written");
    let mut issue = sandbox.program(PROGRAM);
    issue.args(["token", "issue"]).env("COUNTERSIGN_URL", &server.url);
    issue.env("COUNTERSIGN_CLIENT_ID", "demo").env("COUNTERSIGN_CLIENT_SECRET_FILE", "secret");
    finish(&mut issue, "").ok();
    server.stop();

    mark("countersign-dev/kek", "countersign-dev/kek");
    fs::write(sandbox.path("c.toml"), "\u{feff}workers = 2\n").expect("the file can be written");
    sandbox.serve(&["--dev", "--config", "c.toml"]).stop();
}
