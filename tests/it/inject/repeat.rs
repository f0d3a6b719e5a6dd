//! The same again: a second run changes nothing, a dry run shows the plan of the real one, all ways of writing agree.

use super::state::{put, windows_partition};
use super::{
    disk_sha256, expected_fixture, fixture, fixture_drivers, folder, names, sha256, stdout, succeed, winject,
    writable_fixture,
};
use crate::drivers::media;
use crate::support;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use winject::internals::block::{Format, OpenOptions, Stage, StageOptions, open};

fn a_second_run_changes_no_byte_and_says_so() {
    for format in [Format::Raw, Format::Qcow2] {
        let folder = folder();
        let image = writable_fixture(folder.path(), format);
        let run =
            || succeed(winject().arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--in-place"));
        let first = stdout(&run());
        assert!(first.contains("Done: Windows 10"), "{first}");
        assert_eq!(disk_sha256(&image), expected_fixture());
        let before = (sha256(&image), std::fs::metadata(&image).unwrap().modified().unwrap());
        let second = stdout(&run());
        assert!(second.contains("Unchanged: Windows 10"), "{second}");
        assert_eq!(before, (sha256(&image), std::fs::metadata(&image).unwrap().modified().unwrap()));
        let name = image.file_name().unwrap().to_str().unwrap();
        assert_eq!(names(folder.path()), [name, &format!("{name}.winject-undo")], "no journal is left");
    }
}

fn a_later_clock_is_no_change() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let mut first = winject();
    succeed(first.arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--in-place"));
    let before = sha256(&image);
    let mut second = winject();
    second.env_remove("SOURCE_DATE_EPOCH");
    let text =
        stdout(&succeed(second.arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--in-place")));
    assert!(text.contains("Unchanged"), "{text}");
    assert_eq!(before, sha256(&image));
}

fn an_overlay_of_an_unchanged_image_is_still_made() {
    let folder = folder();
    let first = folder.path().join("first.qcow2");
    let second = folder.path().join("second.qcow2");
    let original = folder.path().join("win10.qcow2");
    std::fs::copy(fixture(), &original).unwrap();
    for (from, to) in [(&original, &first), (&first, &second)] {
        let mut command = winject();
        command.arg("inject").arg(from).arg("--drivers").arg(fixture_drivers()).arg("--overlay").arg(to);
        let said = stdout(&succeed(&mut command));
        assert_eq!(said.contains(" already; the new overlay is empty.\n"), from == &first, "{said}");
        assert!(!said.contains("nothing was written"), "{said}");
    }
    let mut command = winject();
    command
        .arg("inject")
        .arg(&first)
        .arg("--drivers")
        .arg(fixture_drivers())
        .arg("-o")
        .arg(folder.path().join("copy.qcow2"));
    let said = stdout(&succeed(&mut command));
    assert!(said.contains(" already; the new image is a copy.\n") && !said.contains("nothing was written"), "{said}");
    assert_eq!(disk_sha256(&folder.path().join("copy.qcow2")), expected_fixture());
    assert_eq!(sha256(&original), sha256(&fixture()), "the original is never touched");
    assert_eq!(disk_sha256(&first), expected_fixture());
    assert_eq!(disk_sha256(&second), expected_fixture());
    assert!(std::fs::metadata(&second).unwrap().len() < 1 << 20, "an overlay of nothing is small");
}

fn a_dry_run_prints_the_plan_of_the_real_run_and_writes_nothing() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let before = sha256(&image);
    let dry = folder.path().join("dry.json");
    let text = stdout(&succeed(
        winject()
            .arg("inject")
            .arg(&image)
            .arg("--drivers")
            .arg(fixture_drivers())
            .arg("--dry-run")
            .arg("--report")
            .arg(&dry),
    ));
    assert!(text.contains("nothing was written"), "{text}");
    assert!(text.contains("viostor.sys") && text.contains("set SYSTEM\\"), "the plan is shown: {text}");
    assert_eq!(before, sha256(&image));
    let real = folder.path().join("real.json");
    succeed(
        winject()
            .arg("inject")
            .arg(&image)
            .arg("--drivers")
            .arg(fixture_drivers())
            .arg("--in-place")
            .arg("--report")
            .arg(&real),
    );
    let changes = |path: &std::path::Path| {
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        json["changes"].clone()
    };
    assert!(changes(&dry)["steps"].as_array().is_some_and(|steps| steps.len() > 20));
    assert_eq!(changes(&dry), changes(&real));
}

fn all_destinations_hold_the_same_disk() {
    let folder = folder();
    let config = folder.path().join("run.yaml");
    let drivers = fixture_drivers();
    for name in ["standalone.qcow2", "standalone.raw"] {
        let format = name.rsplit('.').next().unwrap();
        let text = format!(
            "cmd: local\nvmdk: {}\nwindows: true\nvirtio_drivers_dir: {}\nto_output: {name}\nout_format: {format}\n",
            fixture().display(),
            drivers.display()
        );
        std::fs::write(&config, text).unwrap();
        succeed(winject().arg("--config").arg(&config));
        assert_eq!(disk_sha256(&folder.path().join(name)), expected_fixture(), "{name}");
    }
    for format in [Format::Raw, Format::Qcow2] {
        let image = writable_fixture(folder.path(), format);
        succeed(winject().arg("inject").arg(&image).arg("--drivers").arg(&drivers).arg("--in-place"));
        assert_eq!(disk_sha256(&image), expected_fixture(), "in place, {format}");
    }
}

fn the_same_input_gives_the_same_bytes() {
    let folder = folder();
    let image = folder.path().join("win10.qcow2");
    std::fs::copy(fixture(), &image).unwrap();
    let outputs = ["a.qcow2", "b.qcow2"].map(|name| folder.path().join(name));
    for out in &outputs {
        succeed(winject().arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--overlay").arg(out));
    }
    assert_eq!(sha256(&outputs[0]), sha256(&outputs[1]));
}

/// Our drivers with a later version, and signed anew: every file of them differs.
fn newer_drivers(folder: &Path) -> Option<PathBuf> {
    support::program("osslsigncode").and(support::program("python3"))?;
    let out = folder.join("newer");
    support::run(Command::new("cp").arg("-r").arg(fixture_drivers()).arg(&out));
    for (driver, name) in [("viostor", "viostor"), ("vioscsi", "vioscsi"), ("NetKVM", "netkvm"), ("Balloon", "balloon")]
    {
        let inf = out.join(driver).join("w10/amd64").join(format!("{name}.inf"));
        let text = std::fs::read_to_string(&inf).unwrap();
        assert!(text.contains("03/01/2026,101.2.3.4"));
        std::fs::write(&inf, text.replace("03/01/2026,101.2.3.4", "04/01/2026,101.2.4.0")).unwrap();
    }
    media::sign(&out, "sha256");
    Some(out)
}

/// The Windows volume of a raw image as a file of its own, for 7-Zip.
fn volume(image: &Path) -> Option<PathBuf> {
    support::program("7zz").or_else(|| support::program("7z"))?;
    let part = windows_partition(&Stage::new(open(image, &OpenOptions::default()).unwrap(), StageOptions::default()));
    let (from, out) = (std::fs::File::open(image).unwrap(), image.with_extension("ntfs"));
    let to = std::fs::File::create(&out).unwrap();
    to.set_len(part.length).unwrap();
    let mut buffer = vec![0u8; 1 << 20];
    let mut at = 0;
    while at < part.length {
        let length = usize::try_from((part.length - at).min(1 << 20)).unwrap();
        from.read_exact_at(&mut buffer[..length], part.start.0 + at).unwrap();
        if !winject::internals::block::is_zero(&buffer[..length]) {
            to.write_all_at(&buffer[..length], at).unwrap();
        }
        at += length as u64;
    }
    Some(out)
}

/// A file of a volume as 7-Zip sees it; empty if it does not exist.
fn seen(volume: &Path, path: &str) -> Vec<u8> {
    let program = ["7zz", "7z"].into_iter().find(|p| Command::new(p).output().is_ok()).unwrap();
    Command::new(program).args(["x", "-tntfs", "-so"]).arg(volume).arg(path).output().unwrap().stdout
}

const SYS: &str = "Windows/System32/drivers/viostor.sys";
const INF: &str = "hyper2kvm/drivers/virtio/viostor/viostor.inf";
const MARKER: &str = "hyper2kvm/firstboot.done";

fn newer_media_replace_and_older_do_not() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let Some(newer) = newer_drivers(folder.path()) else { return };
    let report = folder.path().join("report.md");
    let run = |drivers: &Path, more: &[&str]| {
        let mut command = winject();
        command.arg("inject").arg(&image).arg("--drivers").arg(drivers).arg("--in-place").args(more);
        let output = succeed(command.arg("--report").arg(&report));
        stdout(&output) + &std::fs::read_to_string(&report).unwrap()
    };
    let holds = |drivers: &Path| {
        let Some(volume) = volume(&image) else { return };
        let of = |name: &str| std::fs::read(drivers.join("viostor/w10/amd64").join(name)).unwrap();
        assert!(seen(&volume, SYS) == of("viostor.sys"), "another driver file than that of {}", drivers.display());
        assert!(seen(&volume, INF) == of("viostor.inf"), "another package than that of {}", drivers.display());
    };
    run(&fixture_drivers(), &[]);
    holds(&fixture_drivers());
    assert!(run(&newer, &[]).contains("Done:"));
    holds(&newer);
    assert!(run(&newer, &[]).contains("Unchanged:"));
    // older media leave what is newer
    let text = run(&fixture_drivers(), &[]);
    assert!(text.contains("--force"), "{text}");
    holds(&newer);
    assert!(run(&fixture_drivers(), &[]).contains("Unchanged:"), "however often it is tried");
    holds(&newer);
    run(&fixture_drivers(), &["--force"]);
    holds(&fixture_drivers());
}

fn a_finished_job_is_armed_again_only_when_asked() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let report = folder.path().join("report.md");
    let run = |more: &[&str]| {
        let mut command = winject();
        command.arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--in-place").args(more);
        let output = succeed(command.arg("--report").arg(&report));
        stdout(&output) + &std::fs::read_to_string(&report).unwrap()
    };
    run(&[]);
    // what the guest leaves when its job is done
    put(&image, &format!("/{MARKER}"), b"done\r\n");
    assert!(run(&[]).contains("--rearm"), "the user hears that the job has run");
    if let Some(volume) = volume(&image) {
        assert_eq!(seen(&volume, MARKER), b"done\r\n");
    }
    run(&["--rearm"]);
    if let Some(volume) = volume(&image) {
        assert!(seen(&volume, MARKER).is_empty(), "the marker is gone");
        assert!(!seen(&volume, "hyper2kvm/firstboot.job").is_empty());
    }
    assert!(run(&["--rearm"]).contains("Unchanged:"));
}

tests![
    a_second_run_changes_no_byte_and_says_so,
    a_later_clock_is_no_change,
    an_overlay_of_an_unchanged_image_is_still_made,
    a_dry_run_prints_the_plan_of_the_real_run_and_writes_nothing,
    all_destinations_hold_the_same_disk,
    the_same_input_gives_the_same_bytes,
    newer_media_replace_and_older_do_not,
    a_finished_job_is_armed_again_only_when_asked,
];
