//! Asking before something is lost: only a person is asked, at a terminal.

use std::io::{BufRead, IsTerminal, Write};
use std::{fmt, io};

use crate::cli::error::Error;
use crate::cli::escape::escape;

/// Whether a person has to be asked before something is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirm {
    /// It was said on the command line (`--yes`), or there is nobody to ask: a script does what it is told.
    Given,
    /// Someone sits at a terminal.
    Ask,
}

impl Confirm {
    /// Asks if `--yes` was not given and both question and answer go over a terminal.
    pub fn unless(yes: bool) -> Self {
        let a_person = io::stdin().is_terminal() && io::stderr().is_terminal();
        if yes || !a_person { Self::Given } else { Self::Ask }
    }

    /// Goes on when that is confirmed. `losing` says what will be lost.
    ///
    /// # Errors
    /// When the person says no, or nothing.
    pub fn ask(self, losing: &dyn fmt::Display) -> Result<(), Error> {
        match self {
            Self::Given => Ok(()),
            Self::Ask => question(losing, &mut io::stdin().lock(), &mut io::stderr()),
        }
    }
}

fn question(
    losing: &dyn fmt::Display,
    answers: &mut dyn BufRead,
    terminal: &mut dyn Write,
) -> Result<(), Error> {
    write!(terminal, "{}. Go on? [y/N] ", escape(&losing.to_string()))?;
    terminal.flush()?;
    let mut answer = String::new();
    answers.read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Error::failed("nothing was changed", "answer y to go on, or give --yes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_goes_on_and_the_question_names_what_is_lost() {
        let ask = |answer: &str| {
            let mut terminal = Vec::new();
            let went_on =
                question(&"client a\nb is deleted", &mut answer.as_bytes(), &mut terminal);
            let asked = String::from_utf8(terminal).expect("text");
            assert_eq!(asked, "client a\\nb is deleted. Go on? [y/N] ");
            went_on.is_ok()
        };
        assert!(ask("y\n") && ask("YES\n"));
        assert!(!ask("\n") && !ask("") && !ask("n\n") && !ask("yesterday\n"));
        Confirm::Given.ask(&"anything").expect("it was said before");
    }
}
