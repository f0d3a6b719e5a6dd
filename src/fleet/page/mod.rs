//! The page of a fleet: one HTML file that needs no other, without scripts. It is written piece by piece, and the images are
//! folded up in parts, so that a browser lays out only those that are looked at.

mod images;
mod table;

use std::path::Path;

use super::item::items;
use super::merge::Merged;
use super::outcome::Outcome;
use super::tally::{Group, Tally};
use crate::error::Result;
use crate::escape::html;
use crate::job::report::html::phases::write_bar;
use crate::job::report::html::{STYLE, verdict::write_box};
use crate::plan::review::{PAGE_END, page_head};
use crate::units::size_text;
use table::{row, tone, write_table};

/// What the page is to programs.
pub(super) const MARK: &str = "winject fleet";

/// The look of what only this page has.
const OWN_STYLE: &str = include_str!("fleet.css");

/// Writes the page, which is to lie in `folder`: its links lead from there to the results of the items.
///
/// # Errors
/// Those of `write`, and of reading the results.
pub fn write(
    merged: &mut Merged,
    tally: &Tally,
    folder: &Path,
    write: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<()> {
    let what = if merged.dry_run { "Fleet, dry run: " } else { "Fleet: " };
    let title = format!("{what}{}", merged.job);
    write(&page_head(MARK, &title, &format!("{STYLE}{OWN_STYLE}")))?;
    let mut body = format!("<p class=\"kind\">{}</p>\n<h1>{}</h1>\n", html(&title), headline(merged, tally));
    write_verdict(&mut body, merged, tally);
    write_outcomes(&mut body, tally);
    write_reasons(&mut body, tally);
    write_warnings(&mut body, tally);
    write_slowest(&mut body, tally);
    write(&body)?;
    images::write(merged, tally, folder, write)?;
    write(PAGE_END)
}

fn done(tally: &Tally) -> u64 {
    tally.count(Outcome::Done).saturating_add(tally.count(Outcome::AlreadyDone))
}

fn headline(merged: &Merged, tally: &Tally) -> String {
    format!("{} of {} done", done(tally), items(merged.expected.max(tally.items())))
}

fn write_verdict(out: &mut String, merged: &Merged, tally: &Tally) {
    let open = tally.items().saturating_sub(done(tally));
    let failed = open.saturating_sub(tally.retryable);
    let (tone, sentence) = match (merged.faults.is_empty(), failed, tally.retryable) {
        (false, ..) => (("bad", "✕"), "The results are not whole".to_owned()),
        (_, 0, 0) => (("good", "✓"), "Every item is done".to_owned()),
        (_, 0, again) => (("warn", "!"), format!("{} can be tried again as they are", items(again))),
        (_, failed, 0) => (("bad", "✕"), format!("{} failed for good, or have findings", items(failed))),
        (_, failed, again) => {
            (("bad", "✕"), format!("{} failed for good, or have findings; {again} can be tried again", items(failed)))
        }
    };
    let hint = (tally.retryable > 0 || merged.faults.missing_items() > 0).then_some("run the same command again");
    let size = |bytes: u64| (bytes > 0).then(|| size_text(bytes));
    let facts = [
        ("Shards", (merged.shards > 1).then(|| merged.shards.to_string())),
        ("Latest result", Some(merged.time.clone()).filter(|time| !time.is_empty())),
        ("Processor time", Some(format!("{:.1} s", tally.cpu_seconds))),
        ("Largest worker", size(tally.memory)),
        ("Read", size(tally.bytes_read)),
        ("Written", size(tally.bytes_written)),
        ("Program", Some(merged.tool.clone())),
    ];
    write_box(out, tone, &sentence, hint, &facts);
    let faults = merged.faults.sentences();
    if !faults.is_empty() {
        let lines: Vec<String> = faults.iter().map(|fault| format!("<li>{}</li>\n", html(fault))).collect();
        out.push_str(&format!(
            "<section class=\"warnings\">\n<h2>Not whole</h2>\n<ul>\n{}</ul>\n</section>\n",
            lines.concat()
        ));
    }
}

fn write_outcomes(out: &mut String, tally: &Tally) {
    let most = tally.outcomes.values().max().copied().unwrap_or(0);
    if most == 0 {
        return;
    }
    out.push_str("<h2>Outcomes</h2>\n");
    for (outcome, count) in &tally.outcomes {
        let title = format!("<a class=\"{}\" href=\"#{name}\">{name}</a>", tone(*outcome), name = outcome.name());
        write_bar(out, &title, *count, most, &count.to_string());
    }
}

fn write_reasons(out: &mut String, tally: &Tally) {
    let rows: Vec<String> = tally
        .by_reason()
        .iter()
        .map(|((outcome, reason), group)| {
            let badge = format!("<span class=\"badge {}\">{}</span>", tone(*outcome), outcome.name());
            let reason = if reason == "-" { String::new() } else { format!("<code>{}</code>", html(reason)) };
            let hint = html(group.hint.as_deref().unwrap_or_default());
            row(&[
                ("Items", &group.count.to_string()),
                ("Outcome", &badge),
                ("Reason", &reason),
                ("First", &first(group)),
                ("What to do", &hint),
            ])
        })
        .collect();
    write_table(out, "Why", &["Items", "Outcome", "Reason", "First", "What to do"], &rows);
    if !rows.is_empty() {
        out.push_str("<p><code>winject explain REASON</code> tells more of each.</p>\n");
    }
}

fn write_warnings(out: &mut String, tally: &Tally) {
    let rows: Vec<String> = tally
        .by_warning()
        .iter()
        .map(|(text, group)| {
            row(&[("Items", &group.count.to_string()), ("Warning", &html(text)), ("First", &first(group))])
        })
        .collect();
    write_table(out, "Warnings", &["Items", "Warning", "First"], &rows);
    if tally.ungrouped > 0 {
        out.push_str(&format!("<p>{} have further reasons or warnings, see below.</p>\n", items(tally.ungrouped)));
    }
}

fn write_slowest(out: &mut String, tally: &Tally) {
    let longest = tally.slowest.first().map_or(0, |slow| milliseconds(slow.seconds));
    if tally.items() < 2 || longest == 0 {
        return;
    }
    out.push_str("<h2>Slowest</h2>\n");
    for slow in &tally.slowest {
        write_bar(out, &html(&slow.id), milliseconds(slow.seconds), longest, &format!("{:.2} s", slow.seconds));
    }
}

fn milliseconds(seconds: f64) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // The tally holds positive numbers below 10^12.
    let milliseconds = (seconds * 1000.0) as u64;
    milliseconds
}

fn first(group: &Group) -> String {
    html(&group.first)
}
