//! What commands print: aligned text for people, JSON for scripts.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::cli::error::Error;
use crate::cli::escape::escape;
use crate::cli::format::Format;

/// An answer, in both of its shapes: `Serialize` is the JSON.
pub trait View: Serialize {
    /// The text for people: complete lines.
    fn human(&self) -> String;
}

/// Where a command's answer and its remarks go.
pub struct Output<'a> {
    format: Format,
    stdout: &'a mut dyn Write,
    stderr: &'a mut dyn Write,
}

impl<'a> Output<'a> {
    /// Answers go to `stdout` in `format`, remarks to `stderr`.
    pub fn new(format: Format, stdout: &'a mut dyn Write, stderr: &'a mut dyn Write) -> Self {
        Self { format, stdout, stderr }
    }

    /// The format asked for.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Prints an answer.
    pub fn show(&mut self, view: &impl View) -> Result<(), Error> {
        match self.format {
            Format::Human => self.text(&view.human()),
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

    /// Writes a remark for people to stderr: one line, whatever it quotes.
    pub fn remark(&mut self, line: &str) -> Result<(), Error> {
        writeln!(self.stderr, "{}", escape(line))?;
        Ok(())
    }
}

/// A table with a heading: columns aligned, two spaces apart, no trailing blanks.
pub fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| escape(cell))).collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .chain([heading[column].len()])
            .max()
            .unwrap_or(0)
    });
    let mut text = aligned(&heading.map(str::to_owned), &widths);
    for row in &rows {
        text.push_str(&aligned(row, &widths));
    }
    text
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

fn aligned<const N: usize>(cells: &[String; N], widths: &[usize; N]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(&format!("{cell:width$}  "));
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn columns_align_and_lines_end_without_blanks() {
        let rows = [["a".to_owned(), "first".to_owned()], ["longer".to_owned(), String::new()]];
        assert_eq!(table(["ID", "NOTE"], &rows), "ID      NOTE\na       first\nlonger\n");
    }

    #[test]
    fn control_characters_in_a_table_cell_are_escaped() {
        let rows = [["a\u{1b}[2J\nb".to_owned()]];
        assert_eq!(table(["ID"], &rows), "ID\na\\u{1b}[2J\\nb\n");
        assert_eq!(escape("snö 雪"), "snö 雪");
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
            fn human(&self) -> String {
                fields([("client", self.client_id.to_owned())])
            }
        }
        let written = |format| {
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            Output::new(format, &mut stdout, &mut stderr)
                .show(&Answer { client_id: "a" })
                .expect("a Vec takes all");
            assert!(stderr.is_empty());
            String::from_utf8(stdout).expect("we write UTF-8")
        };
        assert_eq!(written(Format::Json), "{\"client_id\":\"a\"}\n");
        assert_eq!(written(Format::Human), "client:  a\n");
    }
}
