//! Entries: the typed, nested values of which the metadata and startup key files consist.

use crate::error::{Error, Layer, Place, Result};
use crate::field::{Field, utf16_units};

/// Roles of entries that are read here.
pub(super) mod role {
    /// A key of the volume, sealed with the volume master key.
    pub const VOLUME_KEY: u16 = 3;
    /// Description of the volume.
    pub const DESCRIPTION: u16 = 7;
    /// Place of the relocated header.
    pub const RELOCATED_HEADER: u16 = 15;
}

/// Types of values that are read here.
pub(super) mod value {
    pub const KEY: u16 = 1;
    pub const TEXT: u16 = 2;
    pub const STRETCH: u16 = 3;
    pub const SEALED: u16 = 5;
    pub const MASTER_KEY: u16 = 8;
    pub const EXTERNAL_KEY: u16 = 9;
    pub const PLACE: u16 = 15;
}

/// Bytes of an entry before its value.
pub(super) const HEADER: usize = 8;
/// Characters of a description that are read.
const TEXT_MAX: usize = 256;

const SIZE: Field<u16> = Field::at(0);
const ROLE: Field<u16> = Field::at(2);
const VALUE: Field<u16> = Field::at(4);

/// One entry.
pub(super) struct Entry<'a> {
    pub role: u16,
    pub value: u16,
    /// What follows the entry's header.
    pub data: &'a [u8],
}

impl Entry<'_> {
    /// The text of a value of type [`value::TEXT`], up to its NUL.
    pub fn text(&self) -> String {
        let units = utf16_units(self.data).take_while(|unit| *unit != 0).take(TEXT_MAX);
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    }
}

/// The entries of a list, one after the other; a size of 0 ends the list.
pub(super) struct Entries<'a> {
    list: &'a [u8],
    position: usize,
}

impl<'a> Entries<'a> {
    pub fn new(list: &'a [u8]) -> Self {
        Self { list, position: 0 }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.list.get(self.position..).filter(|rest| !rest.is_empty())?;
        let size = usize::from(SIZE.get(rest));
        if size == 0 {
            self.position = self.list.len();
            return None;
        }
        let Some((entry, data)) = rest.get(..size).and_then(|entry| Some((entry, entry.get(HEADER..)?))) else {
            let error = damaged("an entry of the metadata has an impossible size")
                .expected_found(format_args!("{HEADER} to {}", rest.len()), size)
                .at(Place::Inner(self.position as u64));
            self.position = self.list.len();
            return Some(Err(error));
        };
        self.position = self.position.saturating_add(size);
        Some(Ok(Entry { role: ROLE.get(entry), value: VALUE.get(entry), data }))
    }
}

/// An error about the content of metadata.
pub(super) fn damaged(what: impl Into<String>) -> Error {
    Error::damaged(Layer::BitLocker, what)
}
