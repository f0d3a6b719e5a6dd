//! The FAT editor alone: whatever it does, foreign programs find a sound volume on which nothing else has changed.

use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use winject::internals::clock::FileTime;
use winject::internals::error::Kind;
use winject::internals::fat::{FatEditor, FatVolume, survey_fat};
use winject::internals::io::MemoryVolume;

use super::dos::Dos;
use crate::inject::folder;
use crate::support;

const NOW: FileTime = FileTime(0x01DB_0000_0000_0000);

/// FAT12, FAT16 and FAT32 with different clusters: bits, MiB, sectors of a cluster.
const KINDS: [(u32, u64, u32); 5] = [(12, 4, 4), (16, 16, 4), (16, 100, 16), (32, 64, 1), (32, 100, 2)];

fn content(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| seed.wrapping_add((at / 7) as u8) ^ at as u8).collect()
}

fn load(dos: &Dos) -> MemoryVolume {
    MemoryVolume(std::fs::read(&dos.path).unwrap())
}

/// Edits the volume and writes it back to its file.
fn edit(dos: &Dos, edits: impl FnOnce(&mut FatEditor<&mut MemoryVolume>)) {
    let mut volume = load(dos);
    let mut fat = FatEditor::open(&mut volume, false).unwrap();
    edits(&mut fat);
    fat.finish().unwrap();
    std::fs::write(&dos.path, volume.0).unwrap();
}

/// A volume as system partitions are: long names, several folders, a hole between files.
fn made(path: &Path, (bits, mib, sectors): (u32, u64, u32)) -> Option<Dos> {
    let dos = Dos::format(path, bits, mib, sectors)?;
    for folder in ["/EFI", "/EFI/Microsoft", "/EFI/Microsoft/Boot", "/EFI/Microsoft/Boot/a long name of a folder"] {
        dos.mkdir(folder);
    }
    dos.put("/EFI/Microsoft/Boot/bootmgfw.efi", &content(1, 70_000));
    dos.put("/EFI/Microsoft/Boot/hole.bin", &content(2, 9_000));
    dos.put("/EFI/Microsoft/Boot/BCD", &content(3, 20_480));
    dos.put("/EFI/Microsoft/Boot/a long name of a folder/a file with a long name.mui", &content(4, 5_000));
    dos.delete("/EFI/Microsoft/Boot/hole.bin");
    Some(dos)
}

fn a_new_file_and_new_content_change_nothing_else() {
    for kind in KINDS {
        let folder = folder();
        let Some(dos) = made(&folder.path().join("fat"), kind) else { return };
        dos.assert_clean();
        let before = dos.files();
        let listing = dos.listing();
        edit(&dos, |fat| {
            fat.create_file("/EFI/Boot/bootx64.efi", &content(1, 70_000), NOW).unwrap();
            fat.replace_content("/efi/microsoft/boot/bcd", &content(9, 40_960), NOW).unwrap();
        });
        dos.assert_clean();
        let mut after = dos.files();
        let new = after.keys().find(|name| name.eq_ignore_ascii_case("EFI/Boot/bootx64.efi")).unwrap().clone();
        assert_eq!(after.remove(&new), before.get("EFI/Microsoft/Boot/bootmgfw.efi").cloned(), "{kind:?}");
        assert!(new.ends_with("/bootx64.efi"), "{new}");
        let name = "EFI/Microsoft/Boot/BCD";
        assert_ne!(after.get(name), before.get(name));
        let fat = FatVolume::open(load(&dos)).unwrap();
        assert_eq!(fat.read("/EFI/Microsoft/Boot/BCD", 1 << 20).unwrap().unwrap(), content(9, 40_960));
        after.insert(name.to_owned(), before[name].clone());
        assert_eq!(after, before, "{kind:?}");
        // Every line of the listing is there still, with its time, but those of the file and of sums.
        let lines = dos.listing();
        let is_entry = |line: &&String| line.contains("  20") && !line.starts_with("BCD ");
        for line in listing.iter().filter(is_entry) {
            assert!(lines.contains(line), "{kind:?}: {line}");
        }
        // The content becomes shorter: what it does not need is free.
        let free = survey_fat(&load(&dos), false).unwrap().free_clusters;
        edit(&dos, |fat| fat.replace_content("/EFI/Microsoft/Boot/BCD", b"short", NOW).unwrap());
        dos.assert_clean();
        assert!(survey_fat(&load(&dos), false).unwrap().free_clusters > free);
    }
}

/// A full volume refuses, and is as it was; one with just enough space takes the file.
fn a_full_volume_refuses() {
    let folder = folder();
    let Some(dos) = made(&folder.path().join("fat"), (12, 4, 4)) else { return };
    let space = survey_fat(&load(&dos), false).unwrap();
    let keep = 3 * space.cluster_bytes;
    dos.put("/filler", &vec![7; usize::try_from(u64::from(space.free_clusters) * space.cluster_bytes - keep).unwrap()]);
    dos.assert_clean();
    assert!(survey_fat(&load(&dos), false).unwrap().has_room_for(space.cluster_bytes));
    assert!(!survey_fat(&load(&dos), false).unwrap().has_room_for(space.cluster_bytes + 1));
    let before = load(&dos);
    let mut volume = before.clone();
    let mut fat = FatEditor::open(&mut volume, false).unwrap();
    let error = fat.create_file("/EFI/Boot/bootx64.efi", &content(1, 70_000), NOW).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("too little free space"), "{error}");
    let two = usize::try_from(2 * space.cluster_bytes).unwrap();
    edit(&dos, |fat| fat.create_file("/EFI/Boot/bootx64.efi", &content(1, two), NOW).unwrap());
    dos.assert_clean();
    assert_eq!(survey_fat(&load(&dos), false).unwrap().free_clusters, 0);
}

/// Free clusters are scattered one by one: the new file takes them.
fn a_fragmented_volume_takes_the_file() {
    for bits in [12, 16] {
        let folder = folder();
        let Some(dos) = Dos::format(&folder.path().join("fat"), bits, if bits == 12 { 1 } else { 3 }, 1) else {
            return;
        };
        dos.mkdir("/EFI");
        let space = survey_fat(&load(&dos), false).unwrap();
        let count = usize::try_from(space.free_clusters).unwrap() / 40;
        for number in 0..40 {
            dos.put(&format!("/{number}.bin"), &content(number, (count - 1) * 512));
        }
        for number in (0..40).step_by(2) {
            dos.delete(&format!("/{number}.bin"));
        }
        let before = dos.files();
        let long = count * 512 * 15;
        edit(&dos, |fat| fat.create_file("/EFI/BOOT/bootx64.efi", &content(99, long), NOW).unwrap());
        dos.assert_clean();
        let fat = FatVolume::open(load(&dos)).unwrap();
        assert_eq!(fat.read("/EFI/BOOT/BOOTX64.EFI", 1 << 24).unwrap().unwrap(), content(99, long));
        let mut after = dos.files();
        after.retain(|name, _| !name.to_ascii_lowercase().ends_with("bootx64.efi"));
        assert_eq!(after, before);
    }
}

/// Folders that are full become longer; the entry behind the last one ends the folder, whatever was there.
fn a_folder_that_is_full_becomes_longer() {
    for kind in [(12, 4, 4), (16, 16, 4), (32, 64, 1)] {
        let folder = folder();
        let Some(dos) = Dos::format(&folder.path().join("fat"), kind.0, kind.1, kind.2) else { return };
        dos.mkdir("/EFI");
        for number in 0..150 {
            edit(&dos, |fat| fat.create_file(&format!("/EFI/BOOT/{number}.efi"), &content(number, 700), NOW).unwrap());
        }
        dos.assert_clean();
        let files = dos.files();
        assert_eq!(files.len(), 150, "{files:?}");
    }
}

fn a_dirty_volume_is_refused_by_name() {
    for (kind, boot_byte) in [((12, 4, 4), 0x25), ((16, 16, 4), 0x25), ((32, 64, 1), 0x41)] {
        let folder = folder();
        let Some(dos) = made(&folder.path().join("fat"), kind) else { return };
        let clean = load(&dos);
        let reserved = usize::from(u16::from_le_bytes([clean.0[14], clean.0[15]])) * 512;
        let mut in_boot_sector = clean.clone();
        in_boot_sector.0[boot_byte] |= 1;
        let mut broken = vec![in_boot_sector];
        if kind.0 != 12 {
            let length = if kind.0 == 16 {
                u16::from_le_bytes([clean.0[22], clean.0[23]])
            } else {
                u16::from_le_bytes([clean.0[36], clean.0[37]])
            };
            let at = if kind.0 == 16 { 3 } else { 7 };
            let mut in_table = clean.clone();
            for copy in 0..2 {
                in_table.0[reserved + copy * usize::from(length) * 512 + at] &= if kind.0 == 16 { 0x7F } else { 0xF7 };
            }
            broken.push(in_table);
        }
        for volume in broken {
            let error = survey_fat(&volume, false).unwrap_err();
            assert!(error.kind() == Kind::Refused && error.to_string().contains("marked dirty"), "{error}");
            assert!(error.hint_text().is_some_and(|hint| hint.contains("--allow-dirty")));
            survey_fat(&volume, true).unwrap();
        }
        let mut differing = clean.clone();
        differing.0[reserved + 20] ^= 1;
        assert_eq!(survey_fat(&differing, false).unwrap_err().kind(), Kind::Damaged);
    }
}

/// Any bytes of the head, the table and the folders changed: an error or a sound result, never a panic, and never a byte in a
/// cluster that belonged to a file.
fn damage_never_leads_to_an_overwritten_file() {
    let folder = folder();
    let Some(dos) = made(&folder.path().join("fat"), (12, 1, 1)) else { return };
    let clean = load(&dos);
    let places: Vec<usize> = (0..clean.0.len()).filter(|at| clean.0[*at] != 0 || *at < 2048).take(40_000).collect();
    let mut runner = TestRunner::new(Config::with_cases(u32::try_from(support::rounds(300, 3000)).unwrap()));
    let strategy = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6);
    runner
        .run(&strategy, |changes| {
            let mut volume = clean.clone();
            for (index, byte) in changes {
                // Mostly the table and the first folders.
                let at = places[index.index(places.len())];
                volume.0[at] = byte;
            }
            let before = volume.clone();
            let known = FatVolume::open(before.clone())
                .ok()
                .and_then(|fat| fat.read("/EFI/Microsoft/Boot/bootmgfw.efi", 1 << 20).ok());
            if let Ok(mut fat) = FatEditor::open(&mut volume, true)
                && fat.create_file("/EFI/BOOT/bootx64.efi", &content(5, 3000), NOW).is_ok()
            {
                fat.finish().unwrap();
                let fat = FatVolume::open(volume).unwrap();
                prop_assert_eq!(fat.read("/EFI/BOOT/bootx64.efi", 1 << 20).unwrap().unwrap(), content(5, 3000));
                prop_assert_eq!(fat.read("/EFI/Microsoft/Boot/bootmgfw.efi", 1 << 20).ok(), known);
            }
            Ok(())
        })
        .unwrap();
}

tests![
    a_new_file_and_new_content_change_nothing_else,
    a_full_volume_refuses,
    a_fragmented_volume_takes_the_file,
    a_folder_that_is_full_becomes_longer,
    a_dirty_volume_is_refused_by_name,
    damage_never_leads_to_an_overwritten_file,
];
