//! UDF (ECMA-167 and OSTA UDF): read-only, partitions of type 1 and metadata partitions.

mod directory;
mod format;
mod sequence;
mod volume;

pub(super) use directory::list;
pub(super) use sequence::is_present;
