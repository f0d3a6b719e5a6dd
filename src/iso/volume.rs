//! Volume descriptors of ISO 9660 (ECMA-119 section 8).

use super::directory::Record;
use super::{Fields, Tree, damaged, read_bytes};
use crate::error::Result;
use crate::io::VolumeRead;

/// Sectors of a CD.
pub(super) const SECTOR: u64 = 2048;
/// The descriptors begin behind the system area.
const FIRST: u64 = 16;
/// Most descriptors that are looked at; real images have two to four.
const DESCRIPTORS_MAX: u64 = 64;

/// Types of descriptors.
const PRIMARY: u8 = 1;
const SUPPLEMENTARY: u8 = 2;
const TERMINATOR: u8 = 255;

/// The escape sequences that announce UCS-2 names, levels 1 to 3 (Joliet specification).
const JOLIET_ESCAPES: [&[u8]; 3] = [b"%/@", b"%/C", b"%/E"];

/// The trees of ISO 9660 on an image.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    primary: Option<Record>,
    joliet: Option<Record>,
    enhanced: Option<Record>,
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
        // a volume recognition sequence of UDF may follow
        if data.bytes(1, 5) != Some(b"CD001") {
            break;
        }
        let kind = data.u8(0).unwrap_or(TERMINATOR);
        if kind == TERMINATOR {
            break;
        }
        if kind != PRIMARY && kind != SUPPLEMENTARY {
            continue;
        }
        let block = u64::from(data.u16(128).unwrap_or(0));
        if !matches!(block, 512 | 1024 | 2048) {
            return Err(damaged("the logical block size of the volume is impossible")
                .at(at + 128)
                .expected_found("512, 1024 or 2048", block));
        }
        // the root's directory record is part of the descriptor
        let root = Record::parse(data.bytes(156, 34).unwrap_or_default(), 0)
            .ok_or_else(|| damaged("the volume descriptor has no root directory").at(at + 156))?;
        let is_joliet = JOLIET_ESCAPES.iter().any(|e| data.bytes(88, 32).unwrap_or_default().starts_with(e));
        match (kind, data.u8(6)) {
            (PRIMARY, _) if out.primary.is_none() => {
                out.block = block;
                out.primary = Some(root);
            }
            (SUPPLEMENTARY, _) if is_joliet => out.joliet = out.joliet.or(Some(root)),
            (SUPPLEMENTARY, Some(2)) => out.enhanced = out.enhanced.or(Some(root)),
            _ => {}
        }
    }
    Ok(out.primary.is_some().then_some(out))
}
