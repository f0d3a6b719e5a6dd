//! The review as one HTML file that needs no other.

use super::model::{Item, Line, Mark, Review};
use crate::escape::html;

/// Works in light and dark; nothing is loaded from elsewhere, which the policy in the head forbids as well.
const HEAD: &str = "\
<meta charset=\"utf-8\">
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">
<meta name=\"viewport\" content=\"width=device-width\">
<style>
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif }
body { max-width: 110ch; margin: 2em auto; padding: 0 1em }
pre, td { font-family: ui-monospace, monospace; font-size: 13px; overflow-wrap: anywhere; white-space: pre-wrap }
pre { border: 1px solid #8884; padding: .6em }
table { border-collapse: collapse } th, td { text-align: left; padding: .1em .8em .1em 0 }
ins, del { text-decoration: none; display: block } ins { background: #2a43 } del { background: #c334 }
span { display: block }
</style>
";

impl Review {
    /// As an HTML file. Text of the document can add no mark-up.
    #[must_use]
    pub fn to_html(&self) -> String {
        let title = html(&self.title);
        let mut out =
            format!("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<title>{title}</title>\n{HEAD}</head>\n<body>\n");
        out.push_str(&format!("<h1>{title}</h1>\n"));
        for section in &self.sections {
            out.push_str(&format!("<h2>{}</h2>\n", html(&section.title)));
            section.items.iter().for_each(|item| write_item(&mut out, item));
        }
        out.push_str("</body>\n</html>\n");
        out
    }
}

fn write_item(out: &mut String, item: &Item) {
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

fn write_table(out: &mut String, titles: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells: Vec<String> = cells.map(|cell| format!("<{tag}>{}</{tag}>", html(cell))).collect();
        format!("<tr>{}</tr>\n", cells.concat())
    };
    out.push_str("<table>\n");
    if !titles.is_empty() {
        out.push_str(&cells("th", &mut titles.iter().copied()));
    }
    for row in rows {
        out.push_str(&cells("td", &mut row.iter().map(String::as_str)));
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
        out.push_str(&format!("<pre>{rows}</pre>\n"));
    }
}
