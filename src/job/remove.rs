//! Takes out of a guest what winject put into it.

use super::choose_disk::choose_disk;
use super::disks::{OpenedDisks, disk_name, with_boot_disks};
use super::expectation::{BootsNow, Expectation};
use super::explain::explain;
use super::inject::run_staging_job;
use super::outputs::check_outputs;
use super::phases::PhaseClock;
use super::report::{RemovalRecord, Report};
use super::request::{InjectRequest, Observer};
use super::staging::{
    PlanInputs, Planned, Planner, Staged, StagingJob, find_windows, open_image, open_volume, stage_plan,
};
use super::step::Step;
use crate::block::Stage;
use crate::error::Result;
use crate::windows::{self, Bus, CheckOptions, VmDisk};

/// Choices of a removal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// Go on even if the guest then boots from no disk that a host can offer.
    pub allow_unbootable: bool,
}

/// Takes out of a guest what winject put into it, as the manifest in the guest lists it, and leaves what Windows has taken
/// over since; [`Report::removal`] says what was removed, and what is left for which reason. (As long as the guest has not
/// run, [`undo`](super::undo()) gives the image back byte for byte.)
///
/// Of the request counts where the image is and how it is read, the destination, the clock and the overrides; `drivers` and
/// the options of an injection do not. A guest without a manifest is left as it is, which
/// [`Virtio::unchanged`](super::report::Virtio::unchanged) says.
///
/// ```no_run
/// use winject::{Destination, FileTime, InjectRequest, RemoveOptions, Silent, remove};
///
/// # fn main() -> winject::Result<()> {
/// let request = InjectRequest::new("guest.qcow2", Vec::new(), Destination::InPlace, FileTime::now());
/// let report = remove(&request, &RemoveOptions::default(), &Silent)?;
/// for item in report.removal.iter().flat_map(|removal| &removal.left) {
///     println!("left: {} ({})", item.what, item.reason);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) when the manifest is not protected or not one of winject's, and when the guest
/// would boot from no disk any more; and those of [`inject`](super::inject()) except those of drivers. The image holds what
/// it held before, and no output file is left.
pub fn remove(request: &InjectRequest, options: &RemoveOptions, observer: &dyn Observer) -> Result<Report> {
    let mut report = Report::of_request(request);
    remove_into(request, options, observer, &mut report)?;
    Ok(report)
}

/// Like [`remove`], but fills the caller's report, which shows how far a failed run came.
///
/// # Errors
/// Those of [`remove`].
pub fn remove_into(
    request: &InjectRequest,
    options: &RemoveOptions,
    observer: &dyn Observer,
    report: &mut Report,
) -> Result<()> {
    report.run.is_removal = true;
    let run = |observer: &dyn Observer, report: &mut Report| {
        check_outputs(request, &[])?;
        let request = &choose_disk(request, observer, report)?;
        run_staging_job(request, observer, report, &RemovalJob { request, options, observer })
    };
    let outcome = PhaseClock::measure(observer, report, run).map_err(explain);
    if let Err(error) = &outcome {
        report.fail(error);
    }
    outcome
}

/// The removal of what winject put into a guest.
struct RemovalJob<'a> {
    request: &'a InjectRequest,
    options: &'a RemoveOptions,
    observer: &'a dyn Observer,
}

impl StagingJob for RemovalJob<'_> {
    fn open(&self, report: &mut Report) -> Result<OpenedDisks> {
        open_image(self.request, self.observer, report)
    }

    fn stage(&self, report: &mut Report, opened: Result<OpenedDisks>) -> Result<Staged> {
        let found = find_windows(self.request, self.observer, opened?)?;
        stage_plan(self.request, self.observer, report, found, self)
    }
}

impl Planner for RemovalJob<'_> {
    fn plan<'s>(&self, report: &mut Report, inputs: &PlanInputs<'_>, stage: &'s mut Stage) -> Result<Planned<'s>> {
        let PlanInputs { table, installation, hives, others, boot } = inputs;
        let guest = &installation.guest;
        self.observer.step(Step::Plan);
        let original = stage.original();
        let volume = open_volume(self.request, stage, installation)?;
        let removal = windows::plan_removal(&volume, guest, hives, *boot)?;
        let signatures = self.request.policy.signature;
        let mut boots_before = Vec::new();
        if !removal.plan.is_empty() {
            self.observer.step(Step::CheckBoot);
            let name = disk_name(self.request, &self.request.image);
            let disk = VmDisk { disk: &original, table, name: &name };
            let before = with_boot_disks(disk, &installation.partition, others, |disks| {
                windows::boot_checks(&volume, Some(disks), &Bus::ALL, &CheckOptions { signatures })
            })?;
            boots_before = BootsNow::of(&before).0;
        }
        report.removal = Some(RemovalRecord {
            has_manifest: removal.has_manifest,
            removed: removal.removed,
            left: removal.left,
            boots_before: boots_before.clone(),
            boots_after: Vec::new(),
        });
        report.add_changes(guest, removal.plan.clone());
        let before = BootsNow(boots_before);
        let expectation = Expectation::of_removal(before, self.options.allow_unbootable, removal.absent, signatures);
        Ok(Planned { expectation, volume, plan: removal.plan, hives: removal.hives })
    }
}
