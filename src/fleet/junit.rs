//! The items of a fleet as JUnit XML: a test for each image.

use super::merge::Merged;
use super::outcome::Outcome;
use super::record::Finished;
use super::tally::Tally;
use crate::error::Result;
use crate::job::junit::{Case, Counts, END, Outcome as Test, SUITE_END, start, suite_start};

/// Name of the test of which the merged results fail when they are not whole.
const WHOLE: &str = "every item is in the results once";

/// Writes the document piece by piece.
///
/// # Errors
/// Those of `write`, and of reading the results.
pub fn write(merged: &mut Merged, tally: &Tally, write: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
    let name = format!("batch {}", merged.job);
    let whole = whole(merged);
    let mut counts = Counts::default();
    counts.add(&whole.outcome, 1);
    tally.outcomes.iter().for_each(|(outcome, items)| counts.add(&test(*outcome, ""), *items));
    write(&start(&name, &counts))?;
    write(&suite_start(&name, &counts))?;
    write(&text(&whole, &name, None))?;
    merged.for_each(&Outcome::ALL, &mut |finished, _| write(&text(&case(finished), &name, Some(finished.seconds))))?;
    write(SUITE_END)?;
    write(END)
}

fn text(case: &Case, name: &str, seconds: Option<f64>) -> String {
    let mut out = String::new();
    let seconds = seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    // Writing to a String cannot fail.
    let _ = case.write(&mut out, &name.replace(' ', "."), seconds);
    out
}

/// Whether the results are whole.
fn whole(merged: &Merged) -> Case {
    let faults = merged.faults.sentences();
    let outcome = if faults.is_empty() { Test::Passed } else { Test::Failed(faults) };
    Case { name: WHOLE.to_owned(), outcome, output: Vec::new() }
}

fn case(finished: &Finished) -> Case {
    let outcome = test(finished.outcome, &sentence(finished));
    let mut output = vec![format!("image: {}", finished.image)];
    output.extend(finished.hint.iter().map(|hint| format!("hint: {hint}")));
    output.extend(finished.warnings.iter().map(|warning| format!("warning: {warning}")));
    Case { name: finished.id.clone(), outcome, output }
}

fn sentence(finished: &Finished) -> String {
    match &finished.reason {
        Some(reason) => format!("{} ({reason})", finished.message),
        None => finished.message.clone(),
    }
}

/// What an outcome is as a test: what the image or its guest is the reason for is a failure, what winject or the host could not
/// do an error, and what can be tried again is skipped.
fn test(outcome: Outcome, text: &str) -> Test {
    match outcome {
        Outcome::Done | Outcome::AlreadyDone => Test::Passed,
        Outcome::Findings | Outcome::Refused => Test::Failed(vec![text.to_owned()]),
        Outcome::Failed | Outcome::Killed => Test::Error(text.to_owned()),
        Outcome::Busy | Outcome::Cancelled | Outcome::NotStarted => Test::Skipped(text.to_owned()),
    }
}
