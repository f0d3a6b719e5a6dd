//! The on-disk structures of NTFS, one noun each: pure over bytes, declared once for reading and writing.

pub mod attribute;
pub mod attribute_list;
pub mod boot;
pub mod error;
pub mod file_name;
pub mod fixup;
pub mod index_node;
pub mod name;
pub mod record;
pub mod runlist;
pub mod standard_information;
pub mod units;
pub mod upcase;
pub mod volume_information;
