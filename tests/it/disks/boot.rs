//! The way from the firmware to Windows over two disks.

use super::{MACHINES, command, edit_gpt, fail, uefi};
use crate::inject::{copy, disk_sha256, fixture_drivers, folder, sha256, stderr, stdout, succeed, winject};
use crate::support;
use std::path::{Path, PathBuf};

/// What one disk alone does not show, both show; and the disk that the machine has to start from is named.
fn a_boot_manager_on_another_disk_is_found() {
    for (firmware, make) in MACHINES {
        let folder = folder();
        let machine = make(folder.path());
        let alone = fail(&mut command("inject", &[&machine.system], "--dry-run"), 5, &[&machine.system]);
        let hint = format!("winject inject {} DISK", machine.system.display());
        assert!(alone.contains("another disk") && alone.contains(&hint), "{firmware}: {alone}");
        for is_windows_first in [true, false] {
            let disks = machine.in_order(is_windows_first);
            let text = stdout(&succeed(&mut command("inject", &disks, "--dry-run")));
            assert!(
                text.contains("boots with") && text.contains("the other disk stays as it is"),
                "{firmware}: {text}"
            );
            assert!(text.contains("start the machine from boot.raw"), "{firmware}: {text}");
            assert!(text.contains(&format!("Windows is on {}", machine.system.display())), "{firmware}: {text}");
        }
        let text = stdout(&succeed(&mut command("plan", &machine.in_order(false), "")));
        assert!(text.contains("of boot.raw") && text.contains("of system.raw"), "{firmware}: {text}");
    }
}

/// `check` says of both disks what it says of the whole one, and `inject` makes it a yes.
fn check_walks_over_all_disks() {
    for (firmware, make) in MACHINES {
        let folder = folder();
        let machine = make(folder.path());
        succeed(&mut command("inject", &machine.in_order(false), "--in-place"));
        let check = |disks: &[&Path]| {
            let output = winject().arg("check").args(disks).arg("--json").output().unwrap();
            let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            (output.status.code(), json)
        };
        assert_eq!(check(&[&machine.system]).0, Some(1), "{firmware}");
        let (code, one) = check(&machine.in_order(true));
        let (_, other) = check(&machine.in_order(false));
        assert_eq!((code, &one["buses"]), (Some(0), &other["buses"]), "{firmware}");
        assert_eq!(one["image"], machine.system.display().to_string(), "{firmware}");
        assert_eq!(one["buses"][0]["start_disk"], "boot.raw", "{firmware}");
    }
}

/// A damaged primary GPT is named with its disk, whichever of the disks has it.
fn a_damaged_table_of_any_disk_is_a_warning() {
    for is_boot in [true, false] {
        let folder = folder();
        let machine = uefi(folder.path());
        let damaged = if is_boot { &machine.boot } else { &machine.system };
        let file = std::fs::File::options().write(true).open(damaged).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0; 16], 512).unwrap();
        let mut check = winject();
        check.arg("check").args(machine.in_order(true));
        for mut command in [command("inject", &machine.in_order(true), "--dry-run"), check] {
            let text = stderr(&command.output().unwrap());
            assert!(text.contains("primary GPT") && (!is_boot || text.contains("boot.raw:")), "{text}");
        }
    }
}

/// A conversion finds the boot manager on the other disk, and writes what a document makes of the same machine.
fn a_conversion_reads_the_other_disk() {
    for (firmware, make) in MACHINES {
        let folder = folder();
        let machine = make(folder.path());
        let (before, drivers) = (sha256(&machine.boot), fixture_drivers());
        let out = folder.path().join("new.raw");
        let mut convert = winject();
        convert.arg("convert").arg(&machine.system).arg(&out).arg("--inject").arg(&drivers);
        let text = fail(&mut convert, 5, &[&machine.system]);
        assert!(text.contains("another disk"), "{firmware}: {text}");
        succeed(convert.arg("--other-disk").arg(&machine.boot));
        let overlay = folder.path().join("new.qcow2");
        succeed(&mut command("inject", &machine.in_order(false), &format!("--overlay {}", overlay.display())));
        assert_eq!(disk_sha256(&out), disk_sha256(&overlay), "{firmware}");
        assert_eq!(sha256(&machine.boot), before, "{firmware}");
    }
}

/// A boot configuration that names another disk than the one with Windows.
fn a_boot_manager_that_starts_another_disk_is_damage() {
    let folder = folder();
    let machine = uefi(folder.path());
    edit_gpt(&machine.system, &[], Some(0x51));
    let disks = machine.in_order(true);
    let text = fail(&mut command("inject", &disks, "--in-place"), 5, &disks);
    assert!(text.contains("another disk"), "{text}");
    // The disk that it names is here, too, and Windows is on both.
    let clone = folder.path().join("clone.raw");
    copy(&machine.system, &clone);
    edit_gpt(&clone, &[], Some(0x52));
    let disks = [machine.system.as_path(), &machine.boot, &clone];
    let text = fail(&mut command("inject", &disks, "--dry-run"), 3, &disks);
    assert!(text.contains("--windows-disk"), "{text}");
}

/// Windows takes one of two disks with the same id offline: that is said, and no reason to refuse.
fn disks_with_the_same_id_are_named() {
    for (firmware, make) in MACHINES {
        let folder = folder();
        let machine = make(folder.path());
        let copied = folder.path().join("copied.raw");
        copy(&machine.boot, &copied);
        let output = succeed(&mut command("inject", &[&copied, &machine.boot, &machine.system], "--dry-run"));
        let text = format!("{}{}", stdout(&output), stderr(&output));
        assert!(text.contains("boot.raw and copied.raw have the same disk id"), "{firmware}: {text}");
    }
}

/// Disks of other makers' programs as data disks: they are read, and left as they are.
fn real_data_disks_do_not_matter() {
    let folder = folder();
    let machine = uefi(folder.path());
    let names = [
        "monolithicSparse.vmdk",
        "streamOptimized.vmdk",
        "ntfs-fixed.vhd",
        "ntfs-dynamic.vhdx",
        "gpt.raw",
        "gpt_non_sequential.raw",
        "gpt_empty_with_mbr.raw",
        "mbr.raw",
        "bitlocker-to-go-first-mib.raw",
    ];
    let mut disks = vec![machine.boot.clone(), machine.system.clone()];
    for name in names {
        let Some(bytes) = support::corpus_bytes(&format!("disks/{name}.xz")) else { return };
        disks.push(folder.path().join(name));
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let paths: Vec<&Path> = disks.iter().map(PathBuf::as_path).collect();
    let before: Vec<String> = paths.iter().map(|path| sha256(path)).collect();
    let text = stdout(&succeed(&mut command("inject", &paths, "--in-place --no-undo")));
    assert!(text.contains("the other 10 disks stay as they are"), "{text}");
    let changed: Vec<usize> = (0..paths.len()).filter(|index| sha256(paths[*index]) != before[*index]).collect();
    assert_eq!(changed, [1], "only the disk with Windows");
}

/// `inspect` shows every disk; one with Windows is enough.
fn inspect_shows_every_disk() {
    let folder = folder();
    let machine = uefi(folder.path());
    let inspect =
        |disks: &[&Path], options: &[&str]| winject().arg("inspect").args(disks).args(options).output().unwrap();
    let output = inspect(&machine.in_order(false), &[]);
    let text = stdout(&output);
    assert_eq!((output.status.code(), text.matches("Image:").count()), (Some(0), 2), "{text}");
    assert!(text.contains("Windows 10"), "{text}");
    let json: serde_json::Value =
        serde_json::from_slice(&inspect(&machine.in_order(true), &["--json"]).stdout).unwrap();
    assert_eq!(json["disks"].as_array().unwrap().len(), 2);
    assert_eq!(inspect(&[&machine.boot, &machine.boot], &[]).status.code(), Some(2));
    // Disks without partitions, or with damaged tables, are part of the answer.
    let blank = folder.path().join("blank.raw");
    std::fs::File::create(&blank).unwrap().set_len(1 << 20).unwrap();
    let cut = folder.path().join("cut.raw");
    copy(&machine.boot, &cut);
    std::fs::File::options().write(true).open(&cut).unwrap().set_len(512).unwrap();
    let output = inspect(&[&blank, &cut, &machine.system], &[]);
    let text = stdout(&output);
    assert_eq!((output.status.code(), text.matches("Image:").count()), (Some(0), 3), "{text}");
    assert_eq!(text.matches("Not read:").count(), 2, "{text}");
    let json: serde_json::Value =
        serde_json::from_slice(&inspect(&[&blank, &machine.system], &["--json"]).stdout).unwrap();
    assert_eq!(
        (&json["disks"][0]["faults"][0]["partition"], &json["disks"][1]["faults"]),
        (&0.into(), &serde_json::json!([]))
    );
    for (disks, code) in [([&blank, &machine.boot], 4), ([&cut, &machine.boot], 5)] {
        assert_eq!(inspect(&disks.map(PathBuf::as_path), &[]).status.code(), Some(code), "{disks:?}");
    }
    assert_eq!(inspect(&[&blank], &[]).status.code(), Some(4));
}

/// Disks without a partition table, or with a damaged one, belong to machines, too.
fn data_disks_do_not_matter() {
    let folder = folder();
    let machine = uefi(folder.path());
    let blank = folder.path().join("blank.raw");
    std::fs::File::create(&blank).unwrap().set_len(1 << 20).unwrap();
    let noise = folder.path().join("noise.raw");
    std::fs::write(&noise, crate::block::Random::new(5).bytes(1 << 20)).unwrap();
    let cut = folder.path().join("cut.raw");
    copy(&machine.boot, &cut);
    std::fs::File::options().write(true).open(&cut).unwrap().set_len(512).unwrap();
    let disks = [&blank, &noise, &machine.boot, &cut, &machine.system].map(std::path::PathBuf::as_path);
    let output = succeed(&mut command("inject", &disks, "--dry-run"));
    assert!(stderr(&output).contains("cut.raw"), "damage is said: {}", stderr(&output));
    assert!(stdout(&output).contains("boots with"), "{}", stdout(&output));
}

/// A disk on which nothing is seen that starts this Windows does not make it bootable.
fn an_encrypted_data_disk_starts_no_windows() {
    let folder = folder();
    let (_, make) = MACHINES.iter().find(|(firmware, _)| firmware.to_lowercase().contains("bios")).unwrap();
    let machine = make(folder.path());
    let mut bytes = vec![0; 8 << 20];
    // One active partition from sector 2048.
    bytes[446..462].copy_from_slice(&[0x80, 0, 0, 0, 7, 0, 0, 0, 0, 8, 0, 0, 0, 0x30, 0, 0]);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    let sector = &mut bytes[2048 * 512..][..512];
    sector[..11].copy_from_slice(b"\xeb\x58\x90-FVE-FS-");
    sector[11..13].copy_from_slice(&512u16.to_le_bytes());
    sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    let data = folder.path().join("data.raw");
    std::fs::write(&data, bytes).unwrap();
    let disks = [machine.system.as_path(), &data];
    fail(&mut command("inject", &disks, "--in-place"), 5, &disks);
    assert_eq!(winject().arg("check").args(disks).output().unwrap().status.code(), Some(1));
    // With the disk that does start it, all is well.
    succeed(&mut command("inject", &[&machine.system, &data, &machine.boot], "--dry-run"));
}

tests![
    an_encrypted_data_disk_starts_no_windows,
    a_conversion_reads_the_other_disk,
    a_damaged_table_of_any_disk_is_a_warning,
    real_data_disks_do_not_matter,
    inspect_shows_every_disk,
    check_walks_over_all_disks,
    a_boot_manager_on_another_disk_is_found,
    a_boot_manager_that_starts_another_disk_is_damage,
    disks_with_the_same_id_are_named,
    data_disks_do_not_matter,
];
