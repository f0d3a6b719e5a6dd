//! The machine to create, judged by the tools that it is written for.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{run, setting};
use crate::support;

/// A file name that a shell, XML, YAML and QEMU's options each understand in their own way.
const HOSTILE: &str = "it's <a> & \"b\", $(touch x) `y` %s;#.qcow2";

/// The machine of an image, from `check`.
fn machine(folder: &Path, image: &str, kind: &str) -> String {
    let output = run(folder, &["check", image, "--machine", kind]);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A folder with an injected image under the hostile name.
fn hostile() -> tempfile::TempDir {
    let folder = setting();
    let words = ["inject", "win10.qcow2", "--drivers", "drivers", "--output", HOSTILE];
    let output = run(folder.path(), &words);
    assert!(output.status.success(), "{output:?}");
    folder
}

/// `inject`, a plan and `check` describe one machine, and a file is written once.
fn every_command_describes_the_same_machine() {
    let folder = setting();
    let at = |name: &str| folder.path().join(name);
    for kind in ["libvirt", "qemu", "kubevirt", "proxmox"] {
        let file = format!("{kind}.txt");
        let words = [
            "inject",
            "win10.qcow2",
            "--drivers",
            "drivers",
            "--dry-run",
            "--machine",
            kind,
            "--machine-output",
            &file,
        ];
        assert!(run(folder.path(), &words).status.success());
        assert_eq!(run(folder.path(), &words).status.code(), Some(2), "{kind}: not overwritten");
        let overwritten = [words.as_slice(), &["--overwrite"]].concat();
        assert!(run(folder.path(), &overwritten).status.success(), "{kind}: overwritten");
        let text = std::fs::read_to_string(at(&file)).unwrap();
        let output = run(folder.path(), &["-q", "plan", "win10.qcow2", "--drivers", "drivers", "--machine", kind]);
        assert_eq!(String::from_utf8(output.stdout).unwrap(), text, "{kind}");
        assert!(text.contains("win10"), "{text}");
    }
    // What the run says goes elsewhere: standard output is the script.
    let printed = ["inject", "win10.qcow2", "--drivers", "drivers", "--dry-run", "--machine", "qemu"];
    let output = run(folder.path(), &printed);
    assert_eq!(String::from_utf8_lossy(&output.stdout), std::fs::read_to_string(at("qemu.txt")).unwrap());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Dry run: ") && said.contains("viostor.sys"), "{said}");
    // Standard output holds one document.
    let both = ["check", "win10.qcow2", "--machine", "qemu", "--json"];
    assert_eq!(run(folder.path(), &both).status.code(), Some(2));
}

/// A path that a description cannot hold is refused before anything is written.
fn a_path_of_two_lines_is_refused_before_the_job() {
    let folder = setting();
    let image = "q\nq.qcow2";
    std::fs::rename(folder.path().join("win10.qcow2"), folder.path().join(image)).unwrap();
    let (names, bytes) = (crate::inject::names(folder.path()), std::fs::read(folder.path().join(image)).unwrap());
    let machine = ["--drivers", "drivers", "--machine", "qemu", "--machine-output", "mq"];
    for destination in [["--in-place"].as_slice(), &["--dry-run"], &["--overlay", "n\nn.qcow2"], &["-o", "n\nn.qcow2"]]
    {
        let output = run(folder.path(), &[["inject", image].as_slice(), &machine, destination].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{destination:?}: {said}");
        assert!(said.contains("the disk's path holds control characters"), "{destination:?}: {said}");
        assert_eq!(crate::inject::names(folder.path()), names, "{destination:?}");
        assert!(std::fs::read(folder.path().join(image)).unwrap() == bytes, "{destination:?}: the image changed");
    }
    // The image does not stand in the description of its copy.
    let output = run(folder.path(), &[["inject", image].as_slice(), &machine, &["-o", "n.qcow2"]].concat());
    assert!(output.status.success(), "{output:?}");
}

fn a_libvirt_domain_is_valid() {
    let folder = hostile();
    let Some(validate) = support::program("virt-xml-validate") else { return };
    for (name, image) in [("before", "win10.qcow2"), ("after", HOSTILE)] {
        let text = machine(folder.path(), image, "libvirt");
        let path = folder.path().join(format!("{name}.xml"));
        std::fs::write(&path, &text).unwrap();
        support::run(Command::new(&validate).arg(&path).arg("domain"));
        assert_eq!(text.contains("bus='virtio'"), name == "after", "{text}");
        assert!(text.contains("<os firmware='efi'>"), "{text}");
    }
}

/// QEMU starts the machine with its processors stopped, and ends when it is told to.
fn qemu_starts_the_machine() {
    let folder = hostile();
    let Some(qemu) = support::program("qemu-system-x86_64") else { return };
    if !Path::new("/usr/share/OVMF/OVMF_CODE_4M.fd").exists() {
        return support::skip("the firmware is not installed (ovmf)");
    }
    let script = folder.path().join("start.sh");
    std::fs::write(&script, machine(folder.path(), HOSTILE, "qemu")).unwrap();
    // Without KVM, without a window, stopped.
    let stub = format!(
        "#!/bin/bash\nset -- \"${{@/accel=kvm/accel=tcg}}\"\nset -- \"${{@/#host*/qemu64}}\"\n\
         exec {} \"$@\" -S -display none -qmp stdio\n",
        qemu.display()
    );
    let folder_of_stub = with_stub(folder.path(), "qemu-system-x86_64", &stub);
    let mut child = Command::new("sh")
        .arg(&script)
        .current_dir(folder.path())
        .env("PATH", folder_of_stub)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let commands = b"{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-block\"}\n{\"execute\":\"quit\"}\n";
    // One that has ended already says why below.
    let _ = child.stdin.take().unwrap().write_all(commands);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}{text}", String::from_utf8_lossy(&output.stderr));
    let file = serde_json::to_string(folder.path().join(HOSTILE).to_str().unwrap()).unwrap();
    assert!(text.contains(&format!("\"file\": {file}")) && text.contains("SHUTDOWN"), "{text}");
    assert!(!folder.path().join("x").exists());
}

/// The path of a folder with a program of this name first on it.
fn with_stub(folder: &Path, name: &str, text: &str) -> String {
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(bin.join(name), text).unwrap();
    std::fs::set_permissions(bin.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

/// Every word arrives as one, whatever the file is called.
fn the_commands_of_proxmox_are_whole_words() {
    let folder = hostile();
    let script = folder.path().join("create.sh");
    std::fs::write(&script, machine(folder.path(), HOSTILE, "proxmox")).unwrap();
    let path = with_stub(folder.path(), "qm", "#!/bin/sh\nfor word; do printf '[%s]' \"$word\"; done; echo\n");
    let output = Command::new("sh").arg(&script).current_dir(folder.path()).env("PATH", path).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let import =
        format!("[disk][import][100][{}][local-lvm][--target-disk][virtio0]", folder.path().join(HOSTILE).display());
    assert!(
        text.contains(&import) && text.contains("[--boot][order=virtio0]") && text.contains("[--bios][ovmf]"),
        "{text}"
    );
    assert!(!folder.path().join("x").exists());
}

/// The manifest is YAML with the fields of `kubevirt.io/v1`, and each disk has its volume.
fn a_kubevirt_manifest_is_sound() {
    let folder = hostile();
    let text = machine(folder.path(), HOSTILE, "kubevirt");
    let found: serde_json::Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!((&found["apiVersion"], &found["kind"]), (&"kubevirt.io/v1".into(), &"VirtualMachine".into()));
    let spec = &found["spec"]["template"]["spec"];
    let known = [
        ("", "architecture domain networks volumes"),
        ("/domain", "clock cpu devices features firmware machine memory"),
        ("/domain/clock", "timer utc"),
        ("/domain/firmware", "bootloader"),
        ("/domain/features", "acpi apic hyperv smm"),
        ("/domain/devices", "autoattachMemBalloon disks inputs interfaces rng tpm"),
        ("/domain/devices/disks/0", "blockSize bootOrder disk name"),
        ("/domain/devices/interfaces/0", "macAddress masquerade model name"),
        ("/volumes/0", "name persistentVolumeClaim"),
    ];
    for (place, names) in known {
        let object =
            spec.pointer(place).and_then(|value| value.as_object()).unwrap_or_else(|| panic!("{place}: {text}"));
        let unknown: Vec<_> = object.keys().filter(|key| !names.split(' ').any(|name| name == *key)).collect();
        assert!(unknown.is_empty(), "{place}: {unknown:?}");
    }
    let names = |list: &serde_json::Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&spec["domain"]["devices"]["disks"]), names(&spec["volumes"]));
    assert_eq!(names(&spec["domain"]["devices"]["interfaces"]), names(&spec["networks"]));
    assert_eq!(spec["domain"]["devices"]["disks"][0]["disk"]["bus"], "virtio");
    let is_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let name = found["metadata"]["name"].as_str().unwrap();
    assert!(name.chars().all(is_label) && name.len() <= 63, "{name}");
}

tests![
    every_command_describes_the_same_machine,
    a_path_of_two_lines_is_refused_before_the_job,
    a_libvirt_domain_is_valid,
    qemu_starts_the_machine,
    the_commands_of_proxmox_are_whole_words,
    a_kubevirt_manifest_is_sound,
];
