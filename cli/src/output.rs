//! Results on stdout, as text or as one JSON document; everything else on stderr.

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::json;

/// Where and in which form a verb prints.
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// JSON where `json` is set, otherwise text for people.
    pub(crate) fn new(json: bool) -> Output {
        Output { json }
    }

    /// Whether results are printed as JSON: then stdout holds exactly one document.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a verb's whole result, in one of its two forms.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub(crate) fn result(&self, text: &dyn Display, json: &impl Serialize) -> Result<()> {
        let mut stdout = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut stdout, json)?;
            writeln!(stdout)?;
        } else {
            write!(stdout, "{text}")?;
        }
        Ok(stdout.flush()?)
    }

    /// Says something on the way to a result.
    pub(crate) fn note(&self, text: &dyn Display) {
        // Nobody may be reading stderr; that is no reason to stop.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Says what went wrong, on stderr, and with `--json` also as the one document on stdout.
    pub(crate) fn error(&self, error: &dyn Display) {
        self.note(&format_args!("dram: {error}"));
        if self.json {
            let _ = self.result(&"", &json!({ "error": error.to_string() }));
        }
    }

    /// A bar on stderr that counts to `length`; invisible where stderr is no terminal.
    pub(crate) fn bar(&self, length: u64, template: &str) -> ProgressBar {
        let style = ProgressStyle::with_template(template).expect("templates are constants");
        ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr()).with_style(style)
    }
}

/// Whether `error` says that the reader of our stdout has closed it, as `head` does.
pub(crate) fn reader_left(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let json =
            cause.downcast_ref::<serde_json::Error>().and_then(|error| error.io_error_kind());
        io.or(json) == Some(io::ErrorKind::BrokenPipe)
    })
}

/// Lays out `rows` in columns: the first to the left, the others to the right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &wide))| {
            let gap = " ".repeat(wide - width(cell));
            if column == 0 { format!("{cell}{gap}") } else { format!("{gap}{cell}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// Columns on a terminal; our own words are narrow.
fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_line_up_to_the_right_of_their_names() {
        let rows =
            [vec!["weights".to_owned(), "4 MiB".into()], vec!["peak".into(), "12 MiB".into()]];
        assert_eq!(table(&rows), "weights   4 MiB\npeak     12 MiB\n");
    }

    #[test]
    fn a_closed_pipe_is_told_from_other_errors() {
        let error = |kind| anyhow::Error::from(io::Error::from(kind));
        assert!(reader_left(&error(io::ErrorKind::BrokenPipe)));
        assert!(!reader_left(&error(io::ErrorKind::NotFound)));
    }
}
