//! The start gate and the loader gate: the service that a controller is bound to, and its file.

use super::report::{BootCheck, Code, Gate};
use super::{Scene, insists_on_signatures};
use crate::drivers::pe::{PeError, SUBSYSTEM_NATIVE};
use crate::drivers::{Arch, PeFacts, SignatureLevel};
use crate::error::Result;

/// The largest driver file that is read.
const DRIVER_BYTES_MAX: u64 = 64 << 20;

/// The bus types that the vendor's drivers need (`STORAGE_BUS_TYPE` of Microsoft's storage documentation).
const BUS_TYPES: [(&str, u32); 2] = [("viostor", 0x01), ("vioscsi", 0x0A)];

/// Checks a service and its file.
pub(super) fn check(scene: &Scene<'_>, report: &mut BootCheck, service: &str) -> Result<()> {
    let key = format!("{}\\Services\\{service}", scene.control_set);
    if scene.key(&key)?.is_none() {
        report.fail(Gate::Start, Code::NoService, format!("the service {service} is not there"));
        return Ok(());
    }
    let before = report.failures().count();
    start(scene, report, service, &key)?;
    bus_type(scene, report, service, &key)?;
    if report.failures().count() == before {
        report.good(Gate::Start, Code::Service, format!("the service {service} starts at boot"));
    }
    let image = scene.text(&key, "ImagePath")?.filter(|text| !text.is_empty());
    let image = image.unwrap_or_else(|| format!("System32\\drivers\\{service}.sys"));
    match scene.guest.image_path(&image) {
        Some(path) => file(scene, report, &path),
        None => {
            report.fail(
                Gate::Loader,
                Code::ImagePath,
                format!("the ImagePath of {service} is not on this volume: {image}"),
            );
            Ok(())
        }
    }
}

/// Whether a `StartOverride` beats `Start`: one DWORD for each hardware profile.
pub(super) fn has_start_override(scene: &Scene<'_>, key: &str) -> Result<bool> {
    let Some(node) = scene.key(&format!("{key}\\StartOverride"))? else { return Ok(false) };
    Ok(node.values()?.iter().any(|value| value.as_u32().is_some_and(|start| start != 0)))
}

fn start(scene: &Scene<'_>, report: &mut BootCheck, service: &str, key: &str) -> Result<()> {
    match scene.number(key, "Start")? {
        Some(0) => {}
        Some(other) => {
            report.fail(Gate::Start, Code::StartType, format!("the service {service} has Start={other}, not 0 (boot)"));
        }
        None => report.fail(Gate::Start, Code::StartType, format!("the service {service} has no Start")),
    }
    if has_start_override(scene, key)? {
        report.fail(
            Gate::Start,
            Code::StartOverride,
            format!("the service {service} has a StartOverride, which beats Start"),
        );
    }
    let kind = scene.number(key, "Type")?;
    if kind != Some(1) {
        let kind = kind.map_or_else(|| "no Type".to_owned(), |kind| format!("Type={kind}"));
        report.fail(Gate::Start, Code::ServiceType, format!("the service {service} has {kind}, not 1 (kernel driver)"));
    }
    Ok(())
}

fn bus_type(scene: &Scene<'_>, report: &mut BootCheck, service: &str, key: &str) -> Result<()> {
    let Some((_, expected)) = BUS_TYPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(service)) else {
        return Ok(());
    };
    // Windows takes a default without it, which works
    if let Some(found) = scene.number(&format!("{key}\\Parameters"), "BusType")? {
        if found != *expected {
            let text = format!("the service {service} has BusType {found:#x}, its vendor sets {expected:#x}");
            report.fail(Gate::Start, Code::BusType, text);
        }
    }
    Ok(())
}

fn file(scene: &Scene<'_>, report: &mut BootCheck, path: &str) -> Result<()> {
    let Some(bytes) = scene.files.read(path, DRIVER_BYTES_MAX)? else {
        report.fail(Gate::Loader, Code::FileMissing, format!("{path} is missing: the boot loader stops"));
        return Ok(());
    };
    let facts = match PeFacts::parse(&bytes) {
        Ok(facts) => facts,
        Err(error @ (PeError::NotPe(_) | PeError::Truncated { .. })) => {
            report.fail(Gate::Loader, Code::NotAProgram, format!("{path}: {error}"));
            return Ok(());
        }
    };
    let before = report.failures().count();
    if facts.arch() != Some(scene.guest.arch) {
        let found = facts.arch().map_or_else(|| format!("CPU {:#x}", facts.machine), |arch: Arch| arch.to_string());
        let text = format!("{path} is for {found}, Windows for {}", scene.guest.arch);
        report.fail(Gate::Loader, Code::WrongMachine, text);
    }
    if facts.subsystem != SUBSYSTEM_NATIVE {
        let text = format!("{path} has subsystem {}, not {SUBSYSTEM_NATIVE}: it is no driver", facts.subsystem);
        report.fail(Gate::Loader, Code::WrongSubsystem, text);
    }
    let signer = signature(scene, report, path, &bytes, &facts);
    if report.failures().count() == before {
        let signer = signer.map(|name| format!(" by {name}")).unwrap_or_default();
        let signed = if facts.certificates.is_some() { format!(", signed{signer}") } else { String::new() };
        report.good(Gate::Loader, Code::File, format!("{path} is there, {}{signed}", scene.guest.arch));
    }
    Ok(())
}

/// Whether the signature proves what the options ask for; the signer's name if there is one.
fn signature(scene: &Scene<'_>, report: &mut BootCheck, path: &str, _bytes: &[u8], facts: &PeFacts) -> Option<String> {
    if facts.certificates.is_none() {
        let text = format!("{path} is not signed");
        if insists_on_signatures(scene.guest) && scene.options.signatures != SignatureLevel::Warn {
            report.fail(Gate::Loader, Code::Unsigned, text);
        } else {
            report.warn(Gate::Loader, Code::Unsigned, text);
        }
    }
    None
}
