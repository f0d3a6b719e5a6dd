//! `--firstboot` and `--guest-agent`: what the first boot runs.

use std::path::Path;

use winject::internals::block::Format;
use winject::internals::ntfs::security::Protected;
use winject::internals::plan::verify::independent::IndependentVolume;

use super::{file, refuse, succeed};
use crate::inject::{disk_sha256, folder, sha256, writable_fixture};
use crate::remove::{content, disk, only};

/// A program of Windows for amd64, as far as its head says.
fn program() -> Vec<u8> {
    let mut head = vec![0; 4 << 10];
    head[..2].copy_from_slice(b"MZ");
    head[0x3C] = 0x40;
    head[0x40..0x46].copy_from_slice(b"PE\0\0\x64\x86");
    head
}

fn msi() -> Vec<u8> {
    let mut bytes = vec![7; 2 << 20];
    bytes[..8].copy_from_slice(&[0xD0, 0xCF, 0x11, 0xE0, 0xA1, 0xB1, 0x1A, 0xE1]);
    bytes
}

const FILES: [&str; 4] = ["set up.cmd", "b.ps1", "c.EXE", "d.msi"];

fn files(folder: &Path) {
    file(folder, FILES[0], b"\xEF\xBB\xBFecho of the user\n");
    file(folder, FILES[1], "'\u{e4}'\r\n".as_bytes());
    file(folder, FILES[2], &program());
    file(folder, FILES[3], &msi());
}

/// The options that run these files.
fn options<'a>(files: &[&'a str]) -> Vec<&'a str> {
    files.iter().flat_map(|name| ["--firstboot", name]).collect()
}

fn inject<'a>(image: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    [&["inject", image, "--in-place", "--no-undo"], options].concat()
}

fn scripts_are_numbered_protected_and_run_after_the_packages() {
    let folder = folder();
    let here = folder.path();
    files(here);
    let image = writable_fixture(here, Format::Raw);
    let before = content(&disk(image.clone()));
    let all = [&options(&FILES)[..], &["--firstboot-timeout", "90", "--report", "r.json"]].concat();
    succeed(here, &inject("win10.raw", &all));
    let disk = disk(image.clone());
    let device = disk.volume().into_device();
    let volume = IndependentVolume::open(&device).unwrap();
    let at = |name: &str| format!("/hyper2kvm/firstboot.d/{name}");
    for (name, expected) in [
        ("01-set_up.cmd", b"echo of the user\r\n".to_vec()),
        ("02-b.ps1", "\u{feff}'\u{e4}'\r\n".as_bytes().to_vec()),
        ("03-c.exe", program()),
        ("04-d.msi", msi()),
    ] {
        assert_eq!(volume.holds(&at(name), &expected).unwrap(), Some(true), "{name}");
        assert_eq!(volume.security(&at(name)).unwrap(), Some(Protected::File.descriptor()), "{name}");
    }
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(here.join("r.json")).unwrap()).unwrap();
    let scripts = json["virtio"]["firstboot_scripts"].as_array().unwrap();
    assert_eq!(scripts.len(), 4);
    assert!(scripts.iter().all(|script| script["seconds"] == 90 && script["action"] == "created"));
    assert_eq!(scripts[0]["reason"], "byte-order mark removed, line ends made CR LF");
    let warnings = json["virtio"]["warnings"].to_string();
    assert!(warnings.contains("02-b.ps1 cannot run: this Windows has no PowerShell"), "{warnings}");
    // What runs them comes after the last package, in their order.
    let job = job_of(&volume);
    let places: Vec<usize> = ["viostor.inf", "01-set_up.cmd", "02-b.ps1", "03-c.exe", "04-d.msi"]
        .map(|name| job.find(name).unwrap())
        .to_vec();
    assert!(places.is_sorted(), "{places:?} in {job}");

    let once = sha256(&image);
    let again = succeed(here, &inject("win10.raw", &[&options(&FILES)[..], &["--firstboot-timeout", "90"]].concat()));
    assert!(again.contains("Unchanged"), "{again}");
    assert_eq!(sha256(&image), once);

    // Without them: they are taken out, and the output says so.
    let less = succeed(here, &inject("win10.raw", &[&options(&FILES[..1])[..], &["--report", "n.json"]].concat()));
    assert!(less.contains("Done:"), "{less}");
    let notes = std::fs::read_to_string(here.join("n.json")).unwrap();
    assert!(notes.contains("/hyper2kvm/firstboot.d/04-d.msi of an earlier run is taken out"), "{notes}");
    let after = content(&disk);
    assert!(after.contains_key("/hyper2kvm/firstboot.d/01-set_up.cmd"));
    assert!(!after.contains_key("/hyper2kvm/firstboot.d/04-d.msi"));
    succeed(here, &["remove", "win10.raw", "--in-place", "--no-undo"]);
    let after = content(&disk);
    let left: Vec<&str> = only(&after, &before).into_iter().filter(|item| !item.contains('\\')).collect();
    assert_eq!(left, Vec::<&str>::new());
}

/// The text of what runs at the first boot, whichever form it has.
fn job_of(volume: &IndependentVolume<'_>) -> String {
    let forms = ["/hyper2kvm/firstboot.job", "/hyper2kvm/firstboot.cmd"];
    let found = forms.iter().find_map(|path| volume.read(path, 1 << 20).unwrap());
    String::from_utf8(found.unwrap()).unwrap()
}

fn the_review_shows_every_script_and_the_bundle_holds_every_program() {
    let folder = folder();
    let here = folder.path();
    files(here);
    writable_fixture(here, Format::Qcow2);
    crate::inject::copy(&here.join("win10.qcow2"), &here.join("direct.qcow2"));
    succeed(here, &inject("direct.qcow2", &options(&FILES)));
    let plan = [&["plan", "win10.qcow2", "-o", "p.json", "--bundle"], &options(&FILES)[..]].concat();
    let review = succeed(here, &plan);
    assert!(review.contains("  | echo of the user"), "{review}");
    assert!(review.contains("from d.msi, a file of the user"), "{review}");
    assert!(review.contains("firstboot.d\\01-set_up.cmd"), "the command is shown: {review}");
    for name in FILES {
        std::fs::remove_file(here.join(name)).unwrap();
    }
    succeed(here, &["apply", "p.json", "--in-place", "--no-undo"]);
    assert_eq!(disk_sha256(&here.join("win10.qcow2")), disk_sha256(&here.join("direct.qcow2")));
}

fn what_windows_would_not_run_is_refused_with_the_reason() {
    let folder = folder();
    let here = folder.path();
    writable_fixture(here, Format::Raw);
    let mut arm = program();
    arm[0x44..0x46].copy_from_slice(&[0x64, 0xAA]);
    for (name, bytes, word) in [
        ("a.cmd", "echo \u{e4}".as_bytes().to_vec(), "line 1 is not plain ASCII"),
        ("b.cmd", b"\xFF\xFEe\0\xE4\0".to_vec(), "line 1 is not plain ASCII"),
        ("c.cmd", b"e\0c\0h\0o\0".to_vec(), "UTF-16 without a byte-order mark"),
        ("d.bat", Vec::new(), "it is empty"),
        ("e.ps1", b"'\xE4'".to_vec(), "neither UTF-8 nor UTF-16"),
        ("f.exe", b"#!/bin/sh\n".to_vec(), "not a program of Windows"),
        ("g.exe", arm, "for another CPU"),
        ("h.msi", b"PK\x03\x04".to_vec(), "not an MSI"),
        ("i.sh", b"echo".to_vec(), "the ending of its name"),
        ("j.cmd", vec![b'a'; (1 << 20) + 1], "larger than 1 MiB"),
    ] {
        file(here, name, &bytes);
        let text = refuse(here, "win10.raw", &inject("win10.raw", &["--firstboot", name]), 2);
        assert!(text.contains(word) && text.contains(name), "{name}: {text}");
    }
    refuse(here, "win10.raw", &inject("win10.raw", &["--firstboot", "missing.cmd"]), 7);
    file(here, "k.cmd", b"echo");
    for seconds in ["0", "86401", "x"] {
        let options = ["--firstboot", "k.cmd", "--firstboot-timeout", seconds];
        refuse(here, "win10.raw", &inject("win10.raw", &options), 2);
    }
    let many = options(&["k.cmd"; 100]);
    assert!(refuse(here, "win10.raw", &inject("win10.raw", &many), 2).contains("at most 99"));
}

fn the_guest_agent_comes_from_the_media() {
    let folder = folder();
    let here = folder.path();
    let image = writable_fixture(here, Format::Raw);
    let text = refuse(here, "win10.raw", &inject("win10.raw", &["--guest-agent"]), 6);
    assert!(text.contains("guest-agent/qemu-ga-x86_64.msi") && text.contains("--drivers virtio-win.iso"), "{text}");
    let media = here.join("media/Guest-Agent");
    std::fs::create_dir_all(&media).unwrap();
    file(&media, "QEMU-GA-x86_64.msi", b"not one");
    let with_media = ["--guest-agent", "--drivers", "media"];
    let text = refuse(here, "win10.raw", &inject("win10.raw", &with_media), 6);
    assert!(text.contains("not an MSI"), "{text}");
    file(&media, "QEMU-GA-x86_64.msi", &msi());
    let said = succeed(here, &inject("win10.raw", &[&with_media[..], &["--report", "r.json"]].concat()));
    assert!(said.contains("Done:"), "{said}");
    let disk = disk(image.clone());
    let device = disk.volume().into_device();
    let volume = IndependentVolume::open(&device).unwrap();
    assert_eq!(volume.holds("/hyper2kvm/guest-agent/qemu-ga-x86_64.msi", &msi()).unwrap(), Some(true));
    let job = job_of(&volume);
    assert!(job.contains("guest-agent\\qemu-ga-x86_64.msi") && job.contains("1618"), "{job}");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(here.join("r.json")).unwrap()).unwrap();
    assert_eq!(json["virtio"]["guest_agent"]["action"], "created");
    assert!(json["virtio"]["notes"].to_string().contains("vioserial"), "the fixture's media have no vioserial");
    let again = succeed(here, &inject("win10.raw", &with_media));
    assert!(again.contains("Unchanged"), "{again}");
}

tests![
    scripts_are_numbered_protected_and_run_after_the_packages,
    the_review_shows_every_script_and_the_bundle_holds_every_program,
    what_windows_would_not_run_is_refused_with_the_reason,
    the_guest_agent_comes_from_the_media,
];
