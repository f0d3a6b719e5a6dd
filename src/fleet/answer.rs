//! The answer of a worker, the JSON document of its job: passed on as it stands, and read as far as records need it.

use std::io::Read;

use serde::Deserialize;
use serde_json::Value;

use super::conclusion::{Conclusion, MESSAGE_MAX, WARNINGS_MAX};
use super::outcome::Outcome;
use crate::escape::shorten;

/// Largest answer that is stored, in bytes.
pub const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The answer of a worker: as it stands, and what is read of it. A report is long, and only passed on.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The JSON document.
    pub text: String,
    facts: AnswerFacts,
}

/// What is read of the answers of all jobs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct AnswerFacts {
    schema: Value,
    summary: Value,
    run: Value,
    virtio: VirtioFacts,
    disks: Value,
    boots: Value,
    buses: Value,
    warnings: Value,
    bytes_read: Value,
    bytes_written: Value,
    output: Value,
    dry_run: Value,
}

/// What is read of the guest's part of a report.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct VirtioFacts {
    unchanged: Value,
    warnings: Value,
}

impl Answer {
    /// The answer in this text; `None` if it is not a JSON object.
    #[must_use]
    pub fn parse(text: String) -> Option<Self> {
        // A list would count as the fields in their order.
        let facts = serde_json::from_str(&text).ok().filter(|_| text.trim_start().starts_with('{'))?;
        Some(Self { text, facts })
    }
}

/// Reads the answer of a worker to its end; `None` for one that is too large or not JSON.
pub fn read_answer(mut stdout: impl Read) -> Option<Answer> {
    let mut bytes = Vec::new();
    let whole = stdout.by_ref().take(ANSWER_BYTES_MAX + 1).read_to_end(&mut bytes);
    // The rest, so that the worker is not stopped by a closed pipe.
    let _ = std::io::copy(&mut stdout, &mut std::io::sink());
    whole.ok().filter(|count| *count as u64 <= ANSWER_BYTES_MAX)?;
    Answer::parse(String::from_utf8(bytes).ok()?)
}

/// What the answer of each job says of its work.
pub(super) fn facts_of(answer: Option<&Answer>) -> Conclusion {
    let Some(Answer { facts, .. }) = answer else {
        return Conclusion { message: "done".to_owned(), ..Conclusion::default() };
    };
    let text = |value: &Value| value.as_str().map(|text| shorten(text, MESSAGE_MAX).into_owned());
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().take(WARNINGS_MAX).filter_map(text).collect()
    };
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    match facts.schema.as_str().unwrap_or_default() {
        "winject/report" => {
            let AnswerFacts { run, virtio, .. } = facts;
            let is_dry = run["dry_run"] == true;
            // Of a new file, the worker itself says whether it was there before.
            let is_in_place = run["mode"] == "in_place";
            Conclusion {
                outcome: (virtio.unchanged == true && is_in_place && !is_dry).then_some(Outcome::AlreadyDone),
                message: text(&facts.summary).unwrap_or_default(),
                warnings: recovery_note(run).into_iter().chain(texts(&virtio.warnings)).collect(),
                bytes_read: number(&run["bytes_read"]),
                bytes_written: if is_dry { 0 } else { number(&run["bytes_changed"]) },
                output: text(&run["output"]),
                ..Conclusion::default()
            }
        }
        "winject/inspect" => {
            let disks = facts.disks.as_array().map(Vec::as_slice).unwrap_or_default();
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
            let verdict = if facts.boots == true { "boots" } else { "does not boot" };
            let message = format!("{verdict} from a virtio disk");
            let mut findings = facts.buses[0]["findings"].as_array().into_iter().flatten();
            let failure = findings.find(|finding| finding["level"] == "failure");
            let reason = failure.and_then(|failure| text(&failure["code"]));
            Conclusion { message, reason, warnings: texts(&facts.warnings), ..Conclusion::default() }
        }
        "winject/convert" => Conclusion {
            message: "converted".to_owned(),
            bytes_read: number(&facts.bytes_read),
            bytes_written: number(&facts.bytes_written),
            output: text(&facts.output).filter(|_| facts.dry_run != true),
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

    #[test]
    fn an_answer_is_one_object_of_bounded_length() {
        assert!(read_answer(&b"{\"a\": 1} x"[..]).is_none());
        assert!(read_answer(&b"[1]"[..]).is_none());
        assert!(read_answer(std::io::repeat(b' ').take(ANSWER_BYTES_MAX + 2)).is_none());
        assert_eq!(read_answer(&b"{\"a\": 1}\n"[..]).unwrap().text, "{\"a\": 1}\n");
    }
}
