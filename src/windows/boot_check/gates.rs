//! The gates from the kernel on, one after the other.

use super::code::Code;
use super::context::{CheckOptions, Context, program_problem};
use super::controller_driver as driver;
use super::report::{BootCheck, Gate, Route};
use super::{binding, windows_drivers};
use crate::error::Result;
use crate::hive::reader::Reader;
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;

/// Free space below which the guest has trouble installing drivers.
pub(super) const FREE_BYTES_LOW: u64 = 100 << 20;

pub(super) fn check_gates(
    files: &dyn GuestFiles,
    guest: &Guest,
    system: &[u8],
    report: &mut BootCheck,
    options: &CheckOptions,
) -> Result<()> {
    let system = Reader::open(system)?;
    let control_set = next_control_set(&system, guest, report)?;
    let context = Context { files, guest, system, control_set, options };
    check_kernel(&context, report)?;
    windows_drivers::check(&context, report)?;
    let mut served: Vec<String> = Vec::new();
    for controller in report.bus.controllers() {
        let outcome = binding::resolve(&context, controller)?;
        let Some(binding) = outcome.bound else {
            report.unbound(*controller, outcome.problems);
            continue;
        };
        if !served.iter().any(|service| service.eq_ignore_ascii_case(&binding.service)) {
            driver::check(&context, report, &binding.service, binding.inf.as_deref())?;
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
    check_inbox_controllers(&context, report)
}

/// The control set of the next start: `Select\Default`; where that is missing, the one of the last start.
fn next_control_set(system: &Reader<'_>, guest: &Guest, report: &mut BootCheck) -> Result<String> {
    let default = system.value("Select", "Default")?.and_then(|value| value.as_u32());
    let Some(number) = default.filter(|number| *number != 0) else { return Ok(guest.current_control_set().to_owned()) };
    let name = format!("ControlSet{number:03}");
    if system.key(&name)?.is_none() {
        report.fail(Gate::Loader, Code::HiveDamaged, format!("Select\\Default names {name}, which is not there"));
    }
    Ok(name)
}

fn check_kernel(context: &Context<'_>, report: &mut BootCheck) -> Result<()> {
    for name in ["ntoskrnl.exe", "hal.dll"] {
        let path = format!("{}/{name}", context.guest.system32());
        match program_problem(context, &path)? {
            None => {
                let text = format!("kernel: {path} is there, for {}", context.guest.arch);
                report.good(Gate::Loader, Code::Kernel, text);
            }
            Some(problem) => report.fail(Gate::Loader, Code::Kernel, format!("kernel: {problem}")),
        }
    }
    Ok(())
}

/// Whether an in-box controller could still start the guest from an emulated disk.
fn check_inbox_controllers(context: &Context<'_>, report: &mut BootCheck) -> Result<()> {
    let mut open = Vec::new();
    for service in ["storahci", "msahci", "atapi", "intelide", "stornvme"] {
        let key = format!("{}\\Services\\{service}", context.control_set);
        if context.number(&key, "Start")? != Some(0) || context.has_start_override(&key, 1)? {
            continue;
        }
        let image = context.text(&key, "ImagePath")?.unwrap_or_else(|| format!("System32\\drivers\\{service}.sys"));
        if let Some(path) = context.guest.image_path(&image)
            && context.files.exists(&path)?
        {
            open.push(service);
        }
    }
    if open.is_empty() {
        report.warn(
            Gate::State,
            Code::NoInboxController,
            "no in-box controller starts at boot: the guest cannot return to SATA, IDE or NVMe",
        );
    } else {
        report.good(
            Gate::State,
            Code::InboxController,
            format!("also starts from an emulated disk: {}", open.join(", ")),
        );
    }
    Ok(())
}

/// Adds what inspection found that concerns the first start on new hardware.
pub(super) fn add_guest_state(guest: &Guest, report: &mut BootCheck) {
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
