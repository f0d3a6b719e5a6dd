//! The on-disk structures of a hive: one declaration for reading and for writing.
//!
//! Offsets of fields are relative to the start of their structure; a *cell offset* is relative to the first bin, that
//! is to byte 4096 of the file. Everything is little-endian. The names follow the public description of the format
//! ("Windows registry file format specification", M. Suhanov), whose chapters the files name.

pub(super) mod base_block;
pub(super) mod big_data;
pub(super) mod bin;
pub(super) mod key;
mod limits;
pub(super) mod list;
pub(super) mod log_entry;
pub(super) mod security;
pub(super) mod value;

pub(super) use limits::{
    CELL_MAX, DEPTH_MAX, KEY_CELL_MAX, KEY_NAME_MAX, LENGTH_MAX, NIL, PAGE, SEGMENT, VALUE_NAME_MAX, VOLATILE,
};
pub(super) use list::LeafKind;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_structures_end_where_the_next_begins() {
        assert_eq!(key::CLASS_LENGTH.offset + 2, key::NAME);
        assert_eq!(key::LAST_WRITTEN.offset + 8, 12);
        assert_eq!(value::FLAGS.offset + 4, value::NAME);
        assert_eq!(security::LENGTH.offset + 4, security::DESCRIPTOR);
        assert_eq!(base_block::CHECKSUM.offset + 4, base_block::HEAD);
        assert_eq!(bin::LAST_WRITTEN.offset + 12, bin::HEADER as usize);
        assert_eq!(log_entry::HEADER_HASH.offset + 8, log_entry::HEADER);
        assert_eq!(SEGMENT + 4 + 4 + bin::HEADER as usize, 16384, "a segment fills a bin of four pages");
    }
}
