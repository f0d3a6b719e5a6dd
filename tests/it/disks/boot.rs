//! The way from the firmware to Windows over two disks.

use super::{MACHINES, command, edit_gpt, fail, uefi};
use crate::inject::{copy, folder, stderr, stdout, succeed, winject};
use std::path::Path;

/// What one disk alone does not show, both show; and the disk that the machine has to start from is named.
fn a_boot_manager_on_another_disk_is_found() {
    for (firmware, make) in MACHINES {
        let folder = folder();
        let machine = make(folder.path());
        let alone = fail(&mut command("inject", &[&machine.system], "--dry-run"), 5, &[&machine.system]);
        assert!(alone.contains("another disk") && alone.contains("winject inject IMAGE DISK"), "{firmware}: {alone}");
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

tests![
    check_walks_over_all_disks,
    a_boot_manager_on_another_disk_is_found,
    a_boot_manager_that_starts_another_disk_is_damage,
    disks_with_the_same_id_are_named,
    data_disks_do_not_matter,
];
