//! `--config`: the guide's example configurations, run for real.

use crate::inject::{fixture, fixture_drivers, folder, names, stderr, stdout, succeed, winject};
use std::path::Path;
use winject::internals::block::{Format, OpenOptions, open};

fn write(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Paths in the document are relative to it, so the process runs elsewhere.
fn setting() -> tempfile::TempDir {
    let folder = folder();
    std::fs::copy(fixture(), folder.path().join("windows.qcow2")).unwrap();
    std::os::unix::fs::symlink(fixture_drivers(), folder.path().join("virtio-win")).unwrap();
    folder
}

fn basic_virtio_only() {
    let folder = setting();
    let config = write(
        folder.path(),
        "run.yaml",
        "cmd: local\nvmdk: windows.qcow2\noutput_dir: output\nwindows: true\n\n# VirtIO drivers\n\
         virtio_drivers_dir: virtio-win\n\n# Output\nto_output: output/windows-converted.qcow2\n\
         report: output/report.md\n",
    );
    let output = succeed(winject().arg("--config").arg(config));
    assert!(stdout(&output).contains("Done: Windows 10"), "{}", stdout(&output));
    assert_eq!(names(&folder.path().join("output")), ["report.json", "report.md", "windows-converted.qcow2"]);
    let image = open(&folder.path().join("output/windows-converted.qcow2"), &OpenOptions::default()).unwrap();
    assert_eq!((image.format(), image.files().len()), (Format::Qcow2, 1), "it stands alone");
}

fn the_output_folder_alone_gives_the_inputs_name() {
    let folder = setting();
    let text = "command: local\nvmdk: windows.qcow2\noutput_dir: output\nvirtio_drivers_dir: virtio-win\n";
    succeed(winject().arg("--config").arg(write(folder.path(), "run.yaml", text)));
    assert_eq!(names(&folder.path().join("output")), ["windows.qcow2"]);
}

fn virtio_and_custom_drivers_in_both_spellings() {
    for key in ["virtio_config", "virtio_config_path"] {
        let folder = setting();
        write(
            folder.path(),
            "custom-drivers.yaml",
            "drivers:\n  storage:\n    - name: viostor\n      service: viostor\n      \
             pattern: viostor/w10/amd64/viostor.sys\n      inf_hint: viostor.inf\n      start_type: boot\n",
        );
        let config = write(
            folder.path(),
            "run.yaml",
            &format!(
                "cmd: local\nvmdk: windows.qcow2\noutput_dir: output\nwindows: true\nvirtio_drivers_dir: virtio-win\n\
                 {key}: custom-drivers.yaml\nto_output: output/windows-converted.qcow2\nreport: output/report.md\n"
            ),
        );
        succeed(winject().arg("--config").arg(config));
        let report = std::fs::read(folder.path().join("output/report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        assert_eq!(report["virtio"]["injected"], true);
    }
}

fn testing_without_conversion() {
    let folder = setting();
    let config = write(
        folder.path(),
        "run.yaml",
        "# Dry run to test driver injection only\ndry_run: true\ncmd: local\nvmdk: windows.qcow2\nwindows: true\n\
         virtio_drivers_dir: virtio-win\nreport: test-report.md\n",
    );
    succeed(winject().arg("--config").arg(config));
    assert_eq!(names(folder.path()), ["run.yaml", "test-report.json", "test-report.md", "virtio-win", "windows.qcow2"]);
    let text = std::fs::read_to_string(folder.path().join("test-report.md")).unwrap();
    assert!(
        text.contains("- `virtio.injected`: true") && text.contains("- `virtio.firstboot.success`: true"),
        "{text}"
    );
}

fn unknown_keys_warn_with_their_line() {
    let folder = setting();
    let text = "dry_run: true\nvmdk: windows.qcow2\nvirtio_driver_dir: x\nvirtio_drivers_dir: virtio-win\n";
    let output = succeed(winject().arg("--config").arg(write(folder.path(), "run.yaml", text)));
    let place = folder.path().join("run.yaml");
    let warning = format!(
        "Warning: {}:3: unknown key `virtio_driver_dir`; did you mean `virtio_drivers_dir`?\n",
        place.display()
    );
    assert!(stderr(&output).contains(&warning), "{}", stderr(&output));
}

fn errors_name_the_document() {
    for (text, code) in [
        ("cmd: fetch-from-host\n", 2),
        ("vmdk: [a\n", 2),
        ("virtio_drivers_dir: virtio-win\ndry_run: true\n", 2),
        ("vmdk: windows.qcow2\nvirtio_drivers_dir: virtio-win\n", 3),
        ("vmdk: windows.qcow2\ndry_run: true\n", 6),
        ("vmdk: windows.qcow2\ndry_run: true\nvirtio_drivers_dir: virtio-win\nregistration: some\n", 2),
        ("vmdk: windows.qcow2\ndry_run: true\nvirtio_drivers_dir: virtio-win\nwindows: no\n", 2),
    ] {
        let folder = setting();
        let output = winject().arg("--config").arg(write(folder.path(), "run.yaml", text)).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}{}", stderr(&output));
        assert!(stderr(&output).contains("Error: ") && stderr(&output).contains("Hint: "), "{}", stderr(&output));
    }
}

tests![
    basic_virtio_only,
    the_output_folder_alone_gives_the_inputs_name,
    virtio_and_custom_drivers_in_both_spellings,
    testing_without_conversion,
    unknown_keys_warn_with_their_line,
    errors_name_the_document,
];
