//! Partition tables: against real ones, against foreign readers, and against damage.

mod foreign;
mod mutation;
mod tables;

/// A GPT disk made here: `partitions` are (type GUID on disk, first sector, last sector).
pub fn gpt_disk(sector: u32, sectors: u64, entry_size: u32, partitions: &[([u8; 16], u64, u64)]) -> Vec<u8> {
    let size = u64::from(sector);
    let mut disk = vec![0u8; usize::try_from(sectors * size).unwrap()];
    let at = |lba: u64| usize::try_from(lba * size).unwrap();
    disk[450] = 0xEE;
    disk[454..458].copy_from_slice(&1u32.to_le_bytes());
    disk[458..462].copy_from_slice(&u32::MAX.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    let mut entries = vec![0u8; 128 * entry_size as usize];
    for (index, (kind, first, last)) in partitions.iter().enumerate() {
        let entry = &mut entries[index * entry_size as usize..][..128];
        entry[..16].copy_from_slice(kind);
        entry[16] = u8::try_from(index + 1).unwrap();
        entry[32..40].copy_from_slice(&first.to_le_bytes());
        entry[40..48].copy_from_slice(&last.to_le_bytes());
        entry[56] = b'p';
    }
    let table_sectors = (entries.len() as u64).div_ceil(size);
    let header = |own: u64, other: u64, table: u64| {
        let mut header = vec![0u8; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x1_0000u32.to_le_bytes());
        header[12..16].copy_from_slice(&92u32.to_le_bytes());
        header[24..32].copy_from_slice(&own.to_le_bytes());
        header[32..40].copy_from_slice(&other.to_le_bytes());
        header[40..48].copy_from_slice(&(2 + table_sectors).to_le_bytes());
        header[48..56].copy_from_slice(&(sectors - 2 - table_sectors).to_le_bytes());
        header[56] = 7;
        header[72..80].copy_from_slice(&table.to_le_bytes());
        header[80..84].copy_from_slice(&128u32.to_le_bytes());
        header[84..88].copy_from_slice(&entry_size.to_le_bytes());
        header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
        let sum = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        header
    };
    let last = sectors - 1;
    for (own, other, table) in [(1, last, 2), (last, 1, last - table_sectors)] {
        disk[at(own)..][..92].copy_from_slice(&header(own, other, table));
        disk[at(table)..][..entries.len()].copy_from_slice(&entries);
    }
    disk
}

/// An MBR (or a link of a chain): entries are (type, first, sectors).
pub fn mbr_sector(entries: &[(u8, u32, u32)]) -> [u8; 512] {
    let mut sector = [0u8; 512];
    for (index, (kind, first, sectors)) in entries.iter().enumerate() {
        let entry = &mut sector[446 + 16 * index..][..16];
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..16].copy_from_slice(&sectors.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xAA]);
    sector
}

pub const BASIC_DATA: [u8; 16] =
    [0xA2, 0xA0, 0xD0, 0xEB, 0xE5, 0xB9, 0x33, 0x44, 0x87, 0xC0, 0x68, 0xB6, 0xB7, 0x26, 0x99, 0xC7];

tests![in foreign, mutation, tables;];
