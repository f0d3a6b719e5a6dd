//! Plans the first-boot job: its scripts, its markers and the service that starts it.

use super::description::{DEVICES_SECONDS, JobDescription, PACKAGE_SECONDS, PackageStep, Pnputil, Reboot, Step};
use super::{script, setup};
use crate::drivers::{Category, Selection};
use crate::error::{Error, Layer, Result};
use crate::hive::RegistryData;
use crate::plan::{Access, GuestHive};
use crate::windows::guest_paths;
use crate::windows::options::InjectOptions;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::{FirstbootRecord, Record};

/// First Windows build whose `pnputil` knows `/add-driver` (10 1607, Server 2016).
const BUILD_ADD_DRIVER: u32 = 14393;
/// First Windows build whose `pnputil` knows `/scan-devices` (10 2004).
const BUILD_SCAN_DEVICES: u32 = 19041;
/// First Windows build with a `pnputil` (Vista).
const BUILD_PNPUTIL: u32 = 6000;

/// The form of `pnputil` in a Windows build; `None` for one without.
const fn pnputil(build: u32) -> Option<Pnputil> {
    match build {
        BUILD_ADD_DRIVER.. => Some(Pnputil::AddDriver),
        BUILD_PNPUTIL.. => Some(Pnputil::Legacy),
        _ => None,
    }
}

/// The job: the packages that are staged, and the steps that other areas have added.
fn describe(builder: &mut PlanBuilder<'_>, selection: &Selection) -> JobDescription {
    let mut steps = vec![Step::WaitForDevices { seconds: DEVICES_SECONDS }];
    let with_inf = selection.packages.iter().filter(|p| !p.inf_name.is_empty() && !p.files.is_empty());
    steps.extend(with_inf.map(|package| {
        Step::Package(PackageStep {
            required: matches!(package.category, Category::Storage | Category::Network),
            seconds: PACKAGE_SECONDS,
            path: format!("{}\\{}", package.stage_name, package.inf_name),
        })
    }));
    steps.push(Step::OtherPackages { seconds: PACKAGE_SECONDS });
    if builder.guest.build >= BUILD_SCAN_DEVICES {
        steps.push(Step::Scan);
    }
    steps.extend(builder.take_job_steps());
    JobDescription::new(pnputil(builder.guest.build), steps, Reboot::Never)
}

/// Plans the batch files; and the service, unless it is not wanted or has run already.
///
/// # Errors
/// When the volume or a hive is damaged; when the job holds what its form cannot express.
pub fn install_job(
    builder: &mut PlanBuilder<'_>,
    selection: &Selection,
    options: &InjectOptions,
    record: &mut Record,
) -> Result<()> {
    let job = describe(builder, selection);
    builder.set_reason("the scripts that install the packages in the running guest");
    let setup = setup::print(&job);
    record.setup_script = String::from_utf8_lossy(&setup).into_owned();
    builder.write_file(guest_paths::SETUP, setup, &Access::Protected)?;
    record.firstboot = FirstbootRecord {
        service: guest_paths::SERVICE.to_owned(),
        method: "detached child of a cmd.exe service".to_owned(),
        payload: guest_paths::FIRSTBOOT.to_owned(),
        log_path: format!("{}/{}", builder.guest.windows_dir, guest_paths::LOG_BELOW_WINDOWS.replace('\\', "/")),
        marker_path: guest_paths::DONE.to_owned(),
        skipped: None,
    };
    if !options.firstboot {
        record.firstboot.skipped = Some("not wanted".to_owned());
        return Ok(());
    }
    let text = script::print(&job).map_err(|why| {
        Error::refused(Layer::Windows, format!("cannot write the first-boot job: {why}")).path(guest_paths::FIRSTBOOT)
    })?;
    builder.write_file(guest_paths::FIRSTBOOT, text, &Access::Protected)?;
    if options.rearm {
        builder.set_reason("the first-boot job shall run again");
        for marker in guest_paths::JOB_FILES {
            builder.remove_file(marker)?;
        }
    } else if remove_foreign_markers(builder)? {
        record.firstboot.skipped = Some("the guest has run the job already; --rearm lets it run again".to_owned());
        builder.add_note("the first-boot job has run in this guest already; --rearm lets it run again");
        return Ok(());
    }
    register_service(builder)
}

/// Removes the markers and the counter of the job that it did not leave itself: any user could create them before the
/// folder was ours, to keep the drivers from being installed. Returns whether a marker of the job is left.
fn remove_foreign_markers(builder: &mut PlanBuilder<'_>) -> Result<bool> {
    let mut is_marked = false;
    builder.set_reason("the first-boot job did not leave this marker");
    for marker in guest_paths::JOB_FILES {
        if !builder.exists(marker)? {
            continue;
        }
        if builder.is_trusted(marker)? {
            is_marked |= [guest_paths::DONE, guest_paths::FAILED].contains(&marker);
            continue;
        }
        builder.add_warning(format!(
            "{marker} was in the guest, but the first-boot job has not left it; it is removed, so that the job runs"
        ));
        let name = marker.rsplit('/').next().unwrap_or_default();
        let is_folder = builder.folders(guest_paths::TOP)?.iter().any(|folder| folder.eq_ignore_ascii_case(name));
        if is_folder && !(builder.folders(marker)?.is_empty() && builder.file_names(marker)?.is_empty()) {
            return Err(Error::refused(Layer::Windows, "a folder is in the place of a marker of the first-boot job")
                .path(marker)
                .hint("remove it in the guest: it would keep the first-boot job from running"));
        }
        builder.remove_file(marker)?;
    }
    Ok(is_marked)
}

/// The service that starts the job. It shows as failed, because a script cannot report to the service manager: so it
/// must not count as an error of the start (`ErrorControl` 0).
fn register_service(builder: &mut PlanBuilder<'_>) -> Result<()> {
    builder.set_reason("the service that starts the first-boot job");
    let sets: Vec<String> = builder
        .guest
        .control_sets
        .iter()
        .filter(|set| set.is_current || set.roles.iter().any(|role| role == "Default"))
        .map(|set| set.name.clone())
        .collect();
    let command = "\"%SystemRoot%\\System32\\cmd.exe\" /d /c \"%SystemDrive%\\hyper2kvm\\firstboot.cmd\"";
    let description = "Installs the driver packages below C:\\hyper2kvm\\drivers\\virtio once, then removes itself. \
                       Its script is C:\\hyper2kvm\\firstboot.cmd.";
    for set in sets {
        let key = format!("{set}\\Services\\{}", guest_paths::SERVICE);
        let values = [
            ("Type", RegistryData::dword(0x10)),
            ("Start", RegistryData::dword(2)),
            ("ErrorControl", RegistryData::dword(0)),
            ("ImagePath", RegistryData::expand_sz(command)),
            ("ObjectName", RegistryData::sz("LocalSystem")),
            ("DisplayName", RegistryData::sz("hyper2kvm First Boot Driver Installer")),
            ("Description", RegistryData::sz(description)),
            ("DelayedAutoStart", RegistryData::dword(0)),
        ];
        for (name, data) in values {
            builder.set_value(GuestHive::System, &key, name, data)?;
        }
    }
    Ok(())
}
