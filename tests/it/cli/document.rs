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

/// Whatever file is given where a document, a certificate or a plan is expected: the error is winject's, not a library's.
fn foreign_files_are_refused_without_the_words_of_libraries() {
    let folder = setting();
    let binary: Vec<u8> = (0..=255).collect();
    let json = b"{\"schema\": \"winject.inspect.v1\", \"version\": 1}".to_vec();
    let key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec();
    let cut = b"{\n  \"schema\": \"winject.plan.v1\",\n".to_vec();
    let files = [binary, b"hello\n".to_vec(), b"[1, 2".to_vec(), json, key, cut, b"vmdk: \"\\q\"".to_vec(), Vec::new()];
    let inject = ["inject", "windows.qcow2", "-n", "--drivers", "virtio-win"];
    for (index, bytes) in files.iter().enumerate() {
        let name = format!("file{index}");
        std::fs::write(folder.path().join(&name), bytes).unwrap();
        for words in [
            vec!["--config", &name],
            vec!["batch", &name],
            [&inject[..], &["--definitions", &name]].concat(),
            [&inject[..], &["--trust-publisher", &name]].concat(),
            vec!["apply", &name, "-n"],
        ] {
            let output = winject().current_dir(folder.path()).args(&words).output().unwrap();
            let said = stderr(&output);
            // An empty file is an empty list of definitions, and unknown keys are warnings.
            if words.contains(&"--definitions") && (bytes.is_empty() || bytes == &files[3]) {
                continue;
            }
            assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
            assert!(said.contains(&name) && said.contains("Hint: "), "{words:?}: {said}");
            for word in [
                "DER",
                "ASN",
                "tag",
                "PEM error",
                "pre-encapsulation",
                " column ",
                "invalid utf-8",
                "expected value",
                "EOF",
                "missing field",
                "expected mapping start",
                "invalid type",
                "scanning",
                "serde",
                "Options",
            ] {
                let is_ours = word == " column " && said.contains("(column ");
                assert!(is_ours || !said.contains(word), "{words:?} says {word:?}: {said}");
            }
        }
    }
}

fn errors_name_the_document() {
    for (text, code) in [
        ("cmd: fetch-from-host\n", 2),
        ("vmdk: [a\n", 2),
        ("virtio_drivers_dir: virtio-win\ndry_run: true\n", 2),
        ("vmdk: windows.qcow2\nvirtio_drivers_dir: virtio-win\n", 2),
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

/// Runs a document in the folder, and returns its standard output.
fn run(folder: &Path, text: &str) -> String {
    stdout(&succeed(winject().arg("--config").arg(write(folder, "run.yaml", text))))
}

const DRY: &str = "virtio_drivers_dir: virtio-win\ndry_run: true\n";

fn an_overlay_is_replaced_on_request_only() {
    let folder = setting();
    let text = "vmdk: windows.qcow2\ndrivers: virtio-win\noverlay: over.qcow2\nthreads: 1\n";
    run(folder.path(), text);
    let path = folder.path().join("over.qcow2");
    let image = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!((image.format(), image.files().len()), (Format::Qcow2, 2), "over its original");
    drop(image);
    let again = winject().arg("--config").arg(folder.path().join("run.yaml")).output().unwrap();
    assert_eq!(again.status.code(), Some(2), "{}", stderr(&again));
    run(folder.path(), &format!("{text}overwrite: true\n"));
    let conflict = write(folder.path(), "run.yaml", &format!("{text}overwrite: true\nin_place: true\n"));
    assert_eq!(winject().arg("--config").arg(conflict).output().unwrap().status.code(), Some(2));
}

fn a_format_is_believed() {
    let folder = setting();
    run(folder.path(), &format!("vmdk: windows.qcow2\nformat: qcow2\n{DRY}"));
    let config = write(folder.path(), "run.yaml", &format!("vmdk: windows.qcow2\nformat: raw\n{DRY}"));
    let output = winject().arg("--config").arg(config).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
}

fn an_image_may_name_the_files_that_the_document_allows() {
    let folder = setting();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    run(folder.path(), "vmdk: windows.qcow2\ndrivers: virtio-win\noverlay: sub/over.qcow2\n");
    let text = format!("vmdk: sub/over.qcow2\n{DRY}");
    let refused = winject().arg("--config").arg(write(folder.path(), "run.yaml", &text)).output().unwrap();
    assert_ne!(refused.status.code(), Some(0));
    run(folder.path(), &format!("{text}allow_path: [windows.qcow2]\n"));
}

fn a_disk_of_an_ova_is_chosen() {
    if crate::support::program("qemu-img").is_none() {
        return;
    }
    let folder = setting();
    let at = |name: &str| folder.path().join(name);
    let [from, to] = [at("windows.qcow2"), at("w.vmdk")].map(|path| path.display().to_string());
    crate::formats::qemu_img(&["convert", "-O", "vmdk", "-o", "subformat=streamOptimized", &from, &to]);
    let other = at("o.vmdk").display().to_string();
    crate::formats::qemu_img(&["create", "-q", "-f", "vmdk", "-o", "subformat=streamOptimized", &other, "1M"]);
    let disks = [std::fs::read(at("w.vmdk")).unwrap(), std::fs::read(at("o.vmdk")).unwrap()];
    let ovf = crate::formats::ova::ovf(&["w.vmdk", "o.vmdk"]);
    let parts = [("vm.ovf", ovf.as_bytes()), ("w.vmdk", &disks[0]), ("o.vmdk", &disks[1])];
    std::fs::write(at("vm.ova"), crate::formats::ova::tar(&parts)).unwrap();
    let text = format!("vmdk: vm.ova\n{DRY}");
    let refused = winject().arg("--config").arg(write(folder.path(), "run.yaml", &text)).output().unwrap();
    assert_ne!(refused.status.code(), Some(0));
    run(folder.path(), &format!("{text}disk: w.vmdk\n"));
}

fn a_signature_policy_is_obeyed() {
    let folder = setting();
    let media = folder.path().join("media");
    crate::support::run(std::process::Command::new("cp").arg("-rL").arg(folder.path().join("virtio-win")).arg(&media));
    let driver = media.join("viostor/w10/amd64/viostor.sys");
    let mut bytes = std::fs::read(&driver).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    std::fs::write(&driver, bytes).unwrap();
    for (policy, is_done) in [("require", false), ("warn", true)] {
        let text =
            format!("vmdk: windows.qcow2\nvirtio_drivers_dir: media\ndry_run: true\nsignature_policy: {policy}\n");
        let output = winject().arg("--config").arg(write(folder.path(), "run.yaml", &text)).output().unwrap();
        let code = if is_done { 0 } else { 6 };
        assert_eq!(output.status.code(), Some(code), "{policy}: {}", stderr(&output));
    }
}

fn a_new_image_is_written_as_asked() {
    let folder = setting();
    let at = |name: &str| folder.path().join(name);
    let text = "vmdk: windows.qcow2\ndrivers: virtio-win\noverwrite: true\n";
    let said =
        run(folder.path(), &format!("{text}to_output: z.qcow2\ncompress: zstd\ncompress_level: 1\nchecksum: true\n"));
    let info = stdout(&succeed(winject().args(["image", "info"]).arg(at("z.qcow2"))));
    assert!(info.contains("compression type: zstd"), "{info}");
    let hash = sum(&at("z.qcow2"));
    assert!(said.contains(&format!("{hash}  {}", at("z.qcow2").display())), "{said}");
    let same = at("same.qcow2");
    let output = succeed(
        winject()
            .arg("convert")
            .args([at("windows.qcow2"), same.clone()])
            .args(["--compress", "zstd", "--compress-level", "1", "--checksum", "--inject"])
            .arg(at("virtio-win")),
    );
    assert!(stdout(&output).contains(&format!("{hash}  {}", same.display())), "{}", stdout(&output));
}

/// SHA-256 of all bytes of a file.
fn sum(path: &Path) -> String {
    use sha2::Digest;
    winject::internals::hex::encode(&sha2::Sha256::digest(std::fs::read(path).unwrap()))
}

tests![
    basic_virtio_only,
    the_output_folder_alone_gives_the_inputs_name,
    virtio_and_custom_drivers_in_both_spellings,
    testing_without_conversion,
    unknown_keys_warn_with_their_line,
    foreign_files_are_refused_without_the_words_of_libraries,
    errors_name_the_document,
    an_overlay_is_replaced_on_request_only,
    a_format_is_believed,
    an_image_may_name_the_files_that_the_document_allows,
    a_disk_of_an_ova_is_chosen,
    a_signature_policy_is_obeyed,
    a_new_image_is_written_as_asked,
];
