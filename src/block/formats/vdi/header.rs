//! The pre-header and the version 1.1 header of a VDI.

use std::mem::offset_of;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::block::Storage;
use crate::block::formats::extent_map::read_struct;
use crate::error::{Error, Layer, Result};
use crate::units::HostOffset;

/// The signature, which follows a text.
pub(crate) const SIGNATURE: u32 = 0xBEDA_107F;

/// Where the signature is in the file.
pub(crate) const SIGNATURE_OFFSET: usize = offset_of!(StoredHeader, signature);

/// Version 1.1, the only one VirtualBox has written since 2006.
const VERSION: u32 = 0x0001_0001;

/// Most blocks that a map may have: the limit that QEMU enforces, just under 512 TiB of 1 MiB blocks.
const BLOCKS_MAX: u32 = 0x1FFF_FF80;

/// Largest block that is accepted, in bytes; VirtualBox writes 1 MiB.
const BLOCK_MAX: u32 = 64 << 20;

/// Image types (`VDIIMAGETYPE`) that are told apart; 3, undo, was never written.
const TYPE_DYNAMIC: u32 = 1;
const TYPE_FIXED: u32 = 2;
const TYPE_DIFFERENCING: u32 = 4;

/// `VDIPREHEADER` and `VDIHEADER1PLUS` of VirtualBox (src/VBox/Storage/VDICore.h), as QEMU's block/vdi.c has them.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StoredHeader {
    /// Name of the program that made the image, for people.
    text: [u8; 64],
    signature: U32,
    /// Major version in the upper half, minor version in the lower.
    version: U32,
    /// Bytes of the header from here on.
    header_size: U32,
    image_type: U32,
    image_flags: U32,
    description: [u8; 256],
    /// Where the block map begins in the file.
    offset_bmap: U32,
    /// Where the first block begins in the file.
    offset_data: U32,
    cylinders: U32,
    heads: U32,
    sectors: U32,
    /// Bytes of a sector.
    sector_size: U32,
    unused1: U32,
    /// The disk's size in bytes.
    disk_size: U64,
    /// Bytes of a block's data.
    block_size: U32,
    /// Bytes of private data in front of each block's data.
    block_extra: U32,
    /// Entries of the block map.
    blocks_in_image: U32,
    blocks_allocated: U32,
    uuid_image: [u8; 16],
    uuid_last_snap: [u8; 16],
    uuid_link: [u8; 16],
    /// The parent of a differencing image; zero for others.
    uuid_parent: [u8; 16],
    unused2: [u8; 56],
}

const _: () = assert!(size_of::<StoredHeader>() == 512);

/// A checked header: what a reader needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Where the block map begins.
    pub(super) map: HostOffset,
    /// Where the first block begins, private data included.
    pub(super) data: HostOffset,
    /// The disk's size in bytes, rounded up to whole sectors.
    pub(super) disk_size: u64,
    /// Bytes of a block's data: a power of two, 512 bytes to 64 MiB.
    pub(super) block_size: u64,
    /// Bytes of private data in front of each block's data.
    pub(super) extra: u64,
    /// Entries of the block map.
    pub(super) blocks: u32,
}

impl Header {
    /// Reads and checks the header.
    pub(super) fn read(storage: &dyn Storage, file_length: u64) -> Result<Self> {
        if file_length < size_of::<StoredHeader>() as u64 {
            return Err(Error::damaged(Layer::Block, "the VDI is shorter than its header")
                .expected_found("512 bytes", file_length));
        }
        let stored: StoredHeader = read_struct(storage, HostOffset(0))?;
        if stored.signature != SIGNATURE {
            return Err(Error::damaged(Layer::Block, "not a VDI image")
                .at(SIGNATURE_OFFSET as u64)
                .expected_found(format_args!("{SIGNATURE:#010x}"), format_args!("{:#010x}", stored.signature.get())));
        }
        let version = stored.version.get();
        if version != VERSION {
            return Err(Error::unsupported(
                Layer::Block,
                format!("VDI version {}.{}", version >> 16, version & 0xFFFF),
            )
            .at(offset_of!(StoredHeader, version) as u64)
            .hint("let VirtualBox convert it: VBoxManage clonemedium disk OLD NEW --format VDI"));
        }
        check_type(&stored)?;
        let header = Self {
            map: HostOffset(stored.offset_bmap.get().into()),
            data: HostOffset(stored.offset_data.get().into()),
            disk_size: stored.disk_size.get().checked_next_multiple_of(512).unwrap_or(u64::MAX),
            block_size: stored.block_size.get().into(),
            extra: stored.block_extra.get().into(),
            blocks: stored.blocks_in_image.get(),
        };
        header.check(file_length, stored.sector_size.get())?;
        Ok(header)
    }

    fn check(&self, file_length: u64, sector: u32) -> Result<()> {
        let damaged = |message: &str, field: usize| Err(Error::damaged(Layer::Block, message).at(field as u64));
        if sector != 512 {
            return Err(Error::unsupported(Layer::Block, format!("a VDI with sectors of {sector} bytes"))
                .at(offset_of!(StoredHeader, sector_size) as u64));
        }
        if !self.block_size.is_power_of_two() || self.block_size < 512 || self.block_size > u64::from(BLOCK_MAX) {
            let field = offset_of!(StoredHeader, block_size);
            return damaged("the VDI's block size is not a power of two between 512 and 64 MiB", field);
        }
        if self.extra > self.block_size {
            let field = offset_of!(StoredHeader, block_extra);
            return damaged("the VDI's extra data is larger than its blocks", field);
        }
        if self.blocks > BLOCKS_MAX || u64::from(self.blocks) * self.block_size < self.disk_size {
            let field = offset_of!(StoredHeader, blocks_in_image);
            return damaged("the VDI's block map does not cover its disk", field);
        }
        if self.map.saturating_add(u64::from(self.blocks) * 4).0 > file_length {
            let field = offset_of!(StoredHeader, offset_bmap);
            return damaged("the VDI's block map lies beyond the end of the file", field);
        }
        Ok(())
    }

    /// Bytes from one block to the next.
    pub(super) fn stride(&self) -> u64 {
        self.block_size + self.extra
    }
}

/// Refuses image types other than dynamic and fixed without a parent.
fn check_type(stored: &StoredHeader) -> Result<()> {
    let at = offset_of!(StoredHeader, image_type) as u64;
    match stored.image_type.get() {
        TYPE_DYNAMIC | TYPE_FIXED if stored.uuid_parent == [0; 16] => Ok(()),
        TYPE_DYNAMIC | TYPE_FIXED | TYPE_DIFFERENCING => {
            Err(Error::unsupported(Layer::Block, "this is a differencing VDI").at(at).hint(
                "it names its parent only by a UUID of VirtualBox's own registry; merge the snapshots there, or run \
                 VBoxManage clonemedium disk SNAPSHOT NEW.vdi",
            ))
        }
        other => Err(Error::unsupported(Layer::Block, format!("VDI image type {other}"))
            .at(at)
            .hint("only dynamic and fixed disks can be read; let VirtualBox clone it to one")),
    }
}
