//! Examples in other languages, and OAuth clients that know nothing of us, against the real program.
//!
//! `just languages` installs what they need, under `target/`. Without it they say so and skip; where
//! `COUNTERSIGN_CI` is set they fail.

mod examples;
mod mesh;
mod oauth;
mod scripts;
#[allow(dead_code, reason = "the tests of the program itself use the rest")]
#[path = "../process/support.rs"]
mod support;
mod tools;
