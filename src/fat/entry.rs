//! The entries of a FAT folder: Microsoft, "FAT: General Overview of On-Disk Format" 1.03, sections "FAT Directory
//! Structure" and "FAT Long Directory Entries".

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_ref};

/// Bytes of an entry.
pub(super) const ENTRY: usize = size_of::<ShortEntry>();

/// First byte of the entry after the last one.
pub(super) const NAME_END: u8 = 0;
/// First byte of a deleted entry.
const NAME_DELETED: u8 = 0xE5;

/// In `reserved` of an entry: the name, or the extension, is shown in lower case. Windows NT and Linux write it for names
/// that need no long name otherwise.
pub(super) const LOWER_NAME: u8 = 0x08;
pub(super) const LOWER_EXTENSION: u8 = 0x10;
pub(super) const ATTRIBUTE_ARCHIVE: u8 = 0x20;
pub(super) const ATTRIBUTE_VOLUME: u8 = 0x08;
pub(super) const ATTRIBUTE_FOLDER: u8 = 0x10;
pub(super) const ATTRIBUTE_LONG_NAME: u8 = 0x0F;
/// The bits of the attributes that tell a part of a long name.
const ATTRIBUTE_LONG_NAME_MASK: u8 = 0x3F;

/// In `order`: the part that is stored first, and comes last in the name.
const ORDER_LAST: u8 = 0x40;
/// Longest name in UTF-16 units: 20 parts.
const LONG_NAME_MAX: usize = 20 * 13;

/// A file, folder or volume label.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ShortEntry {
    /// Padded with spaces; the first byte can mean the end or a deleted entry.
    pub name: [u8; 8],
    pub extension: [u8; 3],
    pub attributes: u8,
    pub reserved: u8,
    pub create_time_tenth: u8,
    pub create_time: U16,
    pub create_date: U16,
    pub access_date: U16,
    pub first_cluster_high: U16,
    pub write_time: U16,
    pub write_date: U16,
    pub first_cluster_low: U16,
    pub size: U32,
}

/// A part of a long name; the parts come last one first, before the [`ShortEntry`] that they name.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct LongEntry {
    pub order: u8,
    pub name_1: [U16; 5],
    pub attributes: u8,
    pub kind: u8,
    pub checksum: u8,
    pub name_2: [U16; 6],
    pub first_cluster_low: U16,
    pub name_3: [U16; 2],
}

const _: () = assert!(size_of::<ShortEntry>() == 32 && size_of::<LongEntry>() == 32);

impl LongEntry {
    fn units(&self) -> impl Iterator<Item = u16> {
        self.name_1.iter().chain(&self.name_2).chain(&self.name_3).map(|unit| unit.get())
    }
}

impl ShortEntry {
    /// The entry as a part of a long name, if it is one.
    fn as_long(&self) -> Option<&LongEntry> {
        (self.attributes & ATTRIBUTE_LONG_NAME_MASK == ATTRIBUTE_LONG_NAME).then(|| transmute_ref!(self))
    }

    /// The short name, as `NAME.EXT`; no dot without an extension.
    fn short_name(&self) -> String {
        let text = |bytes: &[u8], lower: u8| {
            let text: String = bytes.iter().map(|&byte| char::from(byte)).collect();
            let text = text.trim_end();
            if self.reserved & lower == 0 { text.to_owned() } else { text.to_ascii_lowercase() }
        };
        let (name, extension) = (text(&self.name, LOWER_NAME), text(&self.extension, LOWER_EXTENSION));
        if extension.is_empty() { name } else { format!("{name}.{extension}") }
    }

    /// What each part of its long name holds of it.
    fn checksum(&self) -> u8 {
        let bytes = self.name.iter().chain(&self.extension);
        bytes.fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
    }

    pub(super) fn first_cluster(&self) -> u32 {
        u32::from(self.first_cluster_high.get()) << 16 | u32::from(self.first_cluster_low.get())
    }
}

/// A file or folder.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub is_folder: bool,
    /// Its first cluster; 0 for an empty file.
    pub first: u32,
    /// Bytes of a file; 0 for a folder.
    pub size: u64,
    /// Number of its [`ShortEntry`] in the folder.
    pub index: usize,
    /// Attributes: read-only 1, hidden 2, system 4, archive 32.
    pub attributes: u8,
    /// Date and time of the last write, as FAT has them.
    pub written: (u16, u16),
}

/// Shows every file and folder of a folder's bytes with its long name (empty if it has none) and its short name, until
/// `visit` returns `false`. The folder itself (`.`) and the one above it (`..`) are shown, too.
pub(super) fn visit_entries(folder: &[u8], mut visit: impl FnMut(&str, &str, Found) -> bool) {
    let mut long: Vec<u16> = Vec::new();
    let mut checksum = None;
    for (index, bytes) in folder.as_chunks::<ENTRY>().0.iter().enumerate() {
        let entry: &ShortEntry = transmute_ref!(bytes);
        match entry.name[0] {
            NAME_END => return,
            NAME_DELETED => {
                long.clear();
                continue;
            }
            _ => {}
        }
        if let Some(part) = entry.as_long() {
            if part.order & ORDER_LAST != 0 || checksum != Some(part.checksum) {
                long.clear();
            }
            checksum = Some(part.checksum);
            long.splice(..0, part.units());
            long.truncate(LONG_NAME_MAX);
            continue;
        }
        let mut name = std::mem::take(&mut long);
        // Programs that know no long names leave those of entries that they remove.
        if checksum != Some(entry.checksum()) {
            name.clear();
        }
        if entry.attributes & ATTRIBUTE_VOLUME != 0 {
            continue;
        }
        let length = name.iter().position(|unit| *unit == 0).unwrap_or(name.len());
        let name = String::from_utf16_lossy(name.get(..length).unwrap_or_default());
        let found = Found {
            is_folder: entry.attributes & ATTRIBUTE_FOLDER != 0,
            first: entry.first_cluster(),
            size: u64::from(entry.size.get()),
            index,
            attributes: entry.attributes,
            written: (entry.write_date.get(), entry.write_time.get()),
        };
        if !visit(&name, &entry.short_name(), found) {
            return;
        }
    }
}

/// The entry of that name in a folder's bytes, by its long or its short name.
pub(super) fn find_entry(folder: &[u8], wanted: &str) -> Option<Found> {
    let wanted = wanted.to_lowercase();
    let mut out = None;
    visit_entries(folder, |long, short, found| {
        if long.to_lowercase() == wanted || short.to_lowercase() == wanted {
            out = Some(found);
        }
        out.is_none()
    });
    out
}

/// The number of the first entry of a folder that is not in use.
pub(super) fn find_free_entry(folder: &[u8]) -> Option<usize> {
    folder.as_chunks::<ENTRY>().0.iter().position(|entry| matches!(entry[0], NAME_END | NAME_DELETED))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A long name belongs to the entry whose checksum its parts hold, and to no other.
    #[test]
    fn a_long_name_that_was_left_behind_names_nothing() {
        let mut short = [0; 32];
        short[..11].copy_from_slice(b"BCD        ");
        let entry: &ShortEntry = transmute_ref!(&short);
        for (checksum, expected) in [(entry.checksum(), "old"), (entry.checksum() ^ 1, "")] {
            let mut part = [0xFF; 32];
            (part[0], part[11], part[12], part[13]) = (0x41, ATTRIBUTE_LONG_NAME, 0, checksum);
            part[1..9].copy_from_slice(&[b'o', 0, b'l', 0, b'd', 0, 0, 0]);
            let mut names = Vec::new();
            visit_entries(&[part, short].concat(), |long, short, _| {
                names.push((long.to_owned(), short.to_owned()));
                true
            });
            assert_eq!(names, [(expected.to_owned(), "BCD".to_owned())]);
        }
    }
}
