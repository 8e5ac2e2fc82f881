//! What goes wrong on the command line, as one line and an exit code.

use std::io;
use std::process::ExitCode;

use crate::cli::escape::escape;

/// Why a command did not do what it was asked: a variant for each exit code.
///
/// Each but `Closed` says what is wrong and what to do next.
#[derive(Debug)]
pub enum Error {
    /// The command line is wrong, by itself or together with the configuration: exit code 2.
    Usage(Advice),
    /// Something failed on this side, or inside the server: exit code 1.
    Failed(Advice),
    /// The server understood and said no: exit code 3.
    Refused(Advice),
    /// The server did not answer, or not in time: exit code 4.
    Unreachable(Advice),
    /// Whoever read the answer has stopped reading, as `head` does. Not a failure.
    Closed,
}

/// What is wrong, and what to do next.
#[derive(Debug)]
pub struct Advice {
    /// What is wrong: no capital, no full stop, never a secret.
    pub problem: String,
    /// What to do next, in the imperative.
    pub next: String,
}

impl Error {
    /// See [`Error::Usage`].
    pub fn usage(problem: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Usage(Advice { problem: problem.into(), next: next.into() })
    }

    /// See [`Error::Failed`].
    pub fn failed(problem: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Failed(Advice { problem: problem.into(), next: next.into() })
    }

    /// See [`Error::Refused`].
    pub fn refused(problem: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Refused(Advice { problem: problem.into(), next: next.into() })
    }

    /// See [`Error::Unreachable`].
    pub fn unreachable(problem: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Unreachable(Advice { problem: problem.into(), next: next.into() })
    }

    /// The same error for one step of a larger task. It also says what was done before that step, and
    /// how to go on from there.
    pub fn after(self, done: &str, next: impl Into<String>) -> Self {
        let rephrase = |advice: Advice| Advice {
            problem: format!("{done}: {}", advice.problem),
            next: format!("{}, then {}", advice.next, next.into()),
        };
        match self {
            Self::Usage(advice) => Self::Usage(rephrase(advice)),
            Self::Failed(advice) => Self::Failed(rephrase(advice)),
            Self::Refused(advice) => Self::Refused(rephrase(advice)),
            Self::Unreachable(advice) => Self::Unreachable(rephrase(advice)),
            Self::Closed => Self::Closed,
        }
    }

    /// The line for stderr, without its newline; `None` when there is nothing to say.
    pub fn line(&self) -> Option<String> {
        match self {
            Self::Usage(advice)
            | Self::Failed(advice)
            | Self::Refused(advice)
            | Self::Unreachable(advice) => {
                Some(escape(&format!("countersign: {}; {}", advice.problem, advice.next)))
            }
            Self::Closed => None,
        }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    fn code(&self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
            Self::Unreachable(_) => 4,
        }
    }
}

/// A failure to write the answer.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => {
                Self::failed(format!("cannot write the answer: {error}"), "check where stdout goes")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_its_own_exit_code() {
        let codes = [
            Error::Closed.code(),
            Error::failed("a", "b").code(),
            Error::usage("a", "b").code(),
            Error::refused("a", "b").code(),
            Error::unreachable("a", "b").code(),
        ];
        assert_eq!(codes, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn an_error_is_one_line_whatever_it_quotes() {
        let error = Error::failed("bad name \"a\nb\u{1b}[31m\u{2028}\"", "choose another");
        let line = error.line().expect("a failure says something");
        assert_eq!(line, r#"countersign: bad name "a\nb\u{1b}[31m\u{2028}"; choose another"#);
    }

    #[test]
    fn a_reader_that_left_is_no_failure_but_a_full_disk_is() {
        assert!(matches!(Error::from(io::Error::from(io::ErrorKind::BrokenPipe)), Error::Closed));
        assert!(matches!(
            Error::from(io::Error::from(io::ErrorKind::StorageFull)),
            Error::Failed(_)
        ));
    }

    #[test]
    fn a_later_step_says_what_was_done_before_it() {
        let error = Error::unreachable("no answer", "try again")
            .after("the client exists", "make a secret");
        let line = error.line().expect("this error has a line");
        assert_eq!(
            line,
            "countersign: the client exists: no answer; try again, then make a secret"
        );
        assert_eq!(error.code(), 4);
    }
}
