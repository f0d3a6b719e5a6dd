//! `convert --inject`: the same disk as converting first and injecting then, from every container, and the source untouched.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::formats::qemu_img;
use crate::inject::matrix::{hives, judge_hives};
use crate::inject::{disk_sha256, expected_fixture, fixture, fixture_drivers, folder, names, sha256, stderr, winject};
use crate::support::{self, judge, program, run};

/// The guest's disk as qemu-img writes it in another container.
fn contained(folder: &Path, format: &str, options: &str) -> PathBuf {
    let path = folder.join(format!("guest.{format}"));
    let mut arguments = vec!["convert", "-f", "qcow2", "-O", format];
    if !options.is_empty() {
        arguments.extend(["-o", options]);
    }
    let from = fixture();
    arguments.extend([from.to_str().unwrap(), path.to_str().unwrap()]);
    qemu_img(&arguments);
    path
}

fn convert(input: &Path, output: &Path, arguments: &str) -> Command {
    let mut command = winject();
    command.arg("convert").args(arguments.split_whitespace()).arg(input).arg(output);
    command
}

fn one_pass_gives_what_two_steps_give() {
    if program("qemu-img").is_none() {
        return;
    }
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    // Converted by qemu-img, then injected in place: what every conversion has to equal.
    let expected = at("expected.raw");
    let from = fixture();
    qemu_img(&["convert", "-f", "qcow2", "-O", "raw", from.to_str().unwrap(), expected.to_str().unwrap()]);
    let before = hives(windows_start(&expected), &expected, &at("before"));
    run(winject().arg("inject").arg(&expected).arg("--in-place").arg("--drivers").arg(fixture_drivers()));
    assert_eq!(disk_sha256(&expected), expected_fixture());
    judged(&expected);
    if let (Some(before), Some(after)) = (before, hives(windows_start(&expected), &expected, &at("after"))) {
        judge_hives(&before, &after, "converted and injected");
    }

    for (input, options) in [
        ("vmdk", "subformat=streamOptimized"),
        ("vmdk", "subformat=monolithicSparse"),
        ("vhdx", ""),
        ("vpc", "subformat=dynamic,force_size=on"),
        ("vdi", ""),
        ("qcow2", "cluster_size=4096"),
    ] {
        let source = contained(folder.path(), input, options);
        let before = sha256(&source);
        for (format, arguments) in [
            ("raw", "-O raw"),
            ("qcow2", "-O qcow2"),
            ("qcow2", "-O qcow2 --compress zlib"),
            ("qcow2", "-O qcow2 --compress zstd"),
        ] {
            let out = at("out");
            run(convert(&source, &out, arguments).arg("--inject").arg(fixture_drivers()).arg("--overwrite"));
            let what = format!("{input} {options} to {arguments}");
            if format == "qcow2" {
                qemu_img(&["check", "-q", "-f", "qcow2", out.to_str().unwrap()]);
            }
            let mut compare = Command::new("qemu-img");
            compare.args(["compare", "-q", "-f", format, "-F", "raw"]).arg(&out).arg(&expected);
            assert!(compare.status().unwrap().success(), "{what}");
            assert_eq!(sha256(&source), before, "{what}: the source");
        }
    }
}

/// The NTFS judge over the injected disk, if it is here.
fn judged(raw: &Path) {
    let (Some(judge), Some(python)) = (judge("ntfscheck.py"), support::judge_python()) else { return };
    run(Command::new(python).arg(judge).args(["--offset", &windows_start(raw).to_string()]).arg(raw));
}

/// Where the Windows volume of a disk begins.
fn windows_start(raw: &Path) -> u64 {
    let inspect = run(winject().args(["inspect", "--json"]).arg(raw));
    let inspect: serde_json::Value = serde_json::from_slice(&inspect.stdout).unwrap();
    let partitions = inspect.pointer("/disks/0/disk/partitions").and_then(|p| p.as_array()).unwrap();
    let windows = partitions.iter().find(|partition| partition["content"] == "ntfs").unwrap();
    windows["start"].as_u64().unwrap()
}

/// A guest that cannot be changed is not half converted either.
fn a_failed_injection_leaves_no_output() {
    let folder = folder();
    let out = folder.path().join("out.qcow2");
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let output = convert(&fixture(), &out, "").arg("--inject").arg(&empty).output().unwrap();
    assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
    assert_eq!(names(folder.path()), ["empty"]);
}

/// What people meet: each error says what to do, and nothing is left behind.
fn errors_of_the_command() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let input = at("in.raw");
    std::fs::write(&input, vec![7; 3 << 20]).unwrap();
    std::fs::write(at("there.qcow2"), b"mine").unwrap();
    for (out, arguments, code, words) in [
        ("there.qcow2", "", 2, "exists already"),
        ("in.raw", "--overwrite", 2, "input"),
        ("no/folder/out.qcow2", "", 2, "folder"),
        ("out.raw", "-O raw --compress zlib", 2, "cannot compress"),
        ("out.vmdk", "-O vmdk", 2, "qcow2 or raw"),
        ("out.vmdk", "", 2, "-O qcow2 or -O raw"),
        ("out.qcow2", "--compress lzma", 2, "zlib or zstd"),
        ("out.qcow2", "-O qcow3", 2, "qcow2 or raw"),
    ] {
        let output = convert(&input, &at(out), arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{out} {arguments}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{out} {arguments}: {}", stderr(&output));
    }
    assert_eq!(names(folder.path()), ["in.raw", "there.qcow2"]);
    assert_eq!(std::fs::read(at("there.qcow2")).unwrap(), b"mine");
    assert_eq!(std::fs::read(&input).unwrap(), vec![7; 3 << 20]);
}

fn a_full_disk_leaves_nothing_behind() {
    let folder = folder();
    let mount = folder.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&mount).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return; // containers may forbid it
    }
    let input = folder.path().join("in.raw");
    std::fs::write(&input, crate::formats::disk(9 << 20, 3)).unwrap();
    let outputs: Vec<_> = ["-O raw", "-O qcow2", "-O qcow2 --compress zlib"]
        .iter()
        .map(|arguments| (convert(&input, &mount.join("out"), arguments).output().unwrap(), names(&mount)))
        .collect();
    run(Command::new("umount").arg(&mount));
    for (output, left) in outputs {
        assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
        assert!(stderr(&output).contains("space"), "{}", stderr(&output));
        assert!(left.is_empty(), "{left:?}");
    }
}

tests![
    one_pass_gives_what_two_steps_give,
    a_failed_injection_leaves_no_output,
    errors_of_the_command,
    a_full_disk_leaves_nothing_behind,
];
