//! The same again: a second run changes nothing, a dry run shows the plan of the real one, all ways of writing agree.

use super::{
    disk_sha256, expected_fixture, fixture, fixture_drivers, folder, names, sha256, stdout, succeed, winject,
    writable_fixture,
};
use winject::block::Format;

#[test]
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
        assert_eq!(names(folder.path()).len(), 1, "no journal is left");
    }
}

#[test]
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

#[test]
fn an_overlay_of_an_unchanged_image_is_still_made() {
    let folder = folder();
    let first = folder.path().join("first.qcow2");
    let second = folder.path().join("second.qcow2");
    let original = folder.path().join("win10.qcow2");
    std::fs::copy(fixture(), &original).unwrap();
    for (from, to) in [(&original, &first), (&first, &second)] {
        succeed(winject().arg("inject").arg(from).arg("--drivers").arg(fixture_drivers()).arg("--output").arg(to));
    }
    assert_eq!(sha256(&original), sha256(&fixture()), "the original is never touched");
    assert_eq!(disk_sha256(&first), expected_fixture());
    assert_eq!(disk_sha256(&second), expected_fixture());
    assert!(std::fs::metadata(&second).unwrap().len() < 1 << 20, "an overlay of nothing is small");
}

#[test]
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

#[test]
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

#[test]
fn the_same_input_gives_the_same_bytes() {
    let folder = folder();
    let image = folder.path().join("win10.qcow2");
    std::fs::copy(fixture(), &image).unwrap();
    let outputs = ["a.qcow2", "b.qcow2"].map(|name| folder.path().join(name));
    for out in &outputs {
        succeed(winject().arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--output").arg(out));
    }
    assert_eq!(sha256(&outputs[0]), sha256(&outputs[1]));
}
