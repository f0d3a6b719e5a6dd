//! What a run says of its outcome: success only where the guest boots, and no package praised that Windows will refuse.

use super::{fixture, fixture_drivers, folder, succeed, winject};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Copies a tree of drivers, so that it can be spoiled.
fn media(to: &Path, drivers: &[&str]) -> PathBuf {
    for driver in drivers {
        copy_tree(&fixture_drivers().join(driver), &to.join("media").join(driver));
    }
    to.join("media")
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::write(&target, std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

/// Takes the carriage returns out of an INF, as a transfer as text does: its catalogue does not list it any more.
fn lose_line_ends(inf: &Path) {
    let text = std::fs::read(inf).unwrap();
    assert!(text.contains(&b'\r'));
    std::fs::write(inf, text.into_iter().filter(|byte| *byte != b'\r').collect::<Vec<_>>()).unwrap();
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn media_without_a_storage_driver_are_no_success() {
    let folder = folder();
    let media = media(folder.path(), &["NetKVM"]);
    let out = folder.path().join("o.qcow2");
    let inject = |image: &Path, more: &[&str]| {
        let mut command = winject();
        command.arg("inject").arg(image).arg("--drivers").arg(&media).args(more);
        command
    };
    let report = folder.path().join("r.json");
    let mut convert = winject();
    convert.arg("convert").arg(fixture()).arg(&out).arg("--inject").arg(&media);
    let mut into = inject(&fixture(), &["--report"]);
    into.arg(&report).arg("--overlay").arg(&out);
    for command in [&mut inject(&fixture(), &["--dry-run"]), &mut into, &mut convert] {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(6), "{command:?} {output:?}");
        assert!(!out.exists() && !super::stdout(&output).contains("boots with"), "{output:?}");
        assert!(super::stderr(&output).contains("--packages-only"), "{output:?}");
    }
    assert_eq!(json(&report)["virtio"]["injected"], false);

    // staging alone is what is wanted
    let staged = folder.path().join("staged.qcow2");
    let report = folder.path().join("staged.json");
    let mut command = inject(&fixture(), &["--packages-only", "--report"]);
    let text = super::stdout(&succeed(command.arg(&report).arg("--overlay").arg(&staged)));
    assert!(text.contains("will not boot from virtio"), "{text}");
    let found = json(&report);
    assert_eq!(found["virtio"]["injected"], false);
    assert_eq!(found["virtio"]["packages_staged"][0]["service"], "netkvm");
    assert_eq!(found["recommendation"]["bus"], "sata");
    let config = folder.path().join("c.yaml");
    let name = fixture().display().to_string();
    let text = format!("vmdk: {name}\nvirtio_drivers_dir: media\nto_output: c.qcow2\npackages_only: true\n");
    std::fs::write(&config, text).unwrap();
    succeed(winject().arg("--config").arg(&config));

    // a guest that boots from virtio already needs none
    let virtio = folder.path().join("virtio.qcow2");
    let image = folder.path().join("i.qcow2");
    std::fs::copy(fixture(), &image).unwrap();
    let mut command = winject();
    command.arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--overlay").arg(&virtio);
    succeed(&mut command);
    let text = super::stdout(&succeed(&mut inject(&virtio, &["--dry-run"])));
    assert!(text.contains("boots with vioscsi and viostor"), "{text}");
}

fn packages_only_registers_no_driver() {
    let folder = folder();
    let report = folder.path().join("r.json");
    let mut command = winject();
    command.arg("inject").arg(fixture()).arg("--drivers").arg(fixture_drivers());
    command.args(["--packages-only", "--dry-run", "--report"]).arg(&report);
    succeed(&mut command);
    let found = json(&report);
    assert_eq!(found["virtio"]["files_copied"].as_array().unwrap().len(), 0);
    assert_eq!(found["virtio"]["packages_staged"].as_array().unwrap().len(), 4);
    let mut command = winject();
    command.arg("inject").arg(fixture()).arg("--drivers").arg(fixture_drivers());
    command.args(["--packages-only", "--registration", "full", "--dry-run"]);
    assert_eq!(command.output().unwrap().status.code(), Some(2));
}

fn every_package_is_compared_with_its_catalogue() {
    let folder = folder();
    let media = media(folder.path(), &["NetKVM", "Balloon", "viostor", "vioscsi"]);
    lose_line_ends(&media.join("NetKVM/w10/amd64/netkvm.inf"));
    let sys = media.join("Balloon/w10/amd64/balloon.sys");
    let mut bytes = std::fs::read(&sys).unwrap();
    bytes[5000] ^= 0xff;
    std::fs::write(&sys, bytes).unwrap();
    let report = folder.path().join("r.md");
    let mut command = winject();
    command.arg("inject").arg(fixture()).arg("--drivers").arg(&media).arg("--dry-run").arg("--report").arg(&report);
    let output = succeed(&mut command);
    for part in ["does not list netkvm.inf", "does not list balloon.sys"] {
        assert!(super::stderr(&output).contains(part), "{output:?}");
    }
    let found = json(&folder.path().join("r.json"));
    for driver in found["virtio"]["drivers_found"].as_array().unwrap() {
        let is_good = driver["type"] == "storage";
        assert_eq!((driver["signed"] == true, driver["signer"].is_string()), (is_good, is_good), "{driver}");
    }
    let machine = &found["recommendation"];
    assert_eq!((&machine["net_model"], machine["extra_devices"].as_array().unwrap().len()), (&"e1000e".into(), 0));
    let notes = machine["notes"].to_string();
    assert!(notes.contains("network virtio") && notes.contains("virtio-balloon"), "{notes}");
    let text = std::fs::read_to_string(&report).unwrap();
    assert!(text.contains("## Warnings") && !text.contains("- Network: virtio\n"), "{text}");

    let output = succeed(winject().arg("drivers").arg("list").arg(&media).arg("--json"));
    let listing: Value = serde_json::from_slice(&output.stdout).unwrap();
    for package in listing["packages"].as_array().unwrap() {
        let matches = (package["catalogue"]["matches"] == true, package["driver_file"]["matches"] == true);
        let name = package["driver"].as_str().unwrap();
        let expected = match name {
            "NetKVM" => (false, true),
            "Balloon" => (false, false),
            _ => (true, true),
        };
        assert_eq!(matches, expected, "{name}");
    }
}

fn folders_of_the_guide_and_critical_devices_of_any_category() {
    let folder = folder();
    let media = media(folder.path(), &["viostor", "vioscsi", "Balloon"]);
    for driver in ["viostor", "vioscsi"] {
        std::fs::rename(media.join(driver).join("w10"), media.join(driver).join("w11")).unwrap();
    }
    let definitions = folder.path().join("d.yaml");
    let text = "drivers:\n  balloon:\n    - {name: Balloon, service: BALLOON, critical_device_database: true}\n\
                buckets:\n  w10:\n    - w10\n    - w11  # Fallback\n";
    std::fs::write(&definitions, text).unwrap();
    let out = folder.path().join("o.qcow2");
    let report = folder.path().join("r.json");
    let image = folder.path().join("i.qcow2");
    std::fs::copy(fixture(), &image).unwrap();
    let mut command = winject();
    command.arg("inject").arg(&image).arg("--drivers").arg(&media).arg("--definitions").arg(&definitions);
    let text = super::stdout(&succeed(command.arg("--overlay").arg(&out).arg("--report").arg(&report)));
    assert!(text.contains("boots with vioscsi and viostor."), "only storage drivers boot a guest: {text}");
    succeed(winject().arg("check").arg(&out));
    let written = json(&report)["virtio"]["registry_changes"]["cdd"].to_string();
    assert!(written.contains("\"BALLOON\""), "{written}");
}

tests![
    media_without_a_storage_driver_are_no_success,
    packages_only_registers_no_driver,
    every_package_is_compared_with_its_catalogue,
    folders_of_the_guide_and_critical_devices_of_any_category,
];
