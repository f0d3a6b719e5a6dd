//! Which sets of disks are one machine, and which of them holds the Windows to work on.

use super::{command, edit_gpt, fail, uefi};
use crate::formats::ova::{ovf, tar};
use crate::inject::{copy, folder, sha256, stderr, stdout, succeed, winject};
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
        let options = format!("--overwrite --overlay {}", target.with_extension("qcow2").display());
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
    let text = fail(&mut command("inject", &disks, "--dry-run"), 5, &disks);
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

fn a_refused_raw_overlay_names_an_option_that_works() {
    for is_windows_first in [true, false] {
        let folder = folder();
        let machine = uefi(folder.path());
        let disks = machine.in_order(is_windows_first);
        let out = folder.path().join("new.raw");
        let text = fail(&mut command("inject", &disks, &format!("--overlay {}", out.display())), 2, &disks);
        let (_, hint) = text.split_once("with -o ").unwrap_or_else(|| panic!("no option: {text}"));
        let (named, _) = hint.split_once(" in place of --overlay").unwrap();
        succeed(&mut command("inject", &disks, &format!("-o {named}")));
        let disks = [out.as_path(), &machine.boot];
        assert!(stdout(&succeed(winject().arg("check").args(disks))).contains("yes"));
    }
}

/// What is wrong with a chosen disk or partition is said with the disk.
fn errors_of_a_choice_name_the_disk() {
    let folder = folder();
    let machine = uefi(folder.path());
    let disks = machine.in_order(true);
    let boot = machine.boot.display().to_string();
    let chosen = format!("--dry-run --windows-disk {boot}");
    let text = fail(&mut command("inject", &disks, &chosen), 4, &disks);
    assert!(text.contains(&boot) && text.contains("--windows-disk DISK"), "{text}");
    let text = fail(&mut command("inject", &disks, &format!("{chosen} --partition 1")), 4, &disks);
    assert!(text.contains(&format!("{boot}/partition 1")), "{text}");
    for verb in ["inject", "plan"] {
        let options = if verb == "inject" { "--dry-run --partition 2" } else { "--partition 2" };
        let output = command(verb, &disks, options).output().unwrap();
        assert!(stderr(&output).contains(&machine.system.display().to_string()), "{verb}: {}", stderr(&output));
    }
    let output = winject().arg("check").args(disks).args(["--windows-disk", &boot]).output().unwrap();
    assert!(stderr(&output).contains(&boot), "{}", stderr(&output));
}

/// Disks whose files have the same name are told apart by their folders, and a plan does not look for them in one.
fn equal_names_are_told_apart() {
    let folder = folder();
    let machine = uefi(folder.path());
    let moved = |path: &Path, name: &str| {
        let to = folder.path().join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::rename(path, &to).unwrap();
        to
    };
    let (system, boot) = (moved(&machine.system, "a/x/disk.raw"), moved(&machine.boot, "b/x/disk.raw"));
    let disks = [system.as_path(), &boot];
    let text = stdout(&succeed(&mut command("inject", &disks, "--dry-run")));
    assert!(text.contains("start the machine from b/x/disk.raw"), "{text}");
    assert!(text.contains("not from a/x/disk.raw"), "{text}");
    let plan = system.with_file_name("plan.json");
    succeed(&mut command("plan", &disks, &format!("--bundle -o {}", plan.display())));
    let text = fail(winject().arg("apply").arg(&plan).arg("--in-place"), 2, &disks);
    assert!(text.contains("two are called disk.raw") && text.contains("--image IMAGE --image IMAGE"), "{text}");
    succeed(winject().arg("apply").arg(&plan).arg("--image").arg(&boot).arg("--image").arg(&system).arg("--in-place"));
}

/// `--disk` chooses a disk of one OVA; the disks of several, and several of one, are named after unpacking.
fn disks_of_an_ova_are_unpacked_or_chosen() {
    let folder = folder();
    let machine = uefi(folder.path());
    let read = |path: &Path| std::fs::read(path).unwrap();
    let (system, boot) = (read(&machine.system), read(&machine.boot));
    let ovf = ovf(&["system.raw", "boot.raw"]);
    let archive = tar(&[("vm.ovf", ovf.as_bytes()), ("system.raw", &system), ("boot.raw", &boot)]);
    let (one, other) = (folder.path().join("vm.ova"), folder.path().join("copy.ova"));
    std::fs::write(&one, &archive).unwrap();
    std::fs::write(&other, &archive).unwrap();
    let unpack = |path: &Path| format!("tar -xf {}", path.display());
    let text = fail(&mut command("inject", &[&one], "--dry-run"), 3, &[&one]);
    assert!(text.contains("--disk system.raw") && text.contains(&unpack(&one)), "{text}");
    let chosen = "--dry-run --disk system.raw";
    let text = fail(&mut command("inject", &[&one, &other], chosen), 2, &[&one, &other]);
    assert!(text.contains("--disk counts for each") && text.contains(&unpack(&one)), "{text}");
    assert!(text.contains(&unpack(&other)), "{text}");
    let text = fail(&mut command("inject", &[&one, &one], chosen), 2, &[&one]);
    assert!(text.contains("twice") && text.contains(&unpack(&one)), "{text}");
    succeed(&mut command("inject", &[&machine.boot, &one], chosen));
    let inspected = winject().arg("inspect").args([&one, &other]).args(["--disk", "boot.raw"]).output().unwrap();
    assert_eq!(inspected.status.code(), Some(2), "{}", stderr(&inspected));
}

tests![
    a_refused_raw_overlay_names_an_option_that_works,
    errors_of_a_choice_name_the_disk,
    equal_names_are_told_apart,
    disks_of_an_ova_are_unpacked_or_chosen,
    the_same_disk_twice_is_a_usage_error,
    no_output_replaces_a_disk,
    several_windows_need_a_choice,
    without_windows_every_disk_has_its_reason,
    an_encrypted_volume_on_another_disk_is_said,
    more_disks_than_a_machine_has_are_refused,
    the_report_names_the_disks,
];
