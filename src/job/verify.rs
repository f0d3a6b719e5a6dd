//! Verification before anything is written: the staged disk is as planned, and boots.

use super::disks::with_boot_disks;
use super::expectation::BootsNow;
use super::report::{Report, Validation};
use super::staging::{Staged, open_to_read};
use crate::error::{DEFECT_HINT, Error, Kind, Layer, Result};
use crate::ntfs::Overlaid;
use crate::partition::{PartitionTable, PartitionView};
use crate::plan::{self, GuestHive};
use crate::windows::{self, BootCheck, Bus, CheckOptions, KnownGuest, VmDisk};

/// Proof that a staged disk passed verification and the boot check.
#[derive(Debug)]
pub(super) struct VerifiedDisk {
    validation: Validation,
    boot: Vec<BootCheck>,
    /// What findings call the disk with Windows.
    image: String,
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
        if let Some(removal) = &mut report.removal {
            removal.boots_after = BootsNow::of(&self.boot).0;
        }
        report.validation = Some(self.validation);
        report.boot = self.boot;
        report.add_boot_disks(&self.image);
    }
}

/// Reads the staged disk again from its first sector.
///
/// # Errors
/// [`Kind::Verify`] when it is not as planned; those of [`Expectation::compare`] when it does not boot as expected.
pub(super) fn verify(staged: &Staged) -> Result<VerifiedDisk> {
    let table = staged.bitlocker.read_partitions(&staged.stage)?.with_replay(staged.replay);
    let validation = compare_with_plan(staged, &table)?;
    let boot = check_boot_after(staged, &table)?;
    Ok(VerifiedDisk { validation, boot, image: staged.name.clone() })
}

/// Compares the staged disk and its partition table with the plan.
fn compare_with_plan(staged: &Staged, table: &PartitionTable) -> Result<Validation> {
    let Staged { stage, plan, installation, applied, is_marked, .. } = staged;
    let number = installation.partition.number;
    if table.partition(number)? != &installation.partition {
        return Err(Error::new(Kind::Verify, Layer::Job, "the partition table on the staged disk has changed")
            .hint(DEFECT_HINT));
    }
    let view = PartitionView::new(stage, &installation.partition)?;
    view.check_metadata()?;
    let mut compared = plan::verify(&view, plan, applied, *is_marked).map_err(|error| {
        let before = PartitionView::new(stage.image(), &installation.partition);
        let before = before.and_then(|before| Overlaid::open_shared(before, &installation.partition.replay));
        before.map_or_else(|error| error, |before| plan::blame(&before, *is_marked, error))
    })?;
    plan::verify_absent(&view, plan, &staged.expectation.absent)?;
    if let Some(files) = &staged.boot_files {
        let boot = table.partition(files.partition)?;
        let (before, after) = (PartitionView::new(stage.image(), boot)?, PartitionView::new(stage, boot)?);
        compared.files += plan::verify_boot(&before, &after, boot, plan, files, *is_marked)
            .map_err(|error| error.path(boot.label()))?;
    }
    Ok(Validation { success: true, compared })
}

/// Checks that the staged guest boots from each virtio bus that it has to, which does not follow from being as planned.
/// The SYSTEM hive that the plan changed is not read again. Returns the answers for all buses.
///
/// # Errors
/// Those of [`Expectation::compare`], and when the disk cannot be read.
pub(super) fn check_boot_after(staged: &Staged, table: &PartitionTable) -> Result<Vec<BootCheck>> {
    let Staged { stage, installation, expectation, .. } = staged;
    let volume = open_to_read(stage, &installation.partition)?;
    let options = CheckOptions { signatures: expectation.signatures };
    let disk = VmDisk { disk: stage, table, name: &staged.name };
    let answers = with_boot_disks(disk, &installation.partition, &staged.others, |disks| {
        match staged.applied.hive(GuestHive::System) {
            Some(system) => {
                let known = KnownGuest { guest: &installation.guest, system, fault: None };
                windows::boot_checks_of(&volume, Some(disks), known, &Bus::ALL, &options)
            }
            None => windows::boot_checks(&volume, Some(disks), &Bus::ALL, &options),
        }
    })?;
    expectation.compare(&answers, &installation.partition)?;
    Ok(answers)
}
