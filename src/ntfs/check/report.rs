//! Faults, and the report that collects them in bounded memory.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::code::{Code, Severity};
use crate::escape::EscapedLines;

/// One breach of one invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Fault {
    /// The invariant that is broken.
    pub code: Code,
    /// How bad this breach is; can be lower than the code's.
    pub severity: Severity,
    /// What is wrong, without the place and the values.
    pub message: String,
    /// The file's path, as far as it can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Number of the MFT record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<u64>,
    /// Byte offset on the volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// What the format demands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What is there instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

impl Fault {
    /// A fault with nothing but its message; its place is added by the methods below.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            message: message.into(),
            path: None,
            record: None,
            offset: None,
            expected: None,
            found: None,
        }
    }

    /// Lowers the severity: a breach that Windows itself leaves behind.
    #[must_use]
    pub(super) fn minor(mut self) -> Self {
        self.severity = Severity::Minor;
        self
    }

    /// Adds the number of the MFT record.
    #[must_use]
    pub(super) fn record(mut self, record: u64) -> Self {
        self.record = Some(record);
        self
    }

    /// Adds the byte offset on the volume.
    #[must_use]
    pub(super) fn at(mut self, offset: impl Into<Option<u64>>) -> Self {
        self.offset = self.offset.or(offset.into());
        self
    }

    /// Adds what the format demands and what was there.
    #[must_use]
    pub(super) fn values(mut self, expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        self.expected = Some(expected.to_string());
        self.found = Some(found.to_string());
        self
    }
}

/// As compilers write: `error[B12]: /path (record 7, at 0x1000): message: expected …, found …`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Minor => "minor",
        };
        write!(f, "{severity}[{}]: ", self.code)?;
        if let Some(path) = &self.path {
            write!(f, "{path} ")?;
        }
        match (self.record, self.offset) {
            (Some(record), Some(offset)) => write!(f, "(record {record}, at {offset:#x}): ")?,
            (Some(record), None) => write!(f, "(record {record}): ")?,
            (None, Some(offset)) => write!(f, "(at {offset:#x}): ")?,
            (None, None) => {}
        }
        f.write_str(&self.message)?;
        if let (Some(expected), Some(found)) = (&self.expected, &self.found) {
            write!(f, ": expected {expected}, found {found}")?;
        }
        Ok(())
    }
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Stats {
    /// MFT records in use.
    pub records: u64,
    /// Base records in use: files and directories.
    pub files: u64,
    /// Base records with an index of names.
    pub directories: u64,
    /// Entries of all directories; a file with a short name has two.
    pub entries: u64,
    /// Blocks of all indexes.
    pub index_blocks: u64,
    /// Clusters of the volume.
    pub clusters: u64,
    /// Clusters that have an owner.
    pub clusters_owned: u64,
    /// Descriptors in `$Secure:$SDS`.
    pub descriptors: u64,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct CheckReport {
    /// The faults, in the order in which they were met; at most
    /// [`CheckOptions::per_code`](super::CheckOptions::per_code) of each code.
    pub faults: Vec<Fault>,
    /// How many faults there are of each code, the ones left out of `faults` included.
    pub counts: BTreeMap<Code, u64>,
    /// How many of all faults are errors.
    pub errors: u64,
    /// How much was looked at.
    pub stats: Stats,
}

impl CheckReport {
    /// Whether there is no error; minor faults do not count.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.errors == 0
    }

    /// Whether an error of this code was found.
    #[must_use]
    pub fn has(&self, code: Code) -> bool {
        self.counts.contains_key(&code)
    }

    /// Takes a fault in; returns whether it is one of those that are kept in full.
    pub(super) fn add(&mut self, fault: Fault, per_code: u64) -> bool {
        let count = self.counts.entry(fault.code).or_default();
        *count += 1;
        self.errors += u64::from(fault.severity == Severity::Error);
        let keep = *count <= per_code;
        if keep {
            self.faults.push(fault);
        }
        keep
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        let mut f = EscapedLines::new(f);
        for fault in &self.faults {
            writeln!(f, "{fault}")?;
        }
        for (code, &count) in &self.counts {
            let shown = self.faults.iter().filter(|fault| fault.code == *code).count() as u64;
            if count > shown {
                writeln!(f, "… and {} more of {code}", count - shown)?;
            }
        }
        let all: u64 = self.counts.values().sum();
        write!(
            f,
            "{} records, {} directory entries, {} of {} clusters: {} errors, {} minor",
            self.stats.records,
            self.stats.entries,
            self.stats.clusters_owned,
            self.stats.clusters,
            self.errors,
            all - self.errors
        )
    }
}
