//! A plan as a document: made on one machine, reviewed and signed as a file, and applied on another one.
//!
//! A [`PlanDocument`] holds the edits of a [`Plan`](super::Plan) with what they replace, the identity of the image that
//! they were made for, and the hash of everything that planning read. Its bytes are canonical:
//! [`PlanDocument::parse`] refuses whatever [`PlanDocument::to_bytes`] would not have written. So what a reviewer sees
//! and a signer signs is what is applied.
//!
//! **A document is input from outside.** Everything in it may be forged, and no property of the image's structure may
//! depend on a byte of it: it decides which files and values are written, never where.

mod data;
mod document;
mod edit;
mod facts;
mod judge;
mod limits;
mod log_replay;
mod replaceable;
mod resolve;
#[cfg(test)]
pub(super) mod sample;
mod scope;
mod stale;
mod steps;
#[cfg(test)]
mod tests;
mod uploads;

pub use data::{Hex64, ReadRange, Sha256Sum};
pub use document::{
    BusVerdict, DiskFacts, DriverFact, Expects, FindingFact, FindingLevel, HiveFacts, LogFile, OtherDiskFacts,
    PartitionFacts, PlanDocument, ReadSet, SavedFile, SavedFileContent, StateFacts, Verdict, VolumeFacts, WindowsFacts,
};
pub use edit::{FileFact, SavedEdit, SavedStep};
pub use facts::{ImageFacts, KnownHives, disk_and_partition_facts, disk_facts};
pub use limits::{INLINE_BYTES_MAX, PLAN_BYTES_MAX, REMOVED_KEY_BYTES_MAX};
pub(crate) use limits::{STEPS_MAX, UPLOADS_MAX};
pub use log_replay::LogReplayFacts;
#[cfg(test)]
pub(crate) use replaceable::REMOVABLE_FILTERS;
pub(crate) use replaceable::{FORMER_MAX, former_connection, is_former_connection};
pub use resolve::Contents;
pub(crate) use scope::Scope;
pub(crate) use steps::{judge_key, judge_path, judge_value};
pub(crate) use uploads::{FILE_BYTES_MAX, judge_upload_path};
