//! A driver file without an INF, registered because a user's definition describes it.

use std::sync::Arc;

use super::boot_driver::boot_driver;
use super::candidates::has_ending;
use super::contents::Contents;
use crate::clock::FileTime;
use crate::drivers::definitions::{Category, Definition, Definitions, Origin};
use crate::drivers::guest::{Arch, GuestTarget};
use crate::drivers::inf::{Companions, DirPath, Facts, Guid, Install, Model, ServiceFacts, Text};
use crate::drivers::package::Package;
use crate::drivers::source::{Layout, Source, SourceFile, Sources};
use crate::drivers::trust::{Policy, SignatureReport};
use crate::error::{Error, Kind, Layer, Result};

/// Folder names of a CPU on driver media.
const fn arch_folders(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86 => &["x86", "i386"],
        Arch::Amd64 => &["amd64", "x64"],
        Arch::Arm64 => &["ARM64", "aarch64"],
    }
}

/// The packages of definitions whose pattern leads to a driver file in a folder without an INF.
pub(super) fn packages(
    sources: &Sources,
    guest: &GuestTarget,
    buckets: &[String],
    definitions: &Definitions,
    policy: &Policy,
    warnings: &mut Vec<String>,
) -> Result<Vec<Package>> {
    let mut out = Vec::new();
    for definition in &definitions.drivers {
        let (Some(origin), Some(pattern)) = (&definition.origin, &definition.pattern) else { continue };
        let Some((source, file)) = find(sources, guest, buckets, pattern) else { continue };
        if !definition.is_registered_offline() {
            let text = "the driver has no INF and no start_type: there is nothing to install it with";
            warnings.push(format!("{}: {text}", origin.at("pattern")));
            continue;
        }
        out.push(package(definition, origin, source, file, guest, policy, warnings)?);
    }
    Ok(out)
}

/// The first file that the pattern means, in the order of the folders for the guest.
fn find<'a>(
    sources: &'a Sources,
    guest: &GuestTarget,
    buckets: &[String],
    pattern: &str,
) -> Option<(&'a Arc<Source>, &'a SourceFile)> {
    let pattern = pattern.replace('\\', "/");
    for bucket in buckets {
        for arch in arch_folders(guest.arch) {
            let path = pattern.replace("{bucket}", bucket).replace("{arch}", arch);
            for source in sources.iter() {
                let Some(file) = source.find(path.trim_start_matches('/')) else { continue };
                let layout = Layout::of(file.folder());
                let is_ours = layout.arch.is_none_or(|a| a == guest.arch)
                    && layout.bucket.is_none_or(|b| buckets.iter().any(|known| known.eq_ignore_ascii_case(b)));
                let has_inf =
                    || source.files().iter().any(|f| f.folder() == file.folder() && has_ending(f.name(), "inf"));
                if is_ours && !has_inf() {
                    return Some((source, file));
                }
            }
        }
    }
    None
}

fn package(
    definition: &Definition,
    origin: &Origin,
    source: &Arc<Source>,
    file: &SourceFile,
    guest: &GuestTarget,
    policy: &Policy,
    warnings: &mut Vec<String>,
) -> Result<Package> {
    let is_storage = definition.category == Category::Storage;
    let scsi = is_storage.then_some(Guid::SCSI_ADAPTER);
    // the guide itself confuses the class of disks with that of their controllers; no INF is there to correct it
    let class_guid = definition.class_guid.filter(|guid| !(is_storage && *guid == Guid::DISK_DRIVE)).or(scsi);
    let class_guid = class_guid.ok_or_else(|| {
        Error::new(Kind::Usage, Layer::Drivers, "a driver without an INF needs its class")
            .path(origin.at("name"))
            .hint("add class_guid to the definition, or put the driver's INF into the same folder")
    })?;
    if is_storage && definition.class_guid == Some(Guid::DISK_DRIVE) {
        let text = "class_guid is the class of disks; the one of their controllers is used";
        warnings.push(format!("{}: {text}", origin.at("class_guid")));
    }
    let facts = facts(definition, class_guid, file.name());
    let contents = Contents::of(source, &[file])?;
    let boot = boot_driver(definition, &facts, &contents, &SignatureReport::default(), guest, policy, warnings)?;
    let layout = Layout::of(file.folder());
    Ok(Package {
        stage_name: definition.service.to_lowercase(),
        driver: layout.driver.unwrap_or_else(|| definition.name.clone()),
        source_path: source.show(file.folder()),
        bucket: layout.bucket.unwrap_or_default().to_owned(),
        inf_name: String::new(),
        files: contents.files,
        category: definition.category.clone(),
        boot: Some(boot),
        signature: SignatureReport { problem: Some("there is no INF".to_owned()), ..SignatureReport::default() },
        reason: format!("the definition in {} names it; it has no INF", origin.at("name")),
        inf_sha1: [0; 20],
        inf: facts,
    })
}

/// What an INF would say, from the definition alone.
fn facts(definition: &Definition, class_guid: Guid, file: &str) -> Facts {
    let is_storage = definition.category == Category::Storage;
    let name = Text { raw: definition.name.clone(), resolved: definition.name.clone() };
    let service = ServiceFacts {
        name: definition.service.clone(),
        flags: 2,
        kind: definition.kind.unwrap_or(1),
        start: definition.start.unwrap_or(if is_storage { 0 } else { 3 }),
        error_control: definition.error_control.unwrap_or(1),
        group: is_storage.then(|| "SCSI miniport".to_owned()),
        binary: DirPath { dirid: 12, path: file.to_owned() },
        arguments: String::new(),
        display_name: Some(name.clone()),
        description: None,
        dependencies: Vec::new(),
        start_name: None,
        registry: Vec::new(),
        event_log: None,
        line: 0,
    };
    let model = |id: &String| Model {
        manufacturer: name.clone(),
        description: name.clone(),
        install: "Install".to_owned(),
        hardware_id: id.clone(),
        compatible_ids: Vec::new(),
        section: String::new(),
        line: 0,
    };
    Facts {
        file_name: String::new(),
        class: if class_guid == Guid::SCSI_ADAPTER { "SCSIAdapter".to_owned() } else { String::new() },
        class_guid,
        provider: Text::default(),
        driver_date: FileTime(0),
        driver_date_text: String::new(),
        driver_version: [0; 4],
        catalog: None,
        pnp_lockdown: false,
        models: definition.pci_ids.iter().map(model).collect(),
        installs: vec![Install {
            name: "Install".to_owned(),
            section: "Install".to_owned(),
            copy_files: Vec::new(),
            software: Vec::new(),
            hardware: Vec::new(),
            services: vec![service],
            companions: Companions { services: true, ..Companions::default() },
            feature_score: u8::MAX,
            null_service: false,
            needs: Vec::new(),
        }],
        source_files: vec![file.to_owned()],
        strings: std::collections::BTreeMap::new(),
        includes: Vec::new(),
        warnings: Vec::new(),
    }
}
