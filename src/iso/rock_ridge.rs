//! Rock Ridge (IEEE P1282) in the system use areas of directory records (SUSP, IEEE P1281).

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::bytes::{read_bytes, view};
use super::error::damaged;
use crate::error::Result;
use crate::io::VolumeRead;

/// Most continuation areas of one record.
const CONTINUATIONS_MAX: usize = 64;
/// Most bytes of all continuation areas of an image.
const CONTINUATION_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of one continuation area.
const AREA_BYTES_MAX: u64 = 0x1_0000;
/// Longest name after all its parts.
const NAME_MAX: usize = 1024;

const NAME_CURRENT: u8 = 0x02;
const NAME_PARENT: u8 = 0x04;

/// What every entry begins with (SUSP 4.1).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct EntryHeader {
    signature: [u8; 2],
    /// Bytes of the entry, this header included.
    length: u8,
    version: u8,
}

/// `SP`: the sharing protocol is in use (SUSP 5.3).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SharingProtocol {
    header: EntryHeader,
    check: [u8; 2],
    skip: u8,
}

/// `CE`: the entries continue elsewhere (SUSP 5.1). Numbers are stored in both byte orders.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ContinuationArea {
    header: EntryHeader,
    block: U32,
    block_be: [u8; 4],
    offset: U32,
    offset_be: [u8; 4],
    length: U32,
    length_be: [u8; 4],
}

/// `NM`: a name, or a part of one; its bytes follow (RRIP 4.1.4).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct AlternateName {
    header: EntryHeader,
    flags: u8,
}

/// `CL`: the block of the directory that was moved (RRIP 4.1.5.1).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ChildLink {
    header: EntryHeader,
    block: U32,
    block_be: [u8; 4],
}

const _: () = {
    assert!(size_of::<EntryHeader>() == 4);
    assert!(size_of::<SharingProtocol>() == 7);
    assert!(size_of::<ContinuationArea>() == 28);
    assert!(size_of::<AlternateName>() == 5);
    assert!(size_of::<ChildLink>() == 12);
};

/// What a record's system use area says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// The name that `NM` entries give.
    pub name: Option<String>,
    /// `CL`: the block of a directory that was moved because of its depth.
    pub child_link: Option<u32>,
    /// `RE`: this is such a directory, at the place it was moved to.
    pub is_relocated: bool,
    /// Why the file's data cannot be read as they are.
    pub unreadable: Option<&'static str>,
    /// Whether there was any entry of Rock Ridge; SUSP alone has other uses.
    pub is_rock_ridge: bool,
}

/// The `SP` entry of the root's own record: how many bytes to skip in every other record.
pub(super) fn announced(system_use: &[u8]) -> Option<usize> {
    // on CD-ROM XA discs, 14 bytes of another kind come first
    [0, 14].into_iter().find_map(|at| {
        let entry: &SharingProtocol = view(system_use.get(at..)?)?;
        let is_announced = &entry.header.signature == b"SP" && entry.check == [0xBE, 0xEF];
        is_announced.then(|| usize::from(entry.skip))
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
        let Some((at, length)) = read_area(&area, &mut out, &mut name, block) else { break };
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

/// Reads the entries of one area; returns the place and length of the next one, in bytes.
fn read_area(area: &[u8], out: &mut Attributes, name: &mut Vec<u8>, block: u64) -> Option<(u64, u64)> {
    let mut next = None;
    let mut rest = area;
    while let Some(header) = view::<EntryHeader>(rest) {
        let length = usize::from(header.length);
        let Some((entry, after)) = rest.split_at_checked(length).filter(|_| length >= size_of::<EntryHeader>()) else {
            break;
        };
        rest = after;
        match &header.signature {
            b"NM" => {
                if let Ok((part, text)) = AlternateName::ref_from_prefix(entry) {
                    out.is_rock_ridge = true;
                    if part.flags & (NAME_CURRENT | NAME_PARENT) == 0 && name.len() <= NAME_MAX {
                        name.extend(text);
                    }
                }
            }
            b"PX" | b"RR" => out.is_rock_ridge = true,
            b"SL" => out.unreadable = Some("it is a symbolic link"),
            b"ZF" => out.unreadable = Some("it is compressed (zisofs)"),
            b"SF" => out.unreadable = Some("it is a sparse file of Rock Ridge"),
            b"CL" => out.child_link = view(entry).map(|link: &ChildLink| link.block.get()).or(out.child_link),
            b"RE" => out.is_relocated = true,
            b"CE" => {
                if let Some(area) = view::<ContinuationArea>(entry) {
                    let start = u64::from(area.block.get()) * block + u64::from(area.offset.get());
                    next = Some((start, u64::from(area.length.get()).min(AREA_BYTES_MAX)));
                }
            }
            b"ST" => break,
            _ => {}
        }
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
