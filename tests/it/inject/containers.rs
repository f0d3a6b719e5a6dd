//! Other containers in, and driver media as an ISO image.

use super::{
    disk_sha256, expected_fixture, fixture, fixture_drivers, folder, sha256, stderr, stdout, succeed, winject,
};
use crate::support;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The fixture as qemu-img writes it in another format.
fn converted(folder: &Path, name: &str, format: &str, option: &str) -> Option<PathBuf> {
    let out = folder.join(name);
    let mut convert = Command::new(support::program("qemu-img")?);
    convert.args(["convert", "-O", format]);
    if !option.is_empty() {
        convert.args(["-o", option]);
    }
    support::run(convert.arg(fixture()).arg(&out));
    Some(out)
}

fn a_vmdk_is_converted_and_injected_in_one_run() {
    for subformat in ["monolithicSparse", "streamOptimized"] {
        let folder = folder();
        let option = format!("subformat={subformat}");
        let Some(vmdk) = converted(folder.path(), "windows.vmdk", "vmdk", &option) else { return };
        let before = sha256(&vmdk);
        let config = folder.path().join("run.yaml");
        let text = format!(
            "cmd: local\nvmdk: windows.vmdk\noutput_dir: output\nwindows: true\nvirtio_drivers_dir: {}\n\
             to_output: output/windows-converted.qcow2\nreport: output/report.md\ncompress: true\nchecksum: true\n",
            fixture_drivers().display()
        );
        std::fs::write(&config, text).unwrap();
        succeed(winject().arg("--config").arg(&config));
        let out = folder.path().join("output/windows-converted.qcow2");
        assert_eq!(disk_sha256(&out), expected_fixture(), "{subformat}");
        assert_eq!(before, sha256(&vmdk));
        let qemu_img = support::program("qemu-img").unwrap();
        support::run(Command::new(&qemu_img).arg("check").arg(&out));
        let report = std::fs::read(folder.path().join("output/report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        let sum = support::run(Command::new("sha256sum").arg(&out));
        assert!(stdout(&sum).starts_with(report["run"]["output_sha256"].as_str().unwrap()));
    }
}

fn other_containers_are_never_edited_in_place() {
    for (name, format) in [("win.vmdk", "vmdk"), ("win.vhdx", "vhdx"), ("win.vhd", "vpc"), ("win.vdi", "vdi")] {
        let folder = folder();
        let Some(image) = converted(folder.path(), name, format, "") else { return };
        let before = sha256(&image);
        let mut command = winject();
        command.arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--in-place");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{format}: {}", stderr(&output));
        assert!(stderr(&output).contains("-o NEW.qcow2"), "{format}: {}", stderr(&output));
        assert_eq!(before, sha256(&image), "{format}");
    }
}

fn drivers_from_an_iso_image() {
    let Some(xorriso) = support::program("xorriso") else { return };
    let folder = folder();
    let iso = folder.path().join("drivers.iso");
    let mut make = Command::new(xorriso);
    make.args(["-as", "mkisofs", "-quiet", "-R", "-J", "-o"]).arg(&iso);
    support::run(make.arg(fixture_drivers()));
    let out = folder.path().join("new.qcow2");
    let mut command = winject();
    command.arg("inject").arg(fixture()).arg("--drivers").arg(&iso).arg("--overlay").arg(&out);
    let text = stdout(&succeed(&mut command));
    assert!(text.contains("Done: Windows 10"), "{text}");
}

tests![
    a_vmdk_is_converted_and_injected_in_one_run,
    other_containers_are_never_edited_in_place,
    drivers_from_an_iso_image,
];
