//! NTFS 3.1: reader, writer and checker.
//!
//! The lower modules are the on-disk structures, one noun each, pure over bytes, declared once for reading and
//! writing. [`Volume`] is the reader and writer built on them.
//!
//! # What the writer does not do
//!
//! | not done | what happens instead |
//! |---|---|
//! | NTFS 1.x and 3.0 | refused for editing |
//! | replaying an unclean `$LogFile` | refused, unless the caller asks to discard it |
//! | change journal (`$UsnJrnl`) | left alone: indexers miss what was edited, nothing is inconsistent |
//! | quota | new files have no owner id; Windows rescans when tracking is on |
//! | encrypted files (EFS) | content refused; can be deleted and replaced |
//! | deduplicated and cloud files | content refused; can be deleted and replaced |
//! | writing compressed or sparse files | compressed, sparse and WOF files become plain when written |
//! | making an attribute list go away | it stays when it is no longer needed, as Windows leaves it |
//! | shrinking `$MFT`, or an index that is not empty | freed records and blocks are used again |
//! | shadow copies | existing snapshots do not see the edit as one |
//! | more than 2³² clusters | refused, as by Windows |

pub mod attribute;
pub mod attribute_list;
pub mod boot;
pub mod check;
pub mod compress;
pub mod field;
pub mod file_name;
pub mod fixup;
pub mod index;
pub mod log;
pub mod name;
pub mod record;
pub mod runlist;
pub mod security;
pub mod standard_information;
pub mod units;
pub mod upcase;

mod alloc;
mod attrs;
mod bits;
mod cache;
mod content;
mod create;
mod dir;
mod facts;
mod free;
mod links;
mod open;
mod stream;
mod tree;
mod volume;

pub use file_name::Times;
pub use name::{Namespace, NtfsName};
pub use units::{FileId, Lcn, RecordNumber, Vcn};
pub use volume::{Entry, New, OpenOptions, Security, ShortNames, Stat, Volume};

use crate::error::{Error, Layer};

/// The most frequent error of this layer.
pub(crate) fn damaged(message: impl Into<String>) -> Error {
    Error::damaged(Layer::Ntfs, message)
}
