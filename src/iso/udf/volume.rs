//! A logical volume of UDF: where its blocks lie, and its file entries.

use std::cell::Cell;

use zerocopy::FromBytes;
use zerocopy::little_endian::U16;

use super::format::{
    ALLOCATION_EXTENT, AllocationExtent, EXTENDED_FILE_ENTRY, ExtendedFileEntry, ExtentAddress, FILE_ENTRY, FileEntry,
    FileEntryHeader, LogicalVolumeDescriptor, LongAddress, MapHeader, MetadataMap, PlainMap, ShortAddress, Tag,
    TypedMap,
};
use super::sequence::{PARTITIONS_MAX, PartitionArea, Sequence, find_anchor};
use crate::error::{Error, Layer, Place, Result};
use crate::io::VolumeRead;
use crate::iso::bytes::{read_bytes, view};
use crate::iso::error::damaged;
use crate::iso::listing::{EXTENTS_MAX, Extent};

/// Most continuations of allocation descriptors of one file.
const CONTINUATIONS_MAX: usize = 4096;
/// Most pieces of all files together.
const PIECES_MAX: usize = 1_000_000;
/// Most pieces of the metadata file: each address is looked up in them.
const METADATA_PIECES_MAX: usize = 1024;

/// Forms of allocation descriptors in the flags of an `icbtag` (4/14.6.8).
const FORM_SHORT: u16 = 0;
const FORM_LONG: u16 = 1;
/// The file's data take the place of the descriptors.
const FORM_INLINE: u16 = 3;

/// Of the length in an allocation descriptor, the bits that are a length (4/14.14.1.1).
const LENGTH_BITS: u32 = 30;
const LENGTH_MASK: u32 = (1 << LENGTH_BITS) - 1;
/// The upper two bits: data are stored there.
const EXTENT_RECORDED: u32 = 0;
/// The upper two bits: more allocation descriptors are stored there.
const EXTENT_CONTINUATION: u32 = 3;

/// How a partition's blocks are found in the image.
#[derive(Debug, Clone)]
enum Partition {
    /// At a fixed place.
    Plain {
        /// First byte in the image.
        start: u64,
        length: u64,
    },
    /// Inside the metadata file of another partition.
    Metadata { extents: Vec<Extent> },
    /// A kind that is not read.
    Foreign(&'static str),
}

/// A logical volume, as its descriptor and partition maps describe it.
pub(super) struct Volume<'a, D> {
    device: &'a D,
    /// Bytes of a block.
    pub block: u64,
    partitions: Vec<Partition>,
    /// Where the file set descriptor is.
    pub file_set: BlockAddress,
    /// Pieces of files and their continuations that were read so far.
    pieces: Cell<usize>,
}

/// A block of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockAddress {
    /// Number of a partition map.
    pub partition: u16,
    pub block: u32,
}

impl From<LongAddress> for BlockAddress {
    fn from(long: LongAddress) -> Self {
        Self { partition: long.partition.get(), block: long.address.block.get() }
    }
}

/// A file entry, decoded.
pub(super) struct File {
    /// File type of its `icbtag` (4/14.6.6).
    pub kind: u8,
    /// Bytes of the file.
    pub size: u64,
    pub extents: Vec<Extent>,
}

impl File {
    /// Where a byte of the file lies in the image.
    pub(super) fn locate(&self, offset: u64) -> Option<u64> {
        let mut before = 0u64;
        for extent in &self.extents {
            let inside = offset.checked_sub(before)?;
            if inside < extent.length {
                return extent.at?.checked_add(inside);
            }
            before = before.saturating_add(extent.length);
        }
        None
    }
}

impl<'a, D: VolumeRead> Volume<'a, D> {
    pub(super) fn open(device: &'a D) -> Result<Self> {
        let (sector, sequences) = find_anchor(device).ok_or_else(|| damaged("the image has no anchor of UDF"))?;
        let [main, reserve] = sequences;
        Self::from_sequence(device, sector, main)
            .or_else(|error| Self::from_sequence(device, sector, reserve).map_err(|_| error))
    }

    fn from_sequence(device: &'a D, sector: u64, extent: ExtentAddress) -> Result<Self> {
        let sequence = Sequence::read(device, sector, extent)?;
        let data =
            sequence.logical_volume().ok_or_else(|| damaged("the UDF volume has no logical volume descriptor"))?;
        let (logical, maps) = LogicalVolumeDescriptor::ref_from_prefix(data)
            .map_err(|_| damaged("the UDF logical volume descriptor is cut"))?;
        let block = u64::from(logical.block_size.get());
        if !matches!(block, 512 | 1024 | 2048 | 4096) {
            return Err(damaged("the block size of the UDF volume is impossible").expected_found("512 to 4096", block));
        }
        let file_set = logical.file_set.into();
        let mut volume = Self { device, block, partitions: Vec::new(), file_set, pieces: Cell::default() };
        let table = usize::try_from(logical.map_table_length.get()).unwrap_or(0).min(maps.len());
        let mut maps = maps.get(..table).unwrap_or_default();
        while let Some(header) = view::<MapHeader>(maps) {
            let length = usize::from(header.length);
            if length < size_of::<PlainMap>() || volume.partitions.len() >= PARTITIONS_MAX {
                break;
            }
            let Some((map, after)) = maps.split_at_checked(length) else { break };
            let partition = volume.read_map(map, sector, &sequence.partitions)?;
            volume.partitions.push(partition);
            maps = after;
        }
        Ok(volume)
    }

    fn read_map(&self, map: &[u8], sector: u64, partitions: &[PartitionArea]) -> Result<Partition> {
        let plain = |number: U16| {
            let found = partitions.iter().find(|area| number == area.id);
            let area = found.ok_or_else(|| damaged("a UDF partition map does not name a partition"))?;
            Ok(Partition::Plain { start: area.start * sector, length: area.length * sector })
        };
        if let Some(map) = view::<PlainMap>(map).filter(|map| map.header.kind == 1) {
            return plain(map.partition_number);
        }
        let identifier = view(map).map_or(&[][..], |map: &TypedMap| map.identifier.as_slice());
        if identifier.starts_with(b"*UDF Metadata Partition") {
            let map: &MetadataMap = view(map).ok_or_else(|| damaged("a UDF metadata partition map is cut"))?;
            // read the metadata file's entry through the partition below it
            let below = Volume {
                device: self.device,
                block: self.block,
                partitions: vec![plain(map.map.partition_number)?],
                file_set: self.file_set,
                pieces: Cell::default(),
            };
            let file = below.entry(BlockAddress { partition: 0, block: map.metadata_file.get() }, "")?;
            if file.extents.len() > METADATA_PIECES_MAX {
                return Err(damaged("the UDF metadata file has far too many pieces"));
            }
            return Ok(Partition::Metadata { extents: file.extents });
        }
        Ok(Partition::Foreign(match identifier {
            [b'*', b'U', b'D', b'F', b' ', b'V', ..] => "a virtual partition (a disc written in several sessions)",
            [b'*', b'U', b'D', b'F', b' ', b'S', ..] => "a sparable partition (a rewritable disc)",
            _ => "an unknown kind of partition",
        }))
    }

    /// Where `length` bytes of a partition lie in the image, in bytes.
    pub(super) fn locate(&self, address: BlockAddress, length: u64) -> Result<u64> {
        let inside = u64::from(address.block) * self.block;
        let beyond = || damaged("a UDF address lies beyond its partition").at(Place::VolumeOffset(inside));
        let end = inside.checked_add(length).ok_or_else(beyond)?;
        match self.partitions.get(usize::from(address.partition)) {
            Some(Partition::Plain { start, length }) if end <= *length => start.checked_add(inside).ok_or_else(beyond),
            Some(Partition::Metadata { extents }) => {
                let mut before = 0u64;
                for extent in extents {
                    let after = before.saturating_add(extent.length);
                    if inside >= before && end <= after {
                        return extent.at.and_then(|at| at.checked_add(inside - before)).ok_or_else(beyond);
                    }
                    before = after;
                }
                Err(beyond())
            }
            Some(Partition::Foreign(kind)) => Err(Error::unsupported(Layer::Iso, format!("the UDF volume has {kind}"))
                .hint("make a plain ISO image of its files, or unpack them into a folder")),
            _ => Err(beyond()),
        }
    }

    /// Reads the block at an address, which must be inside its partition.
    pub(super) fn read_block(&self, address: BlockAddress) -> Result<Vec<u8>> {
        read_bytes(self.device, self.locate(address, self.block)?, self.block)
    }

    /// Reads a file entry.
    pub(super) fn entry(&self, icb: BlockAddress, path: &str) -> Result<File> {
        let data = self.read_block(icb).map_err(|e| e.path(path))?;
        let at = self.locate(icb, self.block)?;
        let cut = || damaged("a UDF file entry is cut or of an unknown kind").at(at).path(path);
        let header: &FileEntryHeader = view(&data).ok_or_else(cut)?;
        let (fixed, areas) = match Tag::identify(&data) {
            Some(FILE_ENTRY) => (size_of::<FileEntry>(), view(&data).map(|entry: &FileEntry| entry.areas)),
            Some(EXTENDED_FILE_ENTRY) => {
                (size_of::<ExtendedFileEntry>(), view(&data).map(|entry: &ExtendedFileEntry| entry.areas))
            }
            _ => return Err(cut()),
        };
        let areas = areas.ok_or_else(cut)?;
        let attributes = usize::try_from(areas.attributes_length.get()).map_err(|_| cut())?;
        let descriptors = usize::try_from(areas.descriptors_length.get()).map_err(|_| cut())?;
        let start = fixed.checked_add(attributes).ok_or_else(cut)?;
        let end = start.checked_add(descriptors).ok_or_else(cut)?;
        let area = data.get(start..end).ok_or_else(cut)?;
        let (size, kind) = (header.size.get(), header.icb.file_type);
        let extents = match header.icb.flags.get() & 7 {
            FORM_INLINE if size <= area.len() as u64 => vec![Extent { at: Some(at + start as u64), length: size }],
            form @ (FORM_SHORT | FORM_LONG) => self.extents(area.to_vec(), form, icb.partition, path)?,
            _ => return Err(cut()),
        };
        // what the descriptors do not cover would read as zeros without end
        let covered = extents.iter().fold(0u64, |sum, e| sum.saturating_add(e.length));
        if covered < size {
            return Err(damaged("a UDF file is larger than its extents")
                .at(at)
                .path(path)
                .expected_found(size, covered));
        }
        Ok(File { kind, size, extents })
    }

    /// The extents that allocation descriptors name, with their continuations.
    fn extents(&self, mut area: Vec<u8>, form: u16, own: u16, path: &str) -> Result<Vec<Extent>> {
        let width = if form == FORM_SHORT { size_of::<ShortAddress>() } else { size_of::<LongAddress>() };
        let mut out: Vec<Extent> = Vec::new();
        for _ in 0..CONTINUATIONS_MAX {
            let mut next = None;
            for chunk in area.chunks_exact(width) {
                let Some(short) = view::<ShortAddress>(chunk) else { break };
                let partition = view(chunk).map_or(own, |long: &LongAddress| long.partition.get());
                let address = BlockAddress { partition, block: short.block.get() };
                let length = u64::from(short.length.get() & LENGTH_MASK);
                if length == 0 {
                    break;
                }
                match short.length.get() >> LENGTH_BITS {
                    EXTENT_RECORDED => out.push(Extent { at: Some(self.locate(address, length)?), length }),
                    EXTENT_CONTINUATION => {
                        next = Some(address);
                        break;
                    }
                    _ => out.push(Extent { at: None, length }),
                }
                self.spend(path)?;
                if out.len() > EXTENTS_MAX {
                    return Err(damaged("a file has far too many extents").path(path));
                }
            }
            let Some(address) = next else { return Ok(out) };
            self.spend(path)?;
            let data = self.read_block(address)?;
            area = (Tag::identify(&data) == Some(ALLOCATION_EXTENT))
                .then(|| AllocationExtent::ref_from_prefix(&data).ok())
                .flatten()
                .and_then(|(header, rest)| rest.get(..usize::try_from(header.length.get()).ok()?))
                .map(<[u8]>::to_vec)
                .ok_or_else(|| damaged("a continuation of a UDF file's extents is broken").path(path))?;
        }
        Err(damaged("the extents of a UDF file have no end").path(path))
    }

    /// Counts a piece of a file; the sum over the volume is bounded.
    fn spend(&self, path: &str) -> Result<()> {
        self.pieces.set(self.pieces.get().saturating_add(1));
        if self.pieces.get() > PIECES_MAX {
            return Err(damaged("the files of the UDF volume have far too many pieces").path(path));
        }
        Ok(())
    }

    /// The content of a directory.
    pub(super) fn content(&self, entry: &File) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for extent in &entry.extents {
            let length = extent.length.min(entry.size.saturating_sub(out.len() as u64));
            match extent.at {
                Some(at) => out.extend(read_bytes(self.device, at, length)?),
                None => out.resize(out.len() + usize::try_from(length).unwrap_or(0), 0),
            }
        }
        Ok(out)
    }
}
