//! Every definition block of the driver guide, named by its heading, with the outcome that the guide promises.

use super::media;
use crate::support;
use std::fs;
use std::path::Path;
use winject::drivers::{Arch, Definitions, GuestTarget, Policy, SignatureLevel, Sources, select};
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

/// A driver as the guide's examples have it, made from one of the synthetic tree.
fn driver(tree: &Path, folder: &Path, name: &str, class: (&str, &str), id: &str, start: &str) {
    fs::create_dir_all(folder).unwrap();
    fs::copy(tree.join("viostor/w10/amd64/viostor.sys"), folder.join(format!("{name}.sys"))).unwrap();
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

#[test]
fn add_to_virtio_directory_structure_with_placeholders() {
    let Some(text) = block("Method 1", "class_guid") else { return };
    let error = parse(&text).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.to_string().contains("custom.yaml:7") && error.to_string().contains("placeholder"), "{error}");
    assert!(error.hint_text().unwrap().contains("leave the line out"));
}

#[test]
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
    driver(&tree, &temp.path().join("CustomDriver/w10/amd64"), "mydriver", SYSTEM, "PCI\\VEN_1234&DEV_5678", "3");
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

#[test]
fn inf_only_drivers() {
    let (Some(_), Some(tree)) = (block("Method 2", "virtio_drivers_dir"), media::tree("0.1.285")) else { return };
    let temp = tempfile::tempdir().unwrap();
    driver(&tree, &temp.path().join("MyDriver/w10/amd64"), "driver", SYSTEM, "PCI\\VEN_1234&DEV_5678", "3");
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

#[test]
fn advanced_custom_driver_definitions() {
    let (Some(text), Some(tree)) = (block("Advanced: Custom Driver Definitions", "mystor"), media::tree("0.1.285"))
    else {
        return;
    };
    let definitions = parse(&text).unwrap();
    assert_eq!(definitions.buckets_for(&w10()), ["w10", "w8.1", "w8"]);
    let temp = tempfile::tempdir().unwrap();
    media::copy_some(&tree, &["viostor/w10/amd64"], temp.path());
    driver(&tree, &temp.path().join("MyStorageDriver/w10/amd64"), "mystor", SCSI, "PCI\\VEN_1234&DEV_5678", "0");
    let selection = select(&Sources::open(&[temp.path()]).unwrap(), &w10(), &definitions, &LENIENT).unwrap();
    let names: Vec<&str> = selection.packages.iter().map(|p| p.stage_name.as_str()).collect();
    assert_eq!(names, ["mystor", "viostor"]);
    let (_, boot) = selection.boot_packages().next().unwrap();
    assert_eq!((boot.start, boot.kind, boot.error_control, boot.critical_device_database), (0, 1, 1, true));
    assert_eq!(boot.hardware_ids, ["PCI\\VEN_1234&DEV_5678"]);
    // the guide's class is that of disks; the INF's is that of controllers, and wins
    assert_eq!(boot.class_guid.to_string(), SCSI.1);
    let warning = selection.warnings.iter().find(|w| w.contains("class_guid")).unwrap();
    assert!(warning.contains("custom.yaml:7") && warning.contains("the INF wins"), "{warning}");
}

#[test]
fn every_definition_block_of_the_guide_is_tested() {
    let Some(blocks) = blocks() else { return };
    let headings: Vec<&str> =
        blocks.iter().filter(|(_, text)| text.contains("drivers:\n")).map(|(h, _)| h.as_str()).collect();
    assert_eq!(headings.len(), 2, "{headings:?}");
}

/// A driver file alone, as the original program takes it: the definition stands for the INF.
#[test]
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
    assert_eq!((boot.start, boot.class_guid.to_string().as_str()), (0, SCSI.1));
    assert_eq!(boot.hardware_ids, ["PCI\\VEN_1234&DEV_5678"]);
    assert!(selection.warnings.iter().any(|w| w.contains("custom.yaml:6") && w.contains("class of disks")));
    let w11 = GuestTarget::of_build(Arch::Arm64, 22631, false);
    assert!(select(&Sources::open(&[temp.path()]).unwrap(), &w11, &definitions, &strict).is_err());
}
