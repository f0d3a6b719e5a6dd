//! Plans the first-boot job: what runs it, its markers, and the service that starts it.

use sha2::{Digest, Sha256};

use super::description::{
    DEVICES_SECONDS, JobDescription, PACKAGE_SECONDS, PackageStep, Pnputil, Reboot, ReleaseStep, Step,
};
use super::options::{FirstBootMethod, FirstBootOptions};
use super::others::OtherInfs;
use super::service::{self, Starter};
use super::{job_file, markers, others, program, publishers, script, setup};
use crate::drivers::{Category, Selection};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::hex;
use crate::hive::RegistryData;
use crate::plan::{Access, GuestHive};
use crate::windows::guest_paths;
use crate::windows::options::InjectOptions;
use crate::windows::plan_builder::{Desired, PlanBuilder};
use crate::windows::record::{Action, FirstbootRecord, FirstbootStep, Record};

/// First Windows build whose `pnputil` knows `/add-driver` (10 1607, Server 2016).
const BUILD_ADD_DRIVER: u32 = 14393;
/// First Windows build whose `pnputil` knows `/scan-devices` (10 2004).
const BUILD_SCAN_DEVICES: u32 = 19041;
/// First Windows build with a `pnputil`, and the first that the service program runs in (Vista).
const BUILD_PNPUTIL: u32 = 6000;
/// The most steps of others that a message names.
const NAMED_MAX: usize = 5;

/// The form of `pnputil` in a Windows build; `None` for one without.
const fn pnputil(build: u32) -> Option<Pnputil> {
    match build {
        BUILD_ADD_DRIVER.. => Some(Pnputil::AddDriver),
        BUILD_PNPUTIL.. => Some(Pnputil::Legacy),
        _ => None,
    }
}

/// Plans `setup.cmd`; and the job with its service, unless it is not wanted or has run already.
///
/// # Errors
/// When the volume or a hive is damaged; when the job cannot be done in the form that is asked for.
pub fn install_job(
    builder: &mut PlanBuilder<'_>,
    selection: &Selection,
    options: &InjectOptions,
    record: &mut Record,
) -> Result<()> {
    let starter = starter(builder, &options.first_boot)?;
    if starter.is_some() {
        publishers::warn(builder, selection, options);
    }
    let options = &options.first_boot;
    let (job, refused) = describe(builder, selection, options, starter, record)?;
    builder.set_reason("the script that installs the packages when a person runs it");
    let setup = setup::print(&job);
    record.setup_script = String::from_utf8_lossy(&setup).into_owned();
    builder.write_file(guest_paths::SETUP, setup, &Access::Protected)?;
    record.firstboot = FirstbootRecord {
        service: guest_paths::SERVICE.to_owned(),
        method: starter.map_or("none", Starter::name).to_owned(),
        log_path: format!("{}/{}", builder.guest.windows_dir, guest_paths::LOG_BELOW_WINDOWS.replace('\\', "/")),
        marker_path: guest_paths::DONE.to_owned(),
        refused,
        ..FirstbootRecord::default()
    };
    let Some(starter) = starter else {
        record.firstboot.skipped = Some("not wanted".to_owned());
        if service::is_registered(builder)? {
            let what =
                "cannot leave the first-boot job out: an earlier run has put one into this guest, and it would run";
            return Err(Error::refused(Layer::Windows, what)
                .with_code(ErrorCode::FirstBootJob)
                .hint("winject remove IMAGE --in-place takes out what earlier runs put there; or let the job run"));
        }
        return Ok(());
    };
    starter.payload().clone_into(&mut record.firstboot.payload);
    if options.rearm {
        builder.set_reason("the first-boot job shall run again");
        markers::remove_all(builder)?;
    } else {
        markers::remove_foreign(builder)?;
    }
    if let Some(what) = ended(builder, options)? {
        record.firstboot.skipped = Some(format!("the job {what} in this guest already; --rearm lets it run again"));
        builder.add_note(format!("the first-boot job {what} in this guest already; --rearm lets it run again"));
        warn_of_lost_steps(builder, &job);
        return Ok(());
    }
    record.firstboot.reboot = job.reboot != Reboot::Never;
    let with_result = job.steps.iter().filter(|step| step.has_result());
    record.firstboot.steps = with_result
        .map(|step| FirstbootStep { kind: step.kind(), name: step.name().to_owned(), required: step.is_required() })
        .collect();
    write_job(builder, &job, starter, record)?;
    service::register(builder, starter)
}

/// What became of the job, if it has ended in this guest and is not to run again.
///
/// # Errors
/// When the volume is damaged there.
pub fn ended(builder: &PlanBuilder<'_>, options: &FirstBootOptions) -> Result<Option<&'static str>> {
    if options.rearm {
        return Ok(None);
    }
    let marker = markers::ended(builder)?;
    Ok(marker.map(|marker| if marker == guest_paths::DONE { "has run" } else { "has been given up" }))
}

/// Whether the job runs as a script.
pub fn is_script(builder: &PlanBuilder<'_>, options: &FirstBootOptions) -> bool {
    matches!(starter(builder, options), Ok(Some(Starter::Script)))
}

/// How the job is started; `None` if it is not wanted.
fn starter(builder: &PlanBuilder<'_>, options: &FirstBootOptions) -> Result<Option<Starter>> {
    let build = builder.guest.build;
    match options.method {
        FirstBootMethod::None => Ok(None),
        FirstBootMethod::Script => Ok(Some(Starter::Script)),
        FirstBootMethod::Auto if build < BUILD_PNPUTIL => Ok(Some(Starter::Script)),
        FirstBootMethod::Service if build < BUILD_PNPUTIL => {
            let what = "cannot start the first-boot job by its service program: this Windows is older than Vista";
            Err(Error::refused(Layer::Windows, what)
                .with_code(ErrorCode::FirstBootJob)
                .expected_found(format_args!("build {BUILD_PNPUTIL} or later"), build)
                .hint("--firstboot-method script works there"))
        }
        FirstBootMethod::Auto | FirstBootMethod::Service => Ok(Some(Starter::Program(builder.guest.arch))),
    }
}

/// The job: the packages that are staged, and the steps that other areas have added; with the INFs that it refuses.
fn describe(
    builder: &mut PlanBuilder<'_>,
    selection: &Selection,
    options: &FirstBootOptions,
    starter: Option<Starter>,
    record: &Record,
) -> Result<(JobDescription, Vec<String>)> {
    let added = builder.take_job_steps();
    if starter.is_none() && !added.is_empty() {
        let what =
            format!("cannot do at the first boot what is asked for ({}) without a first-boot job", names(&added));
        return Err(Error::new(Kind::Usage, Layer::Windows, what)
            .hint("leave out --no-firstboot and --firstboot-method none, or what needs the job"));
    }
    let with_inf = selection.packages.iter().filter(|p| !p.inf_name.is_empty() && !p.files.is_empty());
    let packages: Vec<PackageStep> = with_inf
        .map(|package| PackageStep {
            required: matches!(package.category, Category::Storage | Category::Network),
            seconds: PACKAGE_SECONDS,
            path: format!("{}\\{}", package.stage_name, package.inf_name),
        })
        .collect();
    let own: Vec<String> = packages.iter().map(|package| package.path.clone()).collect();
    let OtherInfs { refused, are_installed } = others::find(builder, &own, starter == Some(Starter::Script))?;
    warn_of_refused(builder, &refused, are_installed);

    let mut steps = vec![Step::WaitForDevices { seconds: DEVICES_SECONDS }];
    steps.extend(packages.into_iter().map(Step::Package));
    if are_installed {
        steps.extend(refused.iter().map(|path| Step::Refused { path: path.clone() }));
        steps.push(Step::OtherPackages { seconds: PACKAGE_SECONDS });
    }
    if builder.guest.build >= BUILD_SCAN_DEVICES {
        steps.push(Step::Scan);
    }
    steps.extend(added);
    steps.extend(releases(builder, record));
    Ok((JobDescription::new(pnputil(builder.guest.build), steps, options.reboot), refused))
}

/// The invented records of this plan, each with the service that it registers.
fn releases(builder: &PlanBuilder<'_>, record: &Record) -> Vec<Step> {
    let invented = record
        .registry_changes
        .driver_database
        .iter()
        .filter(|entry| entry.hive == GuestHive::System && entry.inf.starts_with("h2k-") && !entry.ids.is_empty());
    let service_of = |package: &str| {
        let configurations = format!("DriverDatabase\\DriverPackages\\{package}\\Configurations\\");
        builder.desired_state().iter().find_map(|desired| match desired {
            Desired::Value { hive: GuestHive::System, key, name, data }
                if name == "Service" && key.starts_with(&configurations) =>
            {
                RegistryData::as_text(data)
            }
            _ => None,
        })
    };
    invented
        .filter_map(|entry| {
            let service = service_of(&entry.package)?;
            Some(Step::Release(ReleaseStep { inf: entry.inf.clone(), package: entry.package.clone(), service }))
        })
        .collect()
}

/// Plans the files that run the job, and takes away those of another form.
fn write_job(builder: &mut PlanBuilder<'_>, job: &JobDescription, starter: Starter, record: &mut Record) -> Result<()> {
    let cannot = |path: &str, why: String| {
        Error::refused(Layer::Windows, format!("cannot write the first-boot job: {why}"))
            .with_code(ErrorCode::FirstBootJob)
            .path(path)
    };
    builder.set_reason("the job of the first boot");
    let is_new;
    let needless: &[&str] = match starter {
        Starter::Program(arch) => {
            let text = job_file::print(job)
                .map_err(|why| cannot(guest_paths::JOB, why).hint("shorten or rename what it names"))?;
            let program = program::program(arch);
            record.firstboot.program_sha256 = Some(hex::encode(&Sha256::digest(program)));
            builder.write_file(guest_paths::PROGRAM, program.to_vec(), &Access::Protected)?;
            is_new = builder.write_file(guest_paths::JOB, text, &Access::Protected)? != Action::Unchanged;
            &[guest_paths::FIRSTBOOT]
        }
        Starter::Script => {
            let text = script::print(job).map_err(|why| {
                cannot(guest_paths::FIRSTBOOT, why).hint("--firstboot-method service has no such limit")
            })?;
            is_new = builder.write_file(guest_paths::FIRSTBOOT, text, &Access::Protected)? != Action::Unchanged;
            &[guest_paths::PROGRAM, guest_paths::JOB]
        }
    };
    if is_new {
        builder.set_reason("attempts of an earlier first-boot job do not count for another one");
        markers::remove_all(builder)?;
    }
    builder.set_reason("the other form of the first-boot job");
    needless.iter().try_for_each(|path| builder.remove_file(path))
}

/// The names of steps for a message.
fn names(steps: &[Step]) -> String {
    let named: Vec<String> =
        steps.iter().take(NAMED_MAX).map(|step| format!("{} {}", step.kind(), step.name())).collect();
    let more = if steps.len() > NAMED_MAX { " and more" } else { "" };
    format!("{}{more}", named.join(", "))
}

/// Says which of the steps that were asked for will not run, as the job is not armed.
fn warn_of_lost_steps(builder: &mut PlanBuilder<'_>, job: &JobDescription) {
    let asked = |step: &&Step| matches!(step, Step::Network(_) | Step::Run(_));
    let lost: Vec<Step> = job.steps.iter().filter(asked).cloned().collect();
    if !lost.is_empty() {
        builder.add_warning(format!("not done, as the first-boot job is not armed: {}; --rearm arms it", names(&lost)));
    }
}

fn warn_of_refused(builder: &mut PlanBuilder<'_>, refused: &[String], are_installed: bool) {
    if refused.is_empty() {
        return;
    }
    let named: Vec<&str> = refused.iter().take(NAMED_MAX).map(String::as_str).collect();
    let more = if refused.len() > NAMED_MAX { " and more" } else { "" };
    let all = if are_installed { "" } else { "; so no driver of another maker in that folder is installed" };
    builder.add_warning(format!(
        "the first-boot job does not install {}{more} below C:\\hyper2kvm\\drivers\\virtio: any user of the guest can have \
         written it{all}",
        named.join(", ")
    ));
}
