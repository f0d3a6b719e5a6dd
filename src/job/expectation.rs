//! What the boot check of a staged disk has to show before the disk is written.

use super::boot_verdict::false_claims;
use super::request::InjectRequest;
use crate::drivers::{Category, Selection, SignatureLevel};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::partition::Partition;
use crate::plan::saved::{BusVerdict, Expects, PlanDocument};
use crate::plan::verify::Absent;
use crate::windows::{BootCheck, Bus, Code, Finding, Guest};

/// What the boot check of a staged disk has to show.
#[derive(Debug)]
pub(super) struct Expectation {
    /// The buses from which the guest must boot.
    pub boots_from: Vec<Bus>,
    /// Set if it must boot from one of the buses, whichever: why the changes alone do not see to that.
    pub boots_from_any: Option<NoStorage>,
    /// What a boot driver's signature must prove.
    pub signatures: SignatureLevel,
    /// The answers that a saved plan shows to its reviewer; `None` without a saved plan.
    pub claimed: Option<Vec<BusVerdict>>,
    /// What must not be on the volume.
    pub absent: Absent,
    /// Set if the guest has to boot from some disk still: from which it boots without the changes.
    pub keeps_booting: Option<BootsNow>,
}

/// The disks from which a guest boots, in words: the virtio buses, and emulated disks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BootsNow(pub Vec<String>);

impl BootsNow {
    /// Takes it from the boot check's answers for all buses.
    pub(super) fn of(answers: &[BootCheck]) -> Self {
        let virtio = answers.iter().filter(|answer| answer.boots).map(|answer| answer.bus.name().to_owned());
        let emulated = answers.iter().find(|answer| answer.boots_from_emulated_disk());
        Self(virtio.chain(emulated.map(|_| "emulated disk (SATA, IDE or NVMe)".to_owned())).collect())
    }
}

/// Why the changes bring no storage driver.
#[derive(Debug, Clone, Default)]
pub(super) struct NoStorage {
    /// The reason, as a clause.
    reason: String,
    /// The driver media; empty for a saved plan.
    media: String,
}

impl Expectation {
    /// A guest boots from each virtio bus that it gets a driver for; without one it has to boot all the same, unless only
    /// staging was asked for.
    pub(super) fn new(request: &InjectRequest, guest: &Guest, selection: &Selection) -> Self {
        let has = |service: &str| selection.boot_packages().any(|(_, boot)| boot.service.eq_ignore_ascii_case(service));
        let wanted = [(Bus::VirtioBlk, "viostor"), (Bus::VirtioScsi, "vioscsi")];
        let has_storage = selection.boot_packages().any(|(package, _)| package.category == Category::Storage);
        let no_storage = || NoStorage {
            reason: selection
                .no_storage
                .clone()
                .unwrap_or_else(|| format!("the media have no storage driver for {guest}")),
            media: request.drivers.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
        };
        Self {
            boots_from: wanted.into_iter().filter(|(_, service)| has(service)).map(|(bus, _)| bus).collect(),
            boots_from_any: (!has_storage && !request.packages_only).then(no_storage),
            signatures: request.policy.signature,
            claimed: None,
            absent: Absent::default(),
            keeps_booting: None,
        }
    }

    /// What a saved plan says that the disk has to show. A bus that winject does not know is not expected: a document
    /// that names one does not pass [`PlanDocument::judge`].
    pub(super) fn of_document(document: &PlanDocument) -> Self {
        let expects = &document.expects;
        let is_named = |bus: &Bus| expects.boots_from.iter().any(|name| name == bus.name());
        let no_storage =
            || NoStorage { reason: "the plan registers no storage driver".to_owned(), ..NoStorage::default() };
        Self {
            boots_from: Bus::ALL.into_iter().filter(is_named).collect(),
            boots_from_any: expects.boots_from_any.then(no_storage),
            signatures: expects.signature_policy,
            claimed: Some(document.verdict.after.clone()),
            absent: Absent::default(),
            keeps_booting: None,
        }
    }

    /// What a removal has to show: nothing of `absent` is there, and a guest that booted from anything still does, unless
    /// the user allows the opposite.
    pub(super) fn of_removal(
        before: BootsNow,
        allow_unbootable: bool,
        absent: Absent,
        signatures: SignatureLevel,
    ) -> Self {
        let keeps_booting = (!allow_unbootable && !before.0.is_empty()).then_some(before);
        Self { boots_from: Vec::new(), boots_from_any: None, signatures, claimed: None, absent, keeps_booting }
    }

    /// The same for a document with these answers: whatever boots with the plan has to boot when it is applied.
    pub(super) fn to_document(&self, answers: &[BootCheck]) -> Expects {
        let booting = answers.iter().filter(|answer| answer.boots);
        Expects {
            boots_from: booting.map(|answer| answer.bus.name().to_owned()).collect(),
            boots_from_any: self.boots_from_any.is_some(),
            signature_policy: self.signatures,
        }
    }

    /// Compares the boot check's answers for all buses with it.
    ///
    /// # Errors
    /// [`Kind::Usage`] when a saved plan shows another verdict. [`Kind::Verify`] when the guest would not boot from a bus that
    /// it has to boot from, [`Kind::Damaged`] when that is for a reason that was there before; [`Kind::Refused`] when it
    /// booted, and would not any more; [`Kind::Drivers`] when it gets no storage driver and boots from no bus.
    pub(super) fn compare(&self, answers: &[BootCheck], partition: &Partition) -> Result<()> {
        let claims = self.claimed.as_ref().map(|claimed| false_claims(claimed, answers)).unwrap_or_default();
        if !claims.is_empty() {
            return Err(not_as_claimed(&claims).path(partition.label()));
        }
        if let Some(answer) = answers.iter().find(|answer| !answer.boots && self.boots_from.contains(&answer.bus)) {
            return Err(does_not_boot(answer).path(partition.label()));
        }
        if let Some(BootsNow(before)) = self.keeps_booting.as_ref().filter(|_| BootsNow::of(answers).0.is_empty()) {
            let what = format!(
                "cannot remove the drivers: the guest would boot from no disk any more; now it boots from {}",
                before.join(", ")
            );
            return Err(Error::refused(Layer::Job, what).with_code(ErrorCode::WouldNotBoot).path(partition.label()).hint(
                "nothing was written; winject check IMAGE shows the whole boot chain; --allow-unbootable removes it all \
                 the same",
            ));
        }
        let Some(NoStorage { reason, media }) = &self.boots_from_any else { return Ok(()) };
        if answers.iter().any(|answer| answer.boots) {
            return Ok(());
        }
        let what = format!("{reason}, and it does not boot from virtio without");
        Err(Error::new(Kind::Drivers, Layer::Job, what).with_code(ErrorCode::NoDriverForWindows)
            .path(if media.is_empty() { partition.label() } else { media.clone() })
            .hint("add media with viostor or vioscsi (--drivers virtio-win.iso); --packages-only stages the packages alone"))
    }
}

/// The read set of a plan is compared first: the image is the one that the plan was made for, so the plan itself is wrong.
fn not_as_claimed(claims: &[String]) -> Error {
    let what = format!("cannot apply the plan: it does not do what it says: {}", claims.join("; "));
    Error::new(Kind::Usage, Layer::Job, what).with_code(ErrorCode::PlanInvalid).hint(
        "nothing was written; find out who changed the plan, or whether another version of winject made it, and make it \
         again: winject plan IMAGE --drivers DRIVERS -o PLAN.json",
    )
}

fn does_not_boot(answer: &BootCheck) -> Error {
    let reasons: Vec<&str> = answer.failures().map(|finding| finding.text.as_str()).collect();
    let what = format!("the guest would not boot from {}: {}", answer.bus.name(), reasons.join("; "));
    // a guest that was broken before is damage (5), not a failed injection (8)
    let is_elsewhere = |finding: &Finding| {
        matches!(finding.code, Code::NoSystemPartition | Code::NoActivePartition | Code::NoBootManager | Code::NoBcd)
    };
    let (kind, hint) = if answer.failures().any(is_elsewhere) && answer.failures().all(Finding::is_of_the_guest) {
        let hint = "nothing was written; if the boot manager lies on another disk of the machine, name that one, too: winject \
                    inject IMAGE DISK …; else repair the boot chain first (winject check IMAGE)";
        (Kind::Damaged, hint)
    } else if answer.failures().any(Finding::is_of_the_guest) {
        let hint = "nothing was written; winject check IMAGE shows the whole boot chain: repair it first";
        (Kind::Damaged, hint)
    } else {
        (Kind::Verify, "nothing was written; winject check IMAGE shows what the image holds now")
    };
    let error = Error::new(kind, Layer::Job, what).hint(hint);
    if kind == Kind::Damaged { error.with_code(ErrorCode::BootChainBroken) } else { error }
}
