//! The headers of the three kinds of sparse extents. All numbers are little-endian, positions are sectors.
//!
//! Sources: VMware, "Virtual Disk Format 5.0", chapters "Hosted Sparse Extents", "Stream-Optimized Compressed Sparse
//! Extents" and "ESX Server Sparse Extents". For seSparse no specification was published: its structures are the ones that
//! QEMU's block/vmdk.c reads.

use std::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::block::Storage;
use crate::block::formats::extent_map::read_struct;
use crate::error::{Error, Layer, Result};
use crate::units::HostOffset;

/// Bytes of a sector, whatever the disk.
pub(super) const SECTOR: u64 = 512;

/// First bytes of a hosted sparse extent.
pub(crate) const SPARSE_MAGIC: &[u8; 4] = b"KDMV";
/// First bytes of a COWD extent.
pub(crate) const COWD_MAGIC: &[u8; 4] = b"COWD";
/// First number of a seSparse extent, in its constant header.
pub(crate) const SESPARSE_MAGIC: u64 = 0xCAFE_BABE;
/// First number of the volatile header of a seSparse extent.
pub(super) const SESPARSE_VOLATILE_MAGIC: u64 = 0xCAFE_CAFE;

/// The header of a hosted sparse extent, and its footer (`SparseExtentHeader`).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct StoredSparseHeader {
    pub magic_number: [u8; 4],
    pub version: U32,
    pub flags: U32,
    /// Sectors of the disk that the extent holds; 0 for one that has a descriptor only.
    pub capacity: U64,
    /// Sectors of a grain.
    pub grain_size: U64,
    /// The embedded descriptor; 0 for none.
    pub descriptor_offset: U64,
    pub descriptor_size: U64,
    /// Entries of a grain table.
    pub num_gtes_per_gt: U32,
    /// The redundant grain directory.
    pub rgd_offset: U64,
    /// The grain directory, or [`GD_AT_END`].
    pub gd_offset: U64,
    /// Where the grains of a stream begin.
    pub over_head: U64,
    pub unclean_shutdown: u8,
    /// Always [`LINE_ENDS`], unless a transfer in text mode changed them.
    pub line_ends: [u8; 4],
    pub compress_algorithm: U16,
    pub pad: [u8; 433],
}

const _: () = assert!(size_of::<StoredSparseHeader>() == 512);

/// "The grain directory is where the footer says."
pub(super) const GD_AT_END: u64 = u64::MAX;

/// `singleEndLineChar`, `nonEndLineChar` and `doubleEndLineChar`.
const LINE_ENDS: [u8; 4] = *b"\n \r\n";

/// The only compression of grains.
const COMPRESSION_DEFLATE: u16 = 1;

/// Flag: `line_ends` is meaningful.
const FLAG_NEWLINE_TEST: u32 = 1;
/// Flag: the redundant grain directory is maintained.
const FLAG_REDUNDANT: u32 = 1 << 1;
/// Flag: a grain table entry of 1 means zeros.
const FLAG_ZERO_GRAIN: u32 = 1 << 2;
/// Flag: grains are compressed.
const FLAG_COMPRESSED: u32 = 1 << 16;
/// Flag: markers stand before grains and tables.
const FLAG_MARKERS: u32 = 1 << 17;

/// What stands before a compressed grain, whose stream follows, and before the tables of a stream (`GrainMarker`,
/// `MetaDataMarker`).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct StoredMarker {
    /// The grain's first sector in the extent; of another marker the number of sectors that follow it.
    pub value: U64,
    /// Bytes of the grain's stream; 0 for other markers.
    pub size: U32,
}

const _: () = assert!(size_of::<StoredMarker>() == 12);

/// Bytes of a marker before a grain's stream.
pub(super) const MARKER: u64 = size_of::<StoredMarker>() as u64;

/// A marker with its kind, if it is not a grain's.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct StoredMetadataMarker {
    pub marker: StoredMarker,
    pub kind: U32,
}

const _: () = assert!(size_of::<StoredMetadataMarker>() == 16);

impl StoredMetadataMarker {
    pub const END_OF_STREAM: u32 = 0;
    pub const GRAIN_DIRECTORY: u32 = 2;
    pub const FOOTER: u32 = 3;
}

/// What the header of a COWD extent begins with (`COWDisk_Header`); geometry and parent follow, which the descriptor has
/// too.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct StoredCowdHeader {
    pub magic_number: [u8; 4],
    pub version: U32,
    /// Bit 0: this is the root of a chain, it has no parent.
    pub flags: U32,
    /// Sectors of the disk that the extent holds.
    pub num_sectors: U32,
    /// Sectors of a grain.
    pub grain_size: U32,
    /// Where the grain directory begins.
    pub gd_offset: U32,
    /// Entries of the grain directory.
    pub num_gd_entries: U32,
    pub free_sector: U32,
}

const _: () = assert!(size_of::<StoredCowdHeader>() == 32);

/// The constant header of a seSparse extent (`VMDKSESparseConstHeader`).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct StoredSeSparseHeader {
    pub magic: U64,
    pub version: U64,
    /// Sectors of the disk that the extent holds.
    pub capacity: U64,
    /// Sectors of a grain.
    pub grain_size: U64,
    /// Sectors of a grain table.
    pub grain_table_size: U64,
    pub flags: U64,
    pub reserved: [U64; 4],
    pub volatile_header_offset: U64,
    pub volatile_header_size: U64,
    pub journal_header_offset: U64,
    pub journal_header_size: U64,
    pub journal_offset: U64,
    pub journal_size: U64,
    pub grain_dir_offset: U64,
    pub grain_dir_size: U64,
    pub grain_tables_offset: U64,
    pub grain_tables_size: U64,
    pub free_bitmap_offset: U64,
    pub free_bitmap_size: U64,
    pub backmap_offset: U64,
    pub backmap_size: U64,
    pub grains_offset: U64,
    pub grains_size: U64,
    pub pad: [u8; 304],
}

const _: () = assert!(size_of::<StoredSeSparseHeader>() == 512);

/// What the volatile header of a seSparse extent begins with (`VMDKSESparseVolatileHeader`); padding follows.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct StoredSeSparseVolatile {
    pub magic: U64,
    pub free_gt_number: U64,
    pub next_txn_seq_number: U64,
    /// Not 0 when the journal has to be replayed.
    pub replay_journal: U64,
}

const _: () = assert!(size_of::<StoredSeSparseVolatile>() == 32);

/// Largest grain: QEMU's limit, 1 GiB.
const GRAIN_SECTORS_MAX: u64 = (1 << 30) / SECTOR;

/// Largest compressed grain, since one is decompressed in memory; every known writer makes 64 KiB.
const COMPRESSED_GRAIN_SECTORS_MAX: u64 = (16 << 20) / SECTOR;

/// Most entries of a grain table: the specification's number.
const TABLE_ENTRIES_MAX: u32 = 512;

/// Most entries of a grain directory.
const DIRECTORY_MAX: u64 = 32 << 20;

/// A checked header or footer of a hosted sparse extent. Positions and sizes are sectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SparseHeader {
    flags: u32,
    /// Size of the disk that the extent holds; 0 for an extent that has a descriptor only.
    pub(super) capacity: u64,
    /// Size of a grain: a power of two.
    pub(super) grain: u64,
    /// Position and size of the embedded descriptor.
    pub(super) descriptor: (u64, u64),
    /// Entries of a grain table.
    pub(super) table_entries: u32,
    /// Position of the redundant grain directory.
    pub(super) redundant_directory: u64,
    /// Position of the grain directory.
    pub(super) directory: u64,
    /// Position of a stream's first grain.
    pub(super) overhead: u64,
    /// `uncleanShutdown`: set while the extent is open for writing.
    pub(super) is_marked_open: bool,
}

impl SparseHeader {
    /// Reads and checks the header at the start of the file.
    pub(super) fn read(storage: &dyn Storage) -> Result<Self> {
        Self::parse(&read_struct(storage, HostOffset(0))?, HostOffset(0))
    }

    /// Checks the header (or footer) that is stored at `at`.
    pub(super) fn parse(stored: &StoredSparseHeader, at: HostOffset) -> Result<Self> {
        let place = |field: usize| at.saturating_add(field as u64);
        let damaged = |message: &str, field: usize| Error::damaged(Layer::Block, message).at(place(field));
        if stored.magic_number != *SPARSE_MAGIC {
            return Err(damaged("not a sparse VMDK extent", offset_of!(StoredSparseHeader, magic_number))
                .expected_found("KDMV", format_args!("{:#010x}", u32::from_le_bytes(stored.magic_number))));
        }
        let version = stored.version.get();
        if !(1..=3).contains(&version) {
            return Err(Error::unsupported(Layer::Block, format!("sparse VMDK version {version}"))
                .at(at)
                .hint("convert the disk with vmware-vdiskmanager or qemu-img first"));
        }
        let header = Self {
            flags: stored.flags.get(),
            capacity: stored.capacity.get(),
            grain: stored.grain_size.get(),
            descriptor: (stored.descriptor_offset.get(), stored.descriptor_size.get()),
            table_entries: stored.num_gtes_per_gt.get(),
            redundant_directory: stored.rgd_offset.get(),
            directory: stored.gd_offset.get(),
            overhead: stored.over_head.get(),
            is_marked_open: stored.unclean_shutdown != 0,
        };
        if header.flags & FLAG_NEWLINE_TEST != 0 && stored.line_ends != LINE_ENDS {
            let field = offset_of!(StoredSparseHeader, line_ends);
            return Err(damaged("the VMDK was mangled by a transfer in text mode", field)
                .hint("copy the file again in binary mode"));
        }
        if header.capacity == 0 {
            return Ok(header);
        }
        let grain_max = if header.is_compressed() { COMPRESSED_GRAIN_SECTORS_MAX } else { GRAIN_SECTORS_MAX };
        if !header.grain.is_power_of_two() || header.grain > grain_max {
            let field = offset_of!(StoredSparseHeader, grain_size);
            return Err(damaged("the VMDK's grain size is not a power of two within the limits", field)
                .expected_found(format_args!("at most {grain_max} sectors"), header.grain));
        }
        if header.table_entries == 0 || header.table_entries > TABLE_ENTRIES_MAX {
            let field = offset_of!(StoredSparseHeader, num_gtes_per_gt);
            return Err(damaged("the VMDK's grain tables have an invalid size", field)
                .expected_found(TABLE_ENTRIES_MAX, header.table_entries));
        }
        if header.capacity > u64::MAX / SECTOR || header.directory_entries() > DIRECTORY_MAX {
            let field = offset_of!(StoredSparseHeader, capacity);
            return Err(damaged("the VMDK's capacity is beyond the limits", field)
                .expected_found("at most 2^34 grains", header.capacity));
        }
        let algorithm = stored.compress_algorithm.get();
        if header.is_compressed() && algorithm != COMPRESSION_DEFLATE {
            return Err(Error::unsupported(Layer::Block, format!("VMDK compression {algorithm}"))
                .at(place(offset_of!(StoredSparseHeader, compress_algorithm))));
        }
        Ok(header)
    }

    /// Whether grains are compressed.
    pub(super) fn is_compressed(&self) -> bool {
        self.flags & FLAG_COMPRESSED != 0
    }

    /// Whether markers stand before grains and tables.
    pub(super) fn has_markers(&self) -> bool {
        self.flags & FLAG_MARKERS != 0
    }

    /// Whether a grain table entry of 1 means zeros.
    pub(super) fn has_zero_grains(&self) -> bool {
        self.flags & FLAG_ZERO_GRAIN != 0
    }

    /// Entries of the grain directory; the capacity must not be 0.
    pub(super) fn directory_entries(&self) -> u64 {
        self.capacity.div_ceil(self.grain * u64::from(self.table_entries))
    }

    /// Where the grain directory is: the first copy, or the redundant one when the first cannot be right.
    pub(super) fn directory_offset(&self, file_length: u64) -> Result<HostOffset> {
        let fits = |sector: u64| {
            let start = sector.checked_mul(SECTOR).filter(|_| sector != 0)?;
            let end = start.checked_add(self.directory_entries() * 4)?;
            (end <= file_length).then_some(HostOffset(start))
        };
        if let Some(start) = fits(self.directory) {
            return Ok(start);
        }
        if let Some(start) = fits(self.redundant_directory).filter(|_| self.flags & FLAG_REDUNDANT != 0) {
            tracing::warn!("VMDK: the grain directory is damaged; using its redundant copy");
            return Ok(start);
        }
        Err(Error::damaged(Layer::Block, "the VMDK's grain directory lies beyond the end of the file")
            .at(HostOffset(self.directory.saturating_mul(SECTOR)))
            .hint("the file is truncated: copy it again"))
    }
}
