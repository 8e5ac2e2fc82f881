//! The README and the book in `docs/`: every link leads somewhere, and shown code is code that is tested.
//! `tests/process/pasted.rs` runs their commands.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Code in the README and the book stands in one of these.
const SHOWN_FROM: [&str; 2] = ["examples", "tests/fixtures/shop"];

/// README is one page.
const README_WORDS: usize = 900;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files below a directory with one of these endings, by their paths from the root.
fn files(below: &str, endings: &[&str]) -> Vec<String> {
    let (mut found, mut ahead) = (Vec::new(), vec![root().join(below)]);
    while let Some(directory) = ahead.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("node_modules") && !path.ends_with("target") {
                ahead.push(path);
            } else if endings.iter().any(|ending| path.extension().is_some_and(|it| it == *ending))
            {
                let path = path.strip_prefix(root()).expect("it is below");
                found.push(path.to_str().expect("ASCII names").to_owned());
            }
        }
    }
    found.sort();
    found
}

fn pages() -> Vec<String> {
    let mut pages = files("docs", &["md"]);
    pages.extend(["README.md", "CHANGELOG.md", "SECURITY.md"].map(str::to_owned));
    pages
}

/// The lines of a page, those in code blocks with the language of the block.
fn lines(page: &str) -> Vec<(Option<String>, String)> {
    let (mut all, mut language) = (Vec::new(), None);
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(fence) => language = language.is_none().then(|| fence.to_owned()),
            None => all.push((language.clone(), line.to_owned())),
        }
    }
    all
}

/// The code blocks of a page in one of these languages.
fn blocks(page: &str, languages: &[&str]) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(fence) => {
                inside = !inside && languages.contains(&fence);
                if inside {
                    blocks.push(String::new());
                }
            }
            None if inside => {
                let block = blocks.last_mut().expect("a fence began one");
                block.push_str(line);
                block.push('\n');
            }
            None => {}
        }
    }
    blocks
}

/// Where the links of a page lead, as they are written.
fn links(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (language, line) in lines(page) {
        if language.is_some() {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let end = rest.find(')').unwrap_or_else(|| panic!("a link without an end: {line}"));
            found.push(rest[..end].to_owned());
        }
    }
    found
}

/// The anchors of a page's headings, as mdBook and GitHub make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = lines(page).into_iter().filter(|(language, _)| language.is_none());
    let headings = headings.filter_map(|(_, line)| {
        line.starts_with('#').then(|| line.trim_start_matches('#').trim().to_lowercase())
    });
    headings
        .map(|heading| {
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

/// A path without its `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => assert!(plain.pop(), "{}", path.display()),
            std::path::Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// What is wrong with a link of a page; nothing of one to another site.
fn dead(page: &str, link: &str) -> Option<String> {
    if link.starts_with("https://") {
        return None;
    }
    let (file, anchor) = link.split_once('#').map_or((link, None), |(file, at)| (file, Some(at)));
    let target = match file {
        "" => PathBuf::from(page),
        file => plain(&Path::new(page).parent().unwrap_or(Path::new("")).join(file)),
    };
    if page.starts_with("docs/") && !target.starts_with("docs") {
        return Some(format!("{page}: {link} leads out of the book"));
    }
    if !root().join(&target).exists() {
        return Some(format!("{page}: {link} is not there"));
    }
    let anchor = anchor?;
    let known = anchors(&read(target.to_str().expect("ASCII names")));
    (!known.contains(anchor))
        .then(|| format!("{page}: {link} has no such heading; there are {known:?}"))
}

#[test]
fn every_link_leads_somewhere() {
    let dead: Vec<_> = pages()
        .iter()
        .flat_map(|page| {
            let links = links(&read(page));
            links.iter().filter_map(|link| dead(page, link)).collect::<Vec<_>>()
        })
        .collect();
    assert!(dead.is_empty(), "{}", dead.join("\n"));
    assert!(dead_is_found(), "a planted dead link is found");
}

fn dead_is_found() -> bool {
    let planted = ["docs/nowhere.md", "docs/keys.md#nowhere"];
    planted.iter().all(|link| dead("README.md", link).is_some())
        && dead("docs/keys.md", "../README.md").is_some()
        && dead("README.md", "docs/keys.md#rotate").is_none()
}

#[test]
fn every_page_of_the_book_is_in_its_summary() {
    let summary: BTreeSet<_> =
        links(&read("docs/SUMMARY.md")).into_iter().map(|link| format!("docs/{link}")).collect();
    let pages: BTreeSet<_> =
        files("docs", &["md"]).into_iter().filter(|page| !page.ends_with("SUMMARY.md")).collect();
    assert_eq!(summary, pages);
}

#[test]
fn shown_code_stands_in_a_program_that_is_tested() {
    let trimmed = |text: &str| {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join("\n")
    };
    let sources: Vec<String> = SHOWN_FROM
        .iter()
        .flat_map(|below| files(below, &["rs", "proto", "toml"]))
        .map(|source| format!("\n{}\n", trimmed(&read(&source))))
        .collect();
    let mut shown = 0;
    // The page of settings is made from their table.
    for page in pages().iter().filter(|page| *page != "docs/configuration.md") {
        for block in blocks(&read(page), &["rust", "proto", "toml"]) {
            let code = format!("\n{}\n", trimmed(&block));
            assert!(
                sources.iter().any(|it| it.contains(&code)),
                "{page} shows untested code:{code}"
            );
            shown += 1;
        }
    }
    assert!(shown >= 8, "{shown} blocks are not all");
}

#[test]
fn the_readme_is_one_page() {
    let words = read("README.md").split_whitespace().count();
    assert!(words <= README_WORDS, "{words} words");
}
