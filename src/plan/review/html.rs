//! The review as one HTML file that needs no other.

use super::model::{Item, Line, Mark, Review};
use super::page::page;
use crate::escape::{escape, html};

/// What the page of a review is to programs.
const MARK: &str = "winject review";

/// Longest word that is not broken in a table, in characters: a version, a short path.
const WORD_MAX: usize = 24;

impl Review {
    /// As an HTML file. Text of the document can add no mark-up.
    #[must_use]
    pub fn to_html(&self) -> String {
        let mut body = format!("<h1>{}</h1>\n", html(&self.title));
        for section in &self.sections {
            body.push_str(&format!("<h2>{}</h2>\n", html(&section.title)));
            section.items.iter().for_each(|item| write_html(&mut body, item));
        }
        page(MARK, &self.title, "", &body)
    }
}

/// Writes an item as HTML.
pub(crate) fn write_html(out: &mut String, item: &Item) {
    match item {
        Item::Paragraph(text) => out.push_str(&format!("<p>{}</p>\n", html(text))),
        Item::Facts(facts) => {
            let rows = facts.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]);
            write_table(out, &[], rows);
        }
        Item::List(list) => {
            let items: Vec<String> = list.iter().map(|text| format!("<li>{}</li>\n", html(text))).collect();
            out.push_str(&format!("<ul>\n{}</ul>\n", items.concat()));
        }
        Item::Table(titles, rows) => write_table(out, titles, rows.iter().cloned()),
        Item::Difference(lines) => write_difference(out, lines),
        Item::Content(name, text) => {
            let lines: Vec<String> = text.lines().map(|line| format!("{}\n", html(line))).collect();
            out.push_str(&format!(
                "<details><summary>{}</summary>\n<pre>{}</pre></details>\n",
                html(name),
                lines.concat()
            ));
        }
    }
}

/// Whether a text has a word that may be broken anywhere, so that its cell does not widen the page.
fn has_long_word(text: &str) -> bool {
    text.split(' ').any(|word| word.chars().count() > WORD_MAX)
}

/// A table of facts without titles, or one whose cells repeat their titles for narrow screens.
fn write_table(out: &mut String, titles: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    out.push_str(if titles.is_empty() { "<table class=\"facts\">\n" } else { "<table class=\"rows\">\n" });
    if !titles.is_empty() {
        let cells: Vec<String> = titles.iter().map(|title| format!("<th>{}</th>", html(title))).collect();
        out.push_str(&format!("<tr>{}</tr>\n", cells.concat()));
    }
    for row in rows {
        let titles = titles.iter().copied().map(Some).chain(std::iter::repeat(None));
        let cells = row.iter().zip(titles).map(|(cell, title)| {
            let class = if has_long_word(&escape(cell)) { " class=\"long\"" } else { "" };
            match title {
                Some(title) => format!("<td{class} data-title=\"{}\">{}</td>", html(title), html(cell)),
                None => format!("<td{class}>{}</td>", html(cell)),
            }
        });
        out.push_str(&format!("<tr>{}</tr>\n", cells.collect::<String>()));
    }
    out.push_str("</table>\n");
}

fn write_difference(out: &mut String, lines: &[Line]) {
    for part in lines.chunk_by(|_, next| next.mark != Mark::Heading) {
        let mut rows = String::new();
        for line in part {
            let text = html(&line.text);
            match line.mark {
                Mark::Heading => out.push_str(&format!("<h3>{text}</h3>\n")),
                Mark::Same => rows.push_str(&format!("<span>  {text}</span>")),
                Mark::Removed => rows.push_str(&format!("<del>- {text}</del>")),
                Mark::Added => rows.push_str(&format!("<ins>+ {text}</ins>")),
            }
        }
        if !rows.is_empty() {
            out.push_str(&format!("<pre>{rows}</pre>\n"));
        }
    }
}
