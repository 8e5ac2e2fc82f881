//! What goes wrong on the command line, as one line and an exit code.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::Value;

use crate::cli::escape::escape;
use crate::cli::format::Format;

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
    /// The server's reason, for scripts.
    reason: Option<String>,
    /// What else the server says of it, for scripts.
    details: BTreeMap<String, Value>,
}

impl Advice {
    fn new(problem: impl Into<String>, next: impl Into<String>) -> Self {
        Self { problem: problem.into(), next: next.into(), reason: None, details: BTreeMap::new() }
    }
}

/// An error as one line of JSON. Its keys are stable.
#[derive(Serialize)]
struct Machine<'a> {
    error: MachineError<'a>,
}

#[derive(Serialize)]
struct MachineError<'a> {
    /// The server's reason, or what kind of failure it is.
    reason: &'a str,
    message: &'a str,
    hint: &'a str,
    exit_code: u8,
    details: &'a BTreeMap<String, Value>,
}

impl Error {
    /// See [`Error::Usage`].
    pub fn usage(problem: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Usage(Advice::new(problem, next))
    }

    /// See [`Error::Failed`].
    pub fn failed(problem: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Failed(Advice::new(problem, next))
    }

    /// See [`Error::Refused`].
    pub fn refused(problem: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Refused(Advice::new(problem, next))
    }

    /// See [`Error::Unreachable`].
    pub fn unreachable(problem: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Unreachable(Advice::new(problem, next))
    }

    /// The same error, with the server's reason and what else it says.
    pub fn with_reason(mut self, reason: &str, details: BTreeMap<String, Value>) -> Self {
        if let Some(advice) = self.advice_mut() {
            advice.reason = Some(reason.to_owned());
            advice.details = details;
        }
        self
    }

    fn advice(&self) -> Option<&Advice> {
        match self {
            Self::Usage(advice)
            | Self::Failed(advice)
            | Self::Refused(advice)
            | Self::Unreachable(advice) => Some(advice),
            Self::Closed => None,
        }
    }

    fn advice_mut(&mut self) -> Option<&mut Advice> {
        match self {
            Self::Usage(advice)
            | Self::Failed(advice)
            | Self::Refused(advice)
            | Self::Unreachable(advice) => Some(advice),
            Self::Closed => None,
        }
    }

    /// The same error for one step of a larger task. It also says what was done before that step, and
    /// how to go on from there.
    pub fn after(mut self, done: &str, next: impl Into<String>) -> Self {
        if let Some(advice) = self.advice_mut() {
            advice.problem = format!("{done}: {}", advice.problem);
            advice.next = format!("{}, then {}", advice.next, next.into());
        }
        self
    }

    /// The line for stderr in a format, without its newline; `None` when there is nothing to say.
    pub fn told(&self, format: Format) -> Option<String> {
        match format {
            Format::Human => self.line(),
            Format::Json => self.json(),
        }
    }

    /// The line for people, without its newline; `None` when there is nothing to say.
    pub fn line(&self) -> Option<String> {
        let advice = self.advice()?;
        Some(escape(&format!("countersign: {}; {}", advice.problem, advice.next)))
    }

    fn json(&self) -> Option<String> {
        let advice = self.advice()?;
        let kind = match self {
            Self::Usage(_) => "USAGE",
            Self::Failed(_) => "FAILED",
            Self::Refused(_) => "REFUSED",
            Self::Unreachable(_) => "UNREACHABLE",
            Self::Closed => return None,
        };
        let error = MachineError {
            reason: advice.reason.as_deref().unwrap_or(kind),
            message: &advice.problem,
            hint: &advice.next,
            exit_code: self.code(),
            details: &advice.details,
        };
        serde_json::to_string(&Machine { error }).ok()
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
    fn for_scripts_an_error_is_one_line_of_json() {
        let details = BTreeMap::from([("code".to_owned(), Value::from("NOT_FOUND"))]);
        let error =
            Error::refused("no such \"client\"\n", "look").with_reason("CLIENT_NOT_FOUND", details);
        assert_eq!(
            error.told(Format::Json).expect("it says something"),
            r#"{"error":{"reason":"CLIENT_NOT_FOUND","message":"no such \"client\"\n","hint":"look","exit_code":3,"details":{"code":"NOT_FOUND"}}}"#
        );
        let plain = Error::failed("a", "b").told(Format::Json).expect("it says something");
        assert!(
            plain.contains(r#""reason":"FAILED""#) && plain.contains(r#""exit_code":1"#),
            "{plain}"
        );
        assert_eq!(Error::Closed.told(Format::Json), None);
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
