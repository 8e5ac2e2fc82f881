//! What fails a build.

use std::fmt;

/// What a build script returns.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// Why the protos cannot be compiled: every problem found, each with its place and the fix.
///
/// Cargo shows what `main` of a build script fails with by its `Debug`, which is therefore the text.
pub struct Error {
    problems: Vec<String>,
}

impl Error {
    /// These problems, one a line; at least one.
    pub(super) fn new(problems: Vec<String>) -> Self {
        Self { problems }
    }

    /// One problem.
    pub(super) fn one(problem: impl Into<String>) -> Self {
        Self::new(vec![problem.into()])
    }

    /// What is wrong, one problem each.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // On lines of their own, below the `Error:` that the standard library prints.
        write!(f, "\n{self}")
    }
}

impl std::error::Error for Error {}
