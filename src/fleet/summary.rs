//! The end of a batch as text: what became of the items, why, which took longest, and what to run next.

use std::fmt::Write as _;

use super::item::items;
use super::outcome::Outcome;
use super::tally::{Group, Tally};
use crate::escape::{escape, shorten};
use crate::units::size_text;

/// Reasons, and warnings, that are listed.
const LISTED: usize = 12;
/// Slowest items that are listed.
const SLOWEST_LISTED: usize = 3;
/// Characters of an id or a text in a table.
const WIDTH_MAX: usize = 60;

/// The summary, several lines without a line break at the end. No text of an item adds a line. `seconds`: how long the run
/// took, if it was one; `page`: name of the page with all items in a command, if it was written.
#[must_use]
pub fn summary(tally: &Tally, seconds: Option<f64>, page: Option<&str>) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_counts(&mut out, tally, seconds);
    let _ = write_reasons(&mut out, tally);
    let _ = write_warnings(&mut out, tally);
    let _ = write_slowest(&mut out, tally);
    for line in next_steps(tally, page) {
        let _ = writeln!(out, "Next: {line}");
    }
    out.truncate(out.trim_end().len());
    out
}

fn write_counts(out: &mut String, tally: &Tally, seconds: Option<f64>) -> std::fmt::Result {
    for outcome in Outcome::ALL {
        let count = tally.count(outcome);
        if count > 0 {
            let again = if outcome.is_retryable(None) { ", can be tried again" } else { "" };
            writeln!(out, "{count:>8}  {}{again}", outcome.name())?;
        }
    }
    let items = tally.items();
    write!(out, "{items:>8}  {} in all", if items == 1 { "item" } else { "items" })?;
    if let Some(seconds) = seconds {
        write!(out, ", {seconds:.1} s")?;
        #[allow(clippy::cast_precision_loss)] // For people.
        let rate = items as f64 / seconds;
        if rate.is_finite() && items > 1 {
            write!(out, ", {rate:.1} items/s")?;
        }
    }
    write!(out, "; {:.1} s of processor time", tally.cpu_seconds)?;
    if tally.bytes_written > 0 {
        write!(out, ", {} written", size_text(tally.bytes_written))?;
    }
    writeln!(out)
}

fn write_reasons(out: &mut String, tally: &Tally) -> std::fmt::Result {
    let reasons = tally.by_reason();
    if reasons.is_empty() {
        return Ok(());
    }
    writeln!(out, "Why:")?;
    for ((outcome, reason), group) in reasons.iter().take(LISTED) {
        let reason = if reason == "-" { "no code" } else { reason };
        write_group(out, &format!("{} ({outcome})", shorten(&escape(reason), WIDTH_MAX)), group)?;
    }
    write_rest(out, reasons.len())
}

fn write_warnings(out: &mut String, tally: &Tally) -> std::fmt::Result {
    let warnings = tally.by_warning();
    if warnings.is_empty() {
        return Ok(());
    }
    writeln!(out, "Warnings:")?;
    for (text, group) in warnings.iter().take(LISTED) {
        write_group(out, &shorten(&escape(text), WIDTH_MAX * 2), group)?;
    }
    write_rest(out, warnings.len())
}

fn write_group(out: &mut String, what: &str, group: &Group) -> std::fmt::Result {
    let first = escape(&group.first);
    writeln!(
        out,
        "{:>8}  {what}: {}{}",
        group.count,
        shorten(&first, WIDTH_MAX),
        if group.count > 1 { ", …" } else { "" }
    )
}

fn write_rest(out: &mut String, groups: usize) -> std::fmt::Result {
    match groups.saturating_sub(LISTED) {
        0 => Ok(()),
        more => writeln!(out, "{:>8}  further kinds", more),
    }
}

fn write_slowest(out: &mut String, tally: &Tally) -> std::fmt::Result {
    if tally.items() < 2 || tally.slowest.is_empty() {
        return Ok(());
    }
    let slowest: Vec<String> = tally
        .slowest
        .iter()
        .take(SLOWEST_LISTED)
        .map(|slow| format!("{} ({:.1} s)", shorten(&escape(&slow.id), WIDTH_MAX), slow.seconds))
        .collect();
    writeln!(out, "Slowest: {}", slowest.join(", "))
}

/// What to run next.
fn next_steps(tally: &Tally, page: Option<&str>) -> Vec<String> {
    let mut steps = Vec::new();
    if tally.retryable > 0 {
        steps.push(format!("run the same command again: {} can succeed as they are", items(tally.retryable)));
    }
    let codes = tally.by_reason();
    let code = codes.iter().find(|((outcome, code), _)| code != "-" && !outcome.is_retryable(Some(code.as_str())));
    if let Some(((_, code), _)) =
        code.filter(|((_, code), _)| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
    {
        steps.push(format!("winject explain {code}"));
    }
    if let Some(page) = page {
        steps.push(format!("see {}", escape(page)));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::record::Finished;
    use crate::fleet::testing::finished;

    #[test]
    fn a_summary_says_what_why_and_what_next() {
        let mut tally = Tally::default();
        for (id, outcome) in
            [("a", Outcome::Done), ("b\nNext: rm", Outcome::Refused), ("c", Outcome::Busy), ("d", Outcome::Refused)]
        {
            tally.add(&Finished { warnings: vec!["x\u{1b}[2J".into()], ..finished(id, outcome) });
        }
        let text = summary(&tally, Some(2.0), Some("results/fleet.html"));
        for part in [
            "       1  done\n",
            "       2  refused\n       1  busy, can be tried again\n",
            "       4  items in all, 2.0 s, 2.0 items/s; 1.0 s of processor time, 2.0 KiB written",
            "       2  hibernated (refused): b\\u{a}Next: rm, …",
            "       4  x\\u{1b}[2J: a, …",
            "Next: run the same command again: 1 item can succeed as they are",
            "Next: winject explain hibernated",
            "Next: see results/fleet.html",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.lines().any(|line| line.starts_with("Next: rm")) && !text.contains('\u{1b}'), "{text}");
    }
}
