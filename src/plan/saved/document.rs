//! The document: its fields, its canonical bytes.

use serde::{Deserialize, Serialize};

use super::data::{Hex64, ReadRange, Sha256Sum};
use super::edit::SavedStep;
use super::log_replay::LogReplayFacts;
use crate::drivers::{Arch, SignatureLevel};
use crate::error::{Error, ErrorCode, Kind, Layer, Place, Result};
use crate::escape;
use crate::partition::Scheme;
use crate::plan::boot::BootPlace;
use crate::plan::change::GuestHive;

/// The schema that this version writes, and the only one that it reads.
const SCHEMA: &str = "winject.plan.v1";

/// The version in the field `version`, which is the one that the schema names.
const VERSION: u32 = 1;

/// A saved plan. All fields are always there but `version`, `others`, `boot`, `log_replay` and `uploads`, in this order; what is not known is `null`.
///
/// There is no time in it: apply dates what it writes by its own clock, as `inject` does. So the same image, media and
/// options give the same bytes at any time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PlanDocument {
    /// `winject.plan.v1`.
    pub schema: String,
    /// Version of the schema: 1. Left out in plans of the first winject that saved any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Name and version of the program that made the plan: `winject 0.1.0`.
    pub tool: String,
    /// File name of the image, without its folder: a hint where to look for it, no part of its identity. `null` if the
    /// name is not Unicode, and for an NBD export.
    pub image: Option<String>,
    /// The guest's disk.
    pub disk: DiskFacts,
    /// The other disks of the machine, which are only read; left out if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<OtherDiskFacts>,
    /// The partition of Windows.
    pub partition: PartitionFacts,
    /// The boot volume; left out if no edit concerns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootPlace>,
    /// The NTFS volume of Windows.
    pub volume: VolumeFacts,
    /// The Windows installation.
    pub windows: WindowsFacts,
    /// The hives that the plan was made from, with their logs, in the order of [`GuestHive::ALL`].
    pub hives: Vec<HiveFacts>,
    /// Everything else on the disk that planning read.
    pub reads: ReadSet,
    /// Refusals that were overridden, which have to be overridden again to apply the plan.
    pub state: StateFacts,
    /// The replay of an NTFS log that is not closed, which precedes the edits; left out if it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_replay: Option<LogReplayFacts>,
    /// What the boot check of the changed disk has to show.
    pub expects: Expects,
    /// Whether the guest boots, before and after.
    pub verdict: Verdict,
    /// The chosen driver packages.
    pub drivers: Vec<DriverFact>,
    /// Paths of the user's files that the edits put outside of winject's own places, sorted; left out if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uploads: Vec<String>,
    /// The contents that the edits write, each once, in the order of their hashes.
    pub files: Vec<SavedFile>,
    /// The edits in the order in which they are applied: files first, then the hives as [`GuestHive::ALL`] lists them.
    pub steps: Vec<SavedStep>,
    /// What the user should know about this plan.
    pub notes: Vec<String>,
    /// What may keep the guest from working as hoped.
    pub warnings: Vec<String>,
}

/// The guest's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DiskFacts {
    /// Size in bytes as the guest sees it, whatever the container.
    pub size: u64,
    /// Kind of the partition table.
    pub scheme: Scheme,
    /// Bytes of a logical sector: 512 or 4096.
    pub sector: u32,
    /// GUID of a GPT in braces, or signature of an MBR as `0x` and eight digits; `null` without a partition table.
    pub id: Option<String>,
}

/// A disk of the machine on which Windows is not: boot files may lie on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OtherDiskFacts {
    /// File name of its image, without its folder, like [`PlanDocument::image`].
    pub name: Option<String>,
    /// The disk.
    pub disk: DiskFacts,
    /// Everything on it that planning and its boot check read.
    pub reads: ReadSet,
}

/// The partition of Windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PartitionFacts {
    /// Its number, as Linux counts; 0 for a volume without a partition table.
    pub number: u32,
    /// Offset of its first byte on the disk.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Unique GUID of a GPT partition in braces; `null` on other disks.
    pub id: Option<String>,
}

/// The NTFS volume of Windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct VolumeFacts {
    /// Serial number in the boot sector.
    pub serial: Hex64,
    /// Last log sequence number in the restart page that counts; `null` if `$LogFile` has no valid one (it was reset).
    pub log_position: Option<Hex64>,
    /// SHA-256 of both restart pages as they are stored.
    pub log_sha256: Sha256Sum,
}

/// The Windows installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WindowsFacts {
    /// The Windows folder on its volume: `/Windows`.
    pub folder: String,
    /// The folder of the hives: `/Windows/System32/config`.
    pub config: String,
    /// Build number.
    pub build: u32,
    /// The CPU that its kernel is built for.
    pub arch: Arch,
    /// Product, version and folder for people.
    pub text: String,
}

/// A hive that the plan was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HiveFacts {
    /// Which hive.
    pub hive: GuestHive,
    /// Length of its file in bytes.
    pub size: u64,
    /// SHA-256 of its file.
    pub sha256: Sha256Sum,
    /// Its log files, as far as the guest has them.
    pub logs: Vec<LogFile>,
}

/// A log file of a hive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LogFile {
    /// The ending of its name: `.LOG1`.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: Sha256Sum,
}

/// Everything on the disk that planning read, except the contents of hives and their logs, which [`HiveFacts`] hashes file
/// by file. Planning depends on nothing else of the image, so a plan is not stale as long as these bytes are the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReadSet {
    /// Sum of the lengths of all ranges.
    pub bytes: u64,
    /// SHA-256 of the contents of all ranges, one after the other.
    pub sha256: Sha256Sum,
    /// The ranges in ascending order; between two of them lies at least one byte that was not read.
    pub ranges: Vec<ReadRange>,
}

/// Refusals that were overridden when the plan was made. The person who applies it has to take the decision again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StateFacts {
    /// The volume's dirty flag was set.
    pub allow_dirty: bool,
    /// An unclean NTFS log is discarded.
    pub discard_ntfs_log: bool,
    /// A hibernated session is discarded.
    pub discard_hibernation: bool,
    /// The owners of the volume's clusters were not checked.
    pub skip_volume_check: bool,
    /// A log that is not closed was not to be replayed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_replay: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// What the boot check of the changed disk has to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Expects {
    /// The buses from which the guest must boot: those from which it boots by `verdict.after`.
    pub boots_from: Vec<String>,
    /// Whether it must boot from one of the buses, whichever.
    pub boots_from_any: bool,
    /// What a boot driver's signature must prove.
    pub signature_policy: SignatureLevel,
}

/// The boot check's answers for all buses, before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// On the image as it is.
    pub before: Vec<BusVerdict>,
    /// On the disk with all edits.
    pub after: Vec<BusVerdict>,
}

/// The boot check's answer for one bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BusVerdict {
    /// The bus of the system disk: `virtio-blk` or `virtio-scsi`.
    pub bus: String,
    /// Whether the guest boots from it.
    pub boots: bool,
    /// What was found at each gate, failures first.
    pub findings: Vec<FindingFact>,
}

/// A finding at one gate of the boot check.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FindingFact {
    /// The gate: `firmware`, `binding` …
    pub gate: String,
    /// How much it weighs.
    pub level: FindingLevel,
    /// What it is about, for programs: `no-device-id` …
    pub code: String,
    /// The finding for people.
    pub text: String,
}

/// How much a finding weighs, as the boot check names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FindingLevel {
    /// As it should be.
    Good,
    /// Without effect on the start.
    Note,
    /// The image does not show it.
    NotJudged,
    /// The guest boots all the same.
    Warning,
    /// The guest does not boot.
    Failure,
}

/// A driver package that the plan puts into the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DriverFact {
    /// Name of the driver: `viostor`.
    pub name: String,
    /// File name of the INF; empty for a driver without one.
    pub inf: String,
    /// Version in `DriverVer` of the INF; `null` if it has none.
    pub version: Option<String>,
    /// Whether the signatures of catalogue and driver can be read and match.
    pub signed: bool,
    /// Common name of the signer; `null` unless signed.
    pub signer: Option<String>,
    /// SHA-256 of the driver's file, for a driver that is registered offline; `null` for one that is only staged.
    pub sha256: Option<Sha256Sum>,
}

/// The content of files that the plan writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SavedFile {
    /// SHA-256 of the content.
    pub sha256: Sha256Sum,
    /// Length in bytes.
    pub size: u64,
    /// The content, or where it comes from.
    pub content: SavedFileContent,
}

impl SavedFile {
    /// Whether the document holds the content itself.
    pub(super) fn is_inline(&self) -> bool {
        matches!(self.content, SavedFileContent::Text(_) | SavedFileContent::Hex(_))
    }
}

/// The content of a file, or where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SavedFileContent {
    /// A file of the driver media, found again by its hash. The path below the media is a hint where to look first.
    Media(String),
    /// A file of the user, found again by its hash. The name is a hint where to look first.
    Host(String),
    /// The content itself.
    Text(String),
    /// The content itself, which is not UTF-8, in hexadecimal.
    Hex(String),
}

impl PlanDocument {
    /// A document of this version without content, to be filled in.
    #[must_use]
    pub fn schema() -> String {
        SCHEMA.to_owned()
    }

    /// The version of this schema.
    #[must_use]
    pub fn version() -> Option<u32> {
        Some(VERSION)
    }

    /// The canonical bytes: JSON with fields in the order of declaration, two spaces of indentation, one line break at
    /// the end, and control characters as `\uXXXX`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Neither maps nor floats nor foreign types: serialising cannot fail.
        let mut text = escape::json(serde_json::to_string_pretty(self).unwrap_or_default());
        text.push('\n');
        text.into_bytes()
    }

    /// Reads a document that was written by [`to_bytes`](Self::to_bytes). It says nothing about what the document means:
    /// [`judge`](Self::judge) does.
    ///
    /// # Errors
    /// [`Kind::Usage`] when `bytes` are anything else than the canonical bytes of a document of this version.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            schema: String,
            #[serde(default)]
            version: Option<u32>,
        }
        let read: Result<Self, serde_json::Error> = serde_json::from_slice(bytes);
        let head = match &read {
            Ok(document) => Some(Head { schema: document.schema.clone(), version: document.version }),
            Err(_) => serde_json::from_slice(bytes).ok(),
        };
        if let Some(Head { schema, version }) = head {
            refuse_other_schema(&schema, version)?;
        }
        let document = read.map_err(|error| {
            let line = u64::try_from(error.line()).unwrap_or(0);
            // The words of the reader are for programmers.
            match error.classify() {
                serde_json::error::Category::Data => {
                    unreadable("cannot read the plan: it is not as winject plan wrote it").at(Place::Line(line))
                }
                serde_json::error::Category::Eof if !bytes.is_empty() => {
                    unreadable("cannot read the plan: its end is missing").at(Place::Line(line))
                }
                _ => Error::new(Kind::Usage, Layer::Plan, "cannot read the plan: not a document of winject plan")
                    .with_code(ErrorCode::PlanInvalid)
                    .at(Place::Line(line.max(1)))
                    .hint("name a file that winject plan has written"),
            }
        })?;
        let canonical = document.to_bytes();
        if canonical != bytes {
            let same = canonical.iter().zip(bytes).take_while(|(a, b)| a == b);
            let line = 1 + same.filter(|(byte, _)| **byte == b'\n').count() as u64;
            let what = "cannot read the plan: it is not as winject plan wrote it";
            return Err(unreadable(what).at(Place::Line(line)));
        }
        Ok(document)
    }
}

/// Refuses other documents, and plans of other versions.
fn refuse_other_schema(schema: &str, version: Option<u32>) -> Result<()> {
    let refused = |what: &str| Error::new(Kind::Usage, Layer::Plan, what).with_code(ErrorCode::PlanInvalid);
    if !schema.starts_with("winject.plan.") {
        return Err(refused("cannot read the plan: it is another document")
            .expected_found(SCHEMA, schema)
            .hint("name a file that winject plan has written"));
    }
    let error = refused("cannot read the plan: it is of another version")
        .hint("make the plan again with this version of winject");
    match version {
        _ if schema != SCHEMA => Err(error.expected_found(SCHEMA, schema)),
        Some(version) if version != VERSION => Err(error.expected_found(VERSION, version)),
        _ => Ok(()),
    }
}

fn unreadable(what: &str) -> Error {
    Error::new(Kind::Usage, Layer::Plan, what)
        .with_code(ErrorCode::PlanInvalid)
        .hint("plans are applied as they were written: make the plan again")
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn the_canonical_bytes_are_read_and_written_again() {
        let document = sample::document();
        let bytes = document.to_bytes();
        assert_eq!(PlanDocument::parse(&bytes).unwrap(), document);
        let text = String::from_utf8(bytes).unwrap();
        assert!(
            text.starts_with("{\n  \"schema\": \"winject.plan.v1\",\n  \"version\": 1,\n") && text.ends_with("\n}\n"),
            "{text}"
        );
        assert!(text.contains("\\u202e") && !text.contains('\u{202e}'), "{text}");
    }

    #[test]
    fn other_spellings_are_refused() {
        let bytes = sample::document().to_bytes();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let change = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1).into_bytes()
        };
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        for other in [
            serde_json::to_vec(&value).unwrap(),
            serde_json::to_vec_pretty(&value).unwrap(),
            change("\n}\n", "\n}"),
            change("\n}\n", "\n}\n\n"),
            change("\n", "\r\n"),
            change("\\u202e", "\u{202e}"),
            change("\\u202e", "\\u202E"),
            change("\"allow_dirty\": false,", "\"allow_dirty\": false, \"allow_dirty\": false,"),
            change("\"allow_dirty\": false,", "\"x\": 1, \"allow_dirty\": false,"),
            change("\"number\": 2,", "\"number\": 2.0,"),
            change("\"number\": 2,", "\"number\": -2,"),
            change("\"number\": 2,", "\"number\": 4294967298,"),
            change("\"signed\": true", "\"signed\": 1"),
            change("\"change\": \"create_dir\",", "\"change\": \"create_dir\", \"change\": \"create_dir\","),
            change("\"change\": \"create_dir\",", "\"change\": \"create_dir\", \"also\": 1,"),
            change("\"change\": \"create_dir\",", "\"change\": \"format_disk\","),
            change("0x123456789abcdef0", "0x123456789ABCDEF0"),
            change("\"text\": \"0x0\"", "\"text\": \"0x4\""),
            bytes[..bytes.len() / 2].to_vec(),
            Vec::new(),
        ] {
            let error = PlanDocument::parse(&other).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage, "{error}");
            assert!(error.hint_text().is_some());
        }
        for (from, to) in [("winject.plan.v1", "winject.plan.v2"), ("\"version\": 1,", "\"version\": 2,")] {
            let newer = PlanDocument::parse(&change(from, to)).unwrap_err();
            assert!(newer.to_string().contains("another version"), "{newer}");
        }
        assert!(PlanDocument::parse(&change("\"version\": 1,", "\"version\": null,")).is_err());
    }

    /// The first plans had no version.
    #[test]
    fn a_plan_without_a_version_is_read() {
        let text = String::from_utf8(sample::document().to_bytes()).unwrap();
        let old = text.replacen("  \"version\": 1,\n", "", 1);
        assert!(old.len() < text.len());
        let read = PlanDocument::parse(old.as_bytes()).unwrap();
        assert_eq!((read.version, read.to_bytes()), (None, old.into_bytes()));
    }
}
