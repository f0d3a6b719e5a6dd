//! The services of an installed package, their files, and `PnpLockdownFiles`.

use super::records::{Names, image_path, service_values};
use crate::drivers::Package;
use crate::drivers::inf::ServiceFacts;
use crate::drivers::pe::file_version;
use crate::error::Result;
use crate::hex;
use crate::hive::RegistryData;
use crate::plan::{Content, GuestHive};
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::{Action, FileRecord, Record, ServiceRecord};
use crate::windows::registration::driver_file::driver_access;
use crate::windows::registration::service::apply_add_reg;

/// Kernel and file-system drivers: what plug and play starts without user mode.
const DRIVER_KINDS: u32 = 3;

/// The key in SOFTWARE with the files that Windows protects.
pub(crate) const LOCKDOWN_KEY: &str = "Microsoft\\Windows\\CurrentVersion\\Setup\\PnpLockdownFiles";

/// `PnpLockdownFiles`: Windows protects the driver's files against others.
pub(super) fn protect_files(builder: &mut PlanBuilder<'_>, package: &Package, names: &Names) -> Result<()> {
    /// `Class` of a file whose INF says `PnpLockdown = 1`, as Windows wrote it for viostor, which starts at boot, as well as
    /// for balloon, viorng, vioinput, viofs and viosock. Files of other INFs have 5; winject writes none for them.
    const LOCKDOWN: u32 = 4;
    builder.set_reason(format!("{}: its files are protected", package.stage_name));
    for file in package.inf.installs.iter().flat_map(|install| &install.copy_files) {
        let folder = match file.destination.dirid {
            11 => "System32",
            12 => "System32/drivers",
            _ => continue,
        };
        let sub = file.destination.path.trim_matches('\\').replace('\\', "/");
        let folder = if sub.is_empty() { folder.to_owned() } else { format!("{folder}/{sub}") };
        let key = format!("{LOCKDOWN_KEY}\\%SystemRoot%/{folder}/{}", file.name);
        let source =
            format!("%SystemRoot%\\System32\\DriverStore\\FileRepository\\{}\\{}", names.package, file.source_name());
        builder.set_value(GuestHive::Software, &key, "Class", RegistryData::dword(LOCKDOWN))?;
        builder.set_value(GuestHive::Software, &key, "Owners", RegistryData::multi_sz(&[&names.oem]))?;
        builder.set_value(GuestHive::Software, &key, "Source", RegistryData::expand_sz(&source))?;
    }
    Ok(())
}

/// The services of the INF. Of storage drivers the start, the parameters and the file are set already: only what the
/// minimal form leaves out is added. Programs that are no drivers are installed by the running Windows.
pub(super) fn register_services(
    builder: &mut PlanBuilder<'_>,
    package: &Package,
    names: &Names,
    is_storage: bool,
    record: &mut Record,
) -> Result<()> {
    let sets = builder.guest.control_set_names();
    for service in package.inf.services().into_iter().filter(|service| service.kind & DRIVER_KINDS != 0) {
        for set in &sets {
            let key = format!("{set}\\Services\\{}", service.name);
            builder.set_reason(format!("{}: what the INF says about the service", service.name));
            let mut actions = Vec::new();
            for (name, data) in service_values(service, names) {
                if !is_storage || ["ImagePath", "DisplayName", "Description", "Owners"].contains(&name) {
                    actions.push(builder.set_value(GuestHive::System, &key, name, data)?);
                }
            }
            if !is_storage {
                for line in &service.registry {
                    actions.extend(apply_add_reg(builder, GuestHive::System, &key, line)?);
                }
                record.registry_changes.services.push(service_record(service, set, names, Action::overall(&actions)));
            }
            if let Some(log) = &service.event_log {
                let key = format!("{set}\\Services\\EventLog\\{}\\{}", log.log, log.source);
                for line in &log.registry {
                    apply_add_reg(builder, GuestHive::System, &key, line)?;
                }
            }
        }
    }
    Ok(())
}

fn service_record(service: &ServiceFacts, set: &str, names: &Names, action: Action) -> ServiceRecord {
    ServiceRecord {
        service: service.name.clone(),
        control_set: set.to_owned(),
        kind: service.kind,
        start: service.start,
        group: service.group.clone().unwrap_or_default(),
        image: image_path(service, names),
        action,
    }
}

/// The drivers' own files where their services look for them. A newer file of the guest is kept.
pub(super) fn copy_system_files(builder: &mut PlanBuilder<'_>, package: &Package, record: &mut Record) -> Result<()> {
    for service in package.inf.services() {
        let is_there = service.kind & DRIVER_KINDS != 0 && service.binary.dirid == 12;
        let wanted = service.binary.file_name();
        let Some(file) = package.files.iter().find(|f| is_there && file_name(&f.name).eq_ignore_ascii_case(wanted))
        else {
            continue;
        };
        let path = format!("{}/{}", builder.guest.drivers_dir(), service.binary.path.replace('\\', "/"));
        builder.set_reason(format!("{}: the driver's file", service.name));
        let present = builder.read_file(&path)?;
        let theirs = present.as_deref().and_then(file_version);
        let is_newer = theirs.is_some() && theirs > file.read().ok().and_then(|data| file_version(&data));
        let (action, reason) = if is_newer {
            (Action::Kept, Some("the guest's is newer".to_owned()))
        } else {
            let access = driver_access(builder)?;
            (builder.write_file_with(&path, file.size, file.sha256, &access, || Content::of_package(file))?, None)
        };
        record.files_copied.push(FileRecord {
            name: file.name.clone(),
            action,
            reason,
            source: file.media_path().to_owned(),
            destination: path,
            size: file.size,
            sha256: hex::encode(&file.sha256),
            service: Some(service.name.clone()),
        });
    }
    Ok(())
}

/// Last component of a name with `/`.
fn file_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}
