//! Rock Ridge (IEEE P1282) in the system use areas of directory records (SUSP, IEEE P1281).

use super::{Fields, damaged, read_bytes};
use crate::error::Result;
use crate::io::VolumeRead;

/// Most continuation areas of one record.
const CONTINUATIONS_MAX: usize = 64;
/// Most bytes of all continuation areas of an image.
const CONTINUATION_BYTES_MAX: u64 = 64 << 20;
/// Longest name after all its parts.
const NAME_MAX: usize = 1024;

const NAME_CURRENT: u8 = 0x02;
const NAME_PARENT: u8 = 0x04;

/// What a record's system use area says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// `NM`.
    pub name: Option<String>,
    /// `CL`: the block of a directory that was moved because of its depth.
    pub child_link: Option<u32>,
    /// `RE`: this is such a directory, at the place it was moved to.
    pub is_relocated: bool,
    /// Why the file's data cannot be read as they are.
    pub unreadable: Option<&'static str>,
    /// Any entry of Rock Ridge was there.
    pub is_rock_ridge: bool,
}

/// The `SP` entry of the root's own record: how many bytes to skip in every other record.
pub(super) fn announced(system_use: &[u8]) -> Option<usize> {
    // on CD-ROM XA discs, 14 bytes of another kind come first
    [0, 14].into_iter().find_map(|at| {
        let entry = system_use.bytes(at, 7)?;
        (entry.starts_with(b"SP") && entry.bytes(4, 2) == Some(&[0xBE, 0xEF])).then(|| usize::from(entry[6]))
    })
}

/// Reads all entries, following continuation areas.
pub(super) fn read<D: VolumeRead>(
    device: &D,
    block: u64,
    system_use: &[u8],
    skip: usize,
    spent: &mut u64,
) -> Result<Attributes> {
    let mut out = Attributes::default();
    let mut name = Vec::new();
    let mut area = system_use.get(skip..).unwrap_or_default().to_vec();
    for _ in 0..CONTINUATIONS_MAX {
        let Some((at, length)) = entries(&area, &mut out, &mut name, block) else { break };
        *spent = spent.saturating_add(length);
        if *spent > CONTINUATION_BYTES_MAX {
            return Err(damaged("the Rock Ridge entries have no end").at(at));
        }
        area = read_bytes(device, at, length)?;
    }
    if name.len() > NAME_MAX {
        return Err(damaged("a Rock Ridge name is far too long"));
    }
    if !name.is_empty() {
        out.name = Some(match String::from_utf8(name) {
            Ok(name) => name,
            Err(error) => error.into_bytes().into_iter().map(char::from).collect(),
        });
    }
    Ok(out)
}

/// Reads the entries of one area; answers with the place of the next one.
fn entries(area: &[u8], out: &mut Attributes, name: &mut Vec<u8>, block: u64) -> Option<(u64, u64)> {
    let mut next = None;
    let mut at = 0;
    while let Some(length) = area.u8(at + 2).map(usize::from).filter(|&length| length >= 4) {
        let Some(entry) = area.bytes(at, length) else { break };
        match (&entry[..2], entry.len()) {
            (b"NM", 5..) => {
                out.is_rock_ridge = true;
                if entry[4] & (NAME_CURRENT | NAME_PARENT) == 0 && name.len() <= NAME_MAX {
                    name.extend(&entry[5..]);
                }
            }
            (b"PX" | b"RR", _) => out.is_rock_ridge = true,
            (b"SL", _) => out.unreadable = Some("it is a symbolic link"),
            (b"ZF", _) => out.unreadable = Some("it is compressed (zisofs)"),
            (b"SF", _) => out.unreadable = Some("it is a sparse file of Rock Ridge"),
            (b"CL", 12..) => out.child_link = entry.u32(4),
            (b"RE", _) => out.is_relocated = true,
            (b"CE", 28..) => {
                // block, offset and length, each in both byte orders
                let place = (entry.u32(4)?, entry.u32(12)?, entry.u32(20)?);
                let start = u64::from(place.0) * block + u64::from(place.1);
                next = Some((start, u64::from(place.2).min(0x1_0000)));
            }
            (b"ST", _) => break,
            _ => {}
        }
        at += length;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::MemoryVolume;

    #[test]
    fn a_name_in_parts_over_a_continuation() {
        let mut image = vec![0; 4096];
        image[2048..2058].copy_from_slice(b"NM\x0a\x01\0world");
        let mut area = b"NM\x0b\x01\x01hello,".to_vec();
        area.extend(b"CE\x1c\x01");
        for number in [1u32, 0, 10] {
            area.extend(number.to_le_bytes());
            area.extend(number.to_be_bytes());
        }
        let attributes = read(&MemoryVolume(image), 2048, &area, 0, &mut 0).unwrap();
        assert_eq!(attributes.name.as_deref(), Some("hello,world"));
        assert!(attributes.is_rock_ridge);
    }

    #[test]
    fn a_continuation_that_names_itself_ends() {
        let mut image = vec![0; 2048];
        image[..4].copy_from_slice(b"CE\x1c\x01");
        image[20] = 28;
        let area = image[..28].to_vec();
        assert_eq!(read(&MemoryVolume(image), 2048, &area, 0, &mut 0).unwrap(), Attributes::default());
    }
}
