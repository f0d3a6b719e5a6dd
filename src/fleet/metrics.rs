//! Figures of a fleet for Prometheus: a file for the textfile collector of its node exporter.
//!
//! Names and units follow <https://prometheus.io/docs/practices/naming>: base units (seconds, bytes) at the end of the name, and
//! `_total` for counters only. All of these are gauges, because a later run of the batch can lower them.

use std::fmt::Write as _;

use super::merge::Merged;
use super::outcome::Outcome;
use super::tally::Tally;
use crate::clock::FileTime;

/// The first bytes of the file, by which an earlier one is recognised.
pub const START: &str = "# HELP winject_batch_items ";

/// The text of the file.
#[must_use]
pub fn metrics(merged: &Merged, tally: &Tally) -> String {
    let mut out = String::new();
    let job = format!("job=\"{}\"", label(&merged.job));
    let mut family = |name: &str, help: &str, samples: &[(String, String)]| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP winject_batch_{name} {help}\n# TYPE winject_batch_{name} gauge");
        for (labels, value) in samples {
            let _ = writeln!(out, "winject_batch_{name}{{{job}{labels}}} {value}");
        }
    };
    let one = |value: String| vec![(String::new(), value)];
    let by_outcome: Vec<(String, String)> = Outcome::ALL
        .iter()
        .map(|outcome| (format!(",outcome=\"{}\"", outcome.name()), tally.count(*outcome).to_string()))
        .collect();
    family("items", "Items of the batch by the outcome of their last attempt.", &by_outcome);
    let by_reason: Vec<(String, String)> = tally
        .reasons
        .iter()
        .map(|((outcome, reason), group)| {
            let labels = format!(",outcome=\"{}\",reason=\"{}\"", outcome.name(), label(reason));
            (labels, group.count.to_string())
        })
        .collect();
    if !by_reason.is_empty() {
        family("items_not_done", "Items that are not done, by outcome and stable code of the error.", &by_reason);
    }
    family("items_expected", "Items that all shards of the batch have together.", &one(merged.expected.to_string()));
    family("items_missing", "Items without a result.", &one(merged.faults.missing_items().to_string()));
    family("items_double", "Items that two shards or batches have.", &one(merged.faults.double.count.to_string()));
    family("items_retryable", "Items that another attempt can finish as they are.", &one(tally.retryable.to_string()));
    family("worker_seconds", "Time from start to end of all last attempts together.", &one(tally.seconds.to_string()));
    family("worker_cpu_seconds", "Processor time of all last attempts together.", &one(tally.cpu_seconds.to_string()));
    family("worker_memory_bytes", "Largest resident memory of a worker.", &one(tally.memory.to_string()));
    family("read_bytes", "Bytes read from images in the last attempts.", &one(tally.bytes_read.to_string()));
    family("written_bytes", "Bytes of disks that changed or were written anew.", &one(tally.bytes_written.to_string()));
    if let Some(seconds) = unix_seconds(&merged.time) {
        family("last_result_timestamp_seconds", "Time of the latest result.", &one(seconds.to_string()));
    }
    out
}

/// The value of a label: one line, quotes and backslashes escaped.
fn label(text: &str) -> String {
    crate::escape::escape(text).replace('\\', "\\\\").replace('"', "\\\"")
}

/// Seconds since 1970 of a time in UTC, ISO 8601 to the second.
fn unix_seconds(time: &str) -> Option<u64> {
    let (date, clock) = time.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let mut clock = clock.split('.').next()?.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if date.next().is_some() || clock.next().is_some() {
        return None;
    }
    let midnight = FileTime::from_date(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?;
    Some(midnight.unix_seconds()? + hour.min(23) * 3600 + minute.min(59) * 60 + second.min(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (time, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600)),
            ("2026-11-30T06:52:01Z", Some(1_796_021_521)),
            ("2026-13-30T06:52:01Z", None),
            ("99999999999999999999-01-01T00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(unix_seconds(time), seconds, "{time}");
        }
    }

    #[test]
    fn a_hostile_label_stays_in_its_quotes() {
        assert_eq!(label("a\"} 1\n\\"), "a\\\"} 1\\\\u{a}\\\\");
    }
}
