//! Which firmware starts a machine: the boot chain says so, whatever the partition table of the disk with Windows.

use super::{Machine, Make, bios, bios_on_gpt, command, fail, uefi, uefi_on_mbr, windows_partition};
use crate::inject::{fixture_drivers, folder, sha256, stderr, stdout, succeed, winject, writable_fixture};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use winject::internals::block::Format;

/// The report of a dry run.
fn report(disks: &[&Path]) -> serde_json::Value {
    let path = disks[0].with_file_name("report.json");
    succeed(&mut command("inject", disks, &format!("--dry-run --report {}", path.display())));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

const ALL: [(&str, Make, &str); 4] = [
    ("GPT, UEFI", uefi, "uefi"),
    ("MBR, BIOS", bios, "bios"),
    ("MBR, UEFI", uefi_on_mbr, "uefi"),
    ("GPT, BIOS", bios_on_gpt, "bios"),
];

/// Each kind of Windows disk with each kind of boot disk: the advice, the boot check and a plan agree, and the plan applies.
fn the_advice_is_the_firmware_that_leads_to_windows() {
    for (name, make, firmware) in ALL {
        let folder = folder();
        let machine = make(folder.path());
        for is_windows_first in [true, false] {
            let report = report(&machine.in_order(is_windows_first));
            let found = (&report["recommendation"]["firmware"], &report["boot"][0]["firmware"]);
            assert_eq!(found, (&firmware.into(), &firmware.into()), "{name}");
            assert_eq!(report["boot"][0]["start_disk"], "boot.raw", "{name}");
        }
        let plan = folder.path().join("plan.json");
        succeed(&mut command("plan", &machine.in_order(false), &format!("-o {}", plan.display())));
        let before = sha256(&machine.boot);
        succeed(winject().arg("apply").arg(&plan).arg("--drivers").arg(fixture_drivers()).arg("--in-place"));
        assert_eq!(sha256(&machine.boot), before, "{name}");
        let output = succeed(winject().arg("check").args(machine.in_order(true)).arg("--json"));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["buses"][0]["firmware"], firmware, "{name}");
    }
}

/// A data disk with an active partition that starts nothing.
fn active_data_disk(folder: &Path) -> PathBuf {
    let mut bytes = vec![0; 8 << 20];
    bytes[446..462].copy_from_slice(&[0x80, 0, 0, 0, 7, 0, 0, 0, 0, 8, 0, 0, 0, 0x30, 0, 0]);
    bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
    let path = folder.join("data.raw");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The active partition of a data disk says nothing of the firmware.
fn an_active_partition_of_a_data_disk_hides_no_firmware() {
    for (name, make, firmware) in ALL {
        let folder = folder();
        let Machine { system, boot } = make(folder.path());
        let data = active_data_disk(folder.path());
        for disks in [[&data, &system, &boot], [&system, &boot, &data]] {
            let report = report(&disks.map(PathBuf::as_path));
            assert_eq!(report["recommendation"]["firmware"], firmware, "{name}");
            assert_eq!(report["boot"][0]["start_disk"], "boot.raw", "{name}");
        }
        // Without the disk that starts Windows it is not the data disk that is to blame, if Windows needs UEFI.
        let text = fail(&mut command("inject", &[&system, &data], "--dry-run"), 5, &[&system, &data]);
        let is_gpt = name.starts_with("GPT");
        assert_eq!(text.contains("none of the disks has an EFI system partition"), is_gpt, "{name}: {text}");
    }
}

/// A volume without a partition table: the other disks show how it starts; without them the advice is called a guess.
fn a_volume_is_started_by_the_other_disks() {
    for (name, make, firmware) in ALL {
        let folder = folder();
        let Machine { system, boot } = make(folder.path());
        let (windows, volume) = (windows_partition_of(folder.path()), folder.path().join("volume.raw"));
        let mut bytes = vec![0; usize::try_from(windows.1).unwrap()];
        File::open(&system).unwrap().read_exact_at(&mut bytes, windows.0).unwrap();
        std::fs::write(&volume, bytes).unwrap();
        let machine = report(&[&volume, &boot]);
        assert_eq!(machine["recommendation"]["firmware"], firmware, "{name}");
        assert_eq!(machine["boot"][0]["start_disk"], "boot.raw", "{name}");
        let alone = report(&[&volume]);
        assert!(alone["boot"][0].get("firmware").is_none(), "{name}");
        assert!(alone["recommendation"]["notes"].to_string().contains("the firmware is a guess"), "{name}: {alone}");
        // What starts nothing on another disk proves nothing of the disk that the volume is of.
        let data = active_data_disk(folder.path());
        assert!(report(&[&volume, &data])["boot"][0].get("firmware").is_none(), "{name}");
    }
}

/// Offset and length of the sample's Windows volume.
fn windows_partition_of(folder: &Path) -> (u64, u64) {
    let whole = writable_fixture(folder, Format::Raw);
    let windows = windows_partition(&whole);
    (windows.start.0, windows.length)
}

/// A disk whose partition table is damaged may be the one that starts Windows: that is what the error says.
fn a_damaged_boot_disk_is_not_called_one_without_boot_files() {
    for (name, make) in [("GPT, UEFI", uefi as Make), ("MBR, UEFI", uefi_on_mbr)] {
        let folder = folder();
        let Machine { system, boot } = make(folder.path());
        let file = File::options().write(true).open(&boot).unwrap();
        let last = file.metadata().unwrap().len() - 512;
        for header in [512, last] {
            file.write_all_at(&[0xFF; 4], header + 16).unwrap();
        }
        let disks = [system.as_path(), &boot];
        let text = fail(&mut command("inject", &disks, "--in-place"), 5, &disks);
        assert!(text.contains("none of the disks whose partitions could be read"), "{name}: {text}");
        assert!(text.contains("not read: boot.raw (") && !text.contains("none of the disks has"), "{name}: {text}");
        let output = winject().arg("check").args(disks).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {}", stderr(&output));
        assert!(stdout(&output).contains("not read: boot.raw ("), "{name}: {}", stdout(&output));
    }
}

tests![
    the_advice_is_the_firmware_that_leads_to_windows,
    an_active_partition_of_a_data_disk_hides_no_firmware,
    a_volume_is_started_by_the_other_disks,
    a_damaged_boot_disk_is_not_called_one_without_boot_files,
];
