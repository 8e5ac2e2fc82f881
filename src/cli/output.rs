//! What commands print: aligned text for people, JSON for scripts.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::time::Instant;

use crate::cli::error::Error;
use crate::cli::escape::escape;
use crate::cli::format::Format;
use crate::cli::sheet::Sheet;

/// An answer, in both of its shapes: `Serialize` is the JSON.
pub trait View: Serialize {
    /// The text for people: complete lines, for a sheet.
    fn human(&self, sheet: Sheet) -> String;
}

/// Where a command's answer and its remarks go.
pub struct Output<'a> {
    format: Format,
    sheet: Sheet,
    stdout: &'a mut dyn Write,
    stderr: &'a mut dyn Write,
}

impl<'a> Output<'a> {
    /// Answers go to `stdout` in `format`, remarks to `stderr`.
    pub fn new(
        format: Format,
        sheet: Sheet,
        stdout: &'a mut dyn Write,
        stderr: &'a mut dyn Write,
    ) -> Self {
        Self { format, sheet, stdout, stderr }
    }

    /// The format asked for.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Prints an answer.
    pub fn show(&mut self, view: &impl View) -> Result<(), Error> {
        match self.format {
            Format::Human => self.text(&view.human(self.sheet)),
            Format::Json => {
                let line = serde_json::to_string(view).map_err(io::Error::from)?;
                self.text(&format!("{line}\n"))
            }
        }
    }

    /// Writes complete lines to stdout as they are.
    pub fn text(&mut self, lines: &str) -> Result<(), Error> {
        self.stdout.write_all(lines.as_bytes())?;
        self.stdout.flush()?;
        Ok(())
    }

    /// Waits, and on a terminal counts the seconds down beside the reason. In a pipe the reason is one line.
    pub async fn wait(&mut self, why: &str, pause: Duration) -> Result<(), Error> {
        if !io::stderr().is_terminal() {
            self.remark(&format!("{why}; trying again in {}", span(pause.as_secs())))?;
            tokio::time::sleep(pause).await;
            return Ok(());
        }
        let until = Instant::now() + pause;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            // From the start of the line, and the rest of it cleared (EL, ECMA-48 §8.3.41).
            let left = span(left.as_secs() + 1);
            write!(self.stderr, "\r{}; trying again in {left}\u{1b}[K", escape(why))?;
            self.stderr.flush()?;
            tokio::time::sleep(Duration::from_secs(1).min(pause)).await;
        }
        writeln!(self.stderr)?;
        Ok(())
    }

    /// Writes a remark for people to stderr: one line, whatever it quotes.
    pub fn remark(&mut self, line: &str) -> Result<(), Error> {
        writeln!(self.stderr, "{}", escape(line))?;
        Ok(())
    }
}

/// Named values, one a line, the values aligned.
pub fn fields<const N: usize>(fields: [(&str, String); N]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 1;
    fields
        .iter()
        .map(|(name, value)| {
            let line = format!("{:width$}  {}", format!("{name}:"), escape(value));
            format!("{}\n", line.trim_end())
        })
        .collect()
}

/// A time as RFC 3339 in UTC, to the second (`2026-02-13T23:31:30Z`).
pub fn time(timestamp: &prost_types::Timestamp) -> String {
    // humantime panics on times before 1970 and from year 10000 on, and a server may send any time.
    match u64::try_from(timestamp.seconds) {
        Ok(seconds) if seconds < YEAR_10000 => {
            humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
                .to_string()
        }
        _ => format!("{} s from 1970", timestamp.seconds),
    }
}

/// The whole seconds of a span; `None` when it is absent or negative.
pub fn seconds(duration: Option<&prost_types::Duration>) -> Option<u64> {
    duration.and_then(|duration| u64::try_from(duration.seconds).ok())
}

/// A span for people, to the second: `6m 12s`.
pub fn span(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// 10000-01-01T00:00:00Z, the first second that RFC 3339 cannot write.
const YEAR_10000: u64 = 253_402_300_800;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn fields_align_their_values() {
        assert_eq!(
            fields([("id", "a".to_owned()), ("created", "b".to_owned()), ("note", String::new())]),
            "id:       a\ncreated:  b\nnote:\n"
        );
    }

    #[test]
    fn times_are_rfc_3339_and_impossible_ones_do_not_panic() {
        assert_eq!(time(&at(1_234_567_890)), "2009-02-13T23:31:30Z");
        assert_eq!(time(&at(253_402_300_799)), "9999-12-31T23:59:59Z");
        assert_eq!(time(&at(253_402_300_800)), "253402300800 s from 1970");
        assert_eq!(time(&at(-1)), "-1 s from 1970");
    }

    #[test]
    fn json_is_one_line_on_stdout() {
        #[derive(Serialize)]
        struct Answer {
            client_id: &'static str,
        }
        impl View for Answer {
            fn human(&self, _: Sheet) -> String {
                fields([("client", self.client_id.to_owned())])
            }
        }
        let written = |format| {
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            Output::new(format, Sheet::plain(), &mut stdout, &mut stderr)
                .show(&Answer { client_id: "a" })
                .expect("a Vec takes all");
            assert!(stderr.is_empty());
            String::from_utf8(stdout).expect("we write UTF-8")
        };
        assert_eq!(written(Format::Json), "{\"client_id\":\"a\"}\n");
        assert_eq!(written(Format::Human), "client:  a\n");
    }
}
