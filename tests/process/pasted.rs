//! The commands that the documentation and the program tell people to type work as printed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support::{Finished, PROGRAM, Sandbox, finish};

/// Runs lines in a shell, in the sandbox.
fn paste(sandbox: &Sandbox, lines: &[&str]) -> Finished {
    finish(sandbox.program("sh").args(["-c", &lines.join("\n")]), "")
}

#[test]
fn the_printed_commands_work_in_the_servers_directory_and_after_a_restart() {
    let sandbox = Sandbox::new();
    // The printed commands must quote characters that are special to a shell.
    for data_dir in ["countersign-dev", "it's \"a\" $HOME", "countersign-dev"] {
        let mut server = sandbox.serve(&["--dev", "--data-dir", data_dir]);
        let commands = server.commands(6);
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let [issue, validate, secret, curl, rotate, help] = commands.as_slice() else {
            panic!("{commands:?}")
        };
        let token = paste(&sandbox, &[issue]).ok();
        assert_eq!(token.trim().split('.').count(), 3, "{token}");
        let validated = paste(&sandbox, &[validate]).ok();
        assert!(validated.starts_with("active:"), "{validated}");
        if there_is("curl") {
            let answer = paste(&sandbox, &[secret, curl]).ok();
            assert!(answer.contains("\"access_token\":"), "{answer}");
        }
        let rotated = paste(&sandbox, &[rotate]).ok();
        assert!(rotated.contains("retired:"), "{rotated}");
        assert!(paste(&sandbox, &[help]).ok().contains("Usage:"));
        server.stop();
    }
}

#[test]
fn every_command_in_the_readme_and_the_book_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A published package does not contain the book, so there is nothing to test.
    let Ok(book) = fs::read_dir(root.join("docs")) else { return };
    let mut pages: Vec<_> = book.map(|entry| entry.expect("an entry").path()).collect();
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.push(root.join("README.md"));
    pages.sort();
    let mut pasted = 0;
    for page in &pages {
        let commands = commands(&fs::read_to_string(page).expect("a page is text"));
        let lacks = ["curl", "jq", "openssl"].into_iter().find(|tool| {
            commands.iter().any(|command| command.contains(&format!("{tool} "))) && !there_is(tool)
        });
        if let Some(tool) = lacks {
            assert!(std::env::var_os("COUNTERSIGN_CI").is_none(), "CI has no {tool}");
            let lacking = format!("skipped {}: there is no {tool}\n", page.display());
            std::io::stderr().write_all(lacking.as_bytes()).expect("stderr is there");
            continue;
        }
        if !commands.is_empty() {
            paste_page(page, &commands);
            pasted += commands.len();
        }
    }
    assert!(pasted >= 20, "{pasted} commands are not all");
}

/// Runs the commands of a page from top to bottom, beside a development server of its own.
fn paste_page(page: &Path, commands: &[String]) {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("bin")).expect("nothing has this name yet");
    symlink(PROGRAM, sandbox.path("bin/countersign")).expect("nothing has this name yet");
    let path = std::env::var("PATH").expect("the environment has a PATH");
    let path = format!("{}:{path}", sandbox.path("bin").display());
    let server = sandbox.dev();
    let url = sandbox.credential("countersign-dev/demo.toml", "url");
    // `-x` shows which command failed.
    let script = format!("set -eux\n{}\n", commands.join("\n"));
    let script = script.replace("http://127.0.0.1:9443", &url);
    let end = finish(
        sandbox.program("bash").args(["-o", "pipefail", "-c", &script]).env("PATH", &path),
        "",
    );
    assert_eq!(end.code, Some(0), "{}\n{}", page.display(), end.stderr);
    server.stop();
}

fn there_is(tool: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {tool}")])
        .output()
        .is_ok_and(|it| it.status.success())
}

/// The commands in all console blocks, except those of cargo.
fn commands(page: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut in_console = false;
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(fence) => in_console = fence == "console",
            None if in_console => commands.extend(line.strip_prefix("$ ").map(str::to_owned)),
            None => {}
        }
    }
    commands.retain(|command| !command.starts_with("cargo "));
    commands
}
