//! The gate of the driver: the service that a controller is bound to, and its file.

use super::code::Code;
use super::context::{Context, insists_on_signatures};
use super::report::{BootCheck, Gate};
use crate::drivers::pe::{PeError, SUBSYSTEM_NATIVE};
use crate::drivers::trust::{Catalogue, embedded_signature, too_new_digest};
use crate::drivers::{Arch, PeFacts, SignatureLevel};
use crate::error::Result;

/// The largest driver file that is read.
const DRIVER_BYTES_MAX: u64 = 64 << 20;

/// The bus types that the vendor's drivers need (`STORAGE_BUS_TYPE` of Microsoft's storage documentation).
const BUS_TYPES: [(&str, u32); 2] = [("viostor", 0x01), ("vioscsi", 0x0A)];

/// The system's catalogue folder, below `System32`.
const CATALOGUES: &str = "CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}";
/// The largest catalogue that is read.
const CATALOGUE_BYTES_MAX: u64 = 64 << 20;

/// Checks a service and its file. `inf` is the INF through which it was found.
pub(super) fn check(context: &Context<'_>, report: &mut BootCheck, service: &str, inf: Option<&str>) -> Result<()> {
    let key = format!("{}\\Services\\{service}", context.control_set);
    if context.key(&key)?.is_none() {
        report.fail(Gate::Start, Code::NoService, format!("the service {service} is not there"));
        return Ok(());
    }
    let before = report.failures().count();
    start(context, report, service, &key)?;
    bus_type(context, report, service, &key)?;
    if report.failures().count() == before {
        report.good(Gate::Start, Code::Service, format!("the service {service} starts at boot"));
    }
    let image = context.text(&key, "ImagePath")?.filter(|text| !text.is_empty());
    let image = image.unwrap_or_else(|| format!("System32\\drivers\\{service}.sys"));
    match context.guest.image_path(&image) {
        Some(path) => file(context, report, &path, inf),
        None => {
            report.fail(
                Gate::Start,
                Code::ImagePath,
                format!("the ImagePath of {service} is not on this volume: {image}"),
            );
            Ok(())
        }
    }
}

fn start(context: &Context<'_>, report: &mut BootCheck, service: &str, key: &str) -> Result<()> {
    match context.number(key, "Start")? {
        Some(0) => {}
        Some(other) => {
            report.fail(Gate::Start, Code::StartType, format!("the service {service} has Start={other}, not 0 (boot)"));
        }
        None => report.fail(Gate::Start, Code::StartType, format!("the service {service} has no Start")),
    }
    if context.has_start_override(key, 1)? {
        report.fail(
            Gate::Start,
            Code::StartOverride,
            format!("the service {service} has a StartOverride, which beats Start"),
        );
    }
    let kind = context.number(key, "Type")?;
    if kind != Some(1) {
        let kind = kind.map_or_else(|| "no Type".to_owned(), |kind| format!("Type={kind}"));
        report.fail(Gate::Start, Code::ServiceType, format!("the service {service} has {kind}, not 1 (kernel driver)"));
    }
    Ok(())
}

fn bus_type(context: &Context<'_>, report: &mut BootCheck, service: &str, key: &str) -> Result<()> {
    let Some((_, expected)) = BUS_TYPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(service)) else {
        return Ok(());
    };
    // without the value Windows uses a default, which works
    if let Some(found) = context.number(&format!("{key}\\Parameters"), "BusType")?
        && found != *expected
    {
        let text = format!("the service {service} has BusType {found:#x}, its vendor sets {expected:#x}");
        report.fail(Gate::Start, Code::BusType, text);
    }
    Ok(())
}

fn file(context: &Context<'_>, report: &mut BootCheck, path: &str, inf: Option<&str>) -> Result<()> {
    let Some(bytes) = context.files.read(path, DRIVER_BYTES_MAX)? else {
        report.fail(Gate::Start, Code::FileMissing, format!("{path} is missing: the boot loader stops"));
        return Ok(());
    };
    let facts = match PeFacts::parse(&bytes) {
        Ok(facts) => facts,
        Err(error @ (PeError::NotPe(_) | PeError::Truncated { .. })) => {
            report.fail(Gate::Start, Code::NotAProgram, format!("{path}: {error}"));
            return Ok(());
        }
    };
    let before = report.failures().count();
    if facts.arch() != Some(context.guest.arch) {
        let found = facts.arch().map_or_else(|| format!("CPU {:#x}", facts.machine), |arch: Arch| arch.to_string());
        let text = format!("{path} is for {found}, Windows for {}", context.guest.arch);
        report.fail(Gate::Start, Code::WrongMachine, text);
    }
    if facts.subsystem != SUBSYSTEM_NATIVE {
        let text = format!("{path} has subsystem {}, not {SUBSYSTEM_NATIVE}: it is not a driver", facts.subsystem);
        report.fail(Gate::Start, Code::WrongSubsystem, text);
    }
    let signed = signature(context, report, path, &bytes, &facts, inf)?;
    if report.failures().count() == before {
        report.good(Gate::Start, Code::File, format!("{path} is there, {}{signed}", context.guest.arch));
    }
    Ok(())
}

/// Checks that the signature proves what the options ask for; returns how the file is signed, in words.
fn signature(
    context: &Context<'_>,
    report: &mut BootCheck,
    path: &str,
    bytes: &[u8],
    facts: &PeFacts,
    inf: Option<&str>,
) -> Result<String> {
    let insists = insists_on_signatures(context.guest) && context.options.signatures != SignatureLevel::Warn;
    if facts.certificates.is_none() {
        if let Some(signer) = by_catalogue(context, bytes, inf)? {
            return Ok(format!(", signed by catalogue ({signer})"));
        }
        let text = format!("{path} is not signed");
        if insists {
            report.fail(Gate::Start, Code::Unsigned, text);
        } else {
            report.warn(Gate::Start, Code::Unsigned, text);
        }
        return Ok(String::new());
    }
    let found = embedded_signature(bytes, facts);
    if !found.is_good() {
        let problem = found.problem.as_deref().unwrap_or("it does not fit the file");
        let text = format!("{path}: the signature proves nothing: {problem}");
        if insists && context.options.signatures == SignatureLevel::Require {
            report.fail(Gate::Start, Code::BadSignature, text);
        } else {
            report.warn(Gate::Start, Code::BadSignature, text);
        }
        return Ok(String::new());
    }
    if let Some((problem, is_certain)) = too_new_digest(&found, &context.guest.target()) {
        let text = format!("{path}: {problem}");
        if is_certain && insists && context.options.signatures == SignatureLevel::Require {
            report.fail(Gate::Start, Code::SignatureTooNew, text);
        } else {
            report.warn(Gate::Start, Code::SignatureTooNew, text);
        }
    }
    Ok(format!(", signed by {}", found.signer.as_deref().unwrap_or("an unnamed signer")))
}

/// The signer of the installed catalogue that lists this file, if there is one. Only the catalogue of the driver's own
/// INF is read: a real Windows has thousands.
fn by_catalogue(context: &Context<'_>, bytes: &[u8], inf: Option<&str>) -> Result<Option<String>> {
    let Some(stem) = inf.and_then(|inf| inf.to_ascii_lowercase().strip_suffix(".inf").map(str::to_owned)) else {
        return Ok(None);
    };
    let path = format!("{}/{CATALOGUES}/{stem}.cat", context.guest.system32());
    let Some(data) = context.files.read(&path, CATALOGUE_BYTES_MAX)? else { return Ok(None) };
    let Ok(catalogue) = Catalogue::parse(&data) else { return Ok(None) };
    let fits = catalogue.is_intact() && catalogue.lists(bytes);
    Ok(fits.then(|| catalogue.signer().unwrap_or("an unnamed signer").to_owned()))
}
