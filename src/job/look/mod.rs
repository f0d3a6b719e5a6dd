//! Looks into an image: lists, prints and copies out the files of one of its volumes. Writes nothing into the image.
//!
//! `files` is one volume, NTFS or FAT; `select` finds what a path with wildcards names; `walk` visits what lies below;
//! `copy` writes files to the host, under the names of `host_name`.

mod copy;
mod files;
mod host_name;
mod select;
mod walk;

pub use copy::{Copied, CopyRequest, PlannedCopy, Skipped, copy_out, read_content};
pub(super) use files::Opened;
pub use files::{Details, Files, LookRequest, Node, NodeKind, look_into};
pub use select::{Found, select};
pub use walk::walk;
