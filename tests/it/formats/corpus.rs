//! Disks that VMware and Windows made.

use std::path::{Path, PathBuf};

use winject::internals::block::{OpenOptions, PathPolicy, open};
use winject::{Kind, Layer};

use super::{assert_same, image, open_error, read_all, read_foreign, read_qemu};
use crate::support::{corpus_bytes, program};

/// Unpacks files of the corpus into a folder; `None` (after saying so) when one is not there.
fn unpack(names: &[&str]) -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        std::fs::write(folder.path().join(name), corpus_bytes(&format!("disks/{name}.xz"))?).unwrap();
    }
    Some(folder)
}

fn vmware_wrote_one_disk_in_three_kinds() {
    let names = ["monolithicFlat-flat.vmdk", "monolithicFlat.vmdk", "monolithicSparse.vmdk", "streamOptimized.vmdk"];
    let Some(folder) = unpack(&names) else { return };
    let known = std::fs::read(folder.path().join(names[0])).unwrap();
    for name in &names[1..] {
        let path = folder.path().join(name);
        assert_same(&read_all(&*image(&path)), &known, name);
        let reader = vmdk::VmdkReader::open_path(&path).unwrap();
        assert_same(&read_foreign(reader, known.len() as u64), &known, name);
    }
}

fn a_flat_disk_without_its_extent_says_what_is_missing() {
    let Some(folder) = unpack(&["monolithicFlat.vmdk"]) else { return };
    let error = open_error(&folder.path().join("monolithicFlat.vmdk"));
    assert!(error.to_string().contains("monolithicFlat-flat.vmdk"), "{error}");
    assert!(error.hint_text().is_some());
}

fn hyper_v_disks_read_as_qemu_reads_them() {
    let names = ["ntfs-fixed", "ntfs-dynamic", "ntfs-parent"];
    for (ending, format) in [("vhd", "vpc"), ("vhdx", "vhdx")] {
        for name in names {
            let name = format!("{name}.{ending}");
            let Some(folder) = unpack(&[&name]) else { return };
            let path = folder.path().join(&name);
            let ours = read_all(&*image(&path));
            assert_eq!(ours.len(), 4 << 20, "{name}");
            assert_eq!(&ours[510..512], [0x55, 0xAA], "{name}");
            if program("qemu-img").is_some() {
                assert_same(&ours, &read_qemu(&path, format), &name);
            }
            if ending == "vhdx" {
                let reader = vhdx::VhdxReader::open(&path).unwrap();
                assert_same(&ours, &read_foreign(reader, 4 << 20), &name);
            }
        }
    }
    let Some(raw) = corpus_bytes("disks/ntfs-fixed.vhd.xz") else { return };
    let Some(folder) = unpack(&["ntfs-fixed.vhd"]) else { return };
    assert_same(&read_all(&*image(&folder.path().join("ntfs-fixed.vhd"))), &raw[..raw.len() - 512], "fixed VHD");
}

fn differencing_disks_read_through_their_parent() {
    let Some(folder) = unpack(&["ntfs-differential.vhdx", "ntfs-parent.vhdx"]) else { return };
    let child = folder.path().join("ntfs-differential.vhdx");
    let opened = image(&child);
    assert_eq!(opened.files().len(), 2);
    let parent = vhdx::VhdxReader::open(&folder.path().join("ntfs-parent.vhdx")).unwrap();
    let bytes = std::fs::read(&child).unwrap();
    let judge = vhdx::VhdxReader::from_bytes_with_parent(bytes, parent).unwrap();
    assert_same(&read_all(&*opened), &read_foreign(judge, 4 << 20), "differencing VHDX");

    let Some(folder) = unpack(&["ntfs-differential.vhd", "ntfs-parent.vhd"]) else { return };
    let child = folder.path().join("ntfs-differential.vhd");
    let ours = read_all(&*image(&child));
    assert_same(&ours, &merge_vhd(&child, &folder.path().join("ntfs-parent.vhd")), "differencing VHD");
    // QEMU opens it without the parent and reads holes: that must not be ours.
    if program("qemu-img").is_some() {
        assert_ne!(ours, read_qemu(&child, "vpc"));
    }
}

/// The parent was moved to another folder: allowed, it is found there by its name; else the error names the option.
fn a_moved_parent_is_found_in_an_allowed_folder() {
    for ending in ["vhd", "vhdx"] {
        let (child, parent) = (format!("ntfs-differential.{ending}"), format!("ntfs-parent.{ending}"));
        let Some(folder) = unpack(&[&child, &parent]) else { return };
        let child = folder.path().join(child);
        let before = read_all(&*image(&child));
        let moved = tempfile::tempdir().unwrap();
        let there = moved.path().join(&parent);
        std::fs::copy(folder.path().join(&parent), &there).unwrap();
        std::fs::remove_file(folder.path().join(&parent)).unwrap();
        assert!(open_error(&child).hint_text().unwrap().contains("--allow-path"));
        for allowed in [moved.path(), &there] {
            let path_policy = PathPolicy::default().allow(allowed);
            let opened = open(&child, &OpenOptions { path_policy, ..OpenOptions::default() }).unwrap();
            assert_same(&read_all(&*opened), &before, ending);
        }
    }
}

/// The differencing VHD, put together by the specification's own words: one sector at a time.
fn merge_vhd(child: &Path, parent: &Path) -> Vec<u8> {
    let file = std::fs::read(child).unwrap();
    let mut disk = std::fs::read(parent).unwrap();
    disk.truncate(4 << 20);
    let be32 = |at: usize| u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let be64 = |at: usize| u64::from_be_bytes(file[at..at + 8].try_into().unwrap()) as usize;
    let header = be64(16);
    assert_eq!(&file[header..header + 8], b"cxsparse");
    let (table, block) = (be64(header + 16), be32(header + 32));
    for sector in 0..disk.len() / 512 {
        let entry = be32(table + sector * 512 / block * 4);
        if entry == 0xFFFF_FFFF {
            continue;
        }
        let within = sector % (block / 512);
        let bitmap = entry * 512;
        if file[bitmap + within / 8] & (0x80 >> (within % 8)) != 0 {
            let data = bitmap + (block / 512 / 8).next_multiple_of(512) + within * 512;
            disk[sector * 512..][..512].copy_from_slice(&file[data..data + 512]);
        }
    }
    disk
}

fn a_missing_or_wrong_parent_is_an_error() {
    for (ending, wrong) in [("vhd", "ntfs-dynamic.vhd"), ("vhdx", "ntfs-dynamic.vhdx")] {
        let child = format!("ntfs-differential.{ending}");
        let Some(folder) = unpack(&[&child, wrong]) else { return };
        let path: PathBuf = folder.path().join(&child);
        let error = open_error(&path);
        assert_eq!(error.kind(), Kind::Io, "{error}");
        assert!(error.to_string().contains(&format!("ntfs-parent.{ending}")), "{error}");
        std::fs::copy(folder.path().join(wrong), folder.path().join(format!("ntfs-parent.{ending}"))).unwrap();
        let error = open_error(&path);
        assert_eq!((error.kind(), error.layer()), (Kind::Damaged, Layer::Block), "{error}");
        assert!(error.to_string().contains("expected") && error.hint_text().is_some(), "{error}");
    }
}

tests![
    vmware_wrote_one_disk_in_three_kinds,
    a_flat_disk_without_its_extent_says_what_is_missing,
    hyper_v_disks_read_as_qemu_reads_them,
    differencing_disks_read_through_their_parent,
    a_moved_parent_is_found_in_an_allowed_folder,
    a_missing_or_wrong_parent_is_an_error,
];
