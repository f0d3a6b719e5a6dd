//! The plan of an injection: from the guest, the chosen packages and the options to a list of edits.

use std::fmt;

use super::boot_edits::edit_boot_volume;
use super::boot_volume::BootVolume;
use super::extras;
use super::first_boot;
use super::guest_paths;
use super::network;
use super::options::{InjectOptions, Registration};
use super::record::Record;
use super::registration;
use super::staging::{device_path, manifest, packages};
use super::{removal, repairs};
use crate::drivers::Selection;
use crate::drivers::trust::Publisher;
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::hive::RegistryData;
use crate::io::VolumeRead;
use crate::ntfs::Volume;
use crate::plan::{Access, GuestHive, Plan};
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;
use crate::windows::inspect::installation::Hives;
use crate::windows::plan_builder::PlanBuilder;

/// Free bytes that Windows needs in addition to the staged files to install them.
const SPACE_FOR_WINDOWS: u64 = 64 << 20;
/// Free bytes that our own edits need in addition to the files: folders, records, growing hives.
const SPACE_FOR_EDITS: u64 = 2 << 20;

/// A plan and what it means in terms of drivers.
pub struct Injection {
    /// The edits of the guest; empty when the guest is already as it shall be.
    pub plan: Plan,
    /// The same for the report.
    pub record: Record,
    /// The hives that were read for the plan, so that applying it need not read them again.
    pub hives: Hives,
}

impl fmt::Debug for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injection").field("plan", &self.plan).field("record", &self.record).finish_non_exhaustive()
    }
}

/// Plans the injection of the selected packages. Nothing is written. When everything is so already, the plan is empty.
///
/// # Errors
/// When the guest lacks the space, a hive is dirty, or something is damaged.
pub fn plan_injection<D: VolumeRead>(
    volume: &Volume<D>,
    guest: &Guest,
    selection: &Selection,
    options: &InjectOptions,
) -> Result<Injection> {
    plan_inspected(volume, guest, &Hives::new(), None, selection, options)
}

/// Like [`plan_injection`], with hives that were read from this volume as it is now: they are not read again. `boot` is the
/// boot volume of the disk, whose boot configuration is among the hives.
///
/// # Errors
/// See [`plan_injection`].
pub fn plan_inspected<D: VolumeRead>(
    volume: &Volume<D>,
    guest: &Guest,
    hives: &Hives,
    boot: Option<&BootVolume>,
    selection: &Selection,
    options: &InjectOptions,
) -> Result<Injection> {
    plan_files(volume, guest, hives, boot, selection, options)
}

/// Like [`plan_inspected`], on any source of files.
pub(super) fn plan_files(
    files: &dyn GuestFiles,
    guest: &Guest,
    hives: &Hives,
    boot: Option<&BootVolume>,
    selection: &Selection,
    options: &InjectOptions,
) -> Result<Injection> {
    refuse_old_windows(guest)?;
    let mut builder = PlanBuilder::new(files, guest, hives)?;
    let earlier = removal::read_earlier(&mut builder)?;
    builder.set_earlier_replaced(earlier.replaced.clone());
    let mut record = Record::default();
    record.registry_changes.control_sets = guest.control_set_names();
    record.registry_changes.style = if guest.has_driver_database { "driver_database" } else { "cdd" }.to_owned();

    if let Some(problem) = registration::architecture_problem(&builder)? {
        builder.add_warning(problem);
    }
    for (package, boot) in selection.boot_packages() {
        registration::register_boot_driver(&mut builder, package, boot, options, &mut record)?;
    }
    if options.registration == Registration::Full {
        if guest.has_driver_database {
            registration::register_fully(&mut builder, &selection.packages, options, &mut record)?;
        } else {
            builder.add_note(
                "this Windows has no DriverDatabase: the full registration is that of its time, the minimal one",
            );
        }
    }
    packages::stage_packages(&mut builder, selection, options, &mut record)?;
    let folders: Vec<String> = record
        .packages_staged
        .iter()
        .filter_map(|package| package.guest_dir.rsplit('/').next())
        .map(str::to_owned)
        .collect();
    if !folders.is_empty() {
        record.devicepath_changes = device_path::extend_device_path(&mut builder, &folders)?;
    }
    trust_publishers(&mut builder, options)?;
    record.network = network::plan::keep_network(&mut builder, options)?;
    repairs::remove_tools(&mut builder, &options.repairs, &mut record.repairs)?;
    extras::plan_extras(&mut builder, selection, &options.extras, &earlier, &mut record)?;
    first_boot::install_job(&mut builder, selection, options, &mut record)?;
    extras::note_skipped_scripts(&mut builder, &record);
    if options.keep_inbox_controllers {
        registration::keep_inbox_controllers(&mut builder, &mut record)?;
    }
    registration::repair_boot_chain(&mut builder, &mut record)?;
    repairs::change_settings(&mut builder, &options.repairs, &mut record.repairs)?;
    edit_boot_volume(&mut builder, boot, &options.boot, &earlier.boot, &mut record.boot)?;
    builder.set_reason("what was put into the guest");
    let packages = removal::carry_over(&mut builder, &earlier)?;
    let manifest = manifest::to_bytes(builder.desired_state(), &builder.replaced_values()?, packages, &record)?;
    builder.write_file(guest_paths::MANIFEST, manifest, &Access::Protected)?;

    builder.set_reason("files of other makers in winject's own folder are made writable for administrators only");
    builder.protect_below(guest_paths::TOP)?;

    let (mut plan, hives) = builder.finish();
    plan.warnings.extend(selection.warnings.iter().cloned());
    check_space(&mut plan, guest)?;
    Ok(Injection { plan, record, hives })
}

/// Puts certificates into the machine's store of trusted publishers, so that `pnputil` does not ask.
fn trust_publishers(builder: &mut PlanBuilder<'_>, options: &InjectOptions) -> Result<()> {
    for certificate in &options.trusted_publishers {
        let publisher = Publisher::parse(certificate, "--trust-publisher")?;
        builder.set_reason(format!("packages of {} are installed without asking", publisher.subject));
        builder.set_value(GuestHive::Software, &publisher.key_path(), "Blob", RegistryData::binary(publisher.blob))?;
    }
    Ok(())
}

/// Refuses Windows 2000, XP and Server 2003. They have no driver store and no `pnputil`, ask a question for every new
/// device, and take no signature of today's drivers: a guest that merely boots from virtio would be left half converted.
fn refuse_old_windows(guest: &Guest) -> Result<()> {
    /// First build of Windows Vista.
    const VISTA: u32 = 6000;
    if guest.build >= VISTA {
        return Ok(());
    }
    let what = format!(
        "cannot inject drivers into {}: winject does it for Windows Vista, Server 2008 and later",
        guest.product
    );
    Err(Error::unsupported(Layer::Windows, what).with_code(ErrorCode::WindowsTooOld).hint(
        "convert it as it is (winject convert IMAGE NEW.qcow2), and give it a machine that it knows: type pc, an IDE disk, \
         an rtl8139 network card",
    ))
}

fn check_space(plan: &mut Plan, guest: &Guest) -> Result<()> {
    let Some(free) = guest.free_bytes else { return Ok(()) };
    let files = plan.bytes_to_write();
    if plan.is_empty() {
        return Ok(());
    }
    let least = files.saturating_add(SPACE_FOR_EDITS);
    if free < least {
        return Err(Error::refused(Layer::Windows, "the Windows volume has too little free space")
            .with_code(ErrorCode::VolumeFull)
            .expected_found(format_args!("{least} bytes"), format_args!("{free} bytes"))
            .hint("delete something in the guest or enlarge its volume, then export the disk again"));
    }
    let wanted = files.saturating_mul(2).saturating_add(SPACE_FOR_WINDOWS);
    if free < wanted {
        plan.warnings.push(format!(
            "the Windows volume has {free} bytes free; Windows needs about {wanted} to install the drivers"
        ));
    }
    Ok(())
}
