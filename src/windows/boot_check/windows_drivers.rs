//! Checks Windows' own drivers between the loader and the system volume, and the filters on them.

use super::code::Code;
use super::context::{Context, program_problem};
use super::report::{BootCheck, Gate};
use crate::error::Result;

/// Services that start at boot in every Windows since 7; without them no disk is found.
const CHAIN: [&str; 6] = ["acpi", "pci", "disk", "partmgr", "volmgr", "mountmgr"];
/// Files without a service that disk drivers import from.
const IMPORTED: [&str; 2] = ["storport", "classpnp"];
/// More boot drivers of Windows: the loader stops when one of them is critical and its file is missing.
const CORE: [&str; 9] = ["FltMgr", "CLFS", "CNG", "KSecDD", "Wdf01000", "volsnap", "volmgrx", "vdrvroot", "msisadrv"];
/// Filters that come with Windows; all of them are boot drivers.
const OWN_FILTERS: [&str; 8] =
    ["partmgr", "volsnap", "fvevol", "iorate", "rdyboost", "ehstorclass", "ehstortcgdrv", "storqosflt"];
/// `SERVICE_ERROR_SEVERE`; from there on the loader does not go on without the driver.
const ERROR_SEVERE: u32 = 2;
/// `SERVICE_DISABLED`: the service is never started.
const DISABLED: u32 = 4;
/// Largest number of filters of one class that are checked.
const FILTERS_MAX: usize = 64;

/// Device classes between Windows and its disk.
const CLASSES: [(&str, &str); 5] = [
    ("{4d36e967-e325-11ce-bfc1-08002be10318}", "disks"),
    ("{71a27cdd-812a-11d0-bec7-08002be2092f}", "volumes"),
    ("{4d36e97b-e325-11ce-bfc1-08002be10318}", "SCSI controllers"),
    ("{4d36e96a-e325-11ce-bfc1-08002be10318}", "IDE controllers"),
    ("{4d36e97d-e325-11ce-bfc1-08002be10318}", "system devices"),
];

/// Checks Windows' boot drivers and the class filters.
pub(super) fn check(context: &Context<'_>, report: &mut BootCheck) -> Result<()> {
    let before = report.failures().count();
    for service in CHAIN {
        chain_service(context, report, service, true)?;
    }
    // the loader starts the driver of the boot file system whatever its Start, unless it is disabled
    chain_service(context, report, "ntfs", false)?;
    for name in IMPORTED {
        let path = format!("{}/{name}.sys", context.guest.drivers_dir());
        if let Some(problem) = program_problem(context, &path)? {
            let text = format!("boot drivers: {problem}; the drivers of disks need it");
            report.fail(Gate::BootDrivers, Code::FileMissing, text);
        }
    }
    core(context, report)?;
    if report.failures().count() == before {
        let text = format!("boot drivers: {}, ntfs start; {} are there", CHAIN.join(", "), IMPORTED.join(", "));
        report.good(Gate::BootDrivers, Code::BootDrivers, text);
    }
    filters(context, report)
}

/// The path of a service's file; `Err`: its `ImagePath` leads to another volume.
fn image(context: &Context<'_>, key: &str, service: &str) -> Result<std::result::Result<String, String>> {
    let image = context.text(key, "ImagePath")?.filter(|text| !text.is_empty());
    let image = image.unwrap_or_else(|| format!("System32\\drivers\\{service}.sys"));
    Ok(context.guest.image_path(&image).ok_or(image))
}

fn chain_service(context: &Context<'_>, report: &mut BootCheck, service: &str, at_boot: bool) -> Result<()> {
    let key = format!("{}\\Services\\{service}", context.control_set);
    if context.key(&key)?.is_none() {
        let text = format!("boot drivers: no such service: {service}");
        report.fail(Gate::BootDrivers, Code::NoService, text);
        return Ok(());
    }
    match context.number(&key, "Start")? {
        Some(0) => {}
        Some(start) if !at_boot && start < DISABLED => {}
        Some(start) if start >= DISABLED => {
            let text = format!("boot drivers: the service {service} is disabled (Start={start})");
            report.fail(Gate::BootDrivers, Code::StartType, text);
        }
        Some(start) => {
            let text = format!("boot drivers: the service {service} has Start={start}, not 0 (boot)");
            report.fail(Gate::BootDrivers, Code::StartType, text);
        }
        None => {
            let text = format!("boot drivers: the service {service} has no Start");
            report.fail(Gate::BootDrivers, Code::StartType, text);
        }
    }
    if at_boot && context.has_start_override(&key, 1)? {
        let text = format!("boot drivers: the service {service} has a StartOverride, which beats Start");
        report.fail(Gate::BootDrivers, Code::StartOverride, text);
    }
    match image(context, &key, service)? {
        Ok(path) => {
            if let Some(problem) = program_problem(context, &path)? {
                let text = format!("boot drivers: {problem} (service {service})");
                report.fail(Gate::BootDrivers, Code::FileMissing, text);
            }
        }
        Err(image) => {
            let text = format!("boot drivers: the ImagePath of {service} is not on this volume: {image}");
            report.fail(Gate::BootDrivers, Code::ImagePath, text);
        }
    }
    Ok(())
}

/// The file of a boot driver that is there as a service.
fn core_file(context: &Context<'_>, service: &str) -> Result<Option<(String, String, bool)>> {
    let key = format!("{}\\Services\\{service}", context.control_set);
    let Ok(path) = image(context, &key, service)? else { return Ok(None) };
    let there = context.files.exists(&path)?;
    Ok(context.key(&key)?.map(|_| (key, path, there)))
}

fn core(context: &Context<'_>, report: &mut BootCheck) -> Result<()> {
    let (mut missing, mut is_any_there) = (Vec::new(), false);
    for service in CORE {
        let Some((key, path, there)) = core_file(context, service)? else { continue };
        is_any_there |= there;
        let is_boot = context.number(&key, "Start")? == Some(0) && !context.has_start_override(&key, 1)?;
        if is_boot && !there && context.number(&key, "ErrorControl")?.unwrap_or(1) >= ERROR_SEVERE {
            missing.push(path);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    // a volume with none of them was never a complete Windows: a test image
    if is_any_there {
        for path in missing {
            let text = format!("boot drivers: {path} is missing, and its service is critical");
            report.fail(Gate::BootDrivers, Code::FileMissing, text);
        }
    } else {
        report.not_judged(
            Gate::BootDrivers,
            format!("boot drivers of Windows of which no file is there: {}", missing.join(", ")),
        );
    }
    Ok(())
}

/// A class filter that cannot be loaded keeps every device of its class from starting.
fn filters(context: &Context<'_>, report: &mut BootCheck) -> Result<()> {
    let before = report.failures().count();
    let mut own_missing = Vec::new();
    let mut is_own_there = false;
    let mut seen = 0usize;
    for (class, what) in CLASSES {
        let key = format!("{}\\Control\\Class\\{class}", context.control_set);
        for value in ["UpperFilters", "LowerFilters"] {
            for filter in context.texts(&key, value)?.into_iter().take(FILTERS_MAX) {
                seen += 1;
                let name = format!("class filter {filter} ({what}, {value})");
                let service = format!("{}\\Services\\{filter}", context.control_set);
                if context.key(&service)?.is_none() {
                    report.fail(Gate::Filters, Code::NoService, format!("{name}: no such service"));
                    continue;
                }
                match context.number(&service, "Start")? {
                    Some(0) => {}
                    Some(start) if start >= DISABLED => {
                        report.fail(Gate::Filters, Code::StartType, format!("{name}: the service is disabled"));
                    }
                    start => {
                        let start = start.map_or_else(|| "no Start".to_owned(), |start| format!("Start={start}"));
                        let text = format!("{name}: the service has {start}, not 0 (boot)");
                        report.warn(Gate::Filters, Code::StartType, text);
                    }
                }
                if context.has_start_override(&service, DISABLED)? {
                    let text = format!("{name}: the service is disabled by a StartOverride");
                    report.fail(Gate::Filters, Code::StartOverride, text);
                }
                let is_own = OWN_FILTERS.contains(&filter.to_ascii_lowercase().as_str());
                match image(context, &service, &filter)? {
                    Ok(path) => match program_problem(context, &path)? {
                        None => is_own_there |= is_own && !filter.eq_ignore_ascii_case("partmgr"),
                        Some(problem) if is_own && !context.files.exists(&path)? => own_missing.push((name, problem)),
                        Some(problem) => report.fail(Gate::Filters, Code::FileMissing, format!("{name}: {problem}")),
                    },
                    Err(image) => {
                        let text = format!("{name}: its ImagePath is not on this volume: {image}");
                        report.fail(Gate::Filters, Code::ImagePath, text);
                    }
                }
            }
        }
    }
    for (name, problem) in own_missing {
        if is_own_there {
            report.fail(Gate::Filters, Code::FileMissing, format!("{name}: {problem}"));
        } else {
            report.not_judged(Gate::Filters, format!("{name} of Windows itself, of whose filters no file is there"));
        }
    }
    if report.failures().count() == before {
        report.good(Gate::Filters, Code::Filters, format!("filters: {seen} on disks, volumes, controllers and system"));
    }
    Ok(())
}
