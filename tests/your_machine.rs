//! What was skipped because this machine lacks it, and how to get it: told near the end, where a summary is looked for.

use std::io::Write;
use std::path::Path;

/// Whether a program is found.
fn there_is(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[test]
fn what_was_skipped_is_told_with_how_to_get_it() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in target/");
    let languages = target.join("languages/python/bin/python").exists() && there_is("node");
    let lacking: Vec<String> = [
        (languages, "the examples in Python and JavaScript", "just languages"),
        (
            there_is("curl") && there_is("jq"),
            "shell examples and pages with curl",
            "install curl and jq",
        ),
        (there_is("openssl"), "pages with openssl", "install openssl"),
        (there_is("script"), "what a terminal shows", "install script (bsdutils or util-linux)"),
    ]
    .into_iter()
    .filter(|(is_there, ..)| !is_there)
    .map(|(_, what, how)| format!("skipped: {what}; to test it: {how}\n"))
    .collect();
    assert!(lacking.is_empty() || std::env::var_os("COUNTERSIGN_CI").is_none(), "{lacking:?}");
    // Past the test runner, which would keep it to itself.
    std::io::stderr().write_all(lacking.concat().as_bytes()).expect("stderr is there");
}
