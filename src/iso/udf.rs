//! UDF (ECMA-167 and OSTA UDF): read-only, partitions of type 1 and metadata partitions.

use super::{EXTENTS_MAX, Extent, Fields, IsoFile, Listing, damaged, join, read_bytes};
use crate::error::{Error, Layer, Result};
use crate::io::VolumeRead;
use std::cell::Cell;

/// Tag identifiers (ECMA-167 3/7.2.1, 4/7.2.1).
const ANCHOR: u16 = 2;
const POINTER: u16 = 3;
const PARTITION: u16 = 5;
const LOGICAL_VOLUME: u16 = 6;
const TERMINATOR: u16 = 8;
const FILE_SET: u16 = 256;
const FILE_IDENTIFIER: u16 = 257;
const ALLOCATION_EXTENT: u16 = 258;
const FILE_ENTRY: u16 = 261;
const EXTENDED_FILE_ENTRY: u16 = 266;

/// Sector sizes in use: discs, hard disks, and the rest.
const SECTORS: [u64; 4] = [2048, 512, 4096, 1024];
/// Most descriptors of a volume descriptor sequence.
const DESCRIPTORS_MAX: u64 = 256;
/// Most partitions and partition maps.
const PARTITIONS_MAX: usize = 16;
/// Most continuations of allocation descriptors of one file.
const CONTINUATIONS_MAX: usize = 4096;
/// Most pieces of all files together.
const PIECES_MAX: usize = 1_000_000;
/// Most pieces of the metadata file: each address is looked up in them.
const METADATA_PIECES_MAX: usize = 1024;
/// Largest directory.
const DIRECTORY_MAX: u64 = 64 << 20;

const CHARACTERISTIC_DIRECTORY: u8 = 0x02;
const CHARACTERISTIC_DELETED: u8 = 0x04;
const CHARACTERISTIC_PARENT: u8 = 0x08;

const TYPE_DIRECTORY: u8 = 4;
const TYPE_FILE: u8 = 5;
const TYPE_REALTIME_FILE: u8 = 249;

/// Whether the image has an anchor of UDF.
pub(super) fn is_present<D: VolumeRead>(device: &D) -> bool {
    anchor(device).is_some()
}

/// The identifier of a descriptor whose checksum is right.
fn tag(data: &[u8]) -> Option<u16> {
    let header = data.bytes(0, 16)?;
    let sum = header.iter().enumerate().filter(|(i, _)| *i != 4).fold(0u8, |sum, (_, &byte)| sum.wrapping_add(byte));
    (sum == header[4]).then(|| header.u16(0))?
}

/// The sector size and the extents of the main and reserve volume descriptor sequences.
fn anchor<D: VolumeRead>(device: &D) -> Option<(u64, [(u64, u64); 2])> {
    for sector in SECTORS {
        let last = device.len() / sector;
        for number in [256, last.saturating_sub(1), last.saturating_sub(257)] {
            let Some(at) = number.checked_mul(sector).filter(|at| at.saturating_add(sector) <= device.len()) else {
                continue;
            };
            let Ok(data) = read_bytes(device, at, sector) else { continue };
            if tag(&data) != Some(ANCHOR) || data.u32(12).map(u64::from) != Some(number) {
                continue;
            }
            let extent = |at| Some((u64::from(data.u32(at + 4)?) * sector, u64::from(data.u32(at)?)));
            return Some((sector, [extent(16)?, extent(24)?]));
        }
    }
    None
}

/// How a partition's blocks are found in the image.
#[derive(Debug, Clone)]
enum Partition {
    /// At a fixed place.
    Plain {
        /// First byte.
        start: u64,
        /// Bytes.
        length: u64,
    },
    /// Inside the metadata file of another partition.
    Metadata {
        /// The pieces of that file.
        extents: Vec<Extent>,
    },
    /// A kind that is not read.
    Foreign(&'static str),
}

/// A logical volume.
struct Volume<'a, D> {
    device: &'a D,
    block: u64,
    partitions: Vec<Partition>,
    root_of_files: LongAd,
    /// Pieces of files and their continuations that were read so far.
    pieces: Cell<usize>,
}

/// An address of a piece of data: `long_ad` (ECMA-167 4/14.14.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LongAd {
    length: u32,
    block: u32,
    partition: u16,
}

impl LongAd {
    fn parse(data: &[u8], at: usize) -> Option<Self> {
        Some(Self { length: data.u32(at)?, block: data.u32(at + 4)?, partition: data.u16(at + 8)? })
    }
}

/// Lists all files.
pub(super) fn list<D: VolumeRead>(device: &D, listing: &mut Listing) -> Result<()> {
    let volume = Volume::open(device)?;
    let set = volume.read_block(volume.root_of_files.partition, volume.root_of_files.block)?;
    if tag(&set) != Some(FILE_SET) {
        return Err(damaged("the UDF volume has no file set"));
    }
    let root = LongAd::parse(&set, 400).ok_or_else(|| damaged("the UDF file set is cut"))?;
    let mut todo = vec![(root, String::new(), 0)];
    while let Some((icb, path, depth)) = todo.pop() {
        let entry = volume.entry(icb, &path)?;
        let place = volume.place(icb.partition, icb.block, volume.block).map_err(|e| e.path(path.clone()))?;
        listing.enter(place, entry.size, &path, depth)?;
        if entry.kind != TYPE_DIRECTORY || entry.size > DIRECTORY_MAX {
            return Err(damaged("a UDF directory is no directory, or far too large").path(path));
        }
        let data = volume.content(&entry)?;
        for child in identifiers(&data, &path)? {
            listing.count(&path)?;
            let Some(child_path) = join(&path, &child.name) else {
                listing.leave_out(&path, &format!("the name {:?} is impossible", child.name));
                continue;
            };
            if child.is_directory {
                todo.push((child.icb, child_path, depth + 1));
                continue;
            }
            let entry = volume.entry(child.icb, &child_path)?;
            if matches!(entry.kind, TYPE_FILE | TYPE_REALTIME_FILE) {
                listing.files.push(IsoFile { path: child_path, size: entry.size, extents: entry.extents });
            } else {
                listing.leave_out(&child_path, "it is a symbolic link or another special file");
            }
        }
    }
    Ok(())
}

impl<'a, D: VolumeRead> Volume<'a, D> {
    fn open(device: &'a D) -> Result<Self> {
        let (sector, sequences) = anchor(device).ok_or_else(|| damaged("the image has no anchor of UDF"))?;
        let [main, reserve] = sequences;
        Self::from_sequence(device, sector, main)
            .or_else(|error| Self::from_sequence(device, sector, reserve).map_err(|_| error))
    }

    fn from_sequence(device: &'a D, sector: u64, sequence: (u64, u64)) -> Result<Self> {
        let (mut logical, partitions) = descriptors(device, sector, sequence)?;
        let data = logical.take().ok_or_else(|| damaged("the UDF volume has no logical volume descriptor"))?;
        let cut = || damaged("the UDF logical volume descriptor is cut");
        let block = u64::from(data.u32(212).ok_or_else(cut)?);
        if !matches!(block, 512 | 1024 | 2048 | 4096) {
            return Err(damaged("the block size of the UDF volume is impossible").expected_found("512 to 4096", block));
        }
        let root_of_files = LongAd::parse(&data, 248).ok_or_else(cut)?;
        let mut volume = Self { device, block, partitions: Vec::new(), root_of_files, pieces: Cell::default() };
        let maps = data.get(440..).unwrap_or_default();
        let maps =
            maps.get(..usize::try_from(data.u32(264).unwrap_or(0)).unwrap_or(0).min(maps.len())).unwrap_or_default();
        let mut at = 0;
        while let Some(length) =
            maps.u8(at + 1).map(usize::from).filter(|&l| l >= 6 && volume.partitions.len() < PARTITIONS_MAX)
        {
            let Some(map) = maps.bytes(at, length) else { break };
            let partition = volume.map(map, sector, &partitions)?;
            volume.partitions.push(partition);
            at += length;
        }
        Ok(volume)
    }

    /// A partition map (ECMA-167 3/10.7, UDF 2.2.8 to 2.2.10).
    fn map(&self, map: &[u8], sector: u64, partitions: &[(u16, u64, u64)]) -> Result<Partition> {
        let plain = |number: Option<u16>| {
            let found = partitions.iter().find(|(n, _, _)| Some(*n) == number);
            let (_, start, length) = found.ok_or_else(|| damaged("a UDF partition map names no partition"))?;
            Ok(Partition::Plain { start: start * sector, length: length * sector })
        };
        if map.u8(0) == Some(1) {
            return plain(map.u16(4));
        }
        let identifier = map.bytes(5, 23).unwrap_or_default();
        if identifier.starts_with(b"*UDF Metadata Partition") {
            let base = plain(map.u16(38))?;
            let file = map.u32(40).ok_or_else(|| damaged("a UDF metadata partition map is cut"))?;
            // read the metadata file's entry through the partition below it
            let below = Volume {
                device: self.device,
                block: self.block,
                partitions: vec![base],
                root_of_files: self.root_of_files,
                pieces: Cell::default(),
            };
            let entry = below.entry(LongAd { length: 0, block: file, partition: 0 }, "")?;
            if entry.extents.len() > METADATA_PIECES_MAX {
                return Err(damaged("the UDF metadata file has far too many pieces"));
            }
            return Ok(Partition::Metadata { extents: entry.extents });
        }
        Ok(Partition::Foreign(match identifier {
            [b'*', b'U', b'D', b'F', b' ', b'V', ..] => "a virtual partition (a disc written in several sessions)",
            [b'*', b'U', b'D', b'F', b' ', b'S', ..] => "a sparable partition (a rewritable disc)",
            _ => "an unknown kind of partition",
        }))
    }

    /// Where a run of bytes of a partition lies in the image.
    fn place(&self, partition: u16, block: u32, length: u64) -> Result<u64> {
        let inside = u64::from(block) * self.block;
        let beyond = || damaged("a UDF address lies beyond its partition").at(inside);
        let end = inside.checked_add(length).ok_or_else(beyond)?;
        match self.partitions.get(usize::from(partition)) {
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

    fn read_block(&self, partition: u16, block: u32) -> Result<Vec<u8>> {
        read_bytes(self.device, self.place(partition, block, self.block)?, self.block)
    }

    /// A file entry (ECMA-167 4/14.9, 4/14.17).
    fn entry(&self, icb: LongAd, path: &str) -> Result<Entry> {
        let data = self.read_block(icb.partition, icb.block).map_err(|e| e.path(path))?;
        let at = self.place(icb.partition, icb.block, self.block)?;
        let cut = || damaged("a UDF file entry is cut or of an unknown kind").at(at).path(path);
        let header = match tag(&data) {
            Some(FILE_ENTRY) => 176,
            Some(EXTENDED_FILE_ENTRY) => 216,
            _ => return Err(cut()),
        };
        // lengths of extended attributes and allocation descriptors stand at the end of the fixed part
        let attributes = usize::try_from(data.u32(header - 8).ok_or_else(cut)?).map_err(|_| cut())?;
        let descriptors = usize::try_from(data.u32(header - 4).ok_or_else(cut)?).map_err(|_| cut())?;
        let start = header.checked_add(attributes).ok_or_else(cut)?;
        let size = data.u64(56).ok_or_else(cut)?;
        let area = data.bytes(start, descriptors).ok_or_else(cut)?.to_vec();
        let kind = data.u8(27).ok_or_else(cut)?;
        let extents = match data.u16(34).ok_or_else(cut)? & 7 {
            3 if size <= area.len() as u64 => vec![Extent { at: Some(at + start as u64), length: size }],
            form @ (0 | 1) => self.extents(area, form, icb.partition, path)?,
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
        Ok(Entry { kind, size, extents })
    }

    /// Allocation descriptors: short (form 0) or long (form 1), with continuations.
    fn extents(&self, mut area: Vec<u8>, form: u16, own: u16, path: &str) -> Result<Vec<Extent>> {
        let width = if form == 0 { 8 } else { 16 };
        let mut out: Vec<Extent> = Vec::new();
        for _ in 0..CONTINUATIONS_MAX {
            let mut next = None;
            for chunk in area.chunks_exact(width) {
                let (Some(word), Some(block)) = (chunk.u32(0), chunk.u32(4)) else { break };
                let partition = if form == 0 { own } else { chunk.u16(8).unwrap_or(own) };
                let length = u64::from(word & 0x3FFF_FFFF);
                if length == 0 {
                    break;
                }
                match word >> 30 {
                    0 => out.push(Extent { at: Some(self.place(partition, block, length)?), length }),
                    3 => {
                        next = Some((partition, block));
                        break;
                    }
                    _ => out.push(Extent { at: None, length }),
                }
                self.spend(path)?;
                if out.len() > EXTENTS_MAX {
                    return Err(damaged("a file has far too many extents").path(path));
                }
            }
            let Some((partition, block)) = next else { return Ok(out) };
            self.spend(path)?;
            let data = self.read_block(partition, block)?;
            let length = usize::try_from(data.u32(20).unwrap_or(0)).unwrap_or(0);
            area = data
                .bytes(24, length)
                .filter(|_| tag(&data) == Some(ALLOCATION_EXTENT))
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
    fn content(&self, entry: &Entry) -> Result<Vec<u8>> {
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

/// The logical volume descriptor and the partitions (number, first sector, sectors) of a sequence; the newest of each
/// counts.
#[allow(clippy::type_complexity)]
fn descriptors<D: VolumeRead>(
    device: &D,
    sector: u64,
    sequence: (u64, u64),
) -> Result<(Option<Vec<u8>>, Vec<(u16, u64, u64)>)> {
    let (mut logical, mut partitions): (Option<(u32, Vec<u8>)>, Vec<(u32, (u16, u64, u64))>) = (None, Vec::new());
    let (mut at, mut end) = (sequence.0, sequence.0.saturating_add(sequence.1));
    for _ in 0..DESCRIPTORS_MAX {
        if at >= end {
            break;
        }
        let data = read_bytes(device, at, sector)?;
        let number = data.u32(16).unwrap_or(0);
        at = at.saturating_add(sector);
        match tag(&data) {
            Some(POINTER) => {
                let (length, block) = (data.u32(20).unwrap_or(0), data.u32(24).unwrap_or(0));
                at = u64::from(block) * sector;
                end = at.saturating_add(u64::from(length));
            }
            Some(LOGICAL_VOLUME) if logical.as_ref().is_none_or(|(n, _)| number >= *n) => {
                logical = Some((number, data))
            }
            Some(PARTITION) if partitions.len() < PARTITIONS_MAX => {
                let id = data.u16(22).unwrap_or(0);
                let row = (id, u64::from(data.u32(188).unwrap_or(0)), u64::from(data.u32(192).unwrap_or(0)));
                match partitions.iter_mut().find(|(_, (n, _, _))| *n == id) {
                    Some(slot) if number >= slot.0 => *slot = (number, row),
                    Some(_) => {}
                    None => partitions.push((number, row)),
                }
            }
            Some(TERMINATOR) => break,
            _ => {}
        }
    }
    Ok((logical.map(|(_, data)| data), partitions.into_iter().map(|(_, row)| row).collect()))
}

/// A file entry, decoded.
struct Entry {
    kind: u8,
    size: u64,
    extents: Vec<Extent>,
}

/// A name in a directory (ECMA-167 4/14.4).
struct Identifier {
    name: String,
    icb: LongAd,
    is_directory: bool,
}

fn identifiers(data: &[u8], path: &str) -> Result<Vec<Identifier>> {
    let mut out = Vec::new();
    let mut at = 0;
    while at + 38 <= data.len() {
        let record = data.get(at..).unwrap_or_default();
        let cut = || damaged("a UDF directory entry is cut").at(at as u64).path(path);
        if tag(record) != Some(FILE_IDENTIFIER) {
            return Err(cut());
        }
        let characteristics = record.u8(18).ok_or_else(cut)?;
        let name_length = usize::from(record.u8(19).ok_or_else(cut)?);
        let use_length = usize::from(record.u16(36).ok_or_else(cut)?);
        let name = record.bytes(38 + use_length, name_length).ok_or_else(cut)?;
        if characteristics & (CHARACTERISTIC_DELETED | CHARACTERISTIC_PARENT) == 0 {
            out.push(Identifier {
                name: cs0(name),
                icb: LongAd::parse(record, 20).ok_or_else(cut)?,
                is_directory: characteristics & CHARACTERISTIC_DIRECTORY != 0,
            });
        }
        at += (38 + use_length + name_length).next_multiple_of(4);
    }
    Ok(out)
}

/// OSTA compressed Unicode: a first byte of 8 or 16 tells the width of a character.
fn cs0(name: &[u8]) -> String {
    match name {
        [16 | 255, rest @ ..] => {
            let units = rest.as_chunks::<2>().0.iter().map(|&pair| u16::from_be_bytes(pair));
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
        [_, rest @ ..] => rest.iter().map(|&byte| char::from(byte)).collect(),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(cs0(b"\x08viostor.sys"), "viostor.sys");
        assert_eq!(cs0(b"\x10\0M\0\xfc"), "M\u{fc}");
        assert_eq!(cs0(b""), "");
    }

    #[test]
    fn tags_need_their_checksum() {
        let mut data = [0u8; 16];
        data[0] = 2;
        data[4] = 2;
        assert_eq!(tag(&data), Some(ANCHOR));
        data[5] = 1;
        assert_eq!(tag(&data), None);
        assert_eq!(tag(&data[..15]), None);
    }
}
