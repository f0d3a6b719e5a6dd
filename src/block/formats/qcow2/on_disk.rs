//! The structures of a qcow2 file as they are stored, field by field in the order of the specification (QEMU
//! docs/interop/qcow2.rst, whose names they bear). All numbers are big-endian.

use std::mem::{offset_of, size_of};

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The header ("Header"). Version 2 ends before `incompatible_features`; how much of version 3 there is, `header_length`
/// says.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct StoredHeader {
    pub magic: [u8; 4],
    pub version: U32,
    /// Where the backing file's name is, inside the first cluster; 0 without one.
    pub backing_file_offset: U64,
    /// Bytes of that name, at most 1023.
    pub backing_file_size: U32,
    /// log2 of the cluster size.
    pub cluster_bits: U32,
    /// Bytes of the guest's disk.
    pub size: U64,
    /// 0 none, 1 AES, 2 LUKS.
    pub crypt_method: U32,
    /// Entries of the active L1 table.
    pub l1_size: U32,
    /// Host offset of that table.
    pub l1_table_offset: U64,
    /// Host offset of the refcount table.
    pub refcount_table_offset: U64,
    /// Clusters of the refcount table.
    pub refcount_table_clusters: U32,
    /// Number of internal snapshots.
    pub nb_snapshots: U32,
    /// Host offset of the snapshot table.
    pub snapshots_offset: U64,
    /// Features without which the image must not be opened.
    pub incompatible_features: U64,
    /// Features that may be ignored.
    pub compatible_features: U64,
    /// Features whose bits a writer that does not support them clears.
    pub autoclear_features: U64,
    /// log2 of the bits of a refcount; 4 in version 2.
    pub refcount_order: U32,
    /// Bytes of this header; its extensions follow.
    pub header_length: U32,
    /// 0 zlib, 1 zstd; only with the incompatible feature, and only if `header_length` covers it.
    pub compression_type: u8,
    /// To a multiple of 8 bytes, zeros.
    pub padding: [u8; 7],
}

/// First bytes of every qcow2 file.
pub(crate) const MAGIC: [u8; 4] = *b"QFI\xFB";
/// Bytes of a version 2 header; its extensions begin there.
pub(super) const LENGTH_V2: u32 = offset_of!(StoredHeader, incompatible_features) as u32;
/// Bytes of the smallest version 3 header.
pub(super) const LENGTH_V3_MIN: u32 = offset_of!(StoredHeader, compression_type) as u32;
/// Bytes of the header that QEMU writes today, with the compression type.
pub(super) const LENGTH_V3: u32 = size_of::<StoredHeader>() as u32;

/// Bytes that a machine writes all or not at all; an edit of the header must stay inside the first of them.
pub(super) const SECTOR: usize = 512;

const _: () = assert!(LENGTH_V2 == 72 && LENGTH_V3_MIN == 104 && LENGTH_V3 == 112);

/// What every header extension begins with; its data follow, padded to a multiple of 8 bytes ("Header extensions").
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ExtensionHeader {
    /// One of the `EXTENSION_` numbers.
    pub kind: U32,
    /// Bytes of the data, without padding.
    pub length: U32,
}

const _: () = assert!(size_of::<ExtensionHeader>() == 8);

/// Ends the list of extensions.
pub(super) const EXTENSION_END: u32 = 0;
/// Name of the backing file's format.
pub(super) const EXTENSION_BACKING_FORMAT: u32 = 0xE279_2ACA;
/// Names of feature bits for messages, each a [`FeatureName`].
pub(super) const EXTENSION_FEATURE_NAMES: u32 = 0x6803_F857;
/// Its data are a [`BitmapsExtension`].
pub(super) const EXTENSION_BITMAPS: u32 = 0x2385_2875;
/// Its data are an [`EncryptionExtension`].
pub(super) const EXTENSION_ENCRYPTION: u32 = 0x0537_BE77;
/// Name of the external data file.
pub(super) const EXTENSION_DATA_FILE: u32 = 0x4441_5441;

/// An entry of the "Feature name table".
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct FeatureName {
    /// 0 incompatible, 1 compatible, 2 autoclear.
    pub kind: u8,
    /// Number of the bit.
    pub bit: u8,
    /// UTF-8, padded with zeros.
    pub name: [u8; 46],
}

const _: () = assert!(size_of::<FeatureName>() == 48);

/// Where the directory of persistent bitmaps is ("Bitmaps extension").
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct BitmapsExtension {
    pub nb_bitmaps: U32,
    pub reserved: U32,
    /// Bytes of the directory.
    pub directory_size: U64,
    /// Host offset of the directory.
    pub directory_offset: U64,
}

const _: () = assert!(size_of::<BitmapsExtension>() == 24);

/// Where the LUKS header is ("Full disk encryption header pointer").
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct EncryptionExtension {
    /// Host offset of the header.
    pub offset: U64,
    /// Bytes of the header.
    pub length: U64,
}

const _: () = assert!(size_of::<EncryptionExtension>() == 16);

/// The fixed part of an entry of the snapshot table; extra data, id and name follow, and padding to a multiple of 8
/// bytes ("Snapshots").
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct StoredSnapshot {
    /// Host offset of the snapshot's L1 table.
    pub l1_table_offset: U64,
    /// Entries of that table.
    pub l1_size: U32,
    /// Bytes of the id.
    pub id_length: U16,
    /// Bytes of the name.
    pub name_length: U16,
    /// When it was taken, in seconds since 1970.
    pub date_seconds: U32,
    /// Nanoseconds of that time.
    pub date_nanoseconds: U32,
    /// How long the guest had run, in nanoseconds.
    pub vm_clock_nanoseconds: U64,
    /// Bytes of saved machine state; the extra data, where there are any, have a wider field.
    pub vm_state_size: U32,
    /// Bytes of the extra data: two 64-bit numbers, the bytes of saved machine state and those of the disk, of which the
    /// second or both may be missing.
    pub extra_data_size: U32,
}

const _: () = assert!(size_of::<StoredSnapshot>() == 40);

/// The fixed part of an entry of the bitmap directory; extra data and name follow, and padding to a multiple of 8 bytes
/// ("Bitmap directory").
#[derive(Debug, Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct StoredBitmap {
    /// Host offset of the bitmap's table.
    pub table_offset: U64,
    /// Entries of that table.
    pub table_size: U32,
    /// Bit 0 in-use, bit 1 auto.
    pub flags: U32,
    /// 1: a dirty tracking bitmap.
    pub kind: u8,
    /// log2 of the bytes of the disk that one bit covers.
    pub granularity_bits: u8,
    /// Bytes of the name.
    pub name_size: U16,
    /// Bytes of the extra data.
    pub extra_data_size: U32,
}

const _: () = assert!(size_of::<StoredBitmap>() == 24);

/// Decodes a table of 64-bit words; an incomplete one at its end is left out.
pub(super) fn table<E: From<u64>>(bytes: &[u8]) -> Vec<E> {
    bytes.as_chunks().0.iter().map(|entry| u64::from_be_bytes(*entry).into()).collect()
}

/// Encodes a table of 64-bit words.
pub(super) fn table_bytes<E: Copy + Into<u64>>(entries: &[E]) -> Vec<u8> {
    entries.iter().flat_map(|entry| Into::<u64>::into(*entry).to_be_bytes()).collect()
}
