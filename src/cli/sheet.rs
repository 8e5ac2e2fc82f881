//! Tables for people, as wide as what they are written on.

use std::io::{self, IsTerminal};

use crate::cli::escape::escape;

/// What a table is written on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// The most columns of text; none for as many as it takes.
    width: Option<usize>,
    /// Whether tables have a heading.
    headers: bool,
    /// Whether states are coloured.
    colour: bool,
}

/// A column of a table: its name, and when it goes if the table is too wide. Those with the highest rank go first, and
/// those of rank 0 never.
pub type Column = (&'static str, u8);

/// The narrowest that a cell is cut to.
const NARROWEST: usize = 8;

impl Sheet {
    /// Standard output: the width of the terminal, or any width where there is none, as in a pipe.
    pub fn of_stdout(wide: bool, headers: bool) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let columns =
            rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        let width = columns.filter(|columns| terminal && !wide && *columns > 0);
        // https://no-color.org: any value but an empty one.
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { width, headers, colour: terminal && !no_colour }
    }

    /// A sheet of any width, with headings and without colours.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self { width: None, headers: true, colour: false }
    }

    /// A table: columns aligned, two spaces apart, no trailing blanks. On a narrow sheet columns are left out by their
    /// rank, and then long cells are cut. What is left out is told below.
    pub fn table<const N: usize>(self, columns: [Column; N], rows: &[[String; N]]) -> String {
        let rows: Vec<[String; N]> =
            rows.iter().map(|row| row.each_ref().map(|cell| escape(cell))).collect();
        let widest = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            let heading = if self.headers { columns[column].0.len() } else { 0 };
            cells.chain([heading]).max().unwrap_or(0)
        };
        let mut widths: [usize; N] = std::array::from_fn(widest);
        let kept = self.fit(&columns, &mut widths);
        let mut text = String::new();
        if self.headers {
            text.push_str(&self.line(
                &columns.map(|(name, _)| name.to_owned()),
                &widths,
                &kept,
                None,
            ));
        }
        let state = columns.iter().position(|(name, _)| *name == "STATE");
        for row in &rows {
            text.push_str(&self.line(row, &widths, &kept, state));
        }
        let left_out: Vec<_> = columns
            .iter()
            .zip(kept)
            .filter(|(_, kept)| !kept)
            .map(|((name, _), _)| *name)
            .collect();
        if !left_out.is_empty() {
            text.push_str(&format!("--wide shows more: {}\n", left_out.join(", ")));
        }
        text
    }

    /// Which columns stay, once all of them together are no wider than the sheet. Cuts the widest if need be.
    fn fit<const N: usize>(self, columns: &[Column; N], widths: &mut [usize; N]) -> [bool; N] {
        let mut kept = [true; N];
        let Some(most) = self.width else { return kept };
        loop {
            let count = kept.iter().filter(|kept| **kept).count();
            let cells: usize =
                widths.iter().zip(kept).filter(|(_, kept)| *kept).map(|(w, _)| w).sum();
            let total = cells + 2 * count.saturating_sub(1);
            if total <= most {
                return kept;
            }
            let ranked = (0..N).filter(|column| kept[*column] && columns[*column].1 > 0);
            if let Some(column) = ranked.max_by_key(|column| columns[*column].1) {
                kept[column] = false;
                continue;
            }
            let Some(column) =
                (0..N).filter(|column| kept[*column]).max_by_key(|column| widths[*column])
            else {
                return kept;
            };
            let narrower = widths[column].saturating_sub(total - most).max(NARROWEST);
            if narrower >= widths[column] {
                return kept;
            }
            widths[column] = narrower;
        }
    }

    fn line<const N: usize>(
        self,
        cells: &[String; N],
        widths: &[usize; N],
        kept: &[bool; N],
        state: Option<usize>,
    ) -> String {
        let mut line = String::new();
        for column in (0..N).filter(|column| kept[*column]) {
            let (cell, width) = (cut(&cells[column], widths[column]), widths[column]);
            let blanks = " ".repeat(width - cell.chars().count() + 2);
            match (self.colour && state == Some(column)).then(|| colour(&cell)).flatten() {
                Some(colour) => line.push_str(&format!("\u{1b}[{colour}m{cell}\u{1b}[0m{blanks}")),
                None => line.push_str(&format!("{cell}{blanks}")),
            }
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }
}

/// A cell of at most so many characters, the last an ellipsis if it was longer.
fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// The colour of a state that someone looks for (SGR, ECMA-48 §8.3.117).
fn colour(state: &str) -> Option<&'static str> {
    match state {
        "active" | "enabled" => Some("32"),
        "next" => Some("36"),
        "retired" => Some("2"),
        "revoked" | "disabled" => Some("31"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [("ID", 0), ("STATE", 0), ("NOTE", 1)];

    fn rows() -> Vec<[String; 3]> {
        [["a", "active", "first"], ["longer", "revoked", ""]]
            .map(|row| row.map(str::to_owned))
            .to_vec()
    }

    fn narrow(width: usize) -> Sheet {
        Sheet { width: Some(width), ..Sheet::plain() }
    }

    #[test]
    fn columns_align_and_lines_end_without_blanks() {
        assert_eq!(
            Sheet::plain().table(COLUMNS, &rows()),
            "ID      STATE    NOTE\na       active   first\nlonger  revoked\n"
        );
        let bare = Sheet { headers: false, ..Sheet::plain() };
        assert_eq!(bare.table(COLUMNS, &rows()), "a       active   first\nlonger  revoked\n");
    }

    #[test]
    fn a_table_is_no_wider_than_its_sheet() {
        assert_eq!(narrow(22).table(COLUMNS, &rows()), Sheet::plain().table(COLUMNS, &rows()));
        assert_eq!(
            narrow(21).table(COLUMNS, &rows()),
            "ID      STATE\na       active\nlonger  revoked\n--wide shows more: NOTE\n"
        );
        let long = [["x".repeat(40), "active".to_owned(), String::new()]];
        let text = narrow(20).table(COLUMNS, &long);
        assert!(text.lines().take(2).all(|line| line.chars().count() <= 20), "{text}");
        assert!(text.contains("xxxxxxxxxxx…  active"), "{text}");
        // Narrower than can be read is not tried.
        assert!(narrow(3).table(COLUMNS, &long).contains("xxxxxxx…  active"));
    }

    #[test]
    fn states_are_coloured_and_columns_still_align() {
        let coloured = Sheet { colour: true, ..Sheet::plain() }.table(COLUMNS, &rows());
        assert!(coloured.contains("a       \u{1b}[32mactive\u{1b}[0m   first"), "{coloured:?}");
        assert!(coloured.contains("\u{1b}[31mrevoked\u{1b}[0m"), "{coloured:?}");
    }

    #[test]
    fn a_cell_cannot_write_to_the_terminal() {
        let rows = [["a\u{1b}[2J\nb".to_owned()]];
        assert_eq!(Sheet::plain().table([("ID", 0)], &rows), "ID\na\\u{1b}[2J\\nb\n");
    }
}
