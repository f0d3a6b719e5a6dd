//! What a worker tells the batch: its answer on standard output, lines on its error output, and how it ended.

use std::io::{BufRead, BufReader, Read};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::outcome::Outcome;
use crate::escape::shorten;

/// The kind of the last line of a worker's error output, its field `schema`.
pub const REPORT_SCHEMA: &str = "winject/worker";

/// Largest answer that is stored, in bytes.
pub const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Warnings of an item that are recorded.
const WARNINGS_MAX: usize = 20;

/// Characters of a message that are recorded.
const MESSAGE_MAX: usize = 2000;

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
    /// The last line that is neither progress nor a warning: what a defect, or the loader of the program, said.
    pub last: Option<String>,
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
        } else if !text.is_empty() {
            told.last = Some(shorten(&text, MESSAGE_MAX).into_owned());
        }
    }
    told
}

/// Reads the answer of a worker to its end; `None` for one that is too large or not JSON.
pub fn read_answer(mut stdout: impl Read) -> Option<Value> {
    let mut bytes = Vec::new();
    let whole = stdout.by_ref().take(ANSWER_BYTES_MAX + 1).read_to_end(&mut bytes);
    // The rest, so that the worker is not stopped by a closed pipe.
    let _ = std::io::copy(&mut stdout, &mut std::io::sink());
    whole.ok().filter(|count| *count as u64 <= ANSWER_BYTES_MAX)?;
    serde_json::from_slice(&bytes).ok()
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It exited with this code.
    Code(u8),
    /// It was ended by this signal.
    Signal(i32),
}

/// What became of an item, from all that its worker told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conclusion {
    /// What became of it; `None` stands for done.
    pub outcome: Option<Outcome>,
    /// Stable code of the error.
    pub reason: Option<String>,
    /// The error, or the outcome in one sentence.
    pub message: String,
    /// What the user can do next.
    pub hint: Option<String>,
    /// Warnings, the first of them.
    pub warnings: Vec<String>,
    /// Bytes read from the image's files.
    pub bytes_read: u64,
    /// Bytes that changed or were written.
    pub bytes_written: u64,
    /// The file that holds the changed disk.
    pub output: Option<String>,
}

/// Draws the conclusion. `is_stopping` says whether the batch has asked its workers to stop.
#[must_use]
pub fn conclude(end: End, told: Told, answer: Option<&Value>, is_stopping: bool) -> Conclusion {
    let mut found = facts_of(answer);
    let Told { report, warnings, last } = told;
    found.warnings.extend(warnings);
    found.warnings.dedup();
    found.warnings.truncate(WARNINGS_MAX);
    let report = report.unwrap_or_default();
    let error = report.error.clone().unwrap_or_default();
    let reason = (!error.code.is_empty()).then_some(error.code);
    let outcome = match end {
        End::Code(code) => Outcome::of_exit(code, reason.as_deref()),
        End::Signal(_) if is_stopping && report.is_stopped => Outcome::Cancelled,
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
    found.reason = reason;
    found.hint = error.hint;
    found
}

/// What the answer of each job says of its work.
fn facts_of(answer: Option<&Value>) -> Conclusion {
    let Some(answer) = answer else { return Conclusion { message: "done".to_owned(), ..Conclusion::default() } };
    let text = |value: &Value| value.as_str().map(|text| shorten(text, MESSAGE_MAX).into_owned());
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().take(WARNINGS_MAX).filter_map(text).collect()
    };
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    match answer.get("schema").and_then(Value::as_str).unwrap_or_default() {
        "winject/report" => {
            let (run, virtio) = (&answer["run"], &answer["virtio"]);
            let is_dry = run["dry_run"] == true;
            // Of a new file, the worker itself says whether it was there before.
            let is_in_place = run["mode"] == "in_place";
            Conclusion {
                outcome: (virtio["unchanged"] == true && is_in_place && !is_dry).then_some(Outcome::AlreadyDone),
                message: text(&answer["summary"]).unwrap_or_default(),
                warnings: recovery_note(run).into_iter().chain(texts(&virtio["warnings"])).collect(),
                bytes_read: number(&run["bytes_read"]),
                bytes_written: if is_dry { 0 } else { number(&run["bytes_changed"]) },
                output: text(&run["output"]),
                ..Conclusion::default()
            }
        }
        "winject/inspect" => {
            let disks = answer["disks"].as_array().map(Vec::as_slice).unwrap_or_default();
            let windows = disks.iter().flat_map(|disk| disk["windows"].as_array().into_iter().flatten());
            let named: Vec<String> = windows
                .clone()
                .map(|windows| {
                    format!(
                        "{} (build {})",
                        windows["product"].as_str().unwrap_or("Windows"),
                        number(&windows["build"])
                    )
                })
                .collect();
            let refusals = windows.filter_map(|windows| text(&windows["refusal"]["message"]));
            let warnings = disks.iter().flat_map(|disk| disk["faults"].as_array().into_iter().flatten());
            let warnings = warnings.filter_map(|fault| text(&fault["message"]));
            Conclusion {
                message: named.join(", "),
                warnings: refusals.chain(warnings).take(WARNINGS_MAX).collect(),
                bytes_read: disks.iter().map(|disk| number(&disk["bytes_read"])).fold(0, u64::saturating_add),
                ..Conclusion::default()
            }
        }
        "winject/check" => {
            let verdict = if answer["boots"] == true { "boots" } else { "does not boot" };
            let message = format!("{verdict} from a virtio disk");
            Conclusion { message, warnings: texts(&answer["warnings"]), ..Conclusion::default() }
        }
        "winject/convert" => Conclusion {
            message: "converted".to_owned(),
            bytes_read: number(&answer["bytes_read"]),
            bytes_written: number(&answer["bytes_written"]),
            output: text(&answer["output"]).filter(|_| answer["dry_run"] != true),
            ..Conclusion::default()
        },
        _ => Conclusion::default(),
    }
}

/// What a report says of an earlier, interrupted run on its image.
fn recovery_note(run: &Value) -> Option<String> {
    if run["recovered"] == true {
        return Some("an earlier run was interrupted; the image was restored first".to_owned());
    }
    let is_completed = run["completed"] == true;
    is_completed
        .then(|| "an earlier run was interrupted when it had written everything; it was completed first".to_owned())
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
        for (end, error, answer, outcome) in [
            (End::Code(0), None, None, Outcome::Done),
            (End::Code(0), None, Some(&unchanged), Outcome::AlreadyDone),
            (End::Code(0), None, Some(&copied), Outcome::Done),
            (End::Code(1), None, None, Outcome::Findings),
            (End::Code(3), Some(("image-in-use", "in use")), None, Outcome::Busy),
            (End::Code(5), Some(("damaged", "bad")), None, Outcome::Failed),
            (End::Signal(9), None, None, Outcome::Killed),
        ] {
            let found = conclude(end, told(error), answer, false);
            assert_eq!(found.outcome, Some(outcome), "{end:?}");
            assert!(found.warnings.contains(&"w".to_owned()) && !found.message.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn a_hostile_worker_is_read_within_bounds() {
        let mut text = "Warning: x\n".repeat(10_000);
        text += &"{".repeat(1 << 20);
        text += "\n\u{fffd}\0\nlast\n";
        let told = listen(text.as_bytes(), |_| ());
        assert_eq!((told.warnings.len(), told.last.as_deref()), (WARNINGS_MAX, Some("last")));
        assert_eq!(read_answer(&b"{\"a\": 1} x"[..]), None);
        assert_eq!(read_answer(std::io::repeat(b' ').take(ANSWER_BYTES_MAX + 2)), None);
    }
}
