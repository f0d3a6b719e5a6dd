//! The driver that is registered offline, with the checks of its file.

use super::contents::Contents;
use crate::drivers::definitions::{Category, Definition};
use crate::drivers::guest::GuestTarget;
use crate::drivers::inf::{Facts, Guid, ServiceFacts};
use crate::drivers::package::BootDriver;
use crate::drivers::pe::{PeFacts, SUBSYSTEM_NATIVE};
use crate::drivers::trust::{self, Policy, SignatureReport, Subject};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};

/// The driver that is registered offline, after all checks.
pub(super) fn boot_driver(
    definition: &Definition,
    facts: &Facts,
    contents: &Contents,
    package: &SignatureReport,
    guest: &GuestTarget,
    policy: &Policy,
    warnings: &mut Vec<String>,
) -> Result<BootDriver> {
    let service = service_of(definition, facts)?;
    let file_name = service.binary.file_name().to_owned();
    let Some(file) = contents.get(&file_name) else {
        return Err(Error::new(Kind::Drivers, Layer::Drivers, format!("the driver file {file_name} is missing"))
            .with_code(ErrorCode::DriverBroken)
            .path(facts.file_name.clone())
            .hint("the package is incomplete; take the driver media from its maker again"));
    };
    let path = file.source.show(file.media_path());
    let data = contents.data(file)?;
    let pe = check_pe(&data, guest, &path)?;
    let signature =
        trust::check_driver(&Subject { data: &data, pe: &pe, path: &path, package }, guest, policy, warnings)?;
    let is_storage = definition.category == Category::Storage;
    warn_of_contradictions(definition, facts, service, warnings);
    let mut hardware_ids: Vec<String> =
        facts.hardware_ids().into_iter().map(str::to_owned).filter(|id| !id.is_empty()).collect();
    let compatible_ids: Vec<String> = facts.compatible_ids().into_iter().map(str::to_owned).collect();
    for id in &definition.pci_ids {
        if !hardware_ids.iter().chain(&compatible_ids).any(|known| known.eq_ignore_ascii_case(id)) {
            hardware_ids.push(id.clone());
        }
    }
    let start = definition.start.unwrap_or(if is_storage { 0 } else { service.start });
    Ok(BootDriver {
        service: service.name.clone(),
        file_name,
        data,
        sha256: file.sha256,
        kind: definition.kind.unwrap_or(service.kind),
        start,
        error_control: definition.error_control.unwrap_or(service.error_control),
        group: service.group.clone(),
        class_guid: facts.class_guid,
        hardware_ids,
        compatible_ids,
        critical_device_database: definition.critical_device_database.unwrap_or(is_storage && start == 0),
        file_version: pe.file_version,
        signature,
    })
}

/// The INF's service that the definition names, else the one that the devices bind to.
fn service_of<'a>(definition: &Definition, facts: &'a Facts) -> Result<&'a ServiceFacts> {
    let named = facts.services().into_iter().find(|s| s.name.eq_ignore_ascii_case(&definition.service));
    named.or_else(|| facts.function_service()).ok_or_else(|| {
        Error::new(Kind::Drivers, Layer::Drivers, "the INF installs no service that could be registered")
            .path(facts.file_name.clone())
            .hint("leave out start_type in the definition of this driver; it is then only staged")
    })
}

fn check_pe(data: &[u8], guest: &GuestTarget, path: &str) -> Result<PeFacts> {
    let error = |message: String| {
        Error::new(Kind::Drivers, Layer::Drivers, message).with_code(ErrorCode::DriverBroken).path(path)
    };
    let hint = "take the driver media from its maker again";
    let pe = PeFacts::parse(data).map_err(|e| error(format!("the driver file is {e}")).hint(hint))?;
    if pe.machine != guest.arch.pe_machine() {
        let found = pe.arch().map_or_else(|| format!("machine {:#06x}", pe.machine), |a| a.to_string());
        return Err(error("the driver file is for another CPU than the guest's".to_owned())
            .expected_found(guest.arch, found)
            .hint("the media is put together wrongly: its folder or INF says otherwise"));
    }
    if pe.subsystem != SUBSYSTEM_NATIVE {
        return Err(error("the driver file is not a kernel driver".to_owned())
            .expected_found("subsystem 1 (native)", pe.subsystem)
            .hint(hint));
    }
    Ok(pe)
}

/// Warns where a definition contradicts the INF, which wins except for numbers that the definition sets.
fn warn_of_contradictions(definition: &Definition, facts: &Facts, service: &ServiceFacts, warnings: &mut Vec<String>) {
    let Some(origin) = &definition.origin else { return };
    let inf = &facts.file_name;
    let mut warn = |key: &str, text: String| warnings.push(format!("{}: {text}", origin.at(key)));
    if !service.name.eq_ignore_ascii_case(&definition.service) {
        warn(
            "service",
            format!("service {:?} is called {:?} in {inf}; the INF wins", definition.service, service.name),
        );
    }
    if let Some(guid) = definition.class_guid.filter(|guid| *guid != facts.class_guid) {
        let hint = if guid == Guid::DISK_DRIVE { " (the class of disks, not of their controllers)" } else { "" };
        warn(
            "class_guid",
            format!("class_guid {}{hint} is {} in {inf}; the INF wins", guid.braced(), facts.class_guid.braced()),
        );
    }
    if let Some(hint) = definition.inf_hint.as_ref().filter(|hint| !hint.eq_ignore_ascii_case(inf)) {
        warn("inf_hint", format!("inf_hint {hint:?}: the driver's INF is {inf}"));
    }
    let known: Vec<String> =
        facts.hardware_ids().into_iter().chain(facts.compatible_ids()).map(str::to_ascii_uppercase).collect();
    for id in &definition.pci_ids {
        // "PCI\\VEN_1AF4&DEV_1042" is in the INF also if only longer forms of it are
        if !known.iter().any(|k| k == id || k.strip_prefix(id.as_str()).is_some_and(|rest| rest.starts_with('&'))) {
            warn("pci_ids", format!("{inf} does not know {id}; it is registered because the definition says so"));
        }
    }
    // the key in the spelling that the user chose
    let start_key = if origin.keys.contains_key("start") { "start" } else { "start_type" };
    for (key, wanted, has) in [
        (start_key, definition.start, service.start),
        ("type", definition.kind, service.kind),
        ("error_control", definition.error_control, service.error_control),
    ] {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != has) {
            warn(key, format!("{key} is {has} in {inf}, {wanted} here; the definition wins"));
        }
    }
}
