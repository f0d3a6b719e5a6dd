//! Tables of the page, whose cells repeat their titles for narrow screens.

use crate::fleet::outcome::Outcome;

/// The class of the colour of an outcome.
pub(super) fn tone(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done | Outcome::AlreadyDone => "good",
        Outcome::Findings | Outcome::Refused | Outcome::Failed => "bad",
        Outcome::Busy | Outcome::Killed | Outcome::Cancelled | Outcome::NotStarted => "warn",
    }
}

/// A row of cells, HTML under their titles. Those of numbers stand at the right.
pub(super) fn row(cells: &[(&str, &str)]) -> String {
    let cells: Vec<String> = cells
        .iter()
        .map(|(title, cell)| {
            // One element for each cell: on narrow screens it is a column of its own.
            let cell = if cell.is_empty() { String::new() } else { format!("<span>{cell}</span>") };
            format!("<td class=\"{}\" data-title=\"{title}\">{cell}</td>", class(title))
        })
        .collect();
    format!("<tr>{}</tr>\n", cells.concat())
}

fn class(title: &str) -> &'static str {
    if matches!(title, "Items" | "Seconds") { "number" } else { "long" }
}

/// The beginning of a table with these titles.
pub(super) fn table_start(titles: &[&str]) -> String {
    let titles: Vec<String> =
        titles.iter().map(|title| format!("<th class=\"{}\">{title}</th>", class(title))).collect();
    format!("<table class=\"rows\">\n<tr>{}</tr>\n", titles.concat())
}

/// Writes a table under a heading, unless it has no rows.
pub(super) fn write_table(out: &mut String, title: &str, titles: &[&str], rows: &[String]) {
    if !rows.is_empty() {
        out.push_str(&format!("<h2>{title}</h2>\n{}{}</table>\n", table_start(titles), rows.concat()));
    }
}
