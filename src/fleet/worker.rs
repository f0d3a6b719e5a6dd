//! What a worker tells the batch: its answer on standard output, lines on its error output, and how it ended.

use std::io::{BufRead, BufReader, Read};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, facts_of};
use super::conclusion::{Conclusion, MESSAGE_MAX, WARNINGS_MAX};
use super::outcome::Outcome;
use crate::error_code::ErrorCode;
use crate::escape::shorten;
use crate::units::size_text;

/// The kind of the last line of a worker's error output, its field `schema`.
pub const REPORT_SCHEMA: &str = "winject/worker";

/// The signal by which a batch asks its workers to stop.
const SIGTERM: i32 = Signal::TERM.as_raw();

/// The signal by which a process ends itself, among other reasons because an allocation failed.
const SIGABRT: i32 = Signal::ABORT.as_raw();

/// Longest line of the error output, in bytes; a longer one is taken in pieces.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// The last line of a worker's error output: what only the worker knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Always [`REPORT_SCHEMA`].
    pub schema: String,
    /// Seconds of processor time of the worker.
    pub cpu_seconds: f64,
    /// Its largest resident memory in bytes.
    pub memory: u64,
    /// Whether it was asked to stop by a signal.
    pub is_stopped: bool,
    /// Whether the job had been done before.
    pub is_done_before: bool,
    /// Why it failed.
    pub error: Option<WorkerError>,
}

/// Why a worker failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerError {
    /// Stable code of the error.
    pub code: String,
    /// Its text.
    pub message: String,
    /// What the user can do next.
    pub hint: Option<String>,
}

/// A line of progress, as far as it is read.
#[derive(Debug, Deserialize)]
pub struct ProgressFacts {
    schema: String,
    /// Name of the phase.
    pub phase: String,
    /// Bytes that are done.
    pub done: u64,
    /// All bytes.
    pub total: u64,
}

/// All that came from the error output of a worker.
#[derive(Debug, Default)]
pub struct Told {
    /// Its last line, if it came so far.
    pub report: Option<WorkerReport>,
    /// Warnings, the first of them.
    pub warnings: Vec<String>,
    /// The last line that is neither progress nor a warning nor advice: what a defect, or the loader of the program, said.
    pub last: Option<String>,
    /// Whether the runtime said that an allocation failed.
    pub is_out_of_memory: bool,
}

/// Reads the error output of a worker to its end; `on_progress` gets its progress.
pub fn listen(stderr: impl Read, mut on_progress: impl FnMut(ProgressFacts)) -> Told {
    let mut told = Told::default();
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    // An error of a pipe is its end.
    while lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if text.starts_with('{') {
            if let Ok(progress) = serde_json::from_str::<ProgressFacts>(&text)
                && progress.schema == "winject/progress"
            {
                on_progress(progress);
                continue;
            }
            if let Ok(report) = serde_json::from_str::<WorkerReport>(&text)
                && report.schema == REPORT_SCHEMA
            {
                told.report = Some(report);
                continue;
            }
        }
        if let Some(warning) = text.strip_prefix("Warning: ") {
            if told.warnings.len() < WARNINGS_MAX {
                told.warnings.push(shorten(warning, MESSAGE_MAX).into_owned());
            }
        } else if !text.is_empty() && !text.starts_with("Hint: ") && !text.starts_with("More: ") {
            told.is_out_of_memory |= text.starts_with("memory allocation of ") && text.ends_with(" failed");
            told.last = Some(shorten(&text, MESSAGE_MAX).into_owned());
        }
    }
    told
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It exited with this code.
    Code(u8),
    /// It was ended by this signal.
    Signal(i32),
}

/// Draws the conclusion. `is_stopping` says whether the batch has asked its workers to stop, `memory` how many bytes of memory
/// the worker could have.
#[must_use]
pub fn conclude(end: End, told: Told, answer: Option<&Answer>, is_stopping: bool, memory: Option<u64>) -> Conclusion {
    let mut found = facts_of(answer);
    let Told { report, warnings, last, is_out_of_memory } = told;
    if let Some(bytes) = memory.filter(|_| end == End::Signal(SIGABRT) && is_out_of_memory) {
        return Conclusion {
            outcome: Some(Outcome::Failed),
            reason: Some(ErrorCode::WorkerMemory.name().to_owned()),
            message: format!("the worker needs more memory than its part of --memory, {}", size_text(bytes)),
            hint: Some("run it again with more --memory, or with fewer workers: --jobs".to_owned()),
            warnings,
            ..Conclusion::default()
        };
    }
    found.warnings.extend(warnings);
    found.warnings.dedup();
    found.warnings.truncate(WARNINGS_MAX);
    let report = report.unwrap_or_default();
    let error = report.error.clone().unwrap_or_default();
    let reason = (!error.code.is_empty()).then_some(error.code);
    let outcome = match end {
        End::Code(code) => Outcome::of_exit(code, reason.as_deref()),
        // One that had not begun to write ends by the signal at once, without a report.
        End::Signal(signal) if is_stopping && (report.is_stopped || signal == SIGTERM) => Outcome::Cancelled,
        End::Signal(_) => Outcome::Killed,
    };
    if !outcome.is_done() {
        found.output = None;
        found.message = match (outcome, end) {
            (Outcome::Killed, End::Signal(signal)) => {
                let what = if is_stopping { "the worker was stopped" } else { "the worker was killed" };
                format!("{what} by signal {signal}; the image is as it was, or the next run restores it")
            }
            (Outcome::Cancelled, _) => last.unwrap_or_else(|| "interrupted; finished or rolled back".to_owned()),
            _ if !error.message.is_empty() => shorten(&error.message, MESSAGE_MAX).into_owned(),
            (Outcome::Findings, _) if !found.message.is_empty() => found.message,
            (_, End::Code(code)) => last.unwrap_or_else(|| format!("the worker ended with code {code}")),
            (_, End::Signal(signal)) => format!("the worker ended by signal {signal}"),
        };
    }
    let is_done_before = outcome == Outcome::Done && (report.is_done_before || found.outcome.is_some());
    found.outcome = Some(if is_done_before { Outcome::AlreadyDone } else { outcome });
    found.reason = reason.or(found.reason).filter(|_| !outcome.is_done());
    found.hint = error.hint;
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: Option<(&str, &str)>) -> Told {
        let error = error.map(|(code, message)| WorkerError { code: code.into(), message: message.into(), hint: None });
        let report = WorkerReport { schema: REPORT_SCHEMA.into(), error, ..WorkerReport::default() };
        let text = format!("Warning: w\n{}\n", serde_json::to_string(&report).unwrap());
        listen(text.as_bytes(), |_| ())
    }

    #[test]
    fn each_end_has_its_outcome() {
        let unchanged = serde_json::json!({
            "schema": "winject/report", "summary": "Nothing to do", "run": {"bytes_read": 7, "mode": "in_place"}, "virtio": {"unchanged": true},
        });
        let copied = serde_json::json!({
            "schema": "winject/report", "summary": "Nothing to do", "run": {"mode": "standalone"}, "virtio": {"unchanged": true},
        });
        let answer = |value: serde_json::Value| Answer::parse(value.to_string()).unwrap();
        let (unchanged, copied) = (answer(unchanged), answer(copied));
        for (end, error, answer, outcome) in [
            (End::Code(0), None, None, Outcome::Done),
            (End::Code(0), None, Some(&unchanged), Outcome::AlreadyDone),
            (End::Code(0), None, Some(&copied), Outcome::Done),
            (End::Code(1), None, None, Outcome::Findings),
            (End::Code(3), Some(("image-in-use", "in use")), None, Outcome::Busy),
            (End::Code(5), Some(("damaged", "bad")), None, Outcome::Failed),
            (End::Signal(9), None, None, Outcome::Killed),
        ] {
            let found = conclude(end, told(error), answer, false, Some(1 << 20));
            assert_eq!(found.outcome, Some(outcome), "{end:?}");
            assert!(found.warnings.contains(&"w".to_owned()) && !found.message.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn an_item_that_was_asked_to_stop_is_cancelled_and_one_that_was_killed_is_not() {
        let conclude = |signal, is_stopping| conclude(End::Signal(signal), Told::default(), None, is_stopping, None);
        let outcome = |signal, is_stopping| conclude(signal, is_stopping).outcome;
        assert_eq!(outcome(15, true), Some(Outcome::Cancelled));
        for (signal, is_stopping) in [(15, false), (9, true), (11, true)] {
            assert_eq!(outcome(signal, is_stopping), Some(Outcome::Killed), "{signal}");
        }
    }

    #[test]
    fn a_worker_without_memory_is_named_and_not_run_again() {
        let abort = |last: &str, memory| {
            let told = listen(format!("{last}\nnote: a word more\n").as_bytes(), |_| ());
            conclude(End::Signal(6), told, None, false, memory)
        };
        let line = "memory allocation of 4096 bytes failed";
        let found = abort(line, Some(64 << 20));
        assert_eq!((found.outcome, found.reason.as_deref()), (Some(Outcome::Failed), Some("worker-memory")));
        assert!(
            found.message.contains("64.0 MiB") && !Outcome::Failed.is_retryable(found.reason.as_deref()),
            "{found:?}"
        );
        // Of an allocation that failed without a limit, and of a defect, it is not known.
        assert_eq!(abort(line, None).outcome, Some(Outcome::Killed));
        assert_eq!(abort("thread panicked", Some(1)).outcome, Some(Outcome::Killed));
    }

    #[test]
    fn a_hostile_worker_is_read_within_bounds() {
        let mut text = "Warning: x\n".repeat(10_000);
        text += &"{".repeat(1 << 20);
        text += "\n\u{fffd}\0\nlast\n";
        let told = listen(text.as_bytes(), |_| ());
        assert_eq!((told.warnings.len(), told.last.as_deref()), (WARNINGS_MAX, Some("last")));
    }
}
