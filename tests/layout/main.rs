//! The rooms and their arrows, and a few rules of the house: enforced, not hoped for.

mod circles;

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use crate::circles::Arrows;

/// Each room and the rooms that it may use. An arrow that is not here does not exist. The rooms of
/// `countersign-mesh` come first, then those of the service, which may use all of that crate's that they
/// name.
const ROOMS: [(&str, &[&str]); 22] = [
    ("encoding", &[]),
    ("net", &[]),
    // Who may read a file with a secret, for everyone who reads one.
    ("secret_file", &[]),
    // A collection, for everyone.
    ("cow_map", &[]),
    ("claims", &["encoding"]),
    ("keys", &["claims", "encoding"]),
    ("token", &["keys", "claims", "encoding"]),
    ("trust", &["token", "keys", "claims", "cow_map"]),
    ("guard", &["trust", "token", "keys", "claims"]),
    // The generated code brings policies.
    ("rpc", &["guard"]),
    (
        "session",
        &["rpc", "guard", "trust", "token", "keys", "claims", "encoding", "net", "secret_file"],
    ),
    // An issuer for users' own tests.
    ("testing", &["guard", "trust", "token", "keys", "claims"]),
    // The service.
    ("ring", &["keys", "claims"]),
    ("client", &["ring", "trust", "token", "keys", "claims", "internals"]),
    ("policy", &["guard", "client", "ring", "trust", "token", "keys", "claims"]),
    ("store", &["policy", "client", "ring", "trust", "token", "keys", "claims", "internals"]),
    (
        "authority",
        &["store", "policy", "client", "ring", "trust", "token", "keys", "claims", "internals"],
    ),
    (
        "server",
        &[
            "rpc",
            "guard",
            "authority",
            "store",
            "policy",
            "client",
            "ring",
            "trust",
            "token",
            "keys",
            "claims",
            "internals",
        ],
    ),
    (
        "cli",
        &[
            "annotations",
            "rpc",
            "session",
            "guard",
            "server",
            "authority",
            "store",
            "policy",
            "client",
            "ring",
            "trust",
            "token",
            "keys",
            "claims",
            "internals",
        ],
    ),
    // What countersign-mesh shares with the service alone.
    ("internals", &["cow_map", "encoding", "net", "secret_file"]),
    // What the binary shares with build scripts.
    ("annotations", &[]),
    // The binary.
    ("main", &["cli"]),
];

/// A file reaches this many lines, its tests aside, only when it has more than one role.
const MAX_LINES: usize = 450;

/// A rule that a line of a file breaks.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    path: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

/// What is wrong with a file, given its path from `src/` on.
fn violations(path: &str, text: &str) -> Vec<Violation> {
    let room = room_of(path);
    let mut found = Vec::new();
    let mut in_tests = false;
    let mut lines = 0;
    for (line, code) in (1..).zip(text.lines().map(without_comment)) {
        let mut broken = |rule: String| {
            found.push(Violation { path: path.to_owned(), line, rule });
        };
        in_tests |= code.trim() == "#[cfg(test)]";
        lines += usize::from(!in_tests);
        if room != "lib" {
            for used in rooms_used(code) {
                if let Err(rule) = may_use(room, used) {
                    broken(rule);
                }
            }
            if ["cfg(", "cfg!(", "cfg_attr("].iter().any(|cfg| code.contains(cfg))
                && !code.contains("#[cfg(test)]")
            {
                broken("`cfg` stands in src/lib.rs only, but for #[cfg(test)]".to_owned());
            }
        }
        // The generated traits name their methods after the RPCs (AIP-131: `GetClient`).
        if code.contains("fn get_") && !path.starts_with("src/server/grpc/") {
            broken("no `get_`: name what it is".to_owned());
        }
        let mints = code.contains(".mint(") || code.contains("::mint(");
        if mints && !in_tests && !["authority", "testing"].contains(&room) {
            broken("only the authority mints, with a grant in hand".to_owned());
        }
    }
    if lines >= MAX_LINES {
        let rule = format!("{lines} lines without its tests: split it by role before {MAX_LINES}");
        found.push(Violation { path: path.to_owned(), line: lines, rule });
    }
    found
}

/// `src/keys/key_set.rs` and `src/keys.rs` are of the room `keys`, in whichever package.
fn room_of(path: &str) -> &str {
    let inside = path.split_once("src/").map_or(path, |(_, inside)| inside);
    let room = inside.split('/').next().unwrap_or(inside);
    room.strip_suffix(".rs").unwrap_or(room)
}

fn without_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    comment.map_or(line, |(at, _)| &line[..at])
}

/// The first name of each path from a crate's root: after `crate::`, after the names of the packages, and
/// after `super::` where it is a room's.
fn rooms_used(code: &str) -> Vec<&str> {
    let after = |prefix: &'static str, not_after: &'static str| {
        let begins = move |before: &str| {
            !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || not_after.contains(c))
        };
        code.match_indices(prefix).filter(move |(at, _)| begins(&code[..*at])).map(
            move |(at, _)| {
                let rest = &code[at + prefix.len()..];
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                &rest[..end.unwrap_or(rest.len())]
            },
        )
    };
    let is_room = |name: &&str| ROOMS.iter().any(|(room, _)| room == name);
    // A module may be called like a package: `tokens::countersign::Countersign` is no root.
    let roots = ["crate::", "countersign::", "countersign_mesh::", "countersign_build::"];
    let inside = after("super::", "").filter(is_room);
    roots.into_iter().flat_map(|root| after(root, ":")).chain(inside).collect()
}

fn may_use(room: &str, used: &str) -> Result<(), String> {
    let (_, allowed) = ROOMS
        .iter()
        .find(|(name, _)| *name == room)
        .ok_or_else(|| format!("the room `{room}` has no place in tests/layout.rs yet"))?;
    if used.is_empty() {
        return Err("a `use` of its own for each room: no braces after `crate::`".to_owned());
    }
    if used == room || allowed.contains(&used) {
        return Ok(());
    }
    let allowed = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
    Err(format!("`{room}` must not use `{used}`; the rooms that it may use: {allowed}"))
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_sources_keep_to_the_layout() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    rust_files(&root.join("crates/countersign-mesh/src"), &mut files);
    files.retain(|file| !file.ends_with("rpc/countersign.v1.rs"));
    files.sort();
    assert!(files.len() > 50, "these are not the sources: {files:?}");

    let found: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let text = fs::read_to_string(file).expect("a source file");
            let path = file.strip_prefix(root).expect("it is under the root");
            violations(path.to_str().expect("ASCII names"), &text)
        })
        .map(|violation| violation.to_string())
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The files that may go round: `Authority` is one type, its use cases stand in a file each, and both name the
/// other. A split would have one noun on two pages.
const ONE_TYPE_IN_MANY_FILES: [&str; 1] = ["authority"];

#[test]
fn no_arrows_among_the_files_of_a_room_go_round() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for source in ["src", "crates/countersign-mesh/src", "crates/countersign-build/src"] {
        let source = root.join(source);
        let mut paths = Vec::new();
        rust_files(&source, &mut paths);
        let texts: Vec<_> = paths
            .iter()
            .map(|path| {
                let text = fs::read_to_string(path).expect("a source file");
                (path.strip_prefix(&source).expect("it is under it").to_owned(), text)
            })
            .collect();
        let files: Vec<_> = texts
            .iter()
            .map(|(path, text)| (path.to_str().expect("ASCII names"), text.as_str()))
            .collect();
        let mut circles = Arrows::of(&files).circles();
        circles.retain(|(from, to)| {
            !ONE_TYPE_IN_MANY_FILES
                .iter()
                .any(|room| from.starts_with(room) && to.starts_with(room))
        });
        assert!(circles.is_empty(), "these go round: {circles:#?}");
    }
}

/// Every room with an arrow to another has none back, by any way round.
#[test]
fn no_arrows_go_round() {
    // Rooms leave once all that they use has left; whoever stays is in a circle.
    let mut left: Vec<&str> = Vec::new();
    while let Some((room, _)) = ROOMS
        .iter()
        .find(|(room, used)| !left.contains(room) && used.iter().all(|used| left.contains(used)))
    {
        left.push(room);
    }
    assert_eq!(left.len(), ROOMS.len(), "in a circle: all but {left:?}");
}

#[track_caller]
fn assert_found(path: &str, text: &str, line: usize, rule: &str) {
    let found = violations(path, text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].path.as_str(), found[0].line), (path, line));
    assert!(found[0].rule.contains(rule), "{}", found[0]);
}

#[test]
fn a_planted_arrow_is_found_where_it_stands() {
    assert_eq!(violations("src/trust.rs", "\nuse crate::token::verify;\n"), []);
    assert_found(
        "src/trust.rs",
        "\nuse crate::store::Store;\n",
        2,
        "`trust` must not use `store`; the rooms that it may use: token, keys, claims",
    );
    assert_eq!(violations("src/server/wiring.rs", "use crate::rpc;"), []);
    assert_found("src/authority.rs", "use crate::rpc;", 1, "`authority` must not use `rpc`");
    assert_eq!(violations("src/guard/layer.rs", "x: crate::trust::TrustBundle,"), []);
    assert_found("src/guard/layer.rs", "x: crate::client::Client,", 1, "`client`");
    assert_found("src/session/live.rs", "use crate::policy::Grant;", 1, "`policy`");
    assert_found("src/encoding.rs", "use crate::claims::Scope;", 1, "may use: none");
    assert_eq!(violations("src/store/kek.rs", "use countersign_mesh::claims::Kid;"), []);
    assert_found("src/store/kek.rs", "use countersign_mesh::guard::Guard;", 1, "`guard`");
    assert_found("src/keys/key_set.rs", "use super::super::token::verify;", 1, "`token`");
    assert_eq!(violations("src/keys/key_set.rs", "use super::key_file::KeyFile;"), []);
    assert_eq!(violations("src/trust.rs", "use crate::cow_map::CowMap;"), []);
    assert_found("src/cow_map.rs", "use crate::claims::Kid;", 1, "`claims`");
    assert_found("src/keys/mod.rs", "use crate::{claims, token};", 1, "no braces");
    assert_found("src/attic.rs", "use crate::claims::Kid;", 1, "no place");
    assert_eq!(violations("src/main.rs", "countersign::cli::run(args)"), []);
    assert_found("src/main.rs", "countersign::server::serve()", 1, "`server`");
    assert_eq!(violations("src/keys/mod.rs", "// as crate::store does, see https://x"), []);
}

#[test]
fn the_other_rules_are_enforced_too() {
    assert_eq!(violations("src/lib.rs", "#[cfg(feature = \"mesh\")]\npub mod guard;"), []);
    assert_eq!(violations("src/guard/mod.rs", "#[cfg(test)]\nmod tests {}"), []);
    assert_found("src/guard/mod.rs", "#[cfg(unix)]\nmod unix;", 1, "`cfg`");
    assert_found("src/guard/mod.rs", "if cfg!(unix) {}", 1, "`cfg`");
    assert_found("src/keys/mod.rs", "    fn get_key() {}", 1, "`get_`");
    assert_eq!(violations("src/keys/mod.rs", "map.get(key)"), []);
    assert_eq!(violations("src/server/grpc/clients.rs", "async fn get_client() {}"), []);
    assert_eq!(violations("src/authority/snapshot.rs", "self.minter.mint(&claims)"), []);
    assert_found("src/server/grpc/tokens.rs", "minter.mint(&claims)", 1, "only the authority");
    assert_eq!(violations("src/token/mint.rs", "#[cfg(test)]\nmod tests { x.mint(y) }"), []);

    let long = "\n".repeat(MAX_LINES - 1);
    assert_eq!(violations("src/trust.rs", &long), []);
    assert_eq!(violations("src/trust.rs", &format!("{long}#[cfg(test)]\nmod tests {{\n}}")), []);
    assert_found("src/trust.rs", &format!("{long}\n"), MAX_LINES, "450 lines");
}
