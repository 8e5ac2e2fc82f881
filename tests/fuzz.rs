//! Fuzzing with any toolchain: each target of `fuzz/targets` is given its seeds, its corpus in `fuzz/corpus`, and each of
//! them changed in many ways. The changes are the same in every run. `FUZZ_RUNS` is how many there are for each target, and
//! `FUZZ_SEEDS` a directory to write the seeds to. `just fuzz` drives the same targets by coverage.

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use targets::{TARGETS, Target};

/// How many inputs each target is given when nobody says.
const RUNS: usize = 20_000;

/// The most changes to one input.
const MOST_CHANGES: u64 = 6;

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers each time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).expect("it is below a usize")
    }
}

/// Words that formats give a meaning to.
const WORDS: [&[u8]; 24] = [
    b"\0",
    b"\"",
    b"{",
    b"}",
    b"[",
    b",",
    b":",
    b".",
    b"=",
    b"&",
    b"%00",
    b"%",
    b"+",
    b" ",
    b"\r\n",
    b"-1",
    b"1e9",
    b"18446744073709551616",
    b"null",
    b"\"crit\":[],",
    b"\"zip\":\"DEF\",",
    b"\xff",
    b"\xf0\x9f\xa6\x80",
    b"\\u0061",
];

/// An input, changed in one to six ways.
fn changed(dice: &mut Dice, inputs: &[Vec<u8>], seeds: usize) -> Vec<u8> {
    // Every other one begins with a seed: what is kept was mostly refused.
    let from = if dice.next().is_multiple_of(2) { &inputs[..seeds] } else { inputs };
    let mut bytes = from[dice.below(from.len())].clone();
    for _ in 0..=dice.next() % MOST_CHANGES {
        let at = dice.below(bytes.len() + 1);
        match dice.next() % 8 {
            0 if at < bytes.len() => bytes[at] ^= 1 << (dice.next() % 8),
            1 if at < bytes.len() => bytes[at] = dice.next().to_le_bytes()[0],
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => bytes.insert(at, dice.next().to_le_bytes()[0]),
            4 => {
                let word = WORDS[dice.below(WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            5 => {
                // A part of it, once more or somewhere else.
                let end = at + dice.below(bytes.len() - at + 1);
                let part: Vec<u8> = bytes[at..end].to_vec();
                let to = dice.below(bytes.len() + 1);
                bytes.splice(to..to, part);
            }
            6 => {
                let other = &inputs[dice.below(inputs.len())];
                let from = dice.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// What is kept for a target: an input a line, as `escape_ascii` writes it.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/corpus/{name}.txt"));
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(unescaped).collect()
}

fn unescaped(line: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), line.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().expect("an escape has a second character") {
                b't' => b'\t',
                b'r' => b'\r',
                b'n' => b'\n',
                b'x' => {
                    let mut digit = || char::from(rest.next().expect("two digits")).to_digit(16);
                    let (high, low) =
                        (digit().expect("hexadecimal"), digit().expect("hexadecimal"));
                    u8::try_from(high * 16 + low).expect("two digits")
                }
                plain => plain,
            },
            plain => plain,
        });
    }
    bytes
}

fn drive(target: &Target) {
    let runs = std::env::var("FUZZ_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS);
    let mut inputs = (target.seeds)();
    let seeds = inputs.len();
    inputs.extend(corpus(target.name));
    let kept = inputs.len() - seeds;
    let mut dice = Dice(target.name.bytes().map(u64::from).sum());
    let mut something = 0;
    let unchanged = inputs.clone();
    let all = unchanged.into_iter().chain((0..runs).map(|_| changed(&mut dice, &inputs, seeds)));
    for bytes in all {
        match catch_unwind(AssertUnwindSafe(|| (target.check)(&bytes))) {
            Ok(is_something) => something += usize::from(is_something),
            Err(_) => panic!("{}: keep this in its corpus: {}", target.name, bytes.escape_ascii()),
        }
    }
    // Else the seeds are no good, and nothing behind the first check was seen.
    assert!(something > 0, "{}: all was refused", target.name);
    say(&format!(
        "{}: {runs} changes of {seeds} seeds and {kept} kept inputs, {something} taken\n",
        target.name
    ));
}

/// Writes seeds and corpus to files, for a driver that wants them so.
fn write_seeds(target: &Target, below: &Path) {
    let directory = below.join(target.name);
    fs::create_dir_all(&directory).expect("it can be made");
    let inputs = (target.seeds)().into_iter().chain(corpus(target.name));
    for (number, input) in inputs.enumerate() {
        fs::write(directory.join(number.to_string()), input).expect("there is room");
    }
}

fn say(line: &str) {
    use std::io::Write;
    std::io::stderr().write_all(line.as_bytes()).expect("stderr is there");
}

#[test]
fn a_kept_input_is_read_as_it_was_written() {
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!(unescaped(&all.escape_ascii().to_string()), all);
}

#[test]
fn no_input_breaks_a_promise() {
    for target in &TARGETS {
        if let Some(below) = std::env::var_os("FUZZ_SEEDS") {
            write_seeds(target, Path::new(&below));
        }
        drive(target);
    }
}
