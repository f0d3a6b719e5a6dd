//! `winject remove`, as it is typed.

use std::path::Path;
use std::process::Output;

use super::{MANIFEST, disk, edit_hive, of_users, seen_differences, set};
use crate::disks;
use crate::inject::{
    copy, disk_sha256, fixture_drivers, folder, names, sha256, stderr, stdout, winject, writable_fixture,
};
use crate::support;
use winject::internals::block::Format;
use winject::internals::hive::RegistryData;
use winject::internals::ntfs::security::Protected;
use winject::internals::ntfs::{CreateOptions, Security};

fn run(folder: &Path, arguments: &[&str]) -> Output {
    winject().current_dir(folder).args(arguments).output().unwrap()
}

fn inject(folder: &Path, image: &str) {
    let drivers = fixture_drivers();
    let done = run(folder, &["inject", image, "--drivers", drivers.to_str().unwrap(), "--in-place", "--no-undo"]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
}

/// What the output of a removal says is left and removed.
fn listed(text: &str, word: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_prefix(word)).map(|line| line.trim().to_owned()).collect()
}

fn a_guest_that_has_not_run_is_as_it_was_but_for_what_the_output_lists() {
    for format in [Format::Raw, Format::Qcow2] {
        let folder = folder();
        let folder = folder.path();
        let image = writable_fixture(folder, format);
        let name = image.file_name().unwrap().to_str().unwrap();
        let before = folder.join("before.raw");
        copy(
            &writable_fixture(
                &{
                    let sub = folder.join("sub");
                    std::fs::create_dir(&sub).unwrap();
                    sub
                },
                Format::Raw,
            ),
            &before,
        );
        inject(folder, name);
        let injected = sha256(&image);

        let tried = run(folder, &["remove", name, "--dry-run"]);
        assert_eq!(tried.status.code(), Some(0), "{}", stderr(&tried));
        assert!(stdout(&tried).contains("delete key SYSTEM\\ControlSet001\\Services\\viostor"), "{}", stdout(&tried));
        assert!(stdout(&tried).contains("Dry run: would remove"), "{}", stdout(&tried));
        assert_eq!(sha256(&image), injected, "a dry run writes nothing");

        let done = run(folder, &["remove", name, "--in-place", "--report", "r.md"]);
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        let text = stdout(&done);
        assert_eq!(
            listed(&text, "Removed:"),
            [
                "service hyper2kvm-firstboot",
                "driver vioscsi",
                "driver viostor",
                "package h2k-vioscsi.inf",
                "package h2k-viostor.inf",
                "folders in DevicePath",
                "15 files in /hyper2kvm"
            ]
        );
        let left = listed(&text, "Left:");
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left[0].starts_with("Start of storahci, stornvme, atapi, intelide, pciide ("), "{left:?}");
        assert!(left[1].starts_with("StartOverride of storahci, "), "{left:?}");
        assert_eq!(listed(&text, "Before:"), ["boots from virtio-blk, virtio-scsi, emulated disk (SATA, IDE or NVMe)"]);
        assert_eq!(listed(&text, "After:"), ["boots from emulated disk (SATA, IDE or NVMe)"]);
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("r.json")).unwrap()).unwrap();
        assert_eq!(report["removal"]["left"].as_array().unwrap().len(), 2);
        assert_eq!(report["removal"]["boots_after"].as_array().unwrap().len(), 1);
        assert_eq!((&report["virtio"]["injected"], &report["virtio"]["success"]), (&false.into(), &true.into()));
        assert!(std::fs::read_to_string(folder.join("r.md")).unwrap().contains("## Left in the guest"));

        let after = folder.join("after.raw");
        assert!(run(folder, &["convert", name, "after.raw", "-O", "raw"]).status.success());
        if let Some(seen) = seen_differences(&disk(before.clone()), &after) {
            let of = |service: &str| format!("SYSTEM\\ControlSet001\\Services\\{service}");
            assert_eq!(
                seen,
                [
                    format!("- {}\\StartOverride", of("storahci")),
                    format!("- {}\\StartOverride : 0", of("storahci")),
                    format!("~ {} : Start", of("intelide")),
                    format!("~ {} : Start", of("pciide")),
                    format!("~ {} : Start", of("stornvme")),
                ]
            );
        }
        let removed = sha256(&image);
        let again = run(folder, &["remove", name, "--in-place"]);
        assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
        assert!(stdout(&again).contains("Unchanged: Windows 10 (GPT) has no manifest"), "{}", stdout(&again));
        assert_eq!(sha256(&image), removed);

        let undone = run(folder, &["undo", name]);
        assert!(undone.status.success(), "{}", stderr(&undone));
        assert_eq!(sha256(&image), injected, "a removal is undone byte for byte");
    }
}

fn an_injection_after_a_removal_gives_what_the_first_one_gave() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    inject(folder.path(), "win10.raw");
    let first = folder.path().join("first.raw");
    copy(&image, &first);
    assert!(run(folder.path(), &["remove", "win10.raw", "--in-place", "--no-undo"]).status.success());
    inject(folder.path(), "win10.raw");
    if let Some(seen) = seen_differences(&disk(first), &image) {
        assert_eq!(seen, [""; 0]);
    }
    assert!(run(folder.path(), &["check", "win10.raw"]).status.success());
    assert!(run(folder.path(), &["fsck", "win10.raw"]).status.success());
}

fn an_overlay_leaves_the_image_as_it_is() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Qcow2);
    inject(folder.path(), "win10.qcow2");
    let before = sha256(&image);
    let done = run(folder.path(), &["remove", "win10.qcow2", "--overlay", "clean.qcow2"]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert_eq!(sha256(&image), before);
    assert_eq!(names(folder.path()), ["clean.qcow2", "win10.qcow2"]);
    assert!(run(folder.path(), &["remove", "win10.qcow2", "--in-place", "--no-undo"]).status.success());
    assert_ne!(sha256(&image), before);
    // The overlay stands on an image that has changed since, so that only the image itself is compared.
    assert!(stdout(&run(folder.path(), &["remove", "win10.qcow2", "--dry-run"])).contains("no manifest"));
    let raw = run(folder.path(), &["remove", "win10.qcow2", "--overlay", "clean.raw"]);
    assert_eq!(raw.status.code(), Some(2), "{}", stderr(&raw));
    assert!(
        stderr(&raw).contains("name it clean.qcow2; or write a whole raw image with -o clean.raw"),
        "{}",
        stderr(&raw)
    );
    let none = run(folder.path(), &["remove", "win10.qcow2"]);
    assert_eq!(none.status.code(), Some(2), "without a destination nothing is permitted");
}

fn a_guest_without_a_manifest_is_left_as_it_is() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let before = sha256(&image);
    let done = run(folder.path(), &["remove", "win10.raw", "--in-place"]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(stdout(&done).contains("nothing to remove"), "{}", stdout(&done));
    assert_eq!((sha256(&image), names(folder.path())), (before, vec!["win10.raw".to_owned()]));
}

/// The boot manager lies on another disk, which is read for the boot check and stays as it is.
fn several_disks_are_taken_in_any_order() {
    let folder = folder();
    let machine = disks::uefi(folder.path());
    let (system, boot) = (machine.system.to_str().unwrap(), machine.boot.to_str().unwrap());
    let drivers = fixture_drivers();
    let options = ["--drivers", drivers.to_str().unwrap(), "--in-place", "--no-undo"];
    assert!(run(folder.path(), &[&["inject", system, boot][..], &options].concat()).status.success());
    let before = (sha256(&machine.system), sha256(&machine.boot));
    for disks in [[system, boot], [boot, system]] {
        let done = run(folder.path(), &[&["remove"][..], &disks, &["--dry-run"]].concat());
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        assert_eq!(listed(&stdout(&done), "After:"), ["boots from emulated disk (SATA, IDE or NVMe)"]);
    }
    assert_eq!((sha256(&machine.system), sha256(&machine.boot)), before);
    let done = run(folder.path(), &["remove", boot, system, "--in-place", "--no-undo"]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(listed(&stdout(&done), "Removed:").contains(&"driver viostor".to_owned()));
    assert_eq!(sha256(&machine.boot), before.1);
    assert_ne!(sha256(&machine.system), before.0);
}

/// No in-box controller starts at boot, so that only virtio disks start the guest.
fn without_inbox_controllers(image: &Path) {
    let mut volume = disk(image.to_owned()).volume();
    edit_hive(&mut volume, "SYSTEM", |hive| {
        for service in ["storahci", "stornvme", "atapi", "intelide", "pciide"] {
            set(hive, &format!("ControlSet001\\Services\\{service}"), "Start", &RegistryData::dword(3));
        }
    });
}

fn a_removal_after_which_nothing_boots_is_refused() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    inject(folder.path(), "win10.raw");
    without_inbox_controllers(&image);
    let before = sha256(&image);
    for destination in [&["--in-place"][..], &["--dry-run"], &["-o", "clean.qcow2"]] {
        let done = run(folder.path(), &[&["remove", "win10.raw"], destination].concat());
        assert_eq!(done.status.code(), Some(3), "{}", stderr(&done));
        assert!(
            stderr(&done).contains("would boot from no disk any more; now it boots from virtio-blk"),
            "{}",
            stderr(&done)
        );
        assert!(stderr(&done).contains("--allow-unbootable"), "{}", stderr(&done));
        assert_eq!((sha256(&image), names(folder.path())), (before.clone(), vec!["win10.raw".to_owned()]));
    }
    let done = run(folder.path(), &["remove", "win10.raw", "--in-place", "--allow-unbootable"]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(stdout(&done).contains("After:    boots from no disk"), "{}", stdout(&done));
    assert_ne!(disk_sha256(&image), before);
}

fn a_manifest_that_any_user_can_have_written_is_refused() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    inject(folder.path(), "win10.raw");
    let manifest = {
        let volume = disk(image.clone()).volume();
        let file = volume.find(MANIFEST).unwrap().unwrap();
        volume.read(file, 1 << 24).unwrap()
    };
    let other = folder.path().join("other.raw");
    for case in ["the folder", "the file", "none"] {
        copy(&image, &other);
        let mut volume = disk(other.clone()).volume();
        match case {
            "the folder" => {
                let anyone = volume.security_id(&of_users(Protected::Top)).unwrap();
                let top = volume.find("/hyper2kvm").unwrap().unwrap();
                volume.set_security(top, anyone).unwrap();
            }
            "the file" => {
                let anyone = volume.security_id(&of_users(Protected::File)).unwrap();
                volume.delete(MANIFEST).unwrap();
                let how = CreateOptions { security: Security::Id(anyone), ..CreateOptions::default() };
                volume.replace_file(MANIFEST, &manifest, &how).unwrap();
            }
            _ => {
                volume.delete(MANIFEST).unwrap();
                let own = volume.protected_security(Protected::File).unwrap();
                let how = CreateOptions { security: Security::Id(own), ..CreateOptions::default() };
                volume.replace_file(MANIFEST, &manifest, &how).unwrap();
            }
        }
        volume.flush().unwrap();
        drop(volume);
        let before = sha256(&other);
        let done = run(folder.path(), &["remove", "other.raw", "--in-place", "--no-undo"]);
        if case == "none" {
            assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
            continue;
        }
        assert_eq!(done.status.code(), Some(3), "{case}: {}", stderr(&done));
        assert!(stderr(&done).contains("not protected as winject protects it"), "{case}: {}", stderr(&done));
        assert_eq!(sha256(&other), before);
    }
}

/// The judges of NTFS and of hives find nothing new in what a removal leaves.
fn foreign_judges_find_nothing_after_a_removal() {
    let Some(check) = support::judge("hivecheck.py") else { return };
    let Some(python) = support::judge_python() else { return };
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    inject(folder.path(), "win10.raw");
    assert!(run(folder.path(), &["remove", "win10.raw", "--in-place", "--no-undo"]).status.success());
    let volume = disk(image).volume();
    for name in ["SYSTEM", "SOFTWARE"] {
        let file = volume.find(&format!("{}/{name}", super::CONFIG)).unwrap().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, volume.read(file, 1 << 30).unwrap()).unwrap();
        support::run(std::process::Command::new(&python).arg(&check).arg("--strict").arg(&path));
    }
    assert!(run(folder.path(), &["fsck", "win10.raw"]).status.success());
}

tests![
    a_guest_that_has_not_run_is_as_it_was_but_for_what_the_output_lists,
    an_injection_after_a_removal_gives_what_the_first_one_gave,
    an_overlay_leaves_the_image_as_it_is,
    a_guest_without_a_manifest_is_left_as_it_is,
    several_disks_are_taken_in_any_order,
    a_removal_after_which_nothing_boots_is_refused,
    a_manifest_that_any_user_can_have_written_is_refused,
    foreign_judges_find_nothing_after_a_removal,
];
