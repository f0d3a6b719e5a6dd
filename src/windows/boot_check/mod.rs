//! Will it boot? Follows the boot loader and plug and play through the bytes on disk.
//!
//! A Windows guest reaches a disk on a new controller through three gates. The *binding* gate: plug and play finds a
//! driver for the controller's ids before the system volume is mounted. The *start* gate: the driver's service is
//! started by the boot loader with the right parameters. The *loader* gate: its file is there, for the right CPU, and
//! signed. Around them lies what every start needs: firmware, partition, boot code, boot manager, BCD, loader, kernel,
//! Windows' own boot drivers and the filters on them. Nothing here shares code with the registration: hives are read by the independent reader, ids are those that
//! plug and play makes from a controller's registers, not those that an INF lists.

mod bcd;
mod binding;
mod chain;
mod controller;
mod driver;
mod report;
mod system;

pub use chain::BootDisk;
pub use controller::{Bus, Controller};
pub use report::{BootCheck, Code, Finding, Gate, Level, Route};

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::drivers::{Arch, SignatureLevel};
use crate::error::{Kind, Result};
use crate::hive::check::{self, Severity};
use crate::hive::reader::{Node, Reader};
use crate::hive::{Hive, read_logs};
use crate::io::VolumeRead;
use crate::ntfs::Volume;

use crate::windows::guest_files::{GuestFiles, Protection};
use crate::windows::inspect::guest::Guest;
use crate::windows::inspect::installation::{inspect_files, pe_machine};

/// The largest hive that is read.
const HIVE_BYTES_MAX: u64 = 1 << 30;
/// Free space below which the guest has trouble installing drivers.
const FREE_BYTES_LOW: u64 = 100 << 20;
/// First build that binds by `DriverDatabase` (Windows 8, Server 2012).
const BUILD_DRIVER_DATABASE: u32 = 9200;

/// How strictly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckOptions {
    /// What a boot driver's signature must prove; less is a failure.
    pub signatures: SignatureLevel,
}

/// Answers for one bus, from the kernel on: without the disk around the volume, what lies before is not judged.
///
/// # Errors
/// When the volume cannot be read, or holds no Windows. What keeps the guest from booting is not an error: it is the
/// answer.
pub fn boot_check<D: VolumeRead>(volume: &Volume<D>, bus: Bus, options: &CheckOptions) -> Result<BootCheck> {
    Ok(boot_checks(volume, None, &[bus], options)?.swap_remove(0))
}

/// Answers for several buses; the hives are read once. With `disk`, the chain begins at the firmware.
///
/// # Errors
/// As [`boot_check`].
pub fn boot_checks<D: VolumeRead>(
    volume: &Volume<D>,
    disk: Option<&BootDisk<'_>>,
    buses: &[Bus],
    options: &CheckOptions,
) -> Result<Vec<BootCheck>> {
    if buses.is_empty() {
        return Ok(Vec::new());
    }
    let files = Remember { files: volume, hives: RefCell::default() };
    let mut case = match open_case(&files)? {
        Ok(case) => case,
        Err(finding) => return Ok(buses.iter().map(|bus| case_closed(*bus, &finding)).collect()),
    };
    case.chain = walk_chain(disk, volume, &case.guest)?;
    buses.iter().map(|bus| judge(&files, &case, *bus, options)).collect()
}

/// As [`boot_checks`], for a guest that was inspected already, and with the bytes of a SYSTEM hive that was read from the
/// volume as it is now and passed the check of the whole hive.
///
/// # Errors
/// As [`boot_check`].
pub fn boot_checks_of<D: VolumeRead>(
    volume: &Volume<D>,
    disk: Option<&BootDisk<'_>>,
    guest: &Guest,
    system: &[u8],
    buses: &[Bus],
    options: &CheckOptions,
) -> Result<Vec<BootCheck>> {
    let chain = walk_chain(disk, volume, guest)?;
    let case = Case { guest: Cow::Borrowed(guest), system: Cow::Borrowed(system), fault: None, chain };
    buses.iter().map(|bus| judge(volume, &case, *bus, options)).collect()
}

/// What was seen from the firmware to the loader.
fn walk_chain(disk: Option<&BootDisk<'_>>, files: &dyn GuestFiles, guest: &Guest) -> Result<Vec<Finding>> {
    disk.map_or(Ok(Vec::new()), |disk| chain::walk(disk, files, guest))
}

/// Files of which the hives are read only once.
struct Remember<'a> {
    files: &'a dyn GuestFiles,
    hives: RefCell<BTreeMap<String, Option<Vec<u8>>>>,
}

impl GuestFiles for Remember<'_> {
    fn size(&self, path: &str) -> Result<Option<u64>> {
        self.files.size(path)
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        if !path.contains("/System32/config/") {
            return self.files.read(path, limit);
        }
        if let Some(bytes) = self.hives.borrow().get(path) {
            return Ok(bytes.clone());
        }
        let bytes = self.files.read(path, limit)?;
        self.hives.borrow_mut().insert(path.to_owned(), bytes.clone());
        Ok(bytes)
    }

    fn sha256(&self, path: &str) -> Result<Option<[u8; 32]>> {
        self.files.sha256(path)
    }

    fn head(&self, path: &str, length: usize) -> Result<Option<Vec<u8>>> {
        self.files.head(path, length)
    }

    fn folders(&self, path: &str) -> Result<Vec<String>> {
        self.files.folders(path)
    }

    fn file_names(&self, path: &str) -> Result<Vec<String>> {
        self.files.file_names(path)
    }

    fn protection(&self, path: &str) -> Result<Option<Protection>> {
        self.files.protection(path)
    }

    fn free_space(&self) -> Option<u64> {
        self.files.free_space()
    }

    fn exists(&self, path: &str) -> Result<bool> {
        self.files.exists(path)
    }
}

/// The same over anything that has files.
#[cfg(test)]
pub(super) fn check_files(files: &dyn GuestFiles, bus: Bus, options: &CheckOptions) -> Result<BootCheck> {
    match open_case(files)? {
        Ok(case) => judge(files, &case, bus, options),
        Err(finding) => Ok(case_closed(bus, &finding)),
    }
}

/// What is read once for all buses.
struct Case<'a> {
    guest: Cow<'a, Guest>,
    system: Cow<'a, [u8]>,
    /// What is wrong with the SYSTEM hive as a whole.
    fault: Option<String>,
    /// From the firmware to the loader.
    chain: Vec<Finding>,
}

/// Why there is nothing to walk through.
type Closed = (Code, Option<String>, String);

/// Reads the guest; or says at once that it does not boot.
fn open_case(files: &dyn GuestFiles) -> Result<std::result::Result<Case<'static>, Closed>> {
    let guest = match inspect_files(files) {
        Ok(Some(inspected)) => inspected.guest,
        Ok(None) => return Ok(Err((Code::NoWindows, None, "there is no Windows on this volume".to_owned()))),
        Err(error) if matches!(error.kind(), Kind::Damaged | Kind::NotWindows) => {
            return Ok(Err((Code::HiveDamaged, None, format!("the registry cannot be read: {error}"))));
        }
        // dirty hives without logs, several installations: that is for the user to decide
        Err(error) => return Err(error),
    };
    let system = match system_hive(files, &guest) {
        Ok(bytes) => bytes,
        Err(error) => {
            let text = format!("the SYSTEM hive cannot be read: {error}");
            return Ok(Err((Code::HiveDamaged, Some(guest.to_string()), text)));
        }
    };
    // the loader refuses or heals a hive with a broken structure anywhere, not only where the driver's keys are
    let faults = check::check(&system);
    let fault = faults.iter().find(|fault| fault.severity() == Severity::Error).map(ToString::to_string);
    Ok(Ok(Case { guest: Cow::Owned(guest), system: Cow::Owned(system), fault, chain: Vec::new() }))
}

fn case_closed(bus: Bus, (code, windows, text): &Closed) -> BootCheck {
    let mut report = BootCheck::new(bus);
    report.windows.clone_from(windows);
    report.fail(Gate::Loader, *code, text.as_str());
    report.done()
}

/// The answer for one bus.
fn judge(files: &dyn GuestFiles, case: &Case<'_>, bus: Bus, options: &CheckOptions) -> Result<BootCheck> {
    let mut report = BootCheck::new(bus);
    report.windows = Some(case.guest.to_string());
    report.findings.clone_from(&case.chain);
    if let Some(fault) = &case.fault {
        report.fail(Gate::Loader, Code::HiveDamaged, format!("the SYSTEM hive is damaged: {fault}"));
    }
    match walk(files, &case.guest, &case.system, &mut report, options) {
        Err(error) if error.kind() == Kind::Damaged => {
            report.fail(Gate::Loader, Code::HiveDamaged, format!("the SYSTEM hive is damaged: {error}"));
        }
        other => other?,
    }
    state(&case.guest, &mut report);
    Ok(report.done())
}

/// The SYSTEM hive as Windows will see it, with its logs applied.
fn system_hive(files: &dyn GuestFiles, guest: &Guest) -> Result<Vec<u8>> {
    let path = format!("{}/SYSTEM", guest.config_dir());
    let bytes = files.read(&path, HIVE_BYTES_MAX)?.unwrap_or_default();
    let [log1, log2] = read_logs(|ending| files.read(&format!("{path}.{ending}"), HIVE_BYTES_MAX))?;
    let (hive, _) = Hive::open_with_logs(bytes, log1.as_deref(), log2.as_deref())?;
    hive.finish(&[])
}

/// What every gate needs.
struct Scene<'a> {
    files: &'a dyn GuestFiles,
    guest: &'a Guest,
    system: Reader<'a>,
    control_set: String,
    options: &'a CheckOptions,
}

impl<'a> Scene<'a> {
    fn key(&self, path: &str) -> Result<Option<Node<'a>>> {
        self.system.key(path)
    }

    fn text(&self, key: &str, name: &str) -> Result<Option<String>> {
        let Some(key) = self.key(key)? else { return Ok(None) };
        Ok(key.value(name)?.and_then(|value| value.as_str()))
    }

    fn number(&self, key: &str, name: &str) -> Result<Option<u32>> {
        let Some(key) = self.key(key)? else { return Ok(None) };
        Ok(key.value(name)?.and_then(|value| value.as_u32()))
    }
}

fn walk(
    files: &dyn GuestFiles,
    guest: &Guest,
    system: &[u8],
    report: &mut BootCheck,
    options: &CheckOptions,
) -> Result<()> {
    let system = Reader::open(system)?;
    let control_set = next_control_set(&system, guest, report)?;
    let scene = Scene { files, guest, system, control_set, options };
    kernel(&scene, report)?;
    system::check(&scene, report)?;
    let mut served: Vec<String> = Vec::new();
    for controller in report.bus.controllers() {
        let outcome = binding::resolve(&scene, controller)?;
        let Some(binding) = outcome.bound else {
            report.unbound(*controller, outcome.problems);
            continue;
        };
        if !served.iter().any(|service| service.eq_ignore_ascii_case(&binding.service)) {
            driver::check(&scene, report, &binding.service, binding.inf.as_deref())?;
            served.push(binding.service.clone());
        }
        report.routes.push(Route {
            controller: controller.name.to_owned(),
            device: controller.id(),
            matched: binding.matched,
            inf: binding.inf,
            package: binding.package,
            service: binding.service,
        });
    }
    report.judge_routes();
    way_back(&scene, report)
}

/// The control set of the next start: `Select\Default`; where that is missing, the one of the last start.
fn next_control_set(system: &Reader<'_>, guest: &Guest, report: &mut BootCheck) -> Result<String> {
    let select = system.key("Select")?;
    let default = select.map(|key| key.value("Default")).transpose()?.flatten().and_then(|value| value.as_u32());
    let Some(number) = default.filter(|number| *number != 0) else { return Ok(guest.current_control_set().to_owned()) };
    let name = format!("ControlSet{number:03}");
    if system.key(&name)?.is_none() {
        report.fail(Gate::Loader, Code::HiveDamaged, format!("Select\\Default names {name}, which is not there"));
    }
    Ok(name)
}

fn kernel(scene: &Scene<'_>, report: &mut BootCheck) -> Result<()> {
    for name in ["ntoskrnl.exe", "hal.dll"] {
        let path = format!("{}/{name}", scene.guest.system32());
        match pe_machine(scene.files, &path)? {
            Some(Some(machine)) if Arch::from_pe_machine(machine) == Some(scene.guest.arch) => {
                let text = format!("kernel: {path} is there, for {}", scene.guest.arch);
                report.good(Gate::Loader, Code::Kernel, text);
            }
            Some(Some(machine)) => {
                let text = format!("kernel: {path} is for CPU {machine:#x}, Windows for {}", scene.guest.arch);
                report.fail(Gate::Loader, Code::Kernel, text);
            }
            Some(None) => report.fail(Gate::Loader, Code::Kernel, format!("kernel: {path} is not a program")),
            None => report.fail(Gate::Loader, Code::Kernel, format!("kernel: {path} is missing")),
        }
    }
    Ok(())
}

/// Whether an in-box controller could still start the guest from an emulated disk.
fn way_back(scene: &Scene<'_>, report: &mut BootCheck) -> Result<()> {
    let mut open = Vec::new();
    for service in ["storahci", "msahci", "atapi", "intelide", "stornvme"] {
        let key = format!("{}\\Services\\{service}", scene.control_set);
        if scene.number(&key, "Start")? != Some(0) || driver::has_start_override(scene, &key)? {
            continue;
        }
        let image = scene.text(&key, "ImagePath")?.unwrap_or_else(|| format!("System32\\drivers\\{service}.sys"));
        if let Some(path) = scene.guest.image_path(&image)
            && scene.files.exists(&path)?
        {
            open.push(service);
        }
    }
    if open.is_empty() {
        report.warn(
            Gate::State,
            Code::NoWayBack,
            "no in-box controller starts at boot: no way back to SATA, IDE or NVMe",
        );
    } else {
        report.good(Gate::State, Code::WayBack, format!("also starts from an emulated disk: {}", open.join(", ")));
    }
    Ok(())
}

/// What inspection found that concerns the first start on new hardware.
fn state(guest: &Guest, report: &mut BootCheck) {
    if guest.fast_startup == Some(true) {
        report.note(
            Gate::State,
            Code::FastStartup,
            "fast startup is allowed; shut down with \"shutdown /s /t 0\" before an export",
        );
    }
    for (code, what, list) in [
        (Code::PendingReboot, "waits for a restart", &guest.pending_reboots),
        (Code::DiskFilter, "foreign filter drivers on the disks", &guest.disk_filters),
        (Code::Antivirus, "antivirus drivers", &guest.antivirus),
        (Code::DevicePolicy, "group policies against the installation of devices", &guest.device_policies),
    ] {
        if !list.is_empty() {
            report.warn(Gate::State, code, format!("{what}: {}", list.join(", ")));
        }
    }
    if guest.setup_in_progress {
        report.warn(Gate::State, Code::SetupInProgress, "Windows Setup is not finished in this guest");
    }
    if guest.free_bytes.is_some_and(|free| free < FREE_BYTES_LOW) {
        let free = guest.free_bytes.unwrap_or(0) >> 20;
        report.warn(Gate::State, Code::LittleSpace, format!("only {free} MiB are free on the Windows volume"));
    }
}

/// Whether this CPU's Windows insists on signed drivers.
fn insists_on_signatures(guest: &Guest) -> bool {
    guest.arch != Arch::X86 && guest.build >= 6000
}

#[cfg(test)]
mod tests;
