//! Every bad input: one clear error (what, where, hint), the exit code of its kind, and everything as it was.

use super::{fixture, fixture_drivers, folder, made, names, sha256, stderr, stdout, winject, writable_fixture};
use crate::support;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use winject::internals::block::Format;

/// Runs `winject inject IMAGE --drivers DRIVERS …` and checks everything that all bad inputs have in common.
pub fn refuse(image: &Path, drivers: &Path, code: i32, words: &[&str]) {
    for mode in ["--in-place", "--dry-run"] {
        let mut command = winject();
        command.arg("inject").arg(image).arg("--drivers").arg(drivers).arg(mode);
        refused(&mut command, image, code, words);
    }
    let out = image.with_file_name("new.qcow2");
    let mut command = winject();
    command.arg("inject").arg(image).arg("--drivers").arg(drivers).arg("--overlay").arg(&out);
    refused(&mut command, image, code, words);
    assert!(!out.exists());
}

fn refused(command: &mut Command, image: &Path, code: i32, words: &[&str]) -> Output {
    let folder = image.parent().unwrap();
    let before = (names(folder), image.is_file().then(|| sha256(image)));
    let output = command.output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("Error: ")).count(), 1, "{text}");
    assert!(text.lines().any(|line| line.starts_with("Hint: ")), "no hint: {text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not said: {text}");
    }
    assert_eq!(stdout(&output), "", "an error prints no answer");
    assert_eq!(before, (names(folder), image.is_file().then(|| sha256(image))), "something was changed");
    output
}

fn a_file_that_is_no_disk_image() {
    let folder = folder();
    for (name, content) in [
        ("empty.raw", Vec::new()),
        ("letter.txt", b"Dear Sir or Madam,\n".repeat(1000)),
        ("zeros.raw", vec![0; 1 << 20]),
    ] {
        let image = folder.path().join(name);
        std::fs::write(&image, content).unwrap();
        refuse(&image, &fixture_drivers(), 4, &[name]);
    }
}

fn an_image_that_is_not_there() {
    let folder = folder();
    let image = folder.path().join("nowhere.qcow2");
    refuse(&image, &fixture_drivers(), 7, &["nowhere.qcow2"]);
    // Not the temporary folder itself: other tests change what lies next to it.
    let image = folder.path().join("a folder");
    std::fs::create_dir(&image).unwrap();
    refuse(&image, &fixture_drivers(), 4, &[]);
}

fn a_truncated_image() {
    let folder = folder();
    let raw = writable_fixture(folder.path(), Format::Raw);
    let cut = std::fs::File::options().write(true).open(&raw).unwrap();
    for (length, code) in [(800 << 20, 5), (1 << 20, 5), (512, 5)] {
        cut.set_len(length).unwrap();
        refuse(&raw, &fixture_drivers(), code, &["truncated"]);
    }
    std::fs::remove_file(&raw).unwrap();
    let whole = std::fs::read(fixture()).unwrap();
    for length in [100, 70_000, whole.len() / 2, whole.len() - 100_000] {
        let image = folder.path().join(format!("cut-{length}.qcow2"));
        std::fs::write(&image, &whole[..length]).unwrap();
        refuse(&image, &fixture_drivers(), 5, &[]);
        std::fs::remove_file(image).unwrap();
    }
}

fn small_image(folder: &Path) -> PathBuf {
    let image = folder.join("win10.qcow2");
    std::fs::copy(fixture(), &image).unwrap();
    image
}

fn a_missing_driver_directory() {
    let folder = folder();
    let image = small_image(folder.path());
    refuse(&image, Path::new("/nowhere/virtio-win"), 6, &["/nowhere/virtio-win"]);
}

fn a_driver_directory_without_drivers() {
    let (folder, media) = (folder(), folder());
    let image = small_image(folder.path());
    refuse(&image, media.path(), 6, &[]);
    std::fs::write(media.path().join("readme.txt"), "no drivers here").unwrap();
    refuse(&image, media.path(), 6, &[]);
}

/// Copies the fixture's drivers to another folder of the media's layout.
fn media_as(os: &str, arch: &str) -> tempfile::TempDir {
    let media = folder();
    for driver in ["viostor", "vioscsi"] {
        let from = fixture_drivers().join(driver).join("w10/amd64");
        let to = media.path().join(driver).join(os).join(arch);
        std::fs::create_dir_all(&to).unwrap();
        for file in std::fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    media
}

fn a_driver_directory_without_a_driver_for_this_windows() {
    let folder = folder();
    let image = small_image(folder.path());
    // made for a newer kernel, for another CPU, and an x86 folder that holds files for amd64
    for (os, arch) in [("2k25", "amd64"), ("w10", "ARM64"), ("w10", "x86")] {
        let media = media_as(os, arch);
        refuse(&image, media.path(), 6, &[]);
    }
}

fn an_unsigned_boot_driver() {
    let folder = folder();
    let image = small_image(folder.path());
    let media = media_as("w10", "amd64");
    let driver = media.path().join("viostor/w10/amd64/viostor.sys");
    let mut bytes = std::fs::read(&driver).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    std::fs::write(&driver, bytes).unwrap();
    refuse(&image, media.path(), 6, &["viostor"]);
}

fn an_image_without_windows() {
    let Some(mkntfs) = support::program("mkntfs") else { return };
    let folder = folder();
    let image = folder.path().join("data.raw");
    std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    support::run(Command::new(mkntfs).args(["-F", "-Q", "-q"]).arg(&image));
    refuse(&image, &fixture_drivers(), 4, &["no Windows"]);
}

fn an_encrypted_volume() {
    let folder = folder();
    let Some(bytes) = support::corpus_bytes("disks/bitlocker-to-go-first-mib.raw.xz") else { return };
    let image = folder.path().join("bitlocker.raw");
    std::fs::write(&image, bytes).unwrap();
    // Its metadata lie behind the end of the file.
    refuse(&image, &fixture_drivers(), 5, &["BitLocker"]);
}

fn an_unclean_volume() {
    let folder = folder();
    let Some(bytes) = support::corpus_bytes("ntfs/tiny-unclean-log.raw.xz") else { return };
    let image = folder.path().join("unclean.raw");
    std::fs::write(&image, bytes).unwrap();
    // it holds no Windows either, and that is found first
    refuse(&image, &fixture_drivers(), 4, &[]);
}

fn no_destination() {
    let folder = folder();
    let image = small_image(folder.path());
    let mut command = winject();
    command.arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers());
    refused(&mut command, &image, 2, &["-o NEW.qcow2", "--in-place", "--overlay", "--dry-run"]);
}

fn an_output_that_is_there() {
    let folder = folder();
    let image = small_image(folder.path());
    let out = folder.path().join("out.qcow2");
    std::fs::write(&out, "precious").unwrap();
    let mut command = winject();
    command.arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--overlay").arg(&out);
    refused(&mut command, &image, 2, &["out.qcow2", "exists"]);
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    let mut command = winject();
    command.arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--overlay").arg(&image);
    refused(&mut command, &image, 2, &["win10.qcow2"]);
    let mut command = winject();
    let nowhere = folder.path().join("no/such/out.qcow2");
    command.arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--overlay").arg(nowhere);
    refused(&mut command, &image, 2, &["folder"]);
}

/// The program as a user who may not write: root may write everything.
fn without_rights() -> Option<Command> {
    if !made::is_root() {
        return Some(winject());
    }
    let setpriv = support::program("setpriv")?;
    let program = assert_cmd::cargo::cargo_bin!("winject");
    // another user must be able to start it at all
    let reachable = program.ancestors().skip(1).all(|folder| {
        std::fs::metadata(folder)
            .is_ok_and(|facts| facts.permissions().mode() & 0o001 != 0 || folder.as_os_str().is_empty())
    });
    if !reachable {
        support::skip("the program lies in a folder that other users may not enter");
        return None;
    }
    let mut command = Command::new(setpriv);
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program);
    Some(command)
}

fn a_read_only_file() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o444)).unwrap();
    let Some(mut command) = without_rights() else { return };
    command.arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--in-place");
    refused(&mut command, &image, 7, &["win10.raw"]);
}

/// A folder that may be written to, but not listed: its entries are made durable in another way.
fn a_folder_that_cannot_be_listed_takes_an_output() {
    let folder = folder();
    let Some(mut command) = without_rights() else { return };
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o333)).unwrap();
    let image = writable_fixture(folder.path(), Format::Raw);
    std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o644)).unwrap();
    let copied = command.arg("cp").arg(&image).arg("/Windows/System32/config/SYSTEM").arg(out.join("SYSTEM")).output();
    let copied = copied.unwrap();
    assert!(copied.status.success(), "{}", stderr(&copied));
    std::fs::set_permissions(&out, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(out.join("SYSTEM").metadata().unwrap().len() > 4096);
}

fn a_read_only_folder() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o666)).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    let Some(mut command) = without_rights() else { return };
    command.arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--in-place");
    // no place for the journal: then nothing is begun
    refused(&mut command, &image, 7, &["journal"]);
}

/// A disk that fills up: no file may grow beyond so many blocks of 1024 bytes. (The signal that comes with it by
/// default would end the process; a full disk sends none.)
fn with_file_limit(kilobytes: u64, arguments: &[&std::ffi::OsStr]) -> Command {
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$@\"")).arg("bash");
    command.arg(assert_cmd::cargo::cargo_bin!("winject")).args(arguments);
    command.env("SOURCE_DATE_EPOCH", "1700000000");
    command
}

fn a_full_disk() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Qcow2);
    let drivers = fixture_drivers();
    let out = folder.path().join("out.qcow2");
    let full_output = with_file_limit(
        256,
        &[
            "inject".as_ref(),
            image.as_os_str(),
            "--drivers".as_ref(),
            drivers.as_os_str(),
            "--overlay".as_ref(),
            out.as_os_str(),
        ],
    );
    let mut command = full_output;
    refused(&mut command, &image, 7, &["out.qcow2"]);
    let length = std::fs::metadata(&image).unwrap().len();
    for limit in [64, length / 1024 + 16] {
        let mut command = with_file_limit(
            limit,
            &["inject".as_ref(), image.as_os_str(), "--drivers".as_ref(), drivers.as_os_str(), "--in-place".as_ref()],
        );
        refused(&mut command, &image, 7, &[]);
    }
}

fn a_full_file_system() {
    if !made::is_root() {
        return; // the limit above shows the same without root
    }
    let folder = folder();
    let mount = folder.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=300k", "none"]).arg(&mount).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return; // containers may forbid it
    }
    let image = small_image(folder.path());
    let out = mount.join("out.qcow2");
    let output = winject()
        .arg("inject")
        .arg(&image)
        .arg("--drivers")
        .arg(fixture_drivers())
        .arg("--overlay")
        .arg(&out)
        .output()
        .unwrap();
    let left = names(&mount);
    support::run(Command::new("umount").arg(&mount));
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(sha256(&image), sha256(&fixture()));
}

tests![
    a_file_that_is_no_disk_image,
    an_image_that_is_not_there,
    a_truncated_image,
    a_missing_driver_directory,
    a_driver_directory_without_drivers,
    a_driver_directory_without_a_driver_for_this_windows,
    an_unsigned_boot_driver,
    an_image_without_windows,
    an_encrypted_volume,
    an_unclean_volume,
    no_destination,
    an_output_that_is_there,
    a_read_only_file,
    a_read_only_folder,
    a_folder_that_cannot_be_listed_takes_an_output,
    a_full_disk,
    a_full_file_system,
];
