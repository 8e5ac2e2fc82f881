//! What we tell people to type works as it stands.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::{Finished, PROGRAM, Sandbox, finish};

/// Types a line into a shell of another directory.
fn paste(sandbox: &Sandbox, line: &str) -> Finished {
    finish(sandbox.program("sh").args(["-c", line]).current_dir(sandbox.path("elsewhere")), "")
}

#[test]
fn the_printed_commands_work_from_anywhere_now_and_after_a_restart() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("elsewhere")).expect("it is not there yet");
    // A shell's own characters in a path are no trouble.
    let data_dir = "it's \"a\" $HOME";
    for _ in 0..2 {
        let mut server = sandbox.serve(&["--dev", "--data-dir", data_dir]);
        let commands = server.commands(3);
        let [issue, validate, rotate] = commands.as_slice() else { panic!("{commands:?}") };
        let token = paste(&sandbox, issue).ok();
        assert_eq!(token.trim().split('.').count(), 3, "{token}");
        let validated = paste(&sandbox, validate).ok();
        assert!(validated.starts_with("active:"), "{validated}");
        let rotated = paste(&sandbox, rotate).ok();
        assert!(rotated.contains("retired:"), "{rotated}");
        server.stop();
    }
}

#[test]
fn every_command_of_the_readme_works() {
    let Ok(readme) = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"))
    else {
        return;
    };
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("bin")).expect("it is not there yet");
    symlink(PROGRAM, sandbox.path("bin/countersign")).expect("it is not there yet");
    let path = std::env::var("PATH").expect("there is a shell somewhere");
    let path = format!("{}:{path}", sandbox.path("bin").display());
    let server = sandbox.dev();
    let commands = commands(&readme);
    assert!(!commands.is_empty());
    for command in commands {
        let typed = command.replace("target/release/", "").replace("/tmp/", "");
        let end = finish(sandbox.program("sh").args(["-c", &typed]).env("PATH", &path), "");
        assert_eq!(end.code, Some(0), "{command}\n{}", end.stderr);
    }
    server.stop();
}

/// The lines to type of all console blocks, except what cargo does.
fn commands(readme: &str) -> Vec<&str> {
    let mut commands = Vec::new();
    let mut in_console = false;
    for line in readme.lines() {
        match line.strip_prefix("```") {
            Some(fence) => in_console = fence == "console",
            None if in_console => commands.extend(line.strip_prefix("$ ")),
            None => {}
        }
    }
    commands.retain(|command| !command.starts_with("cargo "));
    commands
}
