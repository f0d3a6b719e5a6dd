//! Real tables, compared with what other programs read from them.

use crate::support;
use std::path::Path;
use std::process::Command;
use winject::internals::partition::{Content, MemoryDisk, Scheme, read};

fn ours(bytes: &[u8]) -> Vec<(u64, u64)> {
    let table = read(&MemoryDisk(bytes.to_vec())).unwrap();
    let sector = u64::from(table.sector);
    let mut places: Vec<(u64, u64)> =
        table.partitions.iter().map(|p| (p.start.0 / sector, (p.start.0 + p.length) / sector - 1)).collect();
    places.sort_unstable();
    places
}

/// First and last sectors as The Sleuth Kit's mmls lists them: its slots are `000` or `000:001`, the rest are gaps,
/// tables and containers.
fn mmls(path: &Path) -> Option<Vec<(u64, u64)>> {
    let output = support::run(Command::new(support::program("mmls")?).arg(path));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut places: Vec<(u64, u64)> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let is_slot = words.next()?.starts_with(|c: char| c.is_ascii_digit());
            is_slot.then_some(())?;
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        })
        .collect();
    places.sort_unstable();
    Some(places)
}

fn real_tables_as_mmls_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["gpt", "gpt_non_sequential", "gpt_empty_with_mbr", "mbr"] {
        let Some(bytes) = support::corpus_bytes(&format!("disks/{name}.raw.xz")) else { return };
        let path = folder.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        let Some(theirs) = mmls(&path) else { return };
        assert!(!theirs.is_empty());
        assert_eq!(ours(&bytes), theirs, "{name}");
        let scheme = if name == "gpt" || name == "gpt_non_sequential" { Scheme::Gpt } else { Scheme::Mbr };
        assert_eq!(read(&MemoryDisk(bytes)).unwrap().scheme, scheme);
    }
}

fn real_gpt_numbers_as_sgdisk_reads_them() {
    let Some(sgdisk) = support::program("sgdisk") else { return };
    let folder = tempfile::tempdir().unwrap();
    for name in ["gpt", "gpt_non_sequential"] {
        let Some(bytes) = support::corpus_bytes(&format!("disks/{name}.raw.xz")) else { return };
        let path = folder.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        let output = support::run(Command::new(&sgdisk).arg("-p").arg(&path));
        let theirs: Vec<Vec<u64>> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| line.split_whitespace().take(3).map_while(|word| word.parse().ok()).collect())
            .filter(|row: &Vec<u64>| row.len() == 3)
            .collect();
        let table = read(&MemoryDisk(bytes)).unwrap();
        let ours: Vec<Vec<u64>> = table
            .partitions
            .iter()
            .map(|p| vec![u64::from(p.number), p.start.0 / 512, (p.start.0 + p.length) / 512 - 1])
            .collect();
        assert_eq!(ours, theirs, "{name}");
    }
}

fn bitlocker_to_go_is_refused_by_name() {
    let Some(bytes) = support::corpus_bytes("disks/bitlocker-to-go-first-mib.raw.xz") else { return };
    let table = read(&MemoryDisk(bytes)).unwrap();
    assert_eq!((table.scheme, table.partitions[0].content), (Scheme::Bare, Content::BitLocker));
    let error = table.partitions[0].refusal().unwrap();
    assert_eq!(error.kind(), winject::Kind::Refused);
    assert!(error.to_string().contains("BitLocker"));
}

tests![real_tables_as_mmls_reads_them, real_gpt_numbers_as_sgdisk_reads_them, bitlocker_to_go_is_refused_by_name,];
