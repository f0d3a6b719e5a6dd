//! The pre-header and the version 1.1 header of a VDI.

use crate::block::Storage;
use crate::block::formats::extent_map::read_exact;
use crate::error::{Error, Layer, Result};

/// Bytes read of the header.
pub(crate) const HEADER: usize = 512;

/// The signature, at offset 64 behind a text.
pub(crate) const SIGNATURE: u32 = 0xBEDA_107F;

/// Version 1.1, the only one VirtualBox has written since 2006.
const VERSION: u32 = 0x0001_0001;

/// Most blocks that a map may have: the limit that QEMU enforces, just under 512 TiB of 1 MiB blocks.
const BLOCKS_MAX: u32 = 0x1FFF_FF80;

/// Largest block that is taken; VirtualBox writes 1 MiB.
const BLOCK_MAX: u32 = 64 << 20;

/// What a reader needs of the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// Byte offset of the block map.
    pub(crate) map_offset: u64,
    /// Byte offset of the first block.
    pub(crate) data_offset: u64,
    /// Guest size, rounded up to whole sectors.
    pub(crate) disk_size: u64,
    /// Bytes per block.
    pub(crate) block_size: u64,
    /// Bytes of private data in front of each block.
    pub(crate) extra: u64,
    /// Entries of the block map.
    pub(crate) blocks: u32,
}

impl Header {
    /// Reads and checks the header.
    pub(crate) fn read(storage: &dyn Storage, file_length: u64) -> Result<Self> {
        if file_length < HEADER as u64 {
            return Err(Error::damaged(Layer::Block, "the VDI is shorter than its header")
                .expected_found("512 bytes", file_length));
        }
        let mut raw = [0; HEADER];
        read_exact(storage, 0, &mut raw)?;
        let u32_at = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        if u32_at(64) != SIGNATURE {
            return Err(Error::damaged(Layer::Block, "no VDI signature").at(64u64));
        }
        if u32_at(68) != VERSION {
            return Err(Error::unsupported(
                Layer::Block,
                format!("VDI version {}.{}", u32_at(68) >> 16, u32_at(68) & 0xFFFF),
            )
            .at(68u64)
            .hint("let VirtualBox convert it: VBoxManage clonemedium disk OLD NEW --format VDI"));
        }
        Self::check_type(u32_at(76), &raw[440..456])?;
        let disk_size = u64::from(u32_at(368)) | u64::from(u32_at(372)) << 32;
        let header = Self {
            map_offset: u32_at(340).into(),
            data_offset: u32_at(344).into(),
            disk_size: disk_size.checked_next_multiple_of(512).unwrap_or(u64::MAX),
            block_size: u32_at(376).into(),
            extra: u32_at(380).into(),
            blocks: u32_at(384),
        };
        header.check(file_length, u32_at(360))?;
        Ok(header)
    }

    fn check_type(kind: u32, parent: &[u8]) -> Result<()> {
        match kind {
            1 | 2 if parent.iter().all(|b| *b == 0) => Ok(()),
            1 | 2 | 4 => Err(Error::unsupported(Layer::Block, "this is a differencing VDI")
                .at(76u64)
                .hint("it names its parent only by a UUID of VirtualBox's own registry; merge the snapshots there, or run VBoxManage clonemedium disk SNAPSHOT NEW.vdi")),
            other => Err(Error::unsupported(Layer::Block, format!("VDI image type {other}"))
                .at(76u64)
                .hint("only dynamic and fixed disks can be read; let VirtualBox clone it to one")),
        }
    }

    fn check(&self, file_length: u64, sector: u32) -> Result<()> {
        let damaged = |message: &str, at: u64| Err(Error::damaged(Layer::Block, message).at(at));
        if sector != 512 {
            return Err(Error::unsupported(Layer::Block, format!("a VDI with sectors of {sector} bytes")).at(360u64));
        }
        if !self.block_size.is_power_of_two() || self.block_size < 512 || self.block_size > u64::from(BLOCK_MAX) {
            return damaged("the VDI's block size is not a power of two between 512 and 64 MiB", 376);
        }
        if self.extra > self.block_size {
            return damaged("the VDI's extra data is larger than its blocks", 380);
        }
        if self.blocks > BLOCKS_MAX || u64::from(self.blocks) * self.block_size < self.disk_size {
            return damaged("the VDI's block map does not cover its disk", 384);
        }
        if self.map_offset + u64::from(self.blocks) * 4 > file_length {
            return damaged("the VDI's block map lies beyond the end of the file", 340);
        }
        Ok(())
    }

    /// Bytes from one block to the next.
    pub(crate) fn stride(&self) -> u64 {
        self.block_size + self.extra
    }
}
