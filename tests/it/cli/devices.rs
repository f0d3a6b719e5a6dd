//! Block devices and files that the kernel uses: mounted, read-only, attached to a loop device.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::inject::{
    disk_sha256, fixture_drivers, folder, made, names, sha256, stderr, succeed, winject, writable_fixture,
};
use crate::support;
use winject::internals::block::{Format, commit};

/// A loop device, detached at the end.
struct Loop(PathBuf);

impl Loop {
    /// Attaches one to `image`; `None` after saying why that is not possible.
    fn attach(image: &Path, options: &[&str]) -> Option<Self> {
        if !made::is_root() || !Path::new("/dev/loop-control").exists() {
            support::skip("loop devices need root");
            return None;
        }
        if !Path::new("/sys/block").is_dir() {
            support::skip("/sys is not mounted, where the kernel says what a loop device is made of");
            return None;
        }
        let losetup = support::program("losetup")?;
        let output = Command::new(losetup).args(["--show", "-f"]).args(options).arg(image).output().unwrap();
        if !output.status.success() {
            // Containers may forbid it.
            support::skip(&format!("cannot attach a loop device: {}", stderr(&output).trim()));
            return None;
        }
        let device = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        // What another run left next to the node is not this one's.
        for file in [commit::journal_path(&device), commit::undo_path(&device)] {
            let _ = std::fs::remove_file(file);
        }
        Some(Self(device))
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Nothing lies next to the node.
    #[track_caller]
    fn assert_nothing_left(&self) {
        let files = [commit::journal_path(&self.0), commit::undo_path(&self.0)];
        assert!(files.iter().all(|file| !file.exists()), "{files:?}");
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).output();
    }
}

fn answer(arguments: &[&str]) -> Output {
    winject().args(arguments).output().unwrap()
}

#[track_caller]
fn assert_refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = answer(arguments);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
}

/// A mount holds its device exclusively, and so does this test.
fn a_device_in_use_is_not_written() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let Some(device) = Loop::attach(&image, &[]) else { return };
    let drivers = fixture_drivers();
    let inject = ["inject", device.name(), "--drivers", drivers.to_str().unwrap(), "--in-place"];
    let before = disk_sha256(&device.0);
    let hold = || std::fs::File::options().read(true).custom_flags(nix::libc::O_EXCL).open(&device.0).unwrap();
    let mounted = ["cannot write to the device", "mounted", device.name()];
    let held = hold();
    assert_refused(&inject, 3, &mounted);
    let set = ["reg", "set", device.name(), r"HKLM\SYSTEM\Test", "--value", "x", "--data", "y", "--in-place"];
    assert_refused(&set, 3, &mounted);
    assert_eq!(disk_sha256(&device.0), before);
    device.assert_nothing_left();
    // Reading is allowed, as it is for every program.
    succeed(winject().args(["inspect", device.name()]));
    drop(held);
    succeed(winject().args(inject));
    let edited = disk_sha256(&device.0);
    assert_ne!(edited, before);
    let held = hold();
    assert_refused(&["undo", device.name()], 3, &mounted);
    assert_eq!(disk_sha256(&device.0), edited);
    drop(held);
    succeed(winject().args(["undo", device.name()]));
    assert_eq!(disk_sha256(&device.0), before);
    device.assert_nothing_left();
}

fn a_read_only_device_is_refused_before_anything_is_written() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let Some(device) = Loop::attach(&image, &["--read-only"]) else { return };
    let drivers = fixture_drivers();
    let inject = ["inject", device.name(), "--drivers", drivers.to_str().unwrap(), "--in-place"];
    assert_refused(&inject, 7, &["cannot write to the device", "read-only", "--read-only"]);
    device.assert_nothing_left();
    succeed(winject().args(["inspect", device.name()]));
}

/// A file and the loop device that is attached to it are one disk, and one file.
fn a_loop_device_and_its_file_are_the_same() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let Some(device) = Loop::attach(&image, &[]) else { return };
    let (name, drivers) = (image.to_str().unwrap(), fixture_drivers());
    let before = sha256(&image);
    let media = ["--drivers", drivers.to_str().unwrap(), "--dry-run"];
    for disks in [[name, device.name()], [device.name(), name]] {
        assert_refused(&[&["inject"], &disks[..], &media].concat(), 2, &["twice", name, device.name()]);
        assert_refused(&[&["inspect"], &disks[..]].concat(), 2, &["twice"]);
    }
    assert_refused(&["convert", device.name(), name, "--overwrite"], 2, &["same file"]);
    assert_eq!(sha256(&image), before);
    // Another name of the device.
    let node = folder.path().join("node");
    std::os::unix::fs::symlink(&device.0, &node).unwrap();
    assert_refused(&["inspect", device.name(), node.to_str().unwrap()], 2, &["twice"]);
}

fn a_file_that_a_loop_device_is_attached_to_is_not_written() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let name = image.to_str().unwrap();
    let Some(device) = Loop::attach(&image, &[]) else { return };
    let drivers = fixture_drivers();
    let inject = ["inject", name, "--drivers", drivers.to_str().unwrap(), "--in-place"];
    let before = sha256(&image);
    let command = format!("losetup -d {}", device.name());
    assert_refused(&inject, 3, &[&format!("the loop device {} is attached", device.name()), &command]);
    assert_eq!((names(folder.path()), sha256(&image)), (vec!["win10.raw".to_owned()], before));
    succeed(Command::new("sh").args(["-c", &command]));
    succeed(winject().args(inject));
}

tests![
    a_loop_device_and_its_file_are_the_same,
    a_device_in_use_is_not_written,
    a_read_only_device_is_refused_before_anything_is_written,
    a_file_that_a_loop_device_is_attached_to_is_not_written,
];
