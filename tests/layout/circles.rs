//! Arrows between the files of a crate: who names what of which file, and which files go round.

use std::collections::{BTreeMap, BTreeSet};

/// The path of a module from its crate's root on: `session::reach::tls`, and "" of the root itself.
type Module = String;

/// The arrows between files, from the one that uses to the one that defines. A name that a module only passes on
/// with `pub use` counts as its definer's, so that a room's front door makes no arrow.
#[derive(Debug, Default)]
pub struct Arrows {
    used: BTreeMap<Module, BTreeSet<Module>>,
}

impl Arrows {
    /// Reads the files of one crate: the path of each from `src/` on, and its text.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let files: Vec<_> = files.iter().map(|(path, text)| (module(path), story(text))).collect();
        let mut doors = Doors::default();
        for (module, text) in &files {
            doors.passed_on.insert(module.clone(), BTreeMap::new());
            for names in passed_on(text).flat_map(|path| absolute(&path, module)) {
                if let Some((name, _)) = names.split_last() {
                    let door = doors.passed_on.entry(module.clone()).or_default();
                    door.insert(name.clone(), names.clone());
                }
            }
        }
        let mut arrows = Self::default();
        for (module, text) in &files {
            let used = paths(text).flat_map(|path| absolute(&path, module));
            let used = used.filter_map(|names| doors.definer(&names)).filter(|used| used != module);
            arrows.used.entry(module.clone()).or_default().extend(used);
        }
        arrows
    }

    /// The arrows that are part of a circle: those whose end leads back to their start.
    pub fn circles(&self) -> Vec<(Module, Module)> {
        let arrows =
            self.used.iter().flat_map(|(from, used)| used.iter().map(move |to| (from, to)));
        arrows
            .filter(|(from, to)| self.leads(to, from))
            .map(|(from, to)| (from.clone(), to.clone()))
            .collect()
    }

    fn leads(&self, from: &str, to: &str) -> bool {
        let (mut seen, mut ahead) = (BTreeSet::new(), vec![from]);
        while let Some(module) = ahead.pop() {
            if module == to {
                return true;
            }
            if seen.insert(module) {
                ahead.extend(self.used.get(module).into_iter().flatten().map(String::as_str));
            }
        }
        false
    }
}

/// What each module passes on, by the names that it gives it.
#[derive(Debug, Default)]
struct Doors {
    passed_on: BTreeMap<Module, BTreeMap<String, Vec<String>>>,
}

impl Doors {
    /// The module that defines what a path from the crate's root names.
    fn definer(&self, names: &[String]) -> Option<Module> {
        let modules = (0..=names.len()).rev().map(|end| (names[..end].join("::"), end));
        let (module, end) =
            modules.into_iter().find(|(module, _)| self.passed_on.contains_key(module))?;
        let passed_on = names.get(end).and_then(|name| self.passed_on[&module].get(name));
        match passed_on {
            Some(further) if further != names => self.definer(further),
            _ => Some(module),
        }
    }
}

/// `session/reach/mod.rs` and `session/reach.rs` are `session::reach`.
fn module(path: &str) -> Module {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { String::new() } else { path.replace('/', "::") }
}

/// A file without its comments and its tests.
fn story(text: &str) -> String {
    let lines = text.lines().map(crate::without_comment);
    lines.take_while(|line| line.trim() != "#[cfg(test)]").collect::<Vec<_>>().join("\n")
}

const PASSED_ON: [&str; 3] = ["pub use ", "pub(crate) use ", "pub(super) use "];
const ROOTS: [&str; 3] = ["crate::", "self::", "super::"];

/// The paths of each `pub use`.
fn passed_on(text: &str) -> impl Iterator<Item = Vec<String>> {
    let starts = PASSED_ON
        .iter()
        .flat_map(|start| text.match_indices(start).map(|(at, _)| at + start.len()));
    starts.flat_map(|at| branches(&text[at..]).0)
}

/// Every other path that starts with `crate`, `self` or `super`.
fn paths(text: &str) -> impl Iterator<Item = Vec<String>> {
    let starts = ROOTS.iter().flat_map(|root| text.match_indices(root).map(|(at, _)| at));
    let begins = |at: &usize| {
        let before = &text[..*at];
        !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
            && !PASSED_ON.iter().any(|start| before.ends_with(start))
    };
    starts.filter(begins).flat_map(|at| branches(&text[at..]).0)
}

/// All paths of a tree as `a::{b, c::D}`, and how much of the text it takes.
fn branches(text: &str) -> (Vec<Vec<String>>, usize) {
    let blank = |at: usize| at + text[at..].len() - text[at..].trim_start().len();
    let start = blank(0);
    if text[start..].starts_with('{') {
        let (mut all, mut at) = (Vec::new(), start + 1);
        while let Some(next) = text[at..].chars().next() {
            match next {
                '}' => return (all, at + 1),
                ',' | ' ' | '\n' => at += 1,
                _ => {
                    let (some, taken) = branches(&text[at..]);
                    all.extend(some);
                    at += taken.max(1);
                }
            }
        }
        return (all, at);
    }
    let end = text[start..].find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*');
    let end = end.map_or(text.len(), |end| start + end);
    let name = text[start..end].to_owned();
    let Some(rest) = text[end..].strip_prefix("::") else { return (vec![vec![name]], end) };
    let (further, taken) = branches(rest);
    let further = further.into_iter().map(|path| [vec![name.clone()], path].concat());
    (further.collect(), end + "::".len() + taken)
}

/// A path from the crate's root on; none if it does not start in this crate.
fn absolute(path: &[String], module: &str) -> Option<Vec<String>> {
    let mut here: Vec<String> = match module {
        "" => Vec::new(),
        module => module.split("::").map(str::to_owned).collect(),
    };
    let mut rest = path;
    match rest.first()?.as_str() {
        "crate" => here.clear(),
        "self" => {}
        "super" => {
            here.pop();
        }
        _ => return None,
    }
    rest = &rest[1..];
    while rest.first().is_some_and(|name| name == "super") {
        here.pop();
        rest = &rest[1..];
    }
    here.extend(rest.iter().cloned());
    Some(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let arrows = Arrows::of(files).circles();
        arrows.into_iter().map(|(from, to)| format!("{from} -> {to}")).collect()
    }

    #[test]
    fn a_planted_circle_is_found_with_its_arrows() {
        let files = [
            ("lib.rs", "pub mod session;"),
            ("session/mod.rs", "mod live;\nmod trust;\nmod tokens;\npub use self::live::Live;"),
            ("session/live.rs", "use crate::session::{tokens::Source, trust};\npub struct Live;"),
            ("session/trust.rs", "use crate::session::tokens::Source;"),
            ("session/tokens.rs", "pub struct Source(Option<Box<super::Live>>);"),
        ];
        assert_eq!(
            circles(&files),
            [
                "session::live -> session::tokens",
                "session::live -> session::trust",
                "session::tokens -> session::live",
                "session::trust -> session::tokens"
            ]
        );
    }

    #[test]
    fn what_only_leads_into_a_circle_or_out_of_it_is_not_in_it() {
        let files = [
            ("cli/mod.rs", "use crate::cli::one;"),
            ("cli/one.rs", "use crate::cli::two::Two;"),
            ("cli/two.rs", "use crate::cli::one::One;\nuse crate::cli::three;"),
            ("cli/three.rs", ""),
        ];
        assert_eq!(circles(&files), ["cli::one -> cli::two", "cli::two -> cli::one"]);
    }

    #[test]
    fn a_front_door_comments_and_tests_make_no_arrows() {
        let files = [
            (
                "guard/mod.rs",
                "mod layer;\nmod table;\npub use self::layer::{Guard, Layer};\npub use self::table::Table;",
            ),
            ("guard/layer.rs", "use crate::guard::table::Table;\npub struct Guard;"),
            (
                "guard/table.rs",
                "// As crate::guard::Guard has it.\npub struct Table;\n#[cfg(test)]\nmod tests { use crate::guard::Guard; }",
            ),
        ];
        assert_eq!(circles(&files), [] as [&str; 0]);
        let back = [files[0], files[1], ("guard/table.rs", "use crate::guard::Guard;")];
        assert_eq!(circles(&back).len(), 2, "through the door it is an arrow to the definer");
    }
}
