//! Volume descriptors of ISO 9660 (ECMA-119 section 8).

use std::mem::offset_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::bytes::{read_bytes, view};
use super::error::damaged;
use super::record::Record;
use super::tree::Tree;
use crate::error::Result;
use crate::io::VolumeRead;

/// Bytes of a sector of a CD, and of a descriptor.
pub(super) const SECTOR: u64 = 2048;
/// Sector of the first descriptor: the system area comes before it.
const FIRST: u64 = 16;
/// Most descriptors that are looked at; real images have two to four.
const DESCRIPTORS_MAX: u64 = 64;

/// Types of descriptors (ECMA-119 section 8.1.1).
const PRIMARY: u8 = 1;
const SUPPLEMENTARY: u8 = 2;
const TERMINATOR: u8 = 255;

/// The escape sequences that announce UCS-2 names, levels 1 to 3 (Joliet specification).
const JOLIET_ESCAPES: [&[u8]; 3] = [b"%/@", b"%/C", b"%/E"];

/// A primary or supplementary volume descriptor (ECMA-119 sections 8.4 and 8.5). Numbers are stored in both byte orders.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct VolumeDescriptor {
    kind: u8,
    identifier: [u8; 5],
    /// 2 for the enhanced tree of ISO 9660:1999.
    version: u8,
    flags: u8,
    system_identifier: [u8; 32],
    volume_identifier: [u8; 32],
    unused: [u8; 8],
    blocks: U32,
    blocks_be: [u8; 4],
    /// Zero in a primary descriptor.
    escape_sequences: [u8; 32],
    volume_set_size: U16,
    volume_set_size_be: [u8; 2],
    volume_number: U16,
    volume_number_be: [u8; 2],
    /// Bytes of a logical block.
    block_size: U16,
    block_size_be: [u8; 2],
    path_table_size: U32,
    path_table_size_be: [u8; 4],
    path_tables: [U32; 4],
    /// The root's directory record, whose name has one byte.
    root: [u8; 34],
    /// Identifiers and times that do not matter here.
    rest: [u8; 1858],
}

const _: () = assert!(size_of::<VolumeDescriptor>() as u64 == SECTOR);

/// The trees of ISO 9660 on an image.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    primary: Option<Record>,
    joliet: Option<Record>,
    enhanced: Option<Record>,
    /// Bytes of a logical block.
    pub block: u64,
}

impl Volumes {
    /// The root directory of a tree.
    pub fn root(&self, tree: Tree) -> Option<&Record> {
        match tree {
            Tree::RockRidge | Tree::Plain => self.primary.as_ref(),
            Tree::Joliet => self.joliet.as_ref(),
            Tree::Enhanced => self.enhanced.as_ref(),
            Tree::Udf => None,
        }
    }
}

/// Reads the descriptors; `None` when there are none.
pub(super) fn read<D: VolumeRead>(device: &D) -> Result<Option<Volumes>> {
    let mut out = Volumes::default();
    for number in 0..DESCRIPTORS_MAX {
        let at = (FIRST + number) * SECTOR;
        if at + SECTOR > device.len() {
            break;
        }
        let data = read_bytes(device, at, SECTOR)?;
        let Some(descriptor) = view::<VolumeDescriptor>(&data) else { break };
        // a volume recognition sequence of UDF may follow
        if &descriptor.identifier != b"CD001" || descriptor.kind == TERMINATOR {
            break;
        }
        if !matches!(descriptor.kind, PRIMARY | SUPPLEMENTARY) {
            continue;
        }
        let block = u64::from(descriptor.block_size.get());
        if !matches!(block, 512 | 1024 | 2048) {
            return Err(damaged("the logical block size of the volume is impossible")
                .at(at + offset_of!(VolumeDescriptor, block_size) as u64)
                .expected_found("512, 1024 or 2048", block));
        }
        let root = Record::parse(&descriptor.root, 0).ok_or_else(|| {
            damaged("the volume descriptor has no root directory").at(at + offset_of!(VolumeDescriptor, root) as u64)
        })?;
        let is_joliet = JOLIET_ESCAPES.iter().any(|escape| descriptor.escape_sequences.starts_with(escape));
        match (descriptor.kind, descriptor.version) {
            (PRIMARY, _) if out.primary.is_none() => {
                out.block = block;
                out.primary = Some(root);
            }
            (SUPPLEMENTARY, _) if is_joliet => out.joliet = out.joliet.or(Some(root)),
            (SUPPLEMENTARY, 2) => out.enhanced = out.enhanced.or(Some(root)),
            _ => {}
        }
    }
    Ok(out.primary.is_some().then_some(out))
}
