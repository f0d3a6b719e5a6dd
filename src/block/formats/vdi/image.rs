//! Reading VDI files through their block map.

use std::path::Path;
use std::sync::Arc;

use super::header::Header;
use crate::block::formats::extent_map::{
    ExtentMap, Location, MappedImage, Run, TableCache, data_run, length, read_exact,
};
use crate::block::{Format, Image, Storage};
use crate::error::{Error, Layer, Result};
use crate::units::{HostOffset, ImageOffset};

/// Bytes of an entry of the block map.
const ENTRY_BYTES: u64 = 4;

/// Map entry: never written.
const FREE: u32 = 0xFFFF_FFFF;

/// Map entry: discarded, reads as zeros.
const DISCARDED: u32 = 0xFFFF_FFFE;

/// Opens a VDI, which has no parent.
pub(crate) fn open(storage: Arc<dyn Storage>, path: &Path) -> Result<Box<dyn Image>> {
    let vdi = Vdi::new(storage).map_err(|e| e.path(path.display().to_string()))?;
    Ok(Box::new(MappedImage::new(vdi, None, vec![path.to_owned()])))
}

/// An open VDI file.
struct Vdi {
    storage: Arc<dyn Storage>,
    file_length: u64,
    header: Header,
    table: TableCache,
}

impl Vdi {
    fn new(storage: Arc<dyn Storage>) -> Result<Self> {
        let file_length = length(storage.as_ref())?;
        let header = Header::read(storage.as_ref(), file_length)?;
        let table = TableCache::new(Arc::clone(&storage), file_length);
        Ok(Self { storage, file_length, header, table })
    }
}

impl ExtentMap for Vdi {
    fn len(&self) -> u64 {
        self.header.disk_size
    }

    fn format(&self) -> Format {
        Format::Vdi
    }

    /// QEMU supports only blocks of 1 MiB without private data in front, and tables that begin at a sector.
    fn is_same_in_qemu(&self) -> bool {
        let header = &self.header;
        !self.storage.is_part()
            && (header.block_size, header.extra) == (1 << 20, 0)
            && (header.map.0 | header.data.0).is_multiple_of(512)
    }

    fn run_at(&self, offset: ImageOffset, limit: u64) -> Result<Run> {
        let header = &self.header;
        let (block, within) = (offset.0 / header.block_size, offset.0 % header.block_size);
        let length = limit.min(header.block_size - within);
        let at = header.map.saturating_add(block * ENTRY_BYTES);
        let entry = self.table.u32_le(at)?;
        if entry == FREE || entry == DISCARDED {
            return Ok(Run { length, location: Location::Zero });
        }
        if entry >= header.blocks {
            return Err(Error::damaged(Layer::Block, "the VDI's block map points beyond its blocks")
                .at(at)
                .expected_found(format_args!("below {}", header.blocks), entry));
        }
        let start = header.data.saturating_add(u64::from(entry) * header.stride() + header.extra + within);
        // The last block of a disk whose size is not a multiple of the block size may be cut short in the file.
        if start.checked_add(length).is_none_or(|end| end.0 > self.file_length) {
            return Err(Error::damaged(Layer::Block, "a block of the VDI lies beyond the end of the file")
                .at(start)
                .hint("the file is truncated: copy it again"));
        }
        Ok(Run { length, location: Location::Stored { file: 0, offset: start } })
    }

    fn read_stored(&self, _file: usize, offset: HostOffset, buf: &mut [u8]) -> Result<()> {
        read_exact(self.storage.as_ref(), offset, buf)
    }

    fn stored_is_data(&self, _file: usize, offset: HostOffset, limit: u64) -> Result<(bool, u64)> {
        data_run(self.storage.as_ref(), offset, limit)
    }
}
