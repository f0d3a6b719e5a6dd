//! NTFS 3.1: reader, writer and checker.
//!
//! The lower modules are the on-disk structures, one noun each, pure over bytes, declared once for reading and
//! writing. [`Volume`] is the reader and writer built on them.

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

mod volume;

pub use name::{Namespace, NtfsName};
pub use units::{FileId, Lcn, RecordNumber, Vcn};
pub use volume::{Entry, New, OpenOptions, Security, Stat, Volume};

use crate::error::{Error, Layer};

/// The most frequent error of this layer.
pub(crate) fn damaged(message: impl Into<String>) -> Error {
    Error::damaged(Layer::Ntfs, message)
}
