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
//! | replaying a `$LogFile` that is torn, or holds what is not known for certain | refused, unless the caller asks to discard it |
//! | journalling its own edits | all changed metadata wait in memory; the caller writes them to a stage and commits it |
//! | change journal (`$UsnJrnl`) | left alone: indexers miss what was edited, nothing is inconsistent |
//! | quota | new files have no owner id; Windows rescans when tracking is on |
//! | encrypted files (EFS) | content refused; can be deleted and replaced |
//! | deduplicated, cloud and other files whose content is elsewhere | content refused; can be deleted and replaced |
//! | files below a junction or another reparse point | refused: Windows would not see them there |
//! | creating reparse points, object ids, extended attributes | they are kept, and go with their files |
//! | writing compressed or sparse files | compressed, sparse and WOF files become plain when written |
//! | moving content back into its record | a stream that is in clusters stays there, whatever its size |
//! | making an attribute list go away | it stays when it is no longer needed, as Windows leaves it |
//! | attribute lists above 256 KiB, more than 1024 names of a file | refused, as by Windows |
//! | shrinking `$MFT`, or an index that is not empty | freed records and blocks are used again; their old bytes stay |
//! | `$MFT` in so many pieces that an extent could not be found through the ones before it | refused to grow |
//! | bitmaps that are not written to their end or have holes | refused for editing |
//! | deleting on a full volume, when a longer name moves up in the index and its block would have to be split | refused: nothing is kept in reserve for it |
//! | the same 8.3 names as Windows, where more than a few thousand names of a directory begin alike | other legal ones, from a wider hash |
//! | using space again that was freed in the same session | only after [`Volume::forget_freed`] |
//! | matching exactly in case-sensitive directories | an exact match is preferred; else one that differs in case is taken |
//! | 8.3 names with characters of an OEM code page | other than ASCII characters become `_` |
//! | shadow copies | existing snapshots do not see the edit as one |
//! | more than 2³² clusters | refused, as by Windows |
//!
//! # Volumes in use
//!
//! | state | editing | override |
//! |---|---|---|
//! | marked dirty, or chkdsk, upgrade or log resize under way | refused | [`OpenOptions::allow_dirty`]; the mark stays |
//! | `$LogFile` not closed | replayed first ([`OpenOptions::replay`]) | |
//! | `$LogFile` not closed, and damaged or not to be replayed | refused | [`OpenOptions::discard_log`]; empties the log, marks the volume dirty |
//! | hibernated or Fast Startup | refused | [`OpenOptions::discard_hibernation`]; the saved session is lost, the log is replayed |
//!
//! Discarding a log leaves the volume marked, so that Windows checks it: the next edit needs [`OpenOptions::allow_dirty`].

pub mod check;
pub mod compress;
pub mod format;
pub mod log;
pub mod security;

mod allocator;
mod attributes;
mod btree;
mod content;
mod core;
mod create;
mod directory;
mod guard;
mod link_target;
mod links;
mod metadata;
mod names;
mod open;
mod open_content;
mod options;
mod overlaid;
mod overrides;
mod pager;
mod path_of;
mod publish;
mod set_metadata;
mod shared_replay;
mod short_name_hints;
mod stream;
#[cfg(test)]
mod testing;
mod view_entries;
mod volume;

pub use directory::DirectoryEntry;
pub use format::file_name::Times;
pub use format::index_node as index;
pub use format::name::{Namespace, NtfsName};
pub use format::units::{FileId, Lcn, RecordNumber, Vcn};
pub use format::{
    attribute, attribute_list, boot, file_name, fixup, name, record, runlist, standard_information, units, upcase,
};
pub use metadata::{OpaqueAttributes, Stat};
pub use open_content::OpenContent;
pub use options::{CreateOptions, OpenOptions, Security, ShortNames};
pub use overlaid::Overlaid;
pub use shared_replay::{Replay, SharedReplay};
pub use volume::Volume;

pub(crate) use format::error::damaged;

pub(crate) use crate::field;
