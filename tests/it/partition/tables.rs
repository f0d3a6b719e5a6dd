//! What is read from tables of every kind, and what is refused by name.

use super::{BASIC_DATA, gpt_disk, mbr_sector};
use winject::internals::error::Kind;
use winject::internals::guid::Guid;
use winject::internals::partition::{
    Content, MemoryDisk, PartitionId, PartitionKind, PartitionTable, Scheme, read, read_partition_id,
};

fn places(table: &PartitionTable) -> Vec<(u32, u64, u64)> {
    table.partitions.iter().map(|p| (p.number, p.start.0, p.length)).collect()
}

fn gpt_of_both_sector_sizes_and_of_large_entries() {
    for (sector, entry_size) in [(512u32, 128u32), (512, 256), (4096, 128), (4096, 512)] {
        let disk = gpt_disk(sector, 600, entry_size, &[(BASIC_DATA, 200, 209), (BASIC_DATA, 150, 150)]);
        let table = read(&MemoryDisk(disk)).unwrap();
        assert_eq!((table.scheme, table.sector), (Scheme::Gpt, sector));
        let size = u64::from(sector);
        assert_eq!(places(&table), [(1, 200 * size, 10 * size), (2, 150 * size, size)]);
        assert_eq!(table.partitions[0].name.as_deref(), Some("p"));
        assert_eq!(table.partitions[0].type_id, "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7");
        assert!(table.warnings.is_empty(), "{:?}", table.warnings);
    }
}

fn gpt_backup_steps_in_for_a_damaged_primary() {
    for sector in [512u32, 4096] {
        let sound = gpt_disk(sector, 600, 128, &[(BASIC_DATA, 200, 209)]);
        let expected = places(&read(&MemoryDisk(sound.clone())).unwrap());
        // the header's signature, the header, the entries
        for damage in [sector as usize, sector as usize + 50, 2 * sector as usize + 33] {
            let mut disk = sound.clone();
            disk[damage] ^= 0x40;
            let table = read(&MemoryDisk(disk.clone())).unwrap();
            assert_eq!(places(&table), expected);
            assert!(table.warnings[0].contains("backup"), "{:?}", table.warnings);
            let last = disk.len() - sector as usize;
            disk[last + 20] ^= 1;
            let error = read(&MemoryDisk(disk)).unwrap_err();
            assert_eq!(error.kind(), Kind::Damaged);
            assert!(error.hint_text().is_some());
        }
    }
}

fn truncated_gpt_disk_is_damaged_not_unknown() {
    let disk = gpt_disk(512, 600, 128, &[(BASIC_DATA, 200, 209)]);
    let error = read(&MemoryDisk(disk[..512].to_vec())).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.hint_text().unwrap().contains("truncated"));
    let table = read(&MemoryDisk(disk[..204 * 512].to_vec())).unwrap();
    assert!(table.warnings.iter().any(|w| w.contains("beyond the disk")), "{:?}", table.warnings);
}

fn hybrid_and_missing_protective_mbr() {
    let mut disk = gpt_disk(512, 600, 128, &[(BASIC_DATA, 200, 209)]);
    disk[462..478].copy_from_slice(&mbr_sector(&[(7, 200, 10)])[446..462]);
    let table = read(&MemoryDisk(disk.clone())).unwrap();
    assert_eq!((table.scheme, table.partitions.len()), (Scheme::Gpt, 1));
    assert!(table.warnings[0].contains("hybrid"));
    // without any MBR the GPT still counts; with a real MBR it does not
    disk[..512].fill(0);
    assert_eq!(read(&MemoryDisk(disk.clone())).unwrap().scheme, Scheme::Gpt);
    disk[..512].copy_from_slice(&mbr_sector(&[(7, 300, 10)]));
    let table = read(&MemoryDisk(disk)).unwrap();
    assert_eq!((table.scheme, places(&table)), (Scheme::Mbr, vec![(1, 300 * 512, 10 * 512)]));
}

fn logical_partitions_may_go_backwards() {
    let mut disk = vec![0u8; 600 * 512];
    disk[..512].copy_from_slice(&mbr_sector(&[(7, 10, 20), (0x0F, 100, 400)]));
    // links at 100, 300, 200: the pointers count from 100, the data from their own link
    disk[100 * 512..][..512].copy_from_slice(&mbr_sector(&[(7, 5, 10), (0x05, 200, 50)]));
    disk[300 * 512..][..512].copy_from_slice(&mbr_sector(&[(7, 6, 11), (0x05, 100, 50)]));
    disk[200 * 512..][..512].copy_from_slice(&mbr_sector(&[(7, 7, 12)]));
    let table = read(&MemoryDisk(disk)).unwrap();
    let expected = [(1, 10, 20), (5, 105, 10), (6, 306, 11), (7, 207, 12)];
    assert_eq!(places(&table), expected.map(|(n, first, count)| (n, first * 512, count * 512)));
    assert!(table.warnings.is_empty());
}

fn a_chain_in_a_circle_ends() {
    let mut disk = vec![0u8; 600 * 512];
    disk[..512].copy_from_slice(&mbr_sector(&[(0x05, 100, 400)]));
    disk[100 * 512..][..512].copy_from_slice(&mbr_sector(&[(7, 5, 10), (0x05, 200, 50)]));
    disk[300 * 512..][..512].copy_from_slice(&mbr_sector(&[(7, 6, 11), (0x05, 0, 50)]));
    let table = read(&MemoryDisk(disk)).unwrap();
    assert_eq!(table.partitions.len(), 2);
    assert!(table.warnings[0].contains("circle"), "{:?}", table.warnings);
}

fn mbr_of_a_disk_with_4096_byte_sectors() {
    let mut disk = vec![0u8; 100 * 4096];
    disk[..512].copy_from_slice(&mbr_sector(&[(7, 20, 40)]));
    disk[20 * 4096 + 3..][..8].copy_from_slice(b"NTFS    ");
    let table = read(&MemoryDisk(disk)).unwrap();
    assert_eq!((table.sector, places(&table)), (4096, vec![(1, 20 * 4096, 40 * 4096)]));
    assert_eq!(table.partitions[0].content, Content::Ntfs);
}

fn a_bare_volume_needs_no_table() {
    let mut disk = vec![0u8; 64 * 512];
    disk[3..11].copy_from_slice(b"NTFS    ");
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    let table = read(&MemoryDisk(disk)).unwrap();
    assert_eq!((table.scheme, places(&table)), (Scheme::Bare, vec![(0, 0, 64 * 512)]));
}

fn ids_are_those_of_the_table() {
    let ids = |bytes: &[u8]| {
        let disk = MemoryDisk(bytes.to_vec());
        let table = read(&disk).unwrap();
        let id = |partition| read_partition_id(&disk, &table, partition).unwrap();
        table.partitions.iter().map(id).collect::<Vec<_>>()
    };
    let guid = |first: u8| Guid(std::array::from_fn(|index| if index == 0 { first } else { 0 }));
    let gpt = |partition: u8| Some(PartitionId::Gpt { disk: guid(7), partition: guid(partition) });
    for (sector, entry_size) in [(512, 128), (4096, 512)] {
        let mut disk = gpt_disk(sector, 600, entry_size, &[(BASIC_DATA, 200, 209), (BASIC_DATA, 150, 150)]);
        assert_eq!(ids(&disk), [gpt(1), gpt(2)]);
        let mut other = disk.clone();
        // the disk's id in the header, and that of the first partition in its entry
        for at in [sector as usize + 56, 2 * sector as usize + 16] {
            other[at] ^= 1;
            assert_eq!(ids(&other), [gpt(1), gpt(2)], "a damaged copy is not asked");
        }
        disk[sector as usize..][..512].fill(0);
        assert_eq!(ids(&disk), [gpt(1), gpt(2)], "from the backup");
    }
    let mut disk = vec![0u8; 600 * 512];
    disk[..512].copy_from_slice(&mbr_sector(&[(7, 63, 100), (7, 200, 100)]));
    disk[440..444].copy_from_slice(&0x1234_5678_u32.to_le_bytes());
    let mbr = |start: u64| Some(PartitionId::Mbr { disk: 0x1234_5678, start: start * 512 });
    assert_eq!(ids(&disk), [mbr(63), mbr(200)]);
    let mut disk = vec![0u8; 64 * 512];
    disk[3..11].copy_from_slice(b"NTFS    ");
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    assert_eq!(ids(&disk), [None], "a volume without a table");
}

fn what_is_no_disk_is_said_so() {
    for bytes in [vec![], vec![0; 100], vec![0; 4096], b"hello, ".repeat(1000), mbr_sector(&[]).to_vec()] {
        let error = read(&MemoryDisk(bytes)).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
        assert!(error.hint_text().is_some());
    }
}

fn refusals_by_name() {
    let refusal = |disk: Vec<u8>| {
        let table = read(&MemoryDisk(disk)).unwrap();
        table.partitions[0].refusal().map(|error| {
            assert!(error.hint_text().is_some());
            (error.kind(), error.to_string())
        })
    };
    let with_name = |name: &[u8; 8]| {
        let mut disk = gpt_disk(512, 600, 128, &[(BASIC_DATA, 200, 209)]);
        disk[200 * 512 + 3..][..8].copy_from_slice(name);
        disk
    };
    let is = |disk, kind, word: &str| {
        let (found, text) = refusal(disk).unwrap();
        assert_eq!(found, kind);
        assert!(text.contains(word), "{text}");
    };
    is(with_name(b"-FVE-FS-"), Kind::Refused, "BitLocker");
    is(with_name(b"ReFS\0\0\0\0"), Kind::Unsupported, "ReFS");
    is(with_name(b"EXFAT   "), Kind::Unsupported, "exFAT");
    assert!(refusal(with_name(b"NTFS    ")).is_none());
    let ldm = [0xA0, 0x60, 0x9B, 0xAF, 0x31, 0x14, 0x62, 0x4F, 0xBC, 0x68, 0x33, 0x11, 0x71, 0x4A, 0x69, 0xAD];
    is(gpt_disk(512, 600, 128, &[(ldm, 200, 209)]), Kind::Refused, "dynamic disk");
    let pool = [0x8F, 0xAF, 0x5C, 0xE7, 0x80, 0xF6, 0xEE, 0x4C, 0xAF, 0xA3, 0xB0, 0x01, 0xE5, 0x6E, 0xFC, 0x2D];
    is(gpt_disk(512, 600, 128, &[(pool, 200, 209)]), Kind::Refused, "Storage Spaces");
    let mut disk = vec![0u8; 600 * 512];
    disk[..512].copy_from_slice(&mbr_sector(&[(0x42, 63, 500)]));
    assert_eq!(read(&MemoryDisk(disk.clone())).unwrap().partitions[0].kind, PartitionKind::Dynamic);
    is(disk, Kind::Refused, "dynamic disk");
}

tests![
    gpt_of_both_sector_sizes_and_of_large_entries,
    gpt_backup_steps_in_for_a_damaged_primary,
    truncated_gpt_disk_is_damaged_not_unknown,
    hybrid_and_missing_protective_mbr,
    logical_partitions_may_go_backwards,
    a_chain_in_a_circle_ends,
    mbr_of_a_disk_with_4096_byte_sectors,
    a_bare_volume_needs_no_table,
    ids_are_those_of_the_table,
    what_is_no_disk_is_said_so,
    refusals_by_name,
];
