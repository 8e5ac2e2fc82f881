//! What the tests run that is not ours, and that need not be there.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The interpreters, with the packages that the scripts use.
pub struct Tools {
    pub python: PathBuf,
    /// `node_modules` of the example.
    pub node_modules: PathBuf,
    /// `node_modules` of the OAuth client.
    pub openid_modules: PathBuf,
}

/// What `.ci/languages` has installed, if it was run.
pub fn tools() -> Option<Tools> {
    let installed = target().join("languages");
    let tools = Tools {
        python: installed.join("python/bin/python"),
        node_modules: installed.join("node/node_modules"),
        openid_modules: installed.join("openid/node_modules"),
    };
    let is_there = tools.python.exists()
        && tools.node_modules.exists()
        && tools.openid_modules.exists()
        && are_programs(&["node"]);
    is_there.then_some(tools).or_else(|| skip("run `just languages`"))
}

/// The server of an example in Rust, which `cargo test` builds before it tests.
pub fn example(name: &str) -> Option<Command> {
    let program = target_of_this_profile().join("examples").join(name);
    if program.exists() {
        Some(Command::new(program))
    } else {
        skip("run `cargo build --examples`")
    }
}

/// What `cleanup.sh` needs.
pub fn shell() -> Option<()> {
    if are_programs(&["bash", "curl", "jq"]) { Some(()) } else { skip("install bash, curl and jq") }
}

fn are_programs(names: &[&str]) -> bool {
    names.iter().all(|name| program(name).is_some())
}

/// Where a program is.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file())
}

#[allow(clippy::print_stderr, reason = "the test runner shows it to who asks")]
fn skip<T>(remedy: &str) -> Option<T> {
    assert!(std::env::var_os("COUNTERSIGN_CI").is_none(), "not all is there: {remedy}");
    eprintln!("skipped, since not all is there: {remedy}");
    None
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in target/").to_owned()
}

/// `target/debug`, say.
fn target_of_this_profile() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_countersign"));
    program.parent().expect("it is in a directory").to_owned()
}
