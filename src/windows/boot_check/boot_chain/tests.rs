//! The chain of the sample disk, whole and with each link broken.

use super::{BootDisks, VmDisk, walk};
use crate::block::{self, Image};
use crate::error::Result;
use crate::ntfs::{OpenOptions, Volume};
use crate::partition::{self, Disk, PartitionKind, PartitionTable, PartitionView, Scheme};
use crate::units::ImageOffset;
use crate::windows::boot_check::code::Code;
use crate::windows::boot_check::report::{Finding, Gate, Level};

/// The sample disk with other bytes in its first 4 MiB, where all files of its EFI system partition lie.
struct Patched {
    image: Box<dyn Image>,
    head: Vec<u8>,
}

impl Disk for Patched {
    fn len(&self) -> u64 {
        Image::len(&*self.image)
    }
    fn read_at(&self, offset: ImageOffset, buf: &mut [u8]) -> Result<()> {
        Image::read_at(&*self.image, offset, buf)?;
        let start = usize::try_from(offset.0).unwrap().min(self.head.len());
        let length = buf.len().min(self.head.len() - start);
        buf[..length].copy_from_slice(&self.head[start..start + length]);
        Ok(())
    }
}

/// Where the EFI system partition begins.
const ESP: usize = 1 << 20;

fn sample() -> Patched {
    let path = std::path::Path::new("test-images/win10.qcow2");
    let image = block::open(path, &block::OpenOptions::default()).unwrap();
    let mut head = vec![0; 4 << 20];
    Image::read_at(&*image, ImageOffset(0), &mut head).unwrap();
    Patched { image, head }
}

impl Patched {
    /// Replaces bytes everywhere in the EFI system partition; how often.
    fn replace(&mut self, old: &[u8], new: &[u8]) -> usize {
        assert_eq!(old.len(), new.len());
        let places: Vec<usize> = (ESP..self.head.len() - old.len())
            .filter(|&at| self.head[at] == old[0] && self.head[at..].starts_with(old))
            .collect();
        for &at in &places {
            self.head[at..at + new.len()].copy_from_slice(new);
        }
        places.len()
    }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn seen(disk: &Patched, change: impl FnOnce(&mut PartitionTable)) -> Vec<Finding> {
    let mut table = partition::read(disk).unwrap();
    let windows = table.partition(3).unwrap().clone();
    change(&mut table);
    let volume = Volume::open(PartitionView::new(disk, &windows).unwrap(), &OpenOptions::read_only()).unwrap();
    let guest = crate::windows::inspect(&volume).unwrap().unwrap().guest;
    let disk = VmDisk { disk, table: &table, name: "win10.qcow2" };
    walk(&BootDisks { windows: disk, partition: &windows, others: &[], unread: &[], planned: None }, &volume, &guest)
        .unwrap()
        .findings
}

fn failures(found: &[Finding]) -> Vec<(Code, &str)> {
    let failed = found.iter().filter(|finding| finding.level == Level::Failure);
    failed.map(|finding| (finding.code, finding.text.as_str())).collect()
}

#[test]
fn a_whole_disk_has_every_link() {
    let found = seen(&sample(), |_| {});
    assert!(found.iter().all(|finding| finding.level == Level::Good), "{found:?}");
    let gates: Vec<Gate> = found.iter().map(|finding| finding.gate).collect();
    assert_eq!(gates, [Gate::Firmware, Gate::Partition, Gate::BootManager, Gate::Bcd, Gate::OsLoader]);
}

#[test]
fn every_broken_link_of_a_uefi_disk_is_named() {
    type Break = fn(&mut Patched) -> usize;
    let partition = |number: u8| {
        let mut bytes = [0u8; 16];
        bytes[..8].copy_from_slice(&[0x6A, 0x6E, 0x69, 0x77, 0, 0, 0, 0x40]);
        bytes[8] = 0x80;
        bytes[15] = number;
        bytes
    };
    assert_eq!(sample().replace(&partition(3), &partition(3)), 4, "the fixture is not what this test takes it for");
    let ways: [(&str, Code, &str, Break); 9] = [
        ("partition", Code::BcdDevice, "another partition", |d| {
            d.replace(
                b"\x6A\x6E\x69\x77\0\0\0\x40\x80\0\0\0\0\0\0\x03",
                b"\x6A\x6E\x69\x77\0\0\0\x40\x80\0\0\0\0\0\0\x09",
            )
        }),
        ("disk", Code::BcdDevice, "another disk", |d| {
            d.replace(b"\x6A\x6E\x69\x77\0\0\0\x40\x80\0\0\0\0\0\0\0", b"\x6B\x6E\x69\x77\0\0\0\x40\x80\0\0\0\0\0\0\0")
        }),
        ("programs", Code::NoBootManager, "bootmgfw", |d| d.replace(b"MZ\0\0", b"\0\0\0\0")),
        ("CPU", Code::NoBootManager, "CPU 0xaa64", |d| d.replace(b"PE\0\0\x64\x86", b"PE\0\0\x64\xAA")),
        ("no BCD", Code::NoBcd, "BCD", |d| d.replace(b"BCD        ", b"BCX        ")),
        ("BCD of zeros", Code::LinkDamaged, "BCD", |d| d.replace(b"regf", b"\0\0\0\0")),
        ("default entry", Code::BcdEntry, "not there", |d| {
            d.replace(
                &utf16("{77696e6a-0000-11eb-8000-000000000001}"),
                &utf16("{77696e6a-0000-11eb-8000-00000000000f}"),
            )
        }),
        ("loader of a BIOS", Code::BcdEntry, "winload.exe", |d| {
            d.replace(&utf16("winload.efi"), &utf16("winload.exe"))
        }),
        ("systemroot", Code::BcdEntry, "\\Windowz", |d| d.replace(&utf16("\\Windows\0"), &utf16("\\Windowz\0"))),
    ];
    for (name, code, word, break_it) in ways {
        let mut disk = sample();
        assert!(break_it(&mut disk) > 0, "{name}: nothing was changed");
        let found = seen(&disk, |_| {});
        assert!(failures(&found).iter().any(|(c, text)| *c == code && text.contains(word)), "{name}: {found:?}");
    }
}

#[test]
fn no_system_partition_and_one_that_is_not_fat() {
    let found = seen(&sample(), |table| table.partitions.retain(|one| one.kind != PartitionKind::EfiSystem));
    assert_eq!(failures(&found)[0].0, Code::NoSystemPartition);
    let mut empty = sample();
    empty.head[ESP..].fill(0);
    assert_eq!(failures(&seen(&empty, |_| {}))[0].0, Code::NoSystemPartition);
}

#[test]
fn active_partitions_of_an_mbr() {
    let mbr = |flags: [u8; 4]| {
        let mut disk = sample();
        for (entry, flag) in flags.into_iter().enumerate() {
            disk.head[446 + 16 * entry] = flag;
        }
        seen(&disk, |table| {
            table.scheme = Scheme::Mbr;
            table.partitions.retain(|one| one.kind != PartitionKind::EfiSystem);
        })
    };
    assert_eq!(failures(&mbr([0; 4]))[0].0, Code::NoActivePartition);
    assert_eq!(failures(&mbr([0x80, 0, 0x80, 0]))[0].0, Code::NoActivePartition);
    assert_eq!(failures(&mbr([0, 0, 0, 0x80]))[0].0, Code::NoActivePartition, "entry 4 is empty");
    let found = mbr([0, 0, 0x80, 0]);
    assert_eq!(failures(&found)[0].0, Code::NoBootManager, "{found:?}");
    assert!(found.iter().any(|one| one.level == Level::NotJudged && one.gate == Gate::BootCode), "{found:?}");
}

#[test]
fn a_volume_without_a_table_is_not_judged() {
    let found = seen(&sample(), |table| {
        table.scheme = Scheme::Bare;
        table.partitions.retain(|one| one.kind != PartitionKind::EfiSystem);
    });
    assert!(failures(&found).is_empty() && found[0].level == Level::NotJudged, "{found:?}");
}
