//! The report: the fields that its readers know, in both forms.

use super::{fixture, fixture_drivers, folder, names, succeed, winject};
use serde_json::Value;

fn json(path: &std::path::Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn fields_that_readers_know() {
    let folder = folder();
    let out = folder.path().join("out.qcow2");
    let report = folder.path().join("report.md");
    succeed(
        winject()
            .arg("inject")
            .arg(fixture())
            .arg("--drivers")
            .arg(fixture_drivers())
            .arg("--overlay")
            .arg(&out)
            .arg("--report")
            .arg(&report),
    );
    assert_eq!(names(folder.path()), ["out.qcow2", "report.json", "report.md"]);
    let json = json(&folder.path().join("report.json"));
    let virtio = &json["virtio"];
    assert_eq!(json["schema"], "winject/report");
    assert_eq!(json["run"]["time"], "2023-11-14T22:13:20Z");
    assert_eq!(virtio["injected"], true);
    assert_eq!(virtio["unchanged"], false);
    assert_eq!(virtio["registry_changes"]["success"], true);
    assert_eq!(virtio["registry_changes"]["style"], "driver_database");
    assert_eq!(virtio["firstboot"]["success"], true);
    assert_eq!(virtio["firstboot"]["service"], "hyper2kvm-firstboot");
    assert_eq!(virtio["devicepath_changes"]["success"], true);
    assert_eq!(virtio["windows"]["build"], 19045);
    assert_eq!(virtio["windows"]["osinfo_id"], "win10");
    let list = |field: &str, key: &str| -> Vec<String> {
        let items = virtio[field].as_array().unwrap();
        items.iter().map(|item| item[key].as_str().unwrap_or_default().to_lowercase()).collect()
    };
    for driver in ["viostor", "vioscsi", "netkvm", "balloon"] {
        assert!(list("drivers_found", "name").contains(&driver.to_string()), "{driver}");
        assert!(list("packages_staged", "service").contains(&driver.to_string()), "{driver}");
    }
    assert!(list("files_copied", "name").contains(&"viostor.sys".to_string()));
    assert!(virtio["setup_script"]["content"].as_str().unwrap().contains("pnputil"));
    assert_eq!(json["recommendation"]["bus"], "virtio-blk");
    assert_eq!(json["recommendation"]["firmware"], "uefi");
    let text = std::fs::read_to_string(&report).unwrap();
    assert!(text.contains("- `virtio.injected`: true") && text.contains("- `virtio.packages_staged`: "), "{text}");
}

fn a_dry_run_reports_what_would_be() {
    let folder = folder();
    let report = folder.path().join("test-report.md");
    succeed(
        winject()
            .arg("inject")
            .arg(fixture())
            .arg("--drivers")
            .arg(fixture_drivers())
            .arg("--dry-run")
            .arg("--report")
            .arg(&report),
    );
    let json = json(&folder.path().join("test-report.json"));
    assert_eq!(json["virtio"]["injected"], true);
    assert_eq!(json["virtio"]["dry_run"], true);
    assert_eq!(json["virtio"]["firstboot"]["success"], true);
    assert_eq!(json["run"]["output"], Value::Null);
}

fn a_second_run_is_injected_and_unchanged() {
    let folder = folder();
    let (image, first) = (folder.path().join("win10.qcow2"), folder.path().join("a.qcow2"));
    std::fs::copy(fixture(), &image).unwrap();
    let report = folder.path().join("report.json");
    succeed(winject().arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--overlay").arg(&first));
    succeed(
        winject()
            .arg("inject")
            .arg(&first)
            .arg("--drivers")
            .arg(fixture_drivers())
            .arg("--dry-run")
            .arg("--report")
            .arg(&report),
    );
    let json = json(&report);
    assert_eq!(json["virtio"]["injected"], true);
    assert_eq!(json["virtio"]["unchanged"], true);
    assert_eq!(json["changes"]["steps"].as_array().map(Vec::len), Some(0));
}

fn failures_are_reported_too() {
    let folder = folder();
    let report = folder.path().join("report.json");
    let output = winject()
        .arg("inject")
        .arg(fixture())
        .args(["--drivers", "/nowhere", "--dry-run", "--report"])
        .arg(&report)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(6));
    let json = json(&report);
    assert_eq!(json["virtio"]["injected"], false);
    assert_eq!(json["virtio"]["reason"], "virtio_drivers_dir_not_found");
    assert_eq!(json["error"]["exit_code"], 6);
    assert!(json["error"]["hint"].is_string());
}

tests![
    fields_that_readers_know,
    a_dry_run_reports_what_would_be,
    a_second_run_is_injected_and_unchanged,
    failures_are_reported_too,
];
