//! What a saved plan makes of an image is what an injection makes of it, byte for byte.

use super::{apply, fail, plan};
use crate::inject::{
    copy, disk_sha256, expected_fixture, fixture_drivers, folder, names, sha256, stdout, succeed, winject,
    writable_fixture,
};
use crate::support;
use std::path::Path;
use std::process::Command;
use winject::internals::block::Format;

/// The same injection, and the application of a saved plan, each on an image of the same name in a folder of its own.
fn same(format: Format, registration: &str, destination: &str, output: Option<&str>) {
    let (injected, applied) = (folder(), folder());
    let images = [&injected, &applied].map(|folder| writable_fixture(folder.path(), format));
    let what = format!("{format} {registration} {destination}");
    let old = sha256(&images[0]);

    let to_inject = match destination {
        "--output" => vec!["convert", images[0].to_str().unwrap(), "out.qcow2", "--inject"],
        "--overlay" => vec!["inject", images[0].to_str().unwrap(), "--overlay", "out", "--drivers"],
        _ => vec!["inject", images[0].to_str().unwrap(), destination, "--drivers"],
    };
    let mut inject = winject();
    inject.current_dir(injected.path()).args(to_inject).arg(fixture_drivers()).args(["--registration", registration]);
    if destination == "--output" {
        // A qcow2 that is copied meanwhile has its clusters in another order.
        inject.args(["--threads", "1"]);
    }
    succeed(&mut inject);

    let saved = plan(&images[1], &format!("--registration {registration}"));
    assert_eq!(sha256(&images[1]), old, "{what}: a plan writes nothing");
    let mut command = apply(&saved, destination);
    if let Some(output) = output {
        command.arg(output);
    }
    // Neither the time zone nor the number of threads counts.
    command.current_dir(applied.path()).args(["--threads", "1"]).env("TZ", "Asia/Tokyo");
    succeed(command.arg("--drivers").arg(fixture_drivers()));

    let name = output.map_or_else(|| images[0].file_name().unwrap().into(), std::ffi::OsString::from);
    let [one, other] = [&injected, &applied].map(|folder| folder.path().join(&name));
    assert_eq!(sha256(&one), sha256(&other), "{what}");
    if output.is_some() {
        assert_eq!(sha256(&images[1]), old, "{what}: the image itself");
    }
}

fn in_place() {
    for format in [Format::Raw, Format::Qcow2] {
        for registration in ["minimal", "full"] {
            same(format, registration, "--in-place", None);
        }
    }
}

fn as_an_overlay() {
    same(Format::Raw, "minimal", "--overlay", Some("out"));
    same(Format::Qcow2, "full", "--overlay", Some("out"));
}

fn as_a_new_image() {
    same(Format::Raw, "full", "--output", Some("out.qcow2"));
    same(Format::Qcow2, "minimal", "--output", Some("out.qcow2"));
}

/// What counts is what the guest sees, not its container or name.
fn on_another_container_with_another_name() {
    let (here, there) = (folder(), folder());
    let saved = plan(&writable_fixture(here.path(), Format::Qcow2), "");
    let image = there.path().join("it's another.raw");
    copy(&writable_fixture(there.path(), Format::Raw), &image);
    let other = plan(&image, "");
    let (saved_text, other_text) = (std::fs::read_to_string(&saved).unwrap(), std::fs::read_to_string(&other).unwrap());
    let rest = |text: &str| text.lines().filter(|line| !line.starts_with("  \"image\"")).collect::<Vec<_>>().join("\n");
    assert_eq!(rest(&saved_text), rest(&other_text));

    // The plan is moved away from its image.
    let moved = here.path().join("moved");
    std::fs::create_dir(&moved).unwrap();
    std::fs::rename(&saved, moved.join("p.json")).unwrap();
    let saved = moved.join("p.json");
    let text = fail(apply(&saved, "--in-place --drivers").arg(fixture_drivers()), 2);
    assert!(text.contains("--image IMAGE"), "{text}");
    succeed(apply(&saved, "--in-place --image").arg(&image).arg("--drivers").arg(fixture_drivers()));
    assert_eq!(disk_sha256(&image), expected_fixture());
    if let Some(qemu_img) = support::program("qemu-img") {
        let vmdk = there.path().join("windows.vmdk");
        let plain = there.path().join("win10.raw");
        support::run(Command::new(qemu_img).args(["convert", "-f", "raw", "-O", "vmdk"]).arg(&plain).arg(&vmdk));
        let out = there.path().join("out.qcow2");
        succeed(apply(&saved, "--image").arg(&vmdk).arg("--output").arg(&out).arg("--drivers").arg(fixture_drivers()));
        assert_eq!(disk_sha256(&out), expected_fixture());
    }
}

fn a_dry_run_writes_nothing_and_a_destination_is_needed() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Qcow2);
    let saved = plan(&image, "");
    let (old, before) = (sha256(&image), names(folder.path()));
    let text = fail(apply(&saved, "--drivers").arg(fixture_drivers()), 2);
    assert!(text.contains("--overlay NEW.qcow2"), "{text}");
    let text = stdout(&succeed(apply(&saved, "--dry-run --drivers").arg(fixture_drivers())));
    assert!(text.contains("set SYSTEM\\") && text.contains("Dry run:"), "{text}");
    assert_eq!((sha256(&image), names(folder.path())), (old.clone(), before));
    // Neither the plan nor the image may be an output.
    for output in [&saved, &image] {
        fail(apply(&saved, "--overwrite -O raw --output").arg(output).arg("--drivers").arg(fixture_drivers()), 2);
    }
    assert_eq!(sha256(&image), old);
}

fn the_report_names_the_plan() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Qcow2);
    let saved = plan(&image, "");
    let report = folder.path().join("report.json");
    let run = |options: &str| {
        let mut command = apply(&saved, options);
        command.arg("--drivers").arg(fixture_drivers()).arg("--report").arg(&report);
        command.output().unwrap().status.code()
    };
    let read = |path: &Path| -> serde_json::Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    assert_eq!(run("--in-place"), Some(0));
    let written = read(&report);
    let sum = stdout(&support::run(Command::new("sha256sum").arg(&saved)));
    assert!(sum.starts_with(written["run"]["plan"]["sha256"].as_str().unwrap()), "{written}");
    assert_eq!(written["virtio"]["injected"], true);
    assert_eq!(written["validation"]["success"], true);
    assert!(written["changes"]["steps"].as_array().unwrap().len() > 10);
    // The drivers are those that an injection finds, as far as the plan holds them.
    let (other, found) = (folder.path().join("other.qcow2"), folder.path().join("found.json"));
    copy(&crate::inject::fixture(), &other);
    let mut inject = winject();
    inject.arg("inject").arg(&other).arg("--dry-run").arg("--drivers").arg(fixture_drivers());
    succeed(inject.arg("--report").arg(&found));
    let known = |report: &serde_json::Value| {
        let drivers = report["virtio"]["drivers_found"].as_array().unwrap().iter();
        let known = drivers.map(|driver| {
            ["name", "dest_name", "driver_version", "signed", "signer"].map(|field| driver[field].clone())
        });
        known.collect::<Vec<_>>()
    };
    assert!(known(&written).len() > 2);
    assert_eq!(known(&written), known(&read(&found)));
    assert_eq!(run("--in-place"), Some(9));
    let written = read(&report);
    assert_eq!((&written["error"]["exit_code"], &written["virtio"]["reason"]), (&9.into(), &"stale".into()));
}

tests![
    in_place,
    as_an_overlay,
    as_a_new_image,
    on_another_container_with_another_name,
    a_dry_run_writes_nothing_and_a_destination_is_needed,
    the_report_names_the_plan,
];
