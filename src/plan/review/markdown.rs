//! The review as Markdown (CommonMark with tables).

use super::model::{Item, Line, Mark, Review};
use crate::escape::{escape, markdown};

impl Review {
    /// As Markdown. Text of the document can add neither lines nor mark-up.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = format!("# {}\n", markdown(&self.title));
        for section in &self.sections {
            out.push_str(&format!("\n## {}\n", markdown(&section.title)));
            section.items.iter().for_each(|item| write_item(&mut out, item));
        }
        out
    }
}

fn write_item(out: &mut String, item: &Item) {
    out.push('\n');
    match item {
        Item::Paragraph(text) => out.push_str(&format!("{}\n", markdown(text))),
        Item::Facts(facts) => {
            facts.iter().for_each(|(name, value)| out.push_str(&format!("- {name}: {}\n", markdown(value))));
        }
        Item::List(list) => list.iter().for_each(|text| out.push_str(&format!("- {}\n", markdown(text)))),
        Item::Table(titles, rows) => {
            out.push_str(&format!("| {} |\n|{}\n", titles.join(" | "), "---|".repeat(titles.len())));
            for row in rows {
                let cells: Vec<String> = row.iter().map(|cell| markdown(cell)).collect();
                out.push_str(&format!("| {} |\n", cells.join(" | ")));
            }
        }
        Item::Difference(lines) => write_difference(out, lines),
        Item::Content(name, text) => {
            out.push_str(&format!("File {}\n\n", markdown(name)));
            fenced(out, "", text.lines());
        }
    }
}

/// Headings as text, the lines between them as blocks of code.
fn write_difference(out: &mut String, lines: &[Line]) {
    for part in lines.chunk_by(|_, next| next.mark != Mark::Heading) {
        let (heading, rest) = match part.split_first() {
            Some((first, rest)) if first.mark == Mark::Heading => (Some(first), rest),
            _ => (None, part),
        };
        if let Some(heading) = heading {
            out.push_str(&format!("### {}\n\n", markdown(&heading.text)));
        }
        let shown: Vec<String> = rest.iter().map(|line| format!("{} {}", sign(line.mark), line.text)).collect();
        fenced(out, "diff", shown.iter().map(String::as_str));
        out.push('\n');
    }
}

fn sign(mark: Mark) -> char {
    match mark {
        Mark::Removed => '-',
        Mark::Added => '+',
        Mark::Heading | Mark::Same => ' ',
    }
}

/// A block of code, whose fence is longer than any row of backticks in it.
fn fenced<'l>(out: &mut String, language: &str, lines: impl Iterator<Item = &'l str>) {
    let lines: Vec<_> = lines.map(escape).collect();
    let longest = lines.iter().flat_map(|line| line.split(|c| c != '`')).map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    out.push_str(&format!("{fence}{language}\n"));
    lines.iter().for_each(|line| out.push_str(&format!("{line}\n")));
    out.push_str(&format!("{fence}\n"));
}
