//! Takes out of a guest what winject put into it, also after the guest has run.
//!
//! What that is, the manifest in the guest says (`manifest`). It is input from outside: it has to be protected as winject
//! protects it, and every place in it has to be one that winject writes to. Nothing is removed because the manifest says
//! so alone; the guest has to agree:
//!
//! 1. A file goes only if it has the very content that winject wrote, and no other name. (`files`, `services`)
//! 2. A driver goes as a whole or stays as a whole: its service in every control set, its file, its entries in
//!    `CriticalDeviceDatabase`, its packages in `DriverDatabase` (`drivers`). It goes only if each of these is exactly as
//!    winject wrote it, no value more and none less; if a copy of its file lies in a staged package, which no driver of
//!    Windows has; and if nothing else in the guest uses it: no device, class filter, service or package (`usage`).
//! 3. So a driver that Windows has taken over stays: its installation rewrites the service (`Owners`, `DriverPackageId`),
//!    names it in a package of its own, binds devices to it, or replaces its file. A package of the minimal form goes even
//!    then, if Windows' own package serves its devices (`packages`).
//! 4. Packages of the full form go only if records and files are as winject wrote them, and no device was installed by
//!    them.
//! 5. The first-boot service, its program or script, its markers and working files go. Its log, `Windows\Temp\hyper2kvm-firstboot.log`,
//!    stays: it is for people to read.
//! 6. winject's folders leave `DevicePath`; the rest of it stays in its order (`settings`). Folders go when they are empty.
//! 7. What winject replaced of the guest's own, and noted in the manifest, is brought back where it is still as winject left
//!    it (`replaced`): a list of filters only if the driver that comes back to it is there.
//!    A connection does not get a name back that another one has now.
//! 8. What else winject changed in the guest's own items stays, because what it was before is not known: in-box
//!    controllers that start at boot, `StartOverride` keys that were removed, `Start` of a driver of the guest. Certificates stay, because
//!    they look like those that were trusted before.
//! 9. Files of the user that were uploaded go if they have the very content that was uploaded; the folders that were made
//!    for them, when they are empty (`uploads`).
//! 10. Flags of the boot configuration become what they were, which the manifest lists; the fallback loader stays (`boot`).
//! 11. Injections list what earlier ones with other options put there (`earlier`): one removal takes out the work of all.
//! 12. The manifest goes last. Every entry of it is accounted for: gone, or left with a reason (`ledger`, `rest`).
//!
//! The registry decides first, then the files: a service never stays without its file, nor loses it.

mod boot;
mod drivers;
mod earlier;
mod edits;
mod files;
mod ledger;
pub(super) mod manifest;
mod packages;
mod replaced;
mod rest;
mod services;
mod settings;
mod uploads;
mod usage;

use std::fmt;

pub(super) use earlier::{carry_over, read_earlier};
use edits::RegistryEdits;
use ledger::Ledger;
pub use ledger::LeftItem;
use usage::Usage;

use super::boot_volume::BootVolume;
use super::guest_files::GuestFiles;
use super::guest_paths;
use super::inspect::guest::Guest;
use super::inspect::installation::Hives;
use super::plan_builder::PlanBuilder;
use crate::error::Result;
use crate::io::VolumeRead;
use crate::ntfs::Volume;
use crate::plan::Plan;
use crate::plan::verify::Absent;

/// The removal of what winject put into a guest.
pub struct Removal {
    /// The edits of the guest; empty when the guest has no manifest of winject.
    pub plan: Plan,
    /// Whether the guest has a manifest.
    pub has_manifest: bool,
    /// What is removed, in words.
    pub removed: Vec<String>,
    /// What is left, with the reasons.
    pub left: Vec<LeftItem>,
    /// What of the manifest must not be there afterwards: all that is not left.
    pub absent: Absent,
    /// The hives that were read for the plan, so that applying it need not read them again.
    pub hives: Hives,
}

impl fmt::Debug for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Removal").field("plan", &self.plan).field("left", &self.left).finish_non_exhaustive()
    }
}

/// Plans the removal of what winject put into the guest. Nothing is written. `hives` were read from this volume as it is
/// now: they are not read again. `boot` is the boot volume of the disk, whose boot configuration is among the hives.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) when the manifest is not protected, or not one of winject's; when a hive is
/// dirty, or something is damaged.
pub fn plan_removal<D: VolumeRead>(
    volume: &Volume<D>,
    guest: &Guest,
    hives: &Hives,
    boot: Option<&BootVolume>,
) -> Result<Removal> {
    plan_files(volume, guest, hives, boot)
}

/// Like [`plan_removal`], on any source of files.
pub(super) fn plan_files(
    files: &dyn GuestFiles,
    guest: &Guest,
    hives: &Hives,
    boot: Option<&BootVolume>,
) -> Result<Removal> {
    let mut builder = PlanBuilder::new(files, guest, hives)?;
    let mut ledger = Ledger::default();
    let Some(listed) = manifest::read(&builder)? else {
        if builder.exists(guest_paths::TOP)? {
            ledger.leave(guest_paths::TOP, "it has no manifest that says what of it is winject's");
        }
        let (plan, hives) = builder.finish();
        let Ledger { removed, left, .. } = ledger;
        return Ok(Removal { plan, has_manifest: false, removed, left, absent: Absent::default(), hives });
    };
    let usage = Usage::read(&builder, &listed)?;
    let mut services = services::find(&builder, &listed, &usage)?;
    let mut packages = packages::find(&builder, &listed, &usage)?;
    let superseded = drivers::decide(&builder, &usage, &mut services, &mut packages)?;

    let mut edits = RegistryEdits::default();
    let job_left = settings::remove_job_service(&builder, &listed, &usage, &mut edits, &mut ledger)?;
    drivers::remove_services(&mut builder, &listed, &services, &mut edits, &mut ledger)?;
    let stores = drivers::remove_packages(&mut builder, &listed, &packages, &superseded, &mut edits, &mut ledger)?;
    services::remove_unused_drivers(&mut builder, &listed, &usage, &mut ledger)?;
    replaced::restore(&mut builder, &listed, &mut edits, &mut ledger)?;
    edits.apply(&mut builder)?;
    settings::shorten_device_path(&mut builder, &listed, &mut ledger)?;
    boot::restore_boot_volume(&mut builder, boot, &listed, &mut ledger)?;
    settings::leave_certificates(&listed, &mut ledger);
    files::remove_own_files(&mut builder, &listed, job_left.as_deref(), &mut ledger)?;
    files::remove_empty_folders(&mut builder, &stores, &mut ledger)?;
    let uploads = uploads::remove_uploads(&mut builder, &listed, &mut ledger)?;
    rest::account_for_rest(&builder, &listed, &usage, &services, &mut ledger)?;

    let absent = Absent {
        files: remaining(&listed.files, &ledger.left_files).map(|file| file.path.clone()).chain(uploads).collect(),
        values: remaining(&listed.values, &ledger.left_values)
            .map(|value| (value.hive, value.key.clone(), value.name.clone(), value.data.clone()))
            .collect(),
    };
    let (plan, hives) = builder.finish();
    let Ledger { removed, left, .. } = ledger;
    Ok(Removal { plan, has_manifest: true, removed, left, absent, hives })
}

/// The items whose indexes are not among those that are left.
fn remaining<'a, T>(items: &'a [T], left: &'a std::collections::BTreeSet<usize>) -> impl Iterator<Item = &'a T> {
    items.iter().enumerate().filter(|(index, _)| !left.contains(index)).map(|(_, item)| item)
}
