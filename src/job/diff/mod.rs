//! Compares two disks: the files of their volumes, and the registry of the Windows on them. Writes nothing.
//!
//! `disks` opens both and pairs their volumes; `files` walks two volumes in step, `content` compares two contents,
//! `registry` the hives. Every difference is shown as soon as it is found, so that none has to be kept.

mod content;
mod difference;
mod disks;
mod files;
mod registry;

pub use difference::{
    Aspect, Change, Compared, Difference, FileDifference, NotCompared, See, UnreadFiles, VolumeDifference,
};
pub use disks::{CompareOptions, DiffRequest, Scope, diff_images, diff_with_plan};
