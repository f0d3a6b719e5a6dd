//! The hosted sparse extent ("KDMV"), plain and stream-optimised.
//!
//! Source: VMware, "Virtual Disk Format 5.0", chapters "Hosted Sparse Extents" and "Stream-Optimized Compressed Sparse
//! Extents". Numbers are little endian, positions are sectors of 512 bytes.

use std::collections::HashMap;
use std::sync::Arc;

use super::grain::{Grains, Packing};
use super::{SECTOR, Spot};
use crate::block::Storage;
use crate::block::formats::extent_map::{TableCache, length, read_exact};
use crate::error::{Error, Layer, Result};

/// "KDMV" in the file.
pub(crate) const MAGIC: u32 = 0x564D_444B;

/// Bytes of the header.
pub(crate) const HEADER: usize = 512;

/// Flag: the newline test is meaningful.
const FLAG_NEWLINE_TEST: u32 = 1;
/// Flag: the redundant grain directory is maintained.
const FLAG_REDUNDANT: u32 = 1 << 1;
/// Flag: a grain table entry of 1 means zeros.
const FLAG_ZERO_GRAIN: u32 = 1 << 2;
/// Flag: grains are compressed.
const FLAG_COMPRESSED: u32 = 1 << 16;
/// Flag: markers stand before grains and tables.
const FLAG_MARKERS: u32 = 1 << 17;

/// "The grain directory is where the footer says."
const GD_AT_END: u64 = u64::MAX;

/// Largest grain: QEMU's limit, 1 GiB.
const GRAIN_SECTORS_MAX: u64 = (1 << 30) / SECTOR;

/// Largest compressed grain, since one is unpacked in memory; every known writer makes 64 KiB.
const PACKED_GRAIN_SECTORS_MAX: u64 = (16 << 20) / SECTOR;

/// Most entries of a grain directory.
const DIRECTORY_MAX: u64 = 32 << 20;

/// How far before the end of the file a footer is looked for.
const FOOTER_SEARCH: u64 = 64 << 10;

/// `SparseExtentHeader`, and the footer, which has the same layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// `flags`.
    pub(crate) flags: u32,
    /// `capacity` in sectors.
    pub(crate) capacity: u64,
    /// `grainSize` in sectors.
    pub(crate) grain: u64,
    /// `descriptorOffset` and `descriptorSize` in sectors.
    pub(crate) descriptor: (u64, u64),
    /// `numGTEsPerGT`.
    pub(crate) table_entries: u32,
    /// `rgdOffset` in sectors.
    pub(crate) redundant_directory: u64,
    /// `gdOffset` in sectors.
    pub(crate) directory: u64,
}

impl Header {
    /// Parses and checks the header (or footer) at byte `at`.
    pub(crate) fn parse(raw: &[u8; HEADER], at: u64) -> Result<Self> {
        let u32_at = |o: usize| u32::from_le_bytes([raw[o], raw[o + 1], raw[o + 2], raw[o + 3]]);
        let u64_at = |o: usize| u64::from(u32_at(o)) | u64::from(u32_at(o + 4)) << 32;
        let damaged = |message: &str, field: u64| Error::damaged(Layer::Block, message).at(at.saturating_add(field));
        if u32_at(0) != MAGIC {
            return Err(damaged("no sparse VMDK header", 0).expected_found("KDMV", format_args!("{:#010x}", u32_at(0))));
        }
        if !(1..=3).contains(&u32_at(4)) {
            return Err(Error::unsupported(Layer::Block, format!("sparse VMDK version {}", u32_at(4)))
                .at(at)
                .hint("convert the disk with vmware-vdiskmanager or qemu-img first"));
        }
        let header = Self {
            flags: u32_at(8),
            capacity: u64_at(12),
            grain: u64_at(20),
            descriptor: (u64_at(28), u64_at(36)),
            table_entries: u32_at(44),
            redundant_directory: u64_at(48),
            directory: u64_at(56),
        };
        if header.flags & FLAG_NEWLINE_TEST != 0 && raw[73..77] != *b"\n \r\n" {
            return Err(damaged("the VMDK was mangled by a transfer in text mode", 73)
                .hint("copy the file again in binary mode"));
        }
        if header.capacity == 0 {
            return Ok(header);
        }
        let grain_max = if header.is_packed() { PACKED_GRAIN_SECTORS_MAX } else { GRAIN_SECTORS_MAX };
        if !header.grain.is_power_of_two() || header.grain > grain_max {
            return Err(damaged("the VMDK's grain size is not a power of two within the limits", 20)
                .expected_found(format_args!("at most {grain_max} sectors"), header.grain));
        }
        if header.table_entries == 0 || header.table_entries > 512 {
            return Err(damaged("the VMDK's grain tables have an impossible size", 44)
                .expected_found("512", header.table_entries));
        }
        if header.capacity > u64::MAX / SECTOR || header.directory_entries() > DIRECTORY_MAX {
            return Err(damaged("the VMDK's capacity is beyond the limits", 12)
                .expected_found("at most 2^34 grains", header.capacity));
        }
        let algorithm = u16::from_le_bytes([raw[77], raw[78]]);
        if header.is_packed() && algorithm != 1 {
            return Err(Error::unsupported(Layer::Block, format!("VMDK compression {algorithm}")).at(at + 77));
        }
        Ok(header)
    }

    fn is_packed(&self) -> bool {
        self.flags & FLAG_COMPRESSED != 0
    }

    /// Sectors that one grain table covers.
    fn table_span(&self) -> u64 {
        self.grain * u64::from(self.table_entries)
    }

    fn directory_entries(&self) -> u64 {
        self.capacity.div_ceil(self.table_span())
    }
}

/// One hosted sparse extent.
pub(crate) struct SparseExtent {
    header: Header,
    table: TableCache,
    file_length: u64,
    directory: Directory,
    /// Whether the directory is where the header or the footer at the very end says.
    is_plain: bool,
    grains: Option<Grains>,
}

/// How a grain's entry is found.
enum Directory {
    /// Through the directory at this byte offset.
    Stored(u64),
    /// Collected from the stream's markers: grain number to sector.
    Walked(HashMap<u64, u64>),
}

impl SparseExtent {
    /// Opens the extent in `storage`.
    pub(crate) fn open(storage: Arc<dyn Storage>) -> Result<Self> {
        let file_length = length(storage.as_ref())?;
        let mut raw = [0; HEADER];
        read_exact(storage.as_ref(), 0, &mut raw)?;
        let mut header = Header::parse(&raw, 0)?;
        if header.capacity == 0 {
            return Err(Error::damaged(Layer::Block, "the sparse VMDK extent is empty").at(12u64));
        }
        let mut is_plain = true;
        if header.directory == GD_AT_END
            && let Some((at, footer)) = find_footer(storage.as_ref(), file_length, &header)?
        {
            is_plain = at + 2 * SECTOR == file_length;
            header.directory = footer.directory;
            header.redundant_directory = footer.redundant_directory;
        }
        let grain_bytes = header.grain * SECTOR;
        let grains = header.is_packed().then(|| {
            let packing = if header.flags & FLAG_MARKERS != 0 { Packing::Marked } else { Packing::Bare };
            Grains::new(Arc::clone(&storage), file_length, grain_bytes, packing)
        });
        let directory = if header.directory == GD_AT_END {
            is_plain = false;
            Directory::Walked(walk(storage.as_ref(), file_length, &header)?)
        } else {
            let place = header.directory_offset(file_length)?;
            is_plain &= header.directory.checked_mul(SECTOR) == Some(place);
            Directory::Stored(place)
        };
        let table = TableCache::new(storage, file_length);
        Ok(Self { header, table, file_length, directory, is_plain, grains })
    }

    /// Bytes of the disk that the extent holds.
    pub(crate) fn len(&self) -> u64 {
        self.header.capacity * SECTOR
    }

    /// Whether a reader finds the directory without searching, as QEMU does.
    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Bytes per grain.
    pub(crate) fn grain_bytes(&self) -> u64 {
        self.header.grain * SECTOR
    }

    /// The compressed grains, if they are compressed.
    pub(crate) fn grains(&self) -> Option<&Grains> {
        self.grains.as_ref()
    }

    /// Where the byte `offset` of the extent is.
    pub(crate) fn spot(&self, offset: u64, limit: u64) -> Result<(Spot, u64)> {
        let grain_bytes = self.grain_bytes();
        let (grain, within) = (offset / grain_bytes, offset % grain_bytes);
        let rest = (grain_bytes - within).min(limit);
        let sector = match &self.directory {
            Directory::Walked(grains) => match grains.get(&grain) {
                Some(sector) => *sector,
                None => return Ok((Spot::Below, rest)),
            },
            Directory::Stored(directory) => {
                let entries = u64::from(self.header.table_entries);
                let table = u64::from(self.table.u32_le(directory + grain / entries * 4)?);
                if table == 0 {
                    let span = grain_bytes * entries;
                    return Ok((Spot::Below, (span - offset % span).min(limit)));
                }
                u64::from(self.table.u32_le(table * SECTOR + grain % entries * 4)?)
            }
        };
        let place = sector * SECTOR;
        match sector {
            0 => Ok((Spot::Below, rest)),
            1 if self.header.flags & FLAG_ZERO_GRAIN != 0 => Ok((Spot::Zero, rest)),
            _ if place >= self.file_length => {
                Err(Error::damaged(Layer::Block, "a grain of the VMDK lies beyond the end of the file")
                    .at(place)
                    .hint("the file is truncated: copy it again"))
            }
            _ if self.grains.is_some() => {
                Ok((Spot::Packed { offset: place, unit: grain * grain_bytes, skip: within }, rest))
            }
            // The last grain may be cut short in the file where the disk ends inside it.
            _ => Ok((Spot::Stored(place + within), rest)),
        }
    }
}

impl Header {
    /// Byte offset of the directory: the first copy, or the redundant one when the first cannot be.
    fn directory_offset(&self, file_length: u64) -> Result<u64> {
        let fits = |sector: u64| {
            let start = sector.checked_mul(SECTOR).filter(|_| sector != 0)?;
            let end = start.checked_add(self.directory_entries() * 4)?;
            (end <= file_length).then_some(start)
        };
        if let Some(start) = fits(self.directory) {
            return Ok(start);
        }
        if let Some(start) = fits(self.redundant_directory).filter(|_| self.flags & FLAG_REDUNDANT != 0) {
            tracing::warn!("VMDK: the grain directory is damaged; using its redundant copy");
            return Ok(start);
        }
        Err(Error::damaged(Layer::Block, "the VMDK's grain directory lies beyond the end of the file")
            .at(self.directory.saturating_mul(SECTOR))
            .hint("the file is truncated: copy it again"))
    }
}

/// The footer: two sectors before the end of the stream. Some writers pad behind it.
fn find_footer(storage: &dyn Storage, file_length: u64, header: &Header) -> Result<Option<(u64, Header)>> {
    let last = file_length / SECTOR * SECTOR;
    let mut at = last.saturating_sub(2 * SECTOR);
    while at > 0 && last - at <= FOOTER_SEARCH {
        let mut raw = [0; HEADER];
        read_exact(storage, at, &mut raw)?;
        if raw.starts_with(&MAGIC.to_le_bytes())
            && let Ok(footer) = Header::parse(&raw, at)
            && footer.directory != GD_AT_END
            && (footer.capacity, footer.grain, footer.table_entries)
                == (header.capacity, header.grain, header.table_entries)
        {
            return Ok(Some((at, footer)));
        }
        at = at.saturating_sub(SECTOR);
    }
    Ok(None)
}

/// Collects the grains of a stream without footer by walking from marker to marker.
fn walk(storage: &dyn Storage, file_length: u64, header: &Header) -> Result<HashMap<u64, u64>> {
    const END_OF_STREAM: u32 = 0;
    const GRAIN_DIRECTORY: u32 = 2;
    const FOOTER: u32 = 3;
    let truncated = |at: u64| {
        Error::damaged(Layer::Block, "the stream-optimised VMDK ends in the middle of its stream")
            .at(at)
            .hint("the file is truncated: copy or download it again")
    };
    if header.flags & FLAG_MARKERS == 0 || !header.is_packed() {
        return Err(Error::damaged(Layer::Block, "the VMDK refers to a footer that is not there").at(56u64));
    }
    let (first, size) = header.descriptor;
    let descriptor_end = first.saturating_add(size);
    let mut sector = header.overhead(storage)?.max(descriptor_end).max(1);
    let mut grains = HashMap::new();
    loop {
        let at =
            sector.checked_mul(SECTOR).filter(|at| at + 16 <= file_length).ok_or_else(|| truncated(file_length))?;
        let mut raw = [0; 16];
        read_exact(storage, at, &mut raw)?;
        let value = u64::from_le_bytes([raw[0], raw[1], raw[2], raw[3], raw[4], raw[5], raw[6], raw[7]]);
        let size = u64::from(u32::from_le_bytes([raw[8], raw[9], raw[10], raw[11]]));
        let kind = u32::from_le_bytes([raw[12], raw[13], raw[14], raw[15]]);
        // Every step advances by a sector at least.
        let advance = if size > 0 {
            if value % header.grain != 0 || value >= header.capacity || size > header.grain * SECTOR * 2 {
                return Err(Error::damaged(Layer::Block, "a grain marker of the VMDK makes no sense").at(at));
            }
            grains.insert(value / header.grain, sector);
            (12 + size).div_ceil(SECTOR)
        } else if matches!(kind, GRAIN_DIRECTORY | FOOTER) {
            // All grains come before the directory.
            return Ok(grains);
        } else if kind == END_OF_STREAM {
            // Without a directory before it: zeros in place of what was never copied.
            return Err(truncated(at));
        } else {
            value.checked_add(1).ok_or_else(|| truncated(at))?
        };
        sector = sector.checked_add(advance).ok_or_else(|| truncated(at))?;
    }
}

impl Header {
    /// `overHead`: the sector at which the stream begins.
    fn overhead(&self, storage: &dyn Storage) -> Result<u64> {
        let mut raw = [0; 8];
        read_exact(storage, 64, &mut raw)?;
        Ok(u64::from_le_bytes(raw))
    }
}
