//! Images that other programs use: QEMU's locks, VMware's lock folders, marks in containers.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::answer;
use crate::inject::{fixture, fixture_drivers, folder, names, sha256, stderr, stdout, succeed, winject};
use crate::support;
use winject::internals::block::{Format, HostFiles, Locking, RealHost};

fn an_image_that_vmware_has_locked_is_refused() {
    let folder = folder();
    let path = folder.path();
    let image = crate::inject::writable_fixture(path, Format::Raw);
    let before = sha256(&image);
    std::os::unix::fs::symlink("win10.raw", path.join("link.img")).unwrap();
    std::fs::create_dir(path.join("win10.raw.lck")).unwrap();
    std::fs::write(path.join("win10.raw.lck/M01234.lck"), b"x").unwrap();
    let files = names(path);
    let (drivers, source) = (fixture_drivers(), fixture());
    let (drivers, source) = (drivers.to_str().unwrap(), source.to_str().unwrap());
    let commands: &[&[&str]] = &[
        &["inspect", "win10.raw"],
        &["inspect", "link.img"],
        &["image", "info", "win10.raw"],
        &["convert", "win10.raw", "o.qcow2"],
        &["convert", "--overwrite", source, "win10.raw"],
        &["inject", "win10.raw", "--drivers", drivers, "--in-place"],
        &["inject", "win10.raw", "--drivers", drivers, "--overlay", "o.qcow2"],
    ];
    for command in commands {
        let output = answer(path, command);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{command:?}: {text}");
        assert!(text.contains("VMware") && text.contains("win10.raw.lck"), "{command:?}: {text}");
        assert_eq!((names(path), sha256(&image)), (files.clone(), before.clone()), "{command:?}");
    }
    std::fs::remove_file(path.join("win10.raw.lck/M01234.lck")).unwrap();
    succeed(winject().current_dir(path).args(commands[0]));
}

/// Marks are said, and are no refusal: exports of machines that were not shut down carry them.
fn a_vmdk_that_is_marked_as_open_gives_a_warning() {
    let Some(qemu_img) = support::program("qemu-img") else { return };
    let folder = folder();
    let vmdk = folder.path().join("win10.vmdk");
    support::run(Command::new(qemu_img).args(["convert", "-O", "vmdk"]).arg(fixture()).arg(&vmdk));
    let convert = ["convert", "win10.vmdk", "o.qcow2", "--overwrite"];
    let shown = |arguments: &[&str]| {
        let output = winject().current_dir(folder.path()).args(arguments).output().unwrap();
        assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments:?}: {output:?}");
        format!("{}{}", stdout(&output), stderr(&output))
    };
    for command in [&["inspect", "win10.vmdk"][..], &convert] {
        assert!(!shown(command).contains("Warning"), "{command:?}");
    }
    let mut bytes = std::fs::read(&vmdk).unwrap();
    bytes[72] = 1; // uncleanShutdown
    std::fs::write(&vmdk, bytes).unwrap();
    let drivers = fixture_drivers();
    let inject = ["inject", "win10.vmdk", "--drivers", drivers.to_str().unwrap(), "--dry-run"];
    for command in
        [&["inspect", "win10.vmdk"][..], &convert, &["fsck", "win10.vmdk"], &["check", "win10.vmdk"], &inject]
    {
        let text = shown(command);
        assert!(text.contains("Warning") && text.contains("win10.vmdk is marked as open"), "{command:?}: {text}");
    }
}

/// QEMU with the disk attached, stopped before its first instruction.
fn qemu_system(program: &Path, image: &Path) -> Child {
    let drive = format!("file={},format=raw,if=virtio", image.display());
    Command::new(program)
        .args(["-S", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none", "-qmp", "stdio", "-drive", &drive])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until QEMU answers, which it does when it has its disks. To try the image meanwhile would keep QEMU out: each of
/// the two announces its locks before it looks at those of the other.
fn wait_until_started(machine: &mut Child) {
    // Taken: a closed pipe is the end of QEMU's input.
    let mut input = machine.stdin.take().unwrap();
    writeln!(input, "{{\"execute\": \"qmp_capabilities\"}}").unwrap();
    let mut lines = BufReader::new(machine.stdout.take().unwrap()).lines();
    let is_answered = lines.any(|line| line.unwrap().contains("\"return\""));
    machine.stdin = Some(input);
    if !is_answered {
        let mut text = String::new();
        machine.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        panic!("QEMU has ended: {text}");
    }
}

fn a_virtual_machine_and_winject_keep_each_other_out() {
    let Some(program) = support::program("qemu-system-x86_64") else { return };
    let folder = folder();
    let image = crate::inject::writable_fixture(folder.path(), Format::Raw);
    let mut machine = qemu_system(&program, &image);
    wait_until_started(&mut machine);
    let refused = answer(folder.path(), &["inspect", "win10.raw"]);
    let drivers = fixture_drivers();
    let edit = ["inject", "win10.raw", "--drivers", drivers.to_str().unwrap(), "--in-place"];
    let edited = answer(folder.path(), &edit);
    machine.kill().unwrap();
    machine.wait().unwrap();
    for output in [refused, edited] {
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert!(stderr(&output).contains("another process"), "{}", stderr(&output));
    }
    let held = RealHost.open(&image, Locking::Refuse).unwrap();
    let output = qemu_system(&program, &image).wait_with_output().unwrap();
    assert!(!output.status.success() && stderr(&output).contains("lock"), "{}", stderr(&output));
    drop(held);
    succeed(winject().current_dir(folder.path()).args(["inspect", "win10.raw"]));
}

tests![
    an_image_that_vmware_has_locked_is_refused,
    a_vmdk_that_is_marked_as_open_gives_a_warning,
    a_virtual_machine_and_winject_keep_each_other_out,
];
