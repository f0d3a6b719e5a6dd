//! The binding gate: which driver plug and play finds for a controller before the system volume is mounted.

use super::code::Code;
use super::context::{BUILD_DRIVER_DATABASE, Context};
use super::controller::Controller;
use crate::error::Result;
use crate::field::Field;
use crate::hive::reader::Node;

/// How many INFs of one id are followed.
const INFS_MAX: usize = 64;
/// Length of a package's `Version`.
const VERSION_LENGTH: usize = 48;
/// Date (`FILETIME`) and number of the driver in a package's `Version`.
const VERSION_DATE: Field<u64> = Field::at(24);
const VERSION_NUMBER: Field<u64> = Field::at(32);
/// First build that ignores packages without a `Version` (Windows 10).
const BUILD_VERSION: u32 = 10240;

/// A driver for a controller.
pub(super) struct Binding {
    pub matched: String,
    pub inf: Option<String>,
    pub package: Option<String>,
    pub service: String,
}

/// The driver that was found, or the reasons why none was.
pub(super) struct Outcome {
    pub bound: Option<Binding>,
    pub problems: Vec<(Code, String)>,
}

/// Looks for the driver of a controller as this Windows does.
pub(super) fn resolve(context: &Context<'_>, controller: &Controller) -> Result<Outcome> {
    if context.key("DriverDatabase")?.is_some() {
        return by_driver_database(context, controller);
    }
    if context.guest.build >= BUILD_DRIVER_DATABASE {
        let text = "this Windows binds drivers by DriverDatabase, and the SYSTEM hive has none".to_owned();
        return Ok(Outcome { bound: None, problems: vec![(Code::NoDriverDatabase, text)] });
    }
    by_critical_devices(context, controller)
}

/// Binding up to Windows 7: a key for each id, with `\` written as `#`.
fn by_critical_devices(context: &Context<'_>, controller: &Controller) -> Result<Outcome> {
    for id in controller.ids() {
        let name = id.replace('\\', "#");
        let key = format!("{}\\Control\\CriticalDeviceDatabase\\{name}", context.control_set);
        if let Some(service) = context.text(&key, "Service")?.filter(|text| !text.is_empty()) {
            let bound = Binding { matched: id, inf: None, package: None, service };
            return Ok(Outcome { bound: Some(bound), problems: Vec::new() });
        }
    }
    let text = format!("CriticalDeviceDatabase knows none of its ids, such as {}", controller.id());
    Ok(Outcome { bound: None, problems: vec![(Code::NoDeviceId, text)] })
}

/// A usable record, and what plug and play compares.
struct Candidate {
    binding: Binding,
    is_signed: bool,
    /// BootContext of the matched id in the controller's list, best first.
    id: usize,
    date: u64,
    version: u64,
}

/// Binding since Windows 8. A signed record precedes one without a signer, however well the latter's id matches; then
/// counts the id, the date, the version ("How Windows Ranks Drivers" of Microsoft's driver documentation).
fn by_driver_database(context: &Context<'_>, controller: &Controller) -> Result<Outcome> {
    let mut problems = Vec::new();
    let mut candidates: Vec<Candidate> = Vec::new();
    for (place, id) in controller.ids().into_iter().enumerate() {
        let Some(key) = context.key(&format!("DriverDatabase\\DeviceIds\\{id}"))? else { continue };
        for inf in inf_names(&key)? {
            match package(context, &id, &inf)? {
                Ok((package, service)) => {
                    let binding = Binding { matched: id.clone(), inf: Some(inf), package: Some(package), service };
                    candidates.push(candidate(context, binding, place)?);
                }
                Err(problem) => problems.push(problem),
            }
        }
    }
    // the sort is stable: of equals the first one found wins
    candidates.sort_by_key(|one| (!one.is_signed, one.id, std::cmp::Reverse((one.date, one.version))));
    if let Some(best) = candidates.into_iter().next() {
        return Ok(Outcome { bound: Some(best.binding), problems: Vec::new() });
    }
    if problems.is_empty() {
        problems.push((Code::NoDeviceId, no_id(context, controller)?));
    }
    Ok(Outcome { bound: None, problems })
}

fn candidate(context: &Context<'_>, binding: Binding, id: usize) -> Result<Candidate> {
    /// `SIGNERSCORE_UNCLASSIFIED`: scores from here on mean unsigned.
    const UNSIGNED: u32 = 0x8000_0000;
    let key = format!("DriverDatabase\\DriverPackages\\{}", binding.package.as_deref().unwrap_or_default());
    let is_signed = context.number(&key, "SignerScore")?.is_some_and(|score| score < UNSIGNED);
    let version = context.system.value(&key, "Version")?.map(|data| data.bytes).unwrap_or_default();
    Ok(Candidate { binding, is_signed, id, date: VERSION_DATE.get(&version), version: VERSION_NUMBER.get(&version) })
}

/// The names of an id's values are names of INFs.
fn inf_names(key: &Node<'_>) -> Result<Vec<String>> {
    let values = key.values()?.into_iter().take(INFS_MAX);
    Ok(values.filter(|value| !value.name.is_empty()).map(|value| value.name.to_string()).collect())
}

/// Follows an INF to its service, or says what is missing.
fn package(context: &Context<'_>, id: &str, inf: &str) -> Result<Result<(String, String), (Code, String)>> {
    let files = format!("DriverDatabase\\DriverInfFiles\\{inf}");
    let Some(package) = context.text(&files, "Active")?.filter(|text| !text.is_empty()) else {
        return Ok(Err((Code::PackageNotActive, format!("{id} names {inf}, which has no active package"))));
    };
    let key = format!("DriverDatabase\\DriverPackages\\{package}");
    let Some(node) = context.key(&key)? else {
        return Ok(Err((Code::PackageMissing, format!("{inf} names the package {package}, which is not there"))));
    };
    let version = node.value("Version")?.map_or(0, |data| data.bytes.len());
    if context.guest.build >= BUILD_VERSION && version != VERSION_LENGTH {
        let text =
            format!("the package {package} has a Version of {version} bytes, not {VERSION_LENGTH}: it is ignored");
        return Ok(Err((Code::NoVersion, text)));
    }
    let Some(configuration) = context.text(&format!("{key}\\Descriptors\\{id}"), "Configuration")? else {
        return Ok(Err((Code::NoDescriptor, format!("the package {package} does not describe {id}"))));
    };
    let service = context.text(&format!("{key}\\Configurations\\{configuration}"), "Service")?;
    match service.filter(|text| !text.is_empty()) {
        Some(service) => Ok(Ok((package, service))),
        None => {
            let text = format!("the configuration {configuration} of {package} names no service");
            Ok(Err((Code::NoConfiguration, text)))
        }
    }
}

/// Reports that no entry was found; the classic reason is a tree in a wrong place.
fn no_id(context: &Context<'_>, controller: &Controller) -> Result<String> {
    let mut text = format!("DriverDatabase knows none of its ids, such as {}", controller.id());
    for wrong in ["", "\\Control"] {
        let key = format!("{}{wrong}\\DriverDatabase", context.control_set);
        if context.key(&key)?.is_some() {
            text.push_str(&format!(
                "; {key} exists, which Windows does not read: the tree belongs to the root of the hive"
            ));
        }
    }
    Ok(text)
}
