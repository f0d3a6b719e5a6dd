//! Which sets of disks are one machine, and which of them holds the Windows to work on.

use super::{command, edit_gpt, fail, uefi};
use crate::inject::{copy, folder, sha256, succeed};
use crate::support;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

/// By whatever name a disk is given twice, the command line is wrong.
fn the_same_disk_twice_is_a_usage_error() {
    let folder = folder();
    let path = folder.path();
    let machine = uefi(path);
    std::fs::hard_link(&machine.boot, path.join("hard.raw")).unwrap();
    std::os::unix::fs::symlink("boot.raw", path.join("soft.raw")).unwrap();
    let before = sha256(&machine.system);
    for twice in ["boot.raw", "./boot.raw", "hard.raw", "soft.raw"] {
        let twice = path.join(twice);
        let disks = [machine.system.as_path(), &machine.boot, &twice];
        for verb in ["inject", "plan"] {
            let text = fail(&mut command(verb, &disks, if verb == "inject" { "--in-place" } else { "" }), 2, &disks);
            assert!(text.contains("twice"), "{text}");
        }
    }
    let Some(qemu_img) = support::program("qemu-img") else { return };
    let overlay = path.join("over.qcow2");
    let made = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "boot.raw"];
    support::run(Command::new(qemu_img).args(made).arg(&overlay));
    for disks in [[&machine.system, &machine.boot, &overlay], [&overlay, &machine.system, &machine.boot]] {
        let disks = disks.map(|path| path.as_path());
        let text = fail(&mut command("inject", &disks, "--in-place"), 2, &disks);
        assert!(text.contains("one is a file of the other"), "{text}");
    }
    // The overlay in place of its backing file is right.
    succeed(&mut command("inject", &[&overlay, &machine.system], "--in-place"));
    assert_ne!(sha256(&machine.system), before);
}

/// An output is none of the disks, nor a file that one of them needs.
fn no_output_replaces_a_disk() {
    let folder = folder();
    let machine = uefi(folder.path());
    let disks = machine.in_order(true);
    for target in [&machine.boot, &machine.system] {
        let options = format!("--overwrite --output {}", target.with_extension("qcow2").display());
        std::fs::rename(target, target.with_extension("qcow2")).unwrap();
        let renamed = disks.map(|path| if path == target { path.with_extension("qcow2") } else { path.to_owned() });
        let renamed = [renamed[0].as_path(), &renamed[1]];
        fail(&mut command("inject", &renamed, &options), 2, &renamed);
        std::fs::rename(target.with_extension("qcow2"), target).unwrap();
    }
    let report = format!("--dry-run --report {}", machine.boot.with_extension("md").display());
    std::os::unix::fs::symlink(&machine.boot, machine.boot.with_extension("md")).unwrap();
    fail(&mut command("inject", &disks, &report), 2, &disks);
}

/// Several disks with Windows: each is named with the options that choose it, and the choice holds.
fn several_windows_need_a_choice() {
    let folder = folder();
    let machine = uefi(folder.path());
    let twin = folder.path().join("twin.raw");
    copy(&machine.system, &twin);
    edit_gpt(&twin, &[], Some(0x77));
    let disks = [machine.boot.as_path(), &machine.system, &twin];
    let text = fail(&mut command("inject", &disks, "--in-place"), 3, &disks);
    for path in [&machine.system, &twin] {
        let line = format!("--windows-disk {} --partition 3: Windows 10", path.display());
        assert!(text.contains(&line), "{line}: {text}");
    }
    fail(&mut command("inject", &disks, "--in-place --partition 3"), 3, &disks);
    let chosen = format!("--in-place --partition 3 --windows-disk {}", machine.system.display());
    let before = [sha256(&twin), sha256(&machine.boot)];
    succeed(&mut command("inject", &disks, &chosen));
    assert_eq!([sha256(&twin), sha256(&machine.boot)], before);
    assert_ne!(sha256(&machine.system), before[0]);
    let foreign = format!("--dry-run --windows-disk {}", folder.path().join("none.raw").display());
    let text = fail(&mut command("inject", &disks, &foreign), 2, &disks);
    assert!(text.contains("not one of the given disks"), "{text}");
    // The twin's boot configuration is that of the other one.
    let chosen = format!("--in-place --windows-disk {}", twin.display());
    let text = fail(&mut command("inject", &disks, &chosen), 5, &disks);
    assert!(text.contains("partition 3 of system.raw"), "{text}");
}

/// No Windows on any disk: each says why.
fn without_windows_every_disk_has_its_reason() {
    let folder = folder();
    let machine = uefi(folder.path());
    let blank = folder.path().join("blank.raw");
    std::fs::File::create(&blank).unwrap().set_len(1 << 20).unwrap();
    let disks = [machine.boot.as_path(), &blank];
    let text = fail(&mut command("inject", &disks, "--in-place"), 4, &disks);
    for path in disks {
        assert!(text.contains(&path.display().to_string()), "{text}");
    }
    assert!(text.contains("no NTFS volume"), "{text}");
}

/// A volume that may hide a Windows is said, although another disk has one.
fn an_encrypted_volume_on_another_disk_is_said() {
    let folder = folder();
    let machine = uefi(folder.path());
    let locked = folder.path().join("locked.raw");
    copy(&machine.system, &locked);
    edit_gpt(&locked, &[], Some(0x99));
    let start = {
        use winject::internals::{block, partition};
        let image = block::open(&locked, &block::OpenOptions::default()).unwrap();
        partition::read(&*image).unwrap().partition(3).unwrap().start.0
    };
    std::fs::File::options().write(true).open(&locked).unwrap().write_all_at(b"-FVE-FS-", start + 3).unwrap();
    let disks = [locked.as_path(), &machine.system, &machine.boot];
    let output = succeed(&mut command("inject", &disks, "--dry-run"));
    let text = crate::inject::stderr(&output);
    assert!(text.contains("BitLocker") && text.contains("locked.raw"), "{text}");
    let disks = [locked.as_path(), &machine.boot];
    let text = fail(&mut command("inject", &disks, "--dry-run"), 3, &disks);
    assert!(text.contains("BitLocker"), "{text}");
}

fn more_disks_than_a_machine_has_are_refused() {
    let folder = folder();
    let disks: Vec<_> = (0..65).map(|number| folder.path().join(format!("{number}.raw"))).collect();
    let disks: Vec<&Path> = disks.iter().map(std::path::PathBuf::as_path).collect();
    let text = fail(&mut command("inject", &disks, "--dry-run"), 2, &[]);
    assert!(text.contains("64"), "{text}");
}

/// The report names the disks, and which of them was written.
fn the_report_names_the_disks() {
    let folder = folder();
    let machine = uefi(folder.path());
    let report = folder.path().join("report.md");
    succeed(&mut command("inject", &machine.in_order(false), &format!("--in-place --report {}", report.display())));
    let json = std::fs::read(report.with_extension("json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let path = |path: &Path| serde_json::Value::from(path.display().to_string());
    assert_eq!(json["run"]["image"], path(&machine.system));
    assert_eq!(json["run"]["output"], path(&machine.system));
    assert_eq!(json["run"]["other_disks"], serde_json::Value::from(vec![path(&machine.boot)]));
    assert_eq!(json["boot"][0]["start_disk"], "boot.raw");
    let notes = json["recommendation"]["notes"].to_string();
    assert!(notes.contains("start the machine from boot.raw"), "{notes}");
    assert!(std::fs::read_to_string(report).unwrap().contains("Other disks, only read"));
}

tests![
    the_same_disk_twice_is_a_usage_error,
    no_output_replaces_a_disk,
    several_windows_need_a_choice,
    without_windows_every_disk_has_its_reason,
    an_encrypted_volume_on_another_disk_is_said,
    more_disks_than_a_machine_has_are_refused,
    the_report_names_the_disks,
];
