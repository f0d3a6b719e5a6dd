//! Directories of UDF, from the root of the file set.

use super::format::{FILE_IDENTIFIER, FILE_SET, FileIdentifier, FileSetDescriptor, Tag};
use super::volume::{BlockAddress, Volume};
use crate::error::{Place, Result};
use crate::io::VolumeRead;
use crate::iso::bytes::view;
use crate::iso::error::damaged;
use crate::iso::listing::{IsoFile, Listing, join};

/// Largest directory, in bytes.
const DIRECTORY_MAX: u64 = 64 << 20;

const CHARACTERISTIC_DIRECTORY: u8 = 0x02;
const CHARACTERISTIC_DELETED: u8 = 0x04;
const CHARACTERISTIC_PARENT: u8 = 0x08;

const TYPE_DIRECTORY: u8 = 4;
const TYPE_FILE: u8 = 5;
const TYPE_REALTIME_FILE: u8 = 249;

/// Lists all files below the root of the file set.
pub(crate) fn list<D: VolumeRead>(device: &D, listing: &mut Listing) -> Result<()> {
    let volume = Volume::open(device)?;
    let set = volume.read_block(volume.file_set)?;
    if Tag::identify(&set) != Some(FILE_SET) {
        return Err(damaged("the UDF volume has no file set"));
    }
    let set: &FileSetDescriptor = view(&set).ok_or_else(|| damaged("the UDF file set is cut"))?;
    let root = BlockAddress::from(set.root);
    let mut todo = vec![(root, String::new(), 0)];
    while let Some((icb, path, depth)) = todo.pop() {
        let entry = volume.entry(icb, &path)?;
        let place = volume.locate(icb, volume.block).map_err(|e| e.path(path.clone()))?;
        listing.enter(place, entry.size, &path, depth)?;
        if entry.kind != TYPE_DIRECTORY || entry.size > DIRECTORY_MAX {
            return Err(damaged("a UDF directory is not a directory, or far too large").path(path));
        }
        let data = volume.content(&entry)?;
        for child in read_identifiers(&data, &path).map_err(|e| e.inside_pieces(|inner| entry.locate(inner)))? {
            listing.count(&path)?;
            let Some(child_path) = join(&path, &child.name) else {
                listing.leave_out(&path, &format!("the name {:?} is impossible", child.name));
                continue;
            };
            if child.is_directory {
                todo.push((child.icb, child_path, depth + 1));
                continue;
            }
            let entry = volume.entry(child.icb, &child_path)?;
            if matches!(entry.kind, TYPE_FILE | TYPE_REALTIME_FILE) {
                listing.files.push(IsoFile { path: child_path, size: entry.size, extents: entry.extents });
            } else {
                listing.leave_out(&child_path, "it is a symbolic link or another special file");
            }
        }
    }
    Ok(())
}

/// A name in a directory.
struct Identifier {
    name: String,
    icb: BlockAddress,
    is_directory: bool,
}

fn read_identifiers(data: &[u8], path: &str) -> Result<Vec<Identifier>> {
    let mut out = Vec::new();
    let mut at = 0;
    while at + size_of::<FileIdentifier>() <= data.len() {
        let record = data.get(at..).unwrap_or_default();
        let cut = || damaged("a UDF directory entry is cut").at(Place::Inner(at as u64)).path(path);
        if Tag::identify(record) != Some(FILE_IDENTIFIER) {
            return Err(cut());
        }
        let header: &FileIdentifier = view(record).ok_or_else(cut)?;
        let name_start = size_of::<FileIdentifier>() + usize::from(header.implementation_use_length.get());
        let name_end = name_start + usize::from(header.name_length);
        let name = record.get(name_start..name_end).ok_or_else(cut)?;
        if header.characteristics & (CHARACTERISTIC_DELETED | CHARACTERISTIC_PARENT) == 0 {
            out.push(Identifier {
                name: decode_name(name),
                icb: header.icb.into(),
                is_directory: header.characteristics & CHARACTERISTIC_DIRECTORY != 0,
            });
        }
        at += name_end.next_multiple_of(4);
    }
    Ok(out)
}

/// OSTA compressed Unicode (UDF 2.1.1): a first byte of 8 or 16 tells the width of a character.
fn decode_name(name: &[u8]) -> String {
    match name {
        [16 | 255, rest @ ..] => {
            let units = rest.as_chunks::<2>().0.iter().map(|&pair| u16::from_be_bytes(pair));
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
        [_, rest @ ..] => rest.iter().map(|&byte| char::from(byte)).collect(),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(decode_name(b"\x08viostor.sys"), "viostor.sys");
        assert_eq!(decode_name(b"\x10\0M\0\xfc"), "M\u{fc}");
        assert_eq!(decode_name(b""), "");
    }
}
