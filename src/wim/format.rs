//! The on-disk structures, in the order of the format's description.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a file begins with.
pub(super) const SIGNATURE: &[u8; 8] = b"MSWIM\0\0\0";
/// Version of all files whose resources are compressed one by one.
pub(super) const VERSION: u32 = 0x1_0D00;
/// Version of files with solid resources (ESD).
pub(super) const VERSION_SOLID: u32 = 0xE00;

/// Header flag: resources may be compressed.
pub(super) const HEADER_COMPRESSED: u32 = 0x2;
/// Header flag: the file is one part of several.
pub(super) const HEADER_SPANNED: u32 = 0x8;
/// Header flag: XPRESS with Huffman codes.
pub(super) const HEADER_XPRESS: u32 = 0x2_0000;
/// Header flag: LZX.
pub(super) const HEADER_LZX: u32 = 0x4_0000;
/// Header flag: LZMS.
pub(super) const HEADER_LZMS: u32 = 0x8_0000;

/// Resource flag: the entry is free.
pub(super) const RESOURCE_FREE: u8 = 0x01;
/// Resource flag: the metadata of an image.
pub(super) const RESOURCE_METADATA: u8 = 0x02;
/// Resource flag: compressed in chunks.
pub(super) const RESOURCE_COMPRESSED: u8 = 0x04;
/// Resource flag: goes on in another part.
pub(super) const RESOURCE_SPANNED: u8 = 0x08;
/// Resource flag: part of a solid resource.
pub(super) const RESOURCE_SOLID: u8 = 0x10;

/// Where a resource lies.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct StoredResource {
    /// Bytes in the file, in 56 bits.
    stored: [u8; 7],
    pub(super) flags: u8,
    /// Where it begins in the file.
    pub(super) offset: U64,
    /// Bytes of its content.
    pub(super) size: U64,
}

impl StoredResource {
    /// Bytes in the file.
    pub(super) fn stored(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes[..7].copy_from_slice(&self.stored);
        u64::from_le_bytes(bytes)
    }

    /// Whether a flag is set.
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// `WIMHEADER_V1_PACKED`.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct StoredHeader {
    pub(super) signature: [u8; 8],
    pub(super) header_size: U32,
    pub(super) version: U32,
    pub(super) flags: U32,
    /// Bytes of content in a chunk.
    pub(super) chunk_size: U32,
    guid: [u8; 16],
    part: U16,
    pub(super) parts: U16,
    pub(super) images: U32,
    pub(super) lookup_table: StoredResource,
    xml: StoredResource,
    boot_metadata: StoredResource,
    /// Number of the image that a boot loader starts, from 1; 0 for none.
    pub(super) boot_index: U32,
    integrity: StoredResource,
    unused: [u8; 60],
}

/// An entry of the lookup table.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct StoredStream {
    pub(super) resource: StoredResource,
    part: U16,
    references: U32,
    /// SHA-1 of the content.
    pub(super) sha1: [u8; 20],
}

/// The fixed part of an entry of a directory; its names follow.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct StoredEntry {
    /// Bytes of the entry with its names; entries begin at multiples of 8. At most 8: the end of the directory.
    pub(super) length: U64,
    /// `FILE_ATTRIBUTE_…`.
    pub(super) attributes: U32,
    security: U32,
    /// Where the entries of a folder begin in the metadata; 0 for none.
    pub(super) children: U64,
    unused: [u8; 16],
    times: [U64; 3],
    pub(super) sha1: [u8; 20],
    reparse: [u8; 4],
    hard_link: U64,
    /// Named streams, whose entries follow this one.
    pub(super) streams: U16,
    /// Bytes of the short name.
    pub(super) short_name: U16,
    /// Bytes of the name, which stands first.
    pub(super) name: U16,
}

/// What stands before the first entry: descriptors, whose lengths follow.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct StoredSecurity {
    /// Bytes of all of it.
    pub(super) length: U32,
    count: U32,
}
