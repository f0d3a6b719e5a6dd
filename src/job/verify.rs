//! Verification before anything is written: the staged disk is as planned, and boots.

use super::report::{Report, Validation};
use super::request::InjectRequest;
use super::staging::Staged;
use crate::drivers::Category;
use crate::error::{DEFECT_HINT, Error, Kind, Layer, Result};
use crate::ntfs::{OpenOptions, Volume};
use crate::partition::{self, PartitionTable, PartitionView};
use crate::plan::{self, GuestHive};
use crate::windows::{self, BootCheck, BootDisk, Bus, CheckOptions, Finding};

/// Proof that a staged disk passed verification and the boot check.
#[derive(Debug)]
pub(super) struct VerifiedDisk {
    validation: Validation,
    boot: Vec<BootCheck>,
}

impl VerifiedDisk {
    /// Adds what was found to the report.
    pub(super) fn add_to(self, report: &mut Report) {
        if let Some(machine) = &mut report.recommendation {
            machine.buses = self.boot.iter().filter(|answer| answer.boots).map(|answer| answer.bus.name()).collect();
            if let Some(first) = machine.buses.first() {
                machine.bus = first;
            }
        }
        report.validation = Some(self.validation);
        report.boot = self.boot;
    }
}

/// Reads the staged disk again from its first sector.
///
/// # Errors
/// [`Kind::Verify`] when it is not as planned, or does not boot; [`Kind::Drivers`] when the guest got no storage driver,
/// does not boot from virtio without, and more than staging was asked for.
pub(super) fn verify(staged: &Staged, request: &InjectRequest) -> Result<VerifiedDisk> {
    let table = partition::read(&staged.stage)?;
    Ok(VerifiedDisk {
        validation: compare_with_plan(staged, &table, request)?,
        boot: check_boot(staged, &table, request)?,
    })
}

/// Compares the staged disk and its partition table with the plan.
fn compare_with_plan(staged: &Staged, table: &PartitionTable, request: &InjectRequest) -> Result<Validation> {
    let Staged { stage, plan, installation, applied, .. } = staged;
    let number = installation.partition.number;
    if table.partition(number)? != &installation.partition {
        return Err(Error::new(Kind::Verify, Layer::Job, "the partition table on the staged disk has changed")
            .hint(DEFECT_HINT));
    }
    let view = PartitionView::new(stage, &installation.partition)?;
    let is_marked = request.state.any();
    let compared = plan::verify(&view, plan, applied, is_marked).map_err(|error| {
        let before = PartitionView::new(stage.image(), &installation.partition);
        before.map_or_else(|error| error, |before| plan::blame(&before, is_marked, error))
    })?;
    Ok(Validation { success: true, compared })
}

/// Checks that the staged guest boots from each virtio bus that it got a driver for, which does not follow from being as
/// planned. The SYSTEM hive that the plan changed is not read again.
fn check_boot(staged: &Staged, table: &PartitionTable, request: &InjectRequest) -> Result<Vec<BootCheck>> {
    let Staged { stage, installation, selection, applied, .. } = staged;
    let volume = Volume::open(PartitionView::new(stage, &installation.partition)?, &OpenOptions::read_only())?;
    let options = CheckOptions { signatures: request.policy.signature };
    let has = |service: &str| selection.boot_packages().any(|(_, boot)| boot.service.eq_ignore_ascii_case(service));
    let wanted = [(Bus::VirtioBlk, "viostor"), (Bus::VirtioScsi, "vioscsi")];
    let required: Vec<Bus> = wanted.into_iter().filter(|(_, service)| has(service)).map(|(bus, _)| bus).collect();
    let buses = Bus::ALL;
    let disk = BootDisk { disk: stage, table, partition: &installation.partition };
    let answers = match applied.hive(GuestHive::System) {
        Some(system) => windows::boot_checks_of(&volume, Some(&disk), &installation.guest, system, &buses, &options)?,
        None => windows::boot_checks(&volume, Some(&disk), &buses, &options)?,
    };
    for answer in &answers {
        let bus = answer.bus;
        if !answer.boots && required.contains(&bus) {
            let reasons: Vec<&str> = answer.failures().map(|finding| finding.text.as_str()).collect();
            let what = format!("the guest would not boot from {}: {}", bus.name(), reasons.join("; "));
            // a guest that was broken before is damage (5), not a failed injection (8)
            let (kind, hint) = if answer.failures().any(Finding::is_of_the_guest) {
                let hint = "nothing was written; winject check IMAGE shows the whole boot chain: repair it first";
                (Kind::Damaged, hint)
            } else {
                (Kind::Verify, "nothing was written; winject check IMAGE shows what the image holds now")
            };
            return Err(Error::new(kind, Layer::Job, what).path(installation.partition.label()).hint(hint));
        }
    }
    let has_storage = selection.boot_packages().any(|(package, _)| package.category == Category::Storage);
    if !has_storage && !request.packages_only && !answers.iter().any(|answer| answer.boots) {
        let guest = &installation.guest;
        let what = match &selection.no_storage {
            Some(reason) => format!("{reason}, and the guest does not boot from virtio without"),
            None => format!("the media have no storage driver for {guest}, and it does not boot from virtio without"),
        };
        return Err(Error::new(Kind::Drivers, Layer::Job, what)
            .path(request.drivers.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))
            .hint("add media with viostor or vioscsi (--drivers virtio-win.iso); --packages-only stages the packages alone"));
    }
    Ok(answers)
}
