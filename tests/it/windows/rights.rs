//! Who may change the files that winject puts into folders of Windows.

use serde_json::Value;
use winject::internals::block::Format;
use winject::internals::ntfs::security::inherited;
use winject::internals::plan::verify::independent::IndependentVolume;

use crate::inject::{fixture_drivers, folder, succeed, winject, writable_fixture};

/// As every driver that does not come with Windows, and not as `disk.sys`, which TrustedInstaller alone may replace.
fn a_new_driver_has_the_rights_that_its_folder_hands_down() {
    for registration in ["minimal", "full"] {
        let here = folder();
        let image = writable_fixture(here.path(), Format::Raw);
        let report = here.path().join("r.json");
        let mut command = winject();
        command.arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).args(["--in-place", "--no-undo"]);
        succeed(command.args(["--registration", registration, "--report"]).arg(&report));
        let device = crate::remove::disk(image.clone()).volume().into_device();
        let independent = IndependentVolume::open(&device).unwrap();
        let folder = independent.security("/Windows/System32/drivers").unwrap();
        assert!(folder.is_some());
        let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
        let copied = report["virtio"]["files_copied"].as_array().unwrap();
        assert!(copied.len() >= 2, "{registration}: {report:#}");
        for file in copied {
            let path = file["destination"].as_str().unwrap();
            let rights = independent.security(path).unwrap();
            assert_eq!(rights, Some(inherited(folder.as_deref(), false)), "{registration}: {path}");
            let artifacts = report["virtio"]["artifacts"].as_array().unwrap();
            let artifact = artifacts.iter().find(|artifact| artifact["path"] == path).unwrap();
            assert_eq!(artifact["kind"], "driver_sys", "{registration}: {path}");
        }
    }
}

tests![a_new_driver_has_the_rights_that_its_folder_hands_down];
