//! GUID partition tables (UEFI 2.10, section 5.3).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

use super::content::Content;
use super::disk::Disk;
use super::format::{GPT_SIGNATURE, GptEntry, GptHeader};
use super::table::{Partition, PartitionKind, PartitionTable, Scheme};
use crate::error::{Error, Layer, Result};
use crate::guid::Guid;
use crate::units::ImageOffset;

/// The sector sizes that disks have.
const SECTORS: [u32; 2] = [512, 4096];
/// UEFI asks for at least 16 KiB of entries; no formatter writes more than a few hundred. The limit bounds what a
/// hostile table makes us read.
const TABLE_BYTES_MAX: u64 = 4 << 20;
/// No Windows disk has so many; Linux stops at 256.
const PARTITIONS_MAX: usize = 1024;

const LDM_METADATA: Guid = Guid::new(0x5808_C8AA, 0x7E8F, 0x42E0, [0x85, 0xD2, 0xE1, 0xE9, 0x04, 0x34, 0xCF, 0xB3]);
const LDM_DATA: Guid = Guid::new(0xAF9B_60A0, 0x1431, 0x4F62, [0xBC, 0x68, 0x33, 0x11, 0x71, 0x4A, 0x69, 0xAD]);
const STORAGE_SPACES: Guid = Guid::new(0xE75C_AF8F, 0xF680, 0x4CEE, [0xAF, 0xA3, 0xB0, 0x01, 0xE5, 0x6E, 0xFC, 0x2D]);
const EFI_SYSTEM: Guid = Guid::new(0xC12A_7328, 0xF81F, 0x11D2, [0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B]);
const MICROSOFT_RESERVED: Guid =
    Guid::new(0xE3C9_E316, 0x0B5C, 0x4DB8, [0x81, 0x7D, 0xF9, 0x2D, 0xF0, 0x02, 0x15, 0xAE]);
const RECOVERY: Guid = Guid::new(0xDE94_BBA4, 0x06D1, 0x4D40, [0xA1, 0x6A, 0xBF, 0xD5, 0x01, 0x79, 0xD6, 0xAC]);

/// Reads the table: the primary, or the backup when the primary is damaged; `None` when there is not even the trace
/// of one.
pub fn read<D: Disk + ?Sized>(disk: &D) -> Result<Option<PartitionTable>> {
    let mut fault = None;
    for sector in SECTORS {
        match read_copy(disk, sector, 1)? {
            Found::Sound(table) => return Ok(Some(table)),
            Found::Damaged(error) => fault = fault.or(Some(error)),
            Found::Nothing => {}
        }
    }
    for sector in SECTORS {
        let Some(last) = (disk.len() / u64::from(sector)).checked_sub(1).filter(|&last| last > 1) else { continue };
        match read_copy(disk, sector, last)? {
            Found::Sound(mut table) => {
                table.warnings.push("the primary GPT is damaged: the backup at the end of the disk was read".into());
                return Ok(Some(table));
            }
            Found::Damaged(error) => fault = fault.or(Some(error)),
            Found::Nothing => {}
        }
    }
    match fault {
        Some(error) => Err(error.hint("both copies of the GPT are damaged: repair them, for instance with gdisk")),
        None => Ok(None),
    }
}

enum Found {
    Sound(PartitionTable),
    Damaged(Error),
    Nothing,
}

fn read_copy<D: Disk + ?Sized>(disk: &D, sector: u32, lba: u64) -> Result<Found> {
    let Some(start) = lba.checked_mul(u64::from(sector)) else { return Ok(Found::Nothing) };
    if start.checked_add(u64::from(sector)).is_none_or(|end| end > disk.len()) {
        return Ok(Found::Nothing);
    }
    let mut bytes = vec![0u8; sector as usize];
    disk.read_at(ImageOffset(start), &mut bytes)?;
    if !bytes.starts_with(&GPT_SIGNATURE) {
        return Ok(Found::Nothing);
    }
    let damaged = |what: &str| Found::Damaged(Error::damaged(Layer::Partition, what).at(ImageOffset(start)));
    let Some(header) = parse_header(&bytes, lba) else {
        return Ok(damaged("a GPT header does not have the checksum or the place that it says"));
    };
    let table_bytes = u64::from(header.entry_count.get()) * u64::from(header.entry_size.get());
    let place = header.entries_sector.get().checked_mul(u64::from(sector));
    let fits = place.and_then(|place| place.checked_add(table_bytes)).is_some_and(|end| end <= disk.len());
    let (Some(place), true, 1..=TABLE_BYTES_MAX) = (place, fits, table_bytes) else {
        return Ok(damaged("a GPT header places its entries where they cannot be"));
    };
    // Bounded by TABLE_BYTES_MAX.
    let mut entries = vec![0u8; usize::try_from(table_bytes).unwrap_or(0)];
    disk.read_at(ImageOffset(place), &mut entries)?;
    if header.entries_crc != crc32fast::hash(&entries) {
        return Ok(damaged("the entries of a GPT do not have the checksum that its header says"));
    }
    Ok(match partitions(&entries, &header, sector) {
        Ok((partitions, warnings)) => {
            let disk_guid = Some(Guid(header.disk_id));
            Found::Sound(PartitionTable { scheme: Scheme::Gpt, sector, partitions, warnings, disk_guid })
        }
        Err(error) => Found::Damaged(error),
    })
}

fn parse_header(bytes: &[u8], lba: u64) -> Option<GptHeader> {
    let (mut header, _) = GptHeader::read_from_prefix(bytes).ok()?;
    let length = usize::try_from(header.header_size.get()).ok()?;
    let rest = bytes.get(size_of::<GptHeader>()..length)?;
    let stored = std::mem::replace(&mut header.header_crc, U32::ZERO);
    let mut crc = crc32fast::Hasher::new();
    crc.update(header.as_bytes());
    crc.update(rest);
    let is_sound = stored == crc.finalize() && header.own_sector == lba;
    let entry_size = header.entry_size.get();
    (is_sound && entry_size >= 128 && entry_size.is_power_of_two()).then_some(header)
}

fn partitions(entries: &[u8], header: &GptHeader, sector: u32) -> Result<(Vec<Partition>, Vec<String>)> {
    let (mut partitions, mut warnings) = (Vec::new(), Vec::new());
    for (number, entry) in (1u32..).zip(entries.chunks_exact(header.entry_size.get() as usize)) {
        let Ok((entry, _)) = GptEntry::ref_from_prefix(entry) else { continue };
        let kind = Guid(entry.type_id);
        if kind.is_zero() {
            continue;
        }
        let (first, last) = (entry.first_sector.get(), entry.last_sector.get());
        let sectors = last.checked_sub(first).and_then(|n| n.checked_add(1));
        let start = first.checked_mul(u64::from(sector));
        let length = sectors.and_then(|n| n.checked_mul(u64::from(sector)));
        let (Some(start), Some(length)) = (start, length) else {
            warnings.push(format!("GPT entry {number} ends before it begins and is ignored"));
            continue;
        };
        if first < header.first_usable_sector.get() || last > header.last_usable_sector.get() {
            warnings.push(format!("partition {number} lies outside the area that the GPT allows"));
        }
        if partitions.len() == PARTITIONS_MAX {
            return Err(Error::damaged(Layer::Partition, "the GPT has more than 1024 partitions"));
        }
        partitions.push(Partition {
            number,
            start: ImageOffset(start),
            length,
            kind: kind_of(kind),
            content: Content::Unknown,
            name: Some(decode_name(&entry.name)).filter(|name| !name.is_empty()),
            type_id: kind.to_string(),
            bitlocker: None,
            replay: Default::default(),
            unique_guid: Some(Guid(entry.partition_id)),
        });
    }
    warnings.truncate(16);
    Ok((partitions, warnings))
}

fn kind_of(kind: Guid) -> PartitionKind {
    match kind {
        LDM_METADATA | LDM_DATA => PartitionKind::Dynamic,
        STORAGE_SPACES => PartitionKind::StorageSpaces,
        EFI_SYSTEM => PartitionKind::EfiSystem,
        MICROSOFT_RESERVED => PartitionKind::MicrosoftReserved,
        RECOVERY => PartitionKind::Recovery,
        _ => PartitionKind::Data,
    }
}

fn decode_name(name: &[U16]) -> String {
    let units = name.iter().map(|unit| unit.get()).take_while(|&unit| unit != 0);
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}
