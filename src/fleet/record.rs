//! The records of a batch: the JSON lines that it prints and appends to `events.jsonl`, and the result of one item.
//!
//! A results folder holds `events.jsonl`, to which each run of the batch appends: [`Begun`], one [`Planned`] for each item of
//! its shard, then [`Started`], [`Progressed`] and [`Finished`] as they happen, and [`Ended`]. A run that was killed has no
//! [`Ended`], and its last line may be cut off. `items/NAME.json` is an [`ItemResult`], which each attempt replaces.

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;

/// Version of all records, their field `version`.
pub const VERSION: u32 = 1;

/// The kind of each line, its field `schema`.
pub const EVENT_SCHEMA: &str = "winject/batch-event";

/// The kind of the result of an item, its field `schema`.
pub const ITEM_SCHEMA: &str = "winject/batch-item";

/// Name of the file of events in a results folder.
pub const EVENTS_FILE: &str = "events.jsonl";

/// Name of the folder of item results in a results folder.
pub const ITEMS_FOLDER: &str = "items";

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A run of the batch begins.
    Begun(Begun),
    /// An item that belongs to this run.
    Planned(Planned),
    /// An item begins.
    Started(Started),
    /// An item goes on: a second of it has passed.
    Progress(Progressed),
    /// An item has ended.
    Finished(Finished),
    /// The run has ended.
    Ended(Ended),
}

/// A part of the items: those whose id falls to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Shard {
    /// Its number, from 0.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

impl Default for Shard {
    fn default() -> Self {
        Self { index: 0, count: 1 }
    }
}

/// A run of the batch begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Begun {
    /// Name and version of the program: `winject 0.1.0`.
    pub tool: String,
    /// Time in UTC, ISO 8601 to the second.
    pub time: String,
    /// `inspect`, `check`, `inject` or `convert`.
    pub job: String,
    /// Whether the job writes nothing (`--dry-run`).
    pub dry_run: bool,
    /// Number of this run in the results folder, from 1; it is the attempt of its items.
    pub attempt: u32,
    /// The part of the items that this run works on.
    pub shard: Shard,
    /// How many items this shard has.
    pub items: u64,
    /// How many items all shards have together.
    pub items_in_all: u64,
    /// Images of the list that are not items, each with the reason.
    pub skipped: Vec<Skipped>,
    /// How many workers run at the same time at most.
    pub jobs: u32,
}

/// An image of the list that is not an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Skipped {
    /// Its path, as it was given.
    pub image: String,
    /// Why: `the same file as a.qcow2`, `the backing file of b.qcow2`.
    pub reason: String,
}

/// An item that belongs to this run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Planned {
    /// Its id: the same in every run, on every machine.
    pub id: String,
    /// Path of its image, as it was given; of several disks, the first.
    pub image: String,
}

/// An item begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Started {
    /// Its id.
    pub id: String,
    /// Path of its image.
    pub image: String,
    /// Time in UTC, ISO 8601 to the second.
    pub time: String,
    /// Number of this attempt.
    pub attempt: u32,
    /// Process id of its worker.
    pub pid: u32,
}

/// An item goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Progressed {
    /// Its id.
    pub id: String,
    /// Name of the phase: `open`, `plan`, `copy` …
    pub phase: String,
    /// Bytes of the phase that are done; 0 if it is not counted.
    pub done: u64,
    /// All bytes of the phase; 0 if not known.
    pub total: u64,
    /// Seconds since the item began.
    pub seconds: f64,
}

/// An item has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Finished {
    /// Its id.
    pub id: String,
    /// Path of its image, as it was given; of several disks, the first.
    pub image: String,
    /// `inspect`, `check`, `inject` or `convert`.
    pub job: String,
    /// Time in UTC, ISO 8601 to the second.
    pub time: String,
    /// Number of this attempt.
    pub attempt: u32,
    /// The shard that worked on it.
    pub shard: Shard,
    /// What became of it.
    pub outcome: Outcome,
    /// Exit code of its worker, see the README's table; `null` if it was killed or not started.
    pub code: Option<u8>,
    /// Signal that ended its worker; left out if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Stable code of the error, for `winject explain`; left out if it did not fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The error, or the outcome in one sentence.
    pub message: String,
    /// What the user can do next; left out if nothing is advised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether a further attempt without any change can succeed.
    pub retryable: bool,
    /// Seconds from the start of its worker to its end.
    pub seconds: f64,
    /// Seconds of processor time of its worker; left out if not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// Largest resident memory of its worker in bytes; left out if not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Bytes read from the files of its image; 0 if not known.
    pub bytes_read: u64,
    /// Bytes of the disk that changed, or of data that were written to a new image; 0 if none.
    pub bytes_written: u64,
    /// Warnings of the job, the first of them only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Path of the file that holds the changed disk; left out if none was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Path of the item's JSON below the results folder; left out without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
}

/// The run has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Ended {
    /// Time in UTC, ISO 8601 to the second.
    pub time: String,
    /// Number of this run.
    pub attempt: u32,
    /// Seconds that it took.
    pub seconds: f64,
    /// Exit code of the batch; that of a run which ends by a signal is 75 here.
    pub code: u8,
    /// Why it stopped before all items had their turn; left out otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// A record with its kind and version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Versioned<T> {
    /// Its kind, such as [`EVENT_SCHEMA`].
    pub schema: String,
    /// Always [`VERSION`].
    pub version: u32,
    /// The fields of the record.
    #[serde(flatten)]
    pub value: T,
}

/// The result of an item, `items/NAME.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct ItemResult {
    /// What became of it.
    #[serde(flatten)]
    pub finished: Finished,
    /// What its worker answered: a document of `winject/report`, `winject/inspect`, `winject/check`, `winject/convert` or
    /// `winject/error`; `null` if it answered nothing.
    pub answer: serde_json::Value,
}

impl Event {
    /// The line, without a line break. Every string is escaped so that none can steer a terminal.
    #[must_use]
    pub fn to_line(&self) -> String {
        let record = Versioned { schema: EVENT_SCHEMA.to_owned(), version: VERSION, value: self };
        // Strings and numbers have a JSON form.
        crate::escape::json(serde_json::to_string(&record).unwrap_or_default())
    }

    /// Reads a line; `None` for one that was cut off, or is of another kind or version.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        let record: Versioned<Self> = serde_json::from_str(line).ok()?;
        (record.schema == EVENT_SCHEMA && record.version == VERSION).then_some(record.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn finished() -> Finished {
        Finished {
            id: "vm-1".into(),
            image: "a\n\u{1b}.qcow2".into(),
            job: "inject".into(),
            time: "2026-01-01T00:00:00Z".into(),
            attempt: 2,
            shard: Shard { index: 1, count: 4 },
            outcome: Outcome::Refused,
            code: Some(3),
            signal: None,
            reason: Some("hibernated".into()),
            message: "the guest is hibernated".into(),
            hint: None,
            retryable: false,
            seconds: 0.25,
            cpu_seconds: Some(0.125),
            memory: Some(1 << 24),
            bytes_read: 4096,
            bytes_written: 0,
            warnings: vec!["a warning".into()],
            output: None,
            report: Some("items/vm-1.json".into()),
        }
    }

    #[test]
    fn a_line_is_read_back_and_a_cut_one_is_not() {
        let event = Event::Finished(finished());
        let line = event.to_line();
        assert!(line.is_ascii() && !line.contains(|c: char| c.is_control()), "{line}");
        assert!(line.starts_with("{\"schema\":\"winject/batch-event\",\"version\":1,\"event\":\"finished\""), "{line}");
        assert_eq!(Event::from_line(&line), Some(event));
        assert_eq!(Event::from_line(&line[..line.len() - 1]), None);
        assert_eq!(Event::from_line(&line.replace("\"version\":1", "\"version\":2")), None);
    }
}
