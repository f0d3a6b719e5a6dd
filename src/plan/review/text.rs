//! The review on a terminal.

use std::fmt::Write as _;

use super::model::{Item, Line, Mark, Review};
use crate::escape::{EscapedLines, escape};

impl Review {
    /// As terminal text. It holds all that the plan runs in the guest; of the plan's own contents, JSON is left out, which is
    /// long and which nothing runs. The other forms have it.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = EscapedLines::new(String::new());
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", self.title);
        for section in &self.sections {
            let _ = writeln!(out).and_then(|()| writeln!(out, "{}", section.title));
            section.items.iter().for_each(|item| write_item(&mut out, item));
        }
        out.into_inner()
    }
}

fn write_item(out: &mut EscapedLines<String>, item: &Item) {
    let mut line = |text: String| {
        let _ = writeln!(out, "  {text}");
    };
    match item {
        Item::Paragraph(text) => line(text.clone()),
        Item::Facts(facts) => facts.iter().for_each(|(name, value)| line(format!("{name}: {value}"))),
        Item::List(list) => list.iter().for_each(|text| line(format!("- {text}"))),
        Item::Table(titles, rows) => {
            let titles: Vec<String> = titles.iter().map(|title| (*title).to_owned()).collect();
            let rows: Vec<&Vec<String>> = std::iter::once(&titles).chain(rows).collect();
            let width = |column: usize| {
                rows.iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| escape(cell).chars().count())
                    .max()
                    .unwrap_or(0)
            };
            let widths: Vec<usize> = (0..titles.len()).map(width).collect();
            for row in &rows {
                let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{:<width$}", escape(cell)));
                line(cells.collect::<Vec<_>>().join("  ").trim_end().to_owned());
            }
        }
        Item::Difference(lines) => lines.iter().for_each(|one| line(difference_line(one))),
        Item::Content(path, text) if is_data(path) => {
            line(format!(
                "{path}: {} lines of JSON, not shown here (--review FILE.html shows them)",
                text.lines().count()
            ));
        }
        Item::Content(path, text) => {
            line(format!("{path}:"));
            text.lines().for_each(|text| line(format!("  | {text}")));
        }
    }
}

/// Whether a file holds JSON by its name, so that Windows does not run it.
fn is_data(path: &str) -> bool {
    path.to_ascii_lowercase().ends_with(".json")
}

fn difference_line(line: &Line) -> String {
    match line.mark {
        Mark::Heading => format!("{}:", line.text),
        Mark::Same => format!("    {}", line.text),
        Mark::Removed => format!("  - {}", line.text),
        Mark::Added => format!("  + {}", line.text),
    }
}
