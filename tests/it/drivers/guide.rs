//! Every YAML block of the driver guide, named by its heading, with the outcome that the guide promises.

use super::media;
use crate::inject::{fixture, folder, names, sha256, stderr, winject};
use crate::support;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use winject::internals::drivers::{Arch, Definitions, GuestTarget, Policy, SignatureLevel, Sources, select};
use winject::{Error, Kind};

/// The YAML blocks of the guide with their headings.
fn blocks() -> Option<Vec<(String, String)>> {
    let Some(path) = support::shared().map(|s| s.join("guide.md")).filter(|p| p.exists()) else {
        support::skip("the guide is not here");
        return None;
    };
    let (mut out, mut heading, mut block) = (Vec::new(), String::new(), None::<String>);
    for line in fs::read_to_string(path).unwrap().lines() {
        match &mut block {
            Some(text) if line.starts_with("```") => {
                out.push((heading.clone(), std::mem::take(text)));
                block = None;
            }
            Some(text) => {
                text.push_str(line);
                text.push('\n');
            }
            None if line.starts_with('#') => heading = line.trim_start_matches('#').trim().to_owned(),
            None if line.trim() == "```yaml" => block = Some(String::new()),
            None => {}
        }
    }
    Some(out)
}

fn block(heading: &str, holding: &str) -> Option<String> {
    let found = blocks()?.into_iter().find(|(h, text)| h.contains(heading) && text.contains(holding));
    Some(found.unwrap_or_else(|| panic!("the guide has no such block under {heading:?}")).1)
}

fn parse(text: &str) -> Result<Definitions, Error> {
    Definitions::parse(text, "custom.yaml")
}

fn w10() -> GuestTarget {
    GuestTarget::of_build(Arch::Amd64, 19045, false)
}

/// A driver as the guide's examples have it, made from one of ours, which is signed.
fn driver(folder: &Path, name: &str, class: (&str, &str), id: &str, start: &str) {
    fs::create_dir_all(folder).unwrap();
    let signed = support::root().join("test-images/drivers/viostor/w10/amd64/viostor.sys");
    fs::copy(signed, folder.join(format!("{name}.sys"))).unwrap();
    fs::write(folder.join(format!("{name}.cat")), "stand-in").unwrap();
    let inf = format!(
        "[Version]\nSignature=\"$WINDOWS NT$\"\nClass={}\nClassGuid={}\nProvider=%P%\nCatalogFile={name}.cat\n\
         DriverVer=01/02/2024,1.2.3.4\n[SourceDisksNames]\n1=%P%\n[SourceDisksFiles]\n{name}.sys=1\n\
         [DestinationDirs]\nDefaultDestDir=12\n[Manufacturer]\n%P%=M,NTamd64.10.0\n[M.NTamd64.10.0]\n%P%=I,{id}\n\
         [I]\nCopyFiles=@{name}.sys\n[I.Services]\nAddService={name},2,S\n[S]\nServiceType=1\nStartType={start}\n\
         ErrorControl=1\nServiceBinary=%12%\\{name}.sys\n[Strings]\nP=\"Maker\"\n",
        class.0, class.1
    );
    fs::write(folder.join(format!("{name}.inf")), inf).unwrap();
}

const LENIENT: Policy = Policy { signature: SignatureLevel::Present };
const SYSTEM: (&str, &str) = ("System", "{4D36E97D-E325-11CE-BFC1-08002BE10318}");
const SCSI: (&str, &str) = ("SCSIAdapter", "{4D36E97B-E325-11CE-BFC1-08002BE10318}");

fn add_to_virtio_directory_structure_with_placeholders() {
    let Some(text) = block("Method 1", "class_guid") else { return };
    let error = parse(&text).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.to_string().contains("custom.yaml:7") && error.to_string().contains("placeholder"), "{error}");
    assert!(error.hint_text().unwrap().contains("leave the line out"));
}

fn add_to_virtio_directory_structure_filled_in() {
    let (Some(text), Some(tree)) = (block("Method 1", "class_guid"), media::tree("0.1.285")) else { return };
    let text = text
        .replace("{XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX}", SYSTEM.1)
        .replace("XXXX", "1234")
        .replace("YYYY", "5678");
    let definitions = parse(&text).unwrap();
    assert!(definitions.warnings.is_empty(), "{:?}", definitions.warnings);
    assert_eq!(definitions.buckets_for(&w10()), ["w10", "w11"]);
    let temp = tempfile::tempdir().unwrap();
    media::copy_some(&tree, &["viostor/w10/amd64", "NetKVM/w10/amd64"], temp.path());
    driver(&temp.path().join("CustomDriver/w10/amd64"), "mydriver", SYSTEM, "PCI\\VEN_1234&DEV_5678", "3");
    let selection = select(&Sources::open(&[temp.path()]).unwrap(), &w10(), &definitions, &LENIENT).unwrap();
    let custom = selection.packages.iter().find(|p| p.stage_name == "mydriver").unwrap();
    assert_eq!(custom.category.name(), "custom");
    // "start_type: demand": the user asked for the service, and that is how it starts
    let service = custom.boot.as_ref().unwrap();
    assert_eq!((service.service.as_str(), service.start, service.critical_device_database), ("mydriver", 3, false));
    assert_eq!(service.hardware_ids, ["PCI\\VEN_1234&DEV_5678"]);
    assert_eq!(selection.packages.len(), 3, "viostor and NetKVM as well");
    assert!(!selection.warnings.iter().any(|w| w.contains("custom.yaml")), "{:?}", selection.warnings);
}

fn inf_only_drivers() {
    let Some(_) = block("Method 2", "virtio_drivers_dir") else { return };
    let temp = tempfile::tempdir().unwrap();
    driver(&temp.path().join("MyDriver/w10/amd64"), "driver", SYSTEM, "PCI\\VEN_1234&DEV_5678", "3");
    fs::write(temp.path().join("MyDriver/w10/amd64/driver.dll"), "a co-installer").unwrap();
    let sources = Sources::open(&[temp.path()]).unwrap();
    let selection = select(&sources, &w10(), &Definitions::builtin(), &LENIENT).unwrap();
    assert_eq!(selection.packages.len(), 1);
    let package = &selection.packages[0];
    assert_eq!((package.stage_name.as_str(), package.boot.is_none()), ("mydriver", true));
    let mut names: Vec<&str> = package.files.iter().map(|f| f.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["driver.cat", "driver.dll", "driver.inf", "driver.sys"]);
}

fn advanced_custom_driver_definitions() {
    let (Some(text), Some(tree)) = (block("Advanced: Custom Driver Definitions", "mystor"), media::tree("0.1.285"))
    else {
        return;
    };
    let definitions = parse(&text).unwrap();
    assert_eq!(definitions.buckets_for(&w10()), ["w10", "w8.1", "w8"]);
    let temp = tempfile::tempdir().unwrap();
    media::copy_some(&tree, &["viostor/w10/amd64"], temp.path());
    driver(&temp.path().join("MyStorageDriver/w10/amd64"), "mystor", SCSI, "PCI\\VEN_1234&DEV_5678", "0");
    let selection = select(&Sources::open(&[temp.path()]).unwrap(), &w10(), &definitions, &LENIENT).unwrap();
    let names: Vec<&str> = selection.packages.iter().map(|p| p.stage_name.as_str()).collect();
    assert_eq!(names, ["mystor", "viostor"]);
    let (_, boot) = selection.boot_packages().next().unwrap();
    assert_eq!((boot.start, boot.kind, boot.error_control, boot.critical_device_database), (0, 1, 1, true));
    assert_eq!(boot.hardware_ids, ["PCI\\VEN_1234&DEV_5678"]);
    // the guide's class is that of disks; the INF's is that of controllers, and wins
    assert_eq!(boot.class_guid.braced(), SCSI.1);
    let warning = selection.warnings.iter().find(|w| w.contains("class_guid")).unwrap();
    assert!(warning.contains("custom.yaml:7") && warning.contains("the INF wins"), "{warning}");
}

/// The blocks, by heading and a text in them; each is the subject of a test here.
const BLOCKS: &[(&str, &str)] = &[
    ("Basic Configuration", "virtio_config:"),
    ("Method 1", "class_guid"),
    ("Method 1", "# migration-config.yaml"),
    ("Method 2", "virtio_drivers_dir"),
    ("Advanced: Custom Driver Definitions", "mystor"),
    ("Basic VirtIO Only", "to_output"),
    ("VirtIO + Custom Drivers", "virtio_config:"),
    ("Testing Without Conversion", "dry_run: true"),
];

fn every_block_of_the_guide_is_tested() {
    let Some(blocks) = blocks() else { return };
    assert_eq!(blocks.len(), BLOCKS.len());
    for ((heading, text), (wanted, part)) in blocks.iter().zip(BLOCKS) {
        assert!(heading.contains(wanted) && text.contains(part), "{heading}");
    }
}

/// Where the guide's documents run: a VMDK with Windows 10, our drivers under each name that the guide has for them, and
/// its own driver definitions, filled in.
fn setting() -> Option<tempfile::TempDir> {
    let custom = block("Advanced: Custom Driver Definitions", "mystor")?;
    let program = support::program("qemu-img")?;
    support::program("osslsigncode").and(support::program("python3"))?;
    let folder = folder();
    let root = folder.path();
    support::run(Command::new(program).args(["convert", "-O", "vmdk"]).arg(fixture()).arg(root.join("windows.vmdk")));
    for name in ["virtio-win-extracted", "drivers", "virtio-win", "all-drivers"] {
        support::run(
            Command::new("cp").arg("-r").arg(support::root().join("test-images/drivers")).arg(root.join(name)),
        );
    }
    for name in ["all-drivers", "virtio-win-extracted"] {
        signed_driver(&root.join(name), "MyStorageDriver", "mystor", SCSI, "0");
    }
    for name in ["custom-drivers.yaml", "custom-virtio-config.yaml"] {
        fs::write(root.join(name), &custom).unwrap();
    }
    Some(folder)
}

/// A signed driver of a folder's own, in a tree of the setting.
fn signed_driver(tree: &Path, folder: &str, name: &str, class: (&str, &str), start: &str) {
    let top = tree.join(folder);
    driver(&top.join("w10/amd64"), name, class, "PCI\\VEN_1234&DEV_5678", start);
    media::sign(&top, "sha256");
    fs::remove_dir_all(top.join("cert")).unwrap();
}

/// Runs a document of the guide: its paths are where they are here, what it leaves out is added. The report.
fn run(folder: &Path, text: &str, added: &str) -> Value {
    let text = text
        .replace("/path/to/output", "output")
        .replace("/usr/share/virtio-win", "virtio-win")
        .replace("/path/to/", "");
    fs::write(folder.join("run.yaml"), format!("{text}{added}")).unwrap();
    let before = sha256(&folder.join("windows.vmdk"));
    let output = winject().arg("--config").arg(folder.join("run.yaml")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(sha256(&folder.join("windows.vmdk")), before, "the input is never written");
    for line in stderr(&output).lines().filter(|line| line.starts_with("Warning: ")) {
        assert!(!line.contains("unknown key") && !line.contains("ignored"), "{line}");
    }
    let report = ["output/report.json", "test-report.json"].map(|name| folder.join(name));
    let report = report.iter().find(|path| path.exists()).unwrap();
    serde_json::from_slice(&fs::read(report).unwrap()).unwrap()
}

/// Values of one field of a list of the report.
fn each<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().filter_map(|item| item[field].as_str()).collect()
}

const OUTPUT: &str =
    "vmdk: windows.vmdk\noutput_dir: output\nto_output: output/windows-converted.qcow2\nreport: output/report.md\n";

/// What the guide's section "How It Works" promises of every run.
#[track_caller]
fn promised(report: &Value) {
    let virtio = &report["virtio"];
    assert_eq!(virtio["injected"], true, "{virtio}");
    let services = each(&virtio["registry_changes"]["services"], "service");
    assert!(services.contains(&"viostor") && services.contains(&"vioscsi"), "{services:?}");
    assert!(!virtio["registry_changes"]["cdd"].as_array().unwrap().is_empty());
    let folders = each(&virtio["packages_staged"], "guest_dir");
    assert!(folders.iter().any(|f| f.ends_with("hyper2kvm/drivers/virtio/netkvm")), "{folders:?}");
    let path = virtio["devicepath_changes"]["new"].as_str().unwrap();
    assert!(path.contains("%SystemDrive%\\hyper2kvm\\drivers\\virtio"), "{path}");
    assert_eq!(virtio["firstboot"]["success"], true);
    assert_eq!(virtio["firstboot"]["service"], "hyper2kvm-firstboot");
}

fn has_mystor(report: &Value) -> bool {
    each(&report["virtio"]["registry_changes"]["services"], "service").contains(&"mystor")
}

fn basic_configuration() {
    let (Some(text), Some(folder)) = (block("Basic Configuration", "virtio_config:"), setting()) else { return };
    let report = run(folder.path(), &text, OUTPUT);
    promised(&report);
    assert!(has_mystor(&report));
}

fn add_to_virtio_directory_structure_as_a_run() {
    let (Some(custom), Some(text)) = (block("Method 1", "class_guid"), block("Method 1", "# migration-config.yaml"))
    else {
        return;
    };
    let Some(folder) = setting() else { return };
    let custom = custom
        .replace("{XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX}", SYSTEM.1)
        .replace("XXXX", "1234")
        .replace("YYYY", "5678");
    fs::write(folder.path().join("custom-drivers.yaml"), custom).unwrap();
    signed_driver(&folder.path().join("drivers"), "CustomDriver", "mydriver", SYSTEM, "3");
    let report = run(folder.path(), &text, OUTPUT);
    promised(&report);
    let found = report["virtio"]["drivers_found"].as_array().unwrap();
    let mine = found.iter().find(|driver| driver["service_name"] == "mydriver").unwrap();
    assert_eq!((mine["type"].as_str(), mine["start_type"].as_u64()), (Some("custom"), Some(3)), "{mine}");
    assert!(each(&report["virtio"]["packages_staged"], "guest_dir").iter().any(|f| f.ends_with("/mydriver")));
}

fn inf_only_drivers_as_a_run() {
    let (Some(text), Some(folder)) = (block("Method 2", "virtio_drivers_dir"), setting()) else { return };
    signed_driver(&folder.path().join("drivers"), "MyDriver", "driver", SYSTEM, "3");
    fs::write(folder.path().join("drivers/MyDriver/w10/amd64/driver.dll"), "a co-installer").unwrap();
    let report = run(folder.path(), &text, OUTPUT);
    promised(&report);
    let staged = report["virtio"]["packages_staged"].as_array().unwrap();
    let mine = staged.iter().find(|p| p["guest_dir"] == "/hyper2kvm/drivers/virtio/mydriver").unwrap();
    assert_eq!(each(&mine["files"], "name").len(), 4, "{mine}");
    let services = each(&report["virtio"]["registry_changes"]["services"], "service");
    assert!(!services.contains(&"driver"), "a driver without a definition gets no service: {services:?}");
}

fn basic_virtio_only() {
    let (Some(text), Some(folder)) = (block("Basic VirtIO Only", "to_output"), setting()) else { return };
    let report = run(folder.path(), &text, "");
    promised(&report);
    assert!(!has_mystor(&report));
    assert_eq!(names(&folder.path().join("output")), ["report.json", "report.md", "windows-converted.qcow2"]);
}

fn virtio_and_custom_drivers() {
    let (Some(text), Some(folder)) = (block("VirtIO + Custom Drivers", "virtio_config:"), setting()) else { return };
    let report = run(folder.path(), &text, "");
    promised(&report);
    assert!(has_mystor(&report));
    let warnings = serde_json::to_string(&report["virtio"]["warnings"]).unwrap();
    assert!(warnings.contains("custom-drivers.yaml:7") && warnings.contains("the INF wins"), "{warnings}");
}

fn testing_without_conversion() {
    let (Some(text), Some(folder)) = (block("Testing Without Conversion", "dry_run: true"), setting()) else { return };
    let before = names(folder.path());
    let report = run(folder.path(), &text, "");
    promised(&report);
    let virtio = &report["virtio"];
    assert_eq!(virtio["dry_run"], true);
    assert!(virtio["drivers_found"].as_array().unwrap().len() >= 2);
    let mut after = names(folder.path());
    after.retain(|name| !["run.yaml", "test-report.md", "test-report.json"].contains(&name.as_str()));
    assert_eq!(after, before, "nothing but the report is written");
}

/// A driver file alone, as the original program takes it: the definition stands for the INF.
fn a_definition_without_an_inf() {
    let text = "drivers:\n  storage:\n    - name: Bare\n      service: bare\n      pattern: Bare/{bucket}/{arch}/bare.sys\n      \
                class_guid: \"{4D36E967-E325-11CE-BFC1-08002BE10318}\"\n      start_type: boot\n      pci_ids: [pci#ven_1234&dev_5678]\n";
    let definitions = parse(text).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("Bare/w10/amd64");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(support::root().join("test-images/drivers/viostor/w10/amd64/viostor.sys"), folder.join("bare.sys"))
        .unwrap();
    let strict = Policy { signature: SignatureLevel::Require };
    let selection = select(&Sources::open(&[temp.path()]).unwrap(), &w10(), &definitions, &strict).unwrap();
    let (package, boot) = selection.boot_packages().next().unwrap();
    assert_eq!((package.stage_name.as_str(), package.bucket.as_str(), package.inf_name.as_str()), ("bare", "w10", ""));
    assert_eq!((boot.start, boot.class_guid.braced().as_str()), (0, SCSI.1));
    assert_eq!(boot.hardware_ids, ["PCI\\VEN_1234&DEV_5678"]);
    assert!(selection.warnings.iter().any(|w| w.contains("custom.yaml:6") && w.contains("class of disks")));
    let w11 = GuestTarget::of_build(Arch::Arm64, 22631, false);
    assert!(select(&Sources::open(&[temp.path()]).unwrap(), &w11, &definitions, &strict).is_err());
}

/// What a definition says against the INF is a warning with its line; the class and what follows from it is the INF's.
fn contradictions_with_the_inf() {
    let temp = tempfile::tempdir().unwrap();
    media::copy_some(
        &support::root().join("test-images/drivers"),
        &["viostor/w10/amd64", "NetKVM/w10/amd64"],
        temp.path(),
    );
    let text = "drivers:\n  network:\n    - name: Disk\n      service: viostor\n      inf_hint: other.inf\n\
                \x20     class_guid: \"{4D36E972-E325-11CE-BFC1-08002BE10318}\"\n      type: filesystem\n\
                \x20     error_control: critical\n      pci_ids: [pci#ven_1af4&dev_1041]\n    - name: Net\n\
                \x20     service: NETKVM\n      start: 2\n    - name: Again\n      service: netkvm\n";
    let definitions = parse(text).unwrap();
    let strict = Policy { signature: SignatureLevel::Require };
    let selection = select(&Sources::open(&[temp.path()]).unwrap(), &w10(), &definitions, &strict).unwrap();
    let warnings = selection.warnings.join("\n");
    for (line, part) in [
        (3, "\"Disk\" is under network but drives disks"),
        (5, "inf_hint"),
        (6, "the INF wins"),
        (7, "type is 1 in viostor.inf, 2 here"),
        (8, "error_control is 1 in viostor.inf, 3 here"),
        (9, "does not know PCI\\VEN_1AF4&DEV_1041"),
        (12, "start is 3 in netkvm.inf, 2 here"),
        (13, "\"netkvm\" is described in line 10 already"),
    ] {
        let found =
            selection.warnings.iter().any(|w| w.starts_with(&format!("custom.yaml:{line}: ")) && w.contains(part));
        assert!(found, "custom.yaml:{line}: {part} is not in\n{warnings}");
    }
    let (_, boot) = selection.boot_packages().find(|(_, boot)| boot.service == "viostor").unwrap();
    assert_eq!((boot.start, boot.class_guid.braced().as_str()), (0, SCSI.1));
}

tests![
    add_to_virtio_directory_structure_with_placeholders,
    add_to_virtio_directory_structure_filled_in,
    inf_only_drivers,
    advanced_custom_driver_definitions,
    every_block_of_the_guide_is_tested,
    basic_configuration,
    add_to_virtio_directory_structure_as_a_run,
    inf_only_drivers_as_a_run,
    basic_virtio_only,
    virtio_and_custom_drivers,
    testing_without_conversion,
    a_definition_without_an_inf,
    contradictions_with_the_inf,
];
