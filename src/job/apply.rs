//! Applies a saved plan: exactly its edits, to the image that it was made for, or not at all.

use std::path::PathBuf;

use super::boot_verdict::new_problems;
use super::disks::{OpenedDisks, OtherDisk, disk_name, with_boot_disks};
use super::expectation::Expectation;
use super::explain::explain;
use super::inject::{run_staging_job, stage_and_verify};
use super::locate::{Installation, locate};
use super::match_disks::match_disks;
use super::outputs::check_outputs;
use super::phases::PhaseClock;
use super::plan::windows_facts;
use super::report::{AppliedPlan, Report};
use super::request::{InjectRequest, Observer, StateOverrides};
use super::saved_plan::SavedPlan;
use super::staging::{
    FoundWindows, PlanInputs, Planned, Planner, Staged, StagingJob, in_parallel, open_to_read, open_unrecovered,
    open_volume, stage_plan,
};
use super::step::Step;
use crate::block::Stage;
use crate::drivers::{Policy, Sources};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::escape::shell_argument;
use crate::partition::{Partition, PartitionTable};
use crate::plan::saved::{Contents, ImageFacts, KnownHives, LogReplayFacts, WindowsFacts, disk_and_partition_facts};
use crate::windows::{self, Bus, CheckOptions, Hives, VmDisk};

/// Applies a saved plan. Of the request counts where the image is and how it is read, the destination, the clock, the
/// overrides (which have to be those of the plan), and `drivers`: media on which the plan's files are found by their
/// hashes, which may be left out if the plan has a bundle. What is done to the guest is what the plan says, and nothing
/// else.
///
/// # Errors
/// [`Kind::Stale`] when the image is not as it was when the plan was made; [`Kind::Drivers`] when a file of the plan is
/// not found; [`Kind::Refused`] when an override of the plan is not repeated; and those of [`inject`](super::inject()). The
/// image holds what it held before, and no output file is left.
pub fn apply(plan: &SavedPlan, request: &InjectRequest, observer: &dyn Observer) -> Result<Report> {
    let mut report = Report::of_request(request);
    apply_into(plan, request, observer, &mut report)?;
    Ok(report)
}

/// Like [`apply`], but fills the caller's report, which shows how far a failed run came.
///
/// # Errors
/// Those of [`apply`].
pub fn apply_into(
    plan: &SavedPlan,
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
) -> Result<()> {
    report.run.plan = Some(AppliedPlan { path: plan.path().display().to_string(), sha256: plan.sha256() });
    let job = |observer: &dyn Observer, report: &mut Report| run(plan, request, observer, report).map_err(explain);
    let outcome = PhaseClock::measure(observer, report, job);
    if let Err(error) = &outcome {
        report.fail(error);
    }
    outcome
}

/// Makes sure that applying a plan may write its output and these reports, see [`check_outputs`].
///
/// # Errors
/// [`Kind::Usage`]; nothing was touched then.
pub fn check_apply_outputs(plan: &SavedPlan, request: &InjectRequest, reports: &[PathBuf]) -> Result<()> {
    let mut request = request.clone();
    request.other_inputs.push(plan.path().to_owned());
    request.other_inputs.extend(plan.bundle_if_any());
    check_outputs(&request, reports)
}

fn run(plan: &SavedPlan, request: &InjectRequest, observer: &dyn Observer, report: &mut Report) -> Result<()> {
    with_application(plan, request, observer, report, |job, report| run_staging_job(job.request, observer, report, job))
}

/// Does all that applying a saved plan does, except for writing the staged disk.
///
/// # Errors
/// Those of [`apply`].
pub(super) fn stage_saved_plan(
    plan: &SavedPlan,
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
) -> Result<Staged> {
    with_application(plan, request, observer, report, |job, report| stage_and_verify(observer, report, job))
}

/// Finds the disks and the files of a plan, and calls `run` with its application.
fn with_application<T>(
    plan: &SavedPlan,
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
    run: impl FnOnce(&Application<'_>, &mut Report) -> Result<T>,
) -> Result<T> {
    let document = plan.document();
    require_overrides(plan, request)?;
    check_apply_outputs(plan, request, &[])?;
    let request = &match_disks(plan, request, observer, report)?;
    let request = InjectRequest {
        definitions: None,
        partition: Some(document.partition.number),
        policy: Policy { signature: document.expects.signature_policy },
        ..request.clone()
    };
    observer.step(Step::FindFiles);
    let bundle = Sources::open(&plan.bundle_if_any().into_iter().collect::<Vec<_>>())?;
    let contents = document.find_contents(&bundle, &Sources::open(&request.drivers)?)?;
    run(&Application { plan, contents, request: &request, observer }, report)
}

/// What was overridden when the plan was made has to be decided again by who applies it, and nothing beyond it.
fn require_overrides(plan: &SavedPlan, request: &InjectRequest) -> Result<()> {
    let planned = &plan.document().state;
    let StateOverrides { allow_dirty, discard_ntfs_log, discard_hibernation, no_replay } = request.state;
    let options = [
        ("--allow-dirty", planned.allow_dirty, allow_dirty),
        ("--discard-ntfs-log", planned.discard_ntfs_log, discard_ntfs_log),
        ("--discard-hibernation", planned.discard_hibernation, discard_hibernation),
        ("--no-replay", planned.no_replay, no_replay),
        ("--skip-volume-check", planned.skip_volume_check, request.skip_volume_check),
    ];
    let listed = |wrong: fn(bool, bool) -> bool| {
        let wrong = options.iter().filter(|(_, planned, given)| wrong(*planned, *given));
        wrong.map(|(option, ..)| *option).collect::<Vec<_>>().join(" ")
    };
    let path = plan.path().display().to_string();
    let (missing, needless) = (listed(|planned, given| planned && !given), listed(|planned, given| given && !planned));
    if !missing.is_empty() {
        let what = format!("the plan was made with {missing}, which was not given to apply it");
        return Err(Error::refused(Layer::Job, what)
            .with_code(ErrorCode::PlanOptions)
            .path(path)
            .hint(format!("if that is right, add {missing}")));
    }
    if !needless.is_empty() {
        let what = format!("the plan was made without {needless}");
        let hint = format!("leave out {needless}, or make the plan again with it");
        return Err(Error::new(Kind::Usage, Layer::Job, what).with_code(ErrorCode::PlanOptions).path(path).hint(hint));
    }
    Ok(())
}

/// The application of a saved plan.
struct Application<'a> {
    plan: &'a SavedPlan,
    contents: Contents,
    request: &'a InjectRequest,
    observer: &'a dyn Observer,
}

impl StagingJob for Application<'_> {
    /// An interrupted run is not recovered from: the plan was made for the image as it was before or after that run.
    fn open(&self, report: &mut Report) -> Result<OpenedDisks> {
        self.observer.step(Step::Open);
        self.request.cancel.check()?;
        open_unrecovered(self.request, report)
    }

    fn stage(&self, report: &mut Report, opened: Result<OpenedDisks>) -> Result<Staged> {
        let found = self.find_planned(opened?)?;
        stage_plan(self.request, self.observer, report, found, self)
    }
}

impl Application<'_> {
    /// Finds the Windows that the plan was made for, as it was then.
    fn find_planned(&self, disks: OpenedDisks) -> Result<FoundWindows> {
        let OpenedDisks { stage, others } = disks;
        let document = self.plan.document();
        self.observer.step(Step::Compare);
        let table = self.request.bitlocker.read_partitions(&stage).map_err(|error| error.path(self.image()))?;
        let table = table.with_replay(self.request.state.replay());
        let partition = table.partition(document.partition.number).ok();
        // The disk's own id is in the table; without a partition it is not read.
        let differences = match partition {
            Some(partition) => {
                let (disk, partition) = disk_and_partition_facts(&stage, &table, partition)?;
                document.compare_disk(&disk, &partition)
            }
            None => vec![format!("the disk has no partition {}", document.partition.number)],
        };
        if !differences.is_empty()
            && let Err(error) = locate(&stage, &table, None)
            && holds_no_readable_windows(&error)
        {
            return Err(error);
        }
        self.require_none(differences)?;
        for (planned, other) in document.others.iter().zip(&others) {
            self.require_none(other.compare(planned)?)?;
        }

        let original = stage.original();
        let unchanged = || document.reads.is_unchanged(&original);
        let locate = || locate(&stage, &table, self.request.partition);
        let (is_unchanged, found) = in_parallel(self.request, unchanged, locate)?;
        match (is_unchanged?, found) {
            (true, Ok((installation, hives))) => self.with_boot_volume(stage, others, table, installation, hives),
            // A hive may have changed so that it cannot be read any more.
            (true, Err(error)) => {
                let partition = table.partition(document.partition.number)?;
                let facts = self.facts(&stage, &table, partition, &KnownHives::new());
                if let Ok(facts) = facts {
                    self.require_none(document.compare_volume(&facts))?;
                }
                Err(error)
            }
            (false, Ok((installation, hives))) => {
                // Damage is not the question here.
                let found = self.with_boot_volume(stage, others, table, installation, hives)?;
                if self.is_applied(&found).is_ok_and(|is_applied| is_applied) {
                    return Err(self.applied_already());
                }
                Err(self.stale(self.describe_change(&found).unwrap_or_else(|error| vec![error.to_string()])))
            }
            // Encrypted since, or another disk: a key may open it.
            (false, Err(error)) if is_encrypted(&error) => Err(error),
            // The changes are the reason why Windows cannot be found or read any more.
            (false, Err(error)) => Err(self.stale(vec![error.to_string()])),
        }
    }

    /// What has changed in an image that is not as it was read for the plan; empty if it has no name. An error is a change,
    /// too: the plan was made from an image that could be read.
    fn describe_change(&self, found: &FoundWindows) -> Result<Vec<String>> {
        let FoundWindows { stage, others, table, installation: Installation { partition, .. }, hives, .. } = found;
        let document = self.plan.document();
        let facts = self.facts(stage, table, partition, &windows::known_hives(hives))?;
        let differences = document.compare_volume(&facts);
        if !differences.is_empty() {
            return Ok(differences);
        }
        // What the boot check reads is all that remains, as a rule.
        let volume = open_to_read(stage, partition)?;
        let options = CheckOptions { signatures: document.expects.signature_policy };
        let name = disk_name(self.request, &self.request.image);
        let answers = with_boot_disks(VmDisk { disk: stage, table, name: &name }, partition, others, |disks| {
            windows::boot_checks(&volume, Some(disks), &Bus::ALL, &options)
        })?;
        let problems = new_problems(&document.verdict.before, &answers);
        Ok(problems.iter().map(|text| format!("the boot check finds now: {text}")).collect())
    }

    /// Everything by which the volume of the plan is recognised, except what [`ReadSet`](crate::plan::saved::ReadSet) holds.
    fn facts(
        &self,
        stage: &Stage,
        table: &PartitionTable,
        partition: &Partition,
        known: &KnownHives,
    ) -> Result<ImageFacts> {
        let config = &self.plan.document().windows.config;
        let volume = open_to_read(stage, partition)?;
        let facts = ImageFacts::read(stage, table, partition, &volume, config, known);
        facts.map_err(|error| error.path(partition.label()))
    }

    fn with_boot_volume(
        &self,
        stage: Stage,
        others: Vec<OtherDisk>,
        table: PartitionTable,
        installation: Installation,
        hives: Hives,
    ) -> Result<FoundWindows> {
        FoundWindows::with_boot_volume(self.request, OpenedDisks { stage, others }, table, installation, hives)
    }

    /// Whether the guest holds all that the plan makes.
    fn is_applied(&self, found: &FoundWindows) -> Result<bool> {
        let FoundWindows { stage, installation: Installation { partition, guest }, hives, boot, .. } = found;
        let volume = open_to_read(stage, partition)?;
        let more_hives = windows::load_other_hives(&volume, guest, hives)?;
        windows::holds_result(self.plan.document(), &volume, [hives, &more_hives], boot.as_ref())
    }

    /// The error for an image that holds what the plan makes.
    fn applied_already(&self) -> Error {
        let what = "the plan has been applied already: the guest holds every file and every value that it writes";
        let image = shell_argument(&self.request.image, "IMAGE");
        Error::new(Kind::Stale, Layer::Job, what)
            .path(self.image())
            .hint(format!("nothing is left to do; whether the guest boots, says: winject check {image}"))
    }

    fn require_none(&self, differences: Vec<String>) -> Result<()> {
        if differences.is_empty() { Ok(()) } else { Err(self.stale(differences)) }
    }

    /// The error for an image that is not as it was when the plan was made.
    fn stale(&self, mut differences: Vec<String>) -> Error {
        if differences.is_empty() {
            differences.push("something that the plan was made from has changed on the disk".to_owned());
        }
        let disks = std::iter::once(&self.request.image).chain(&self.request.other_disks);
        let mut image = disks.map(|path| shell_argument(path, "IMAGE")).collect::<Vec<_>>().join(" ");
        if !self.request.other_disks.is_empty() {
            image = format!("{image} --windows-disk {}", shell_argument(&self.request.image, "IMAGE"));
        }
        let drivers = self.request.drivers.first().map(|path| shell_argument(path, "DRIVERS"));
        let drivers = drivers.unwrap_or_else(|| "DRIVERS".to_owned());
        let plan = shell_argument(self.plan.path(), "PLAN.json");
        let bundle = if self.plan.bundle_if_any().is_some() { " --bundle" } else { "" };
        Error::new(Kind::Stale, Layer::Job, format!("the plan is stale: {}", differences.join("; ")))
            .path(self.image())
            .hint(format!(
                "make the plan again, with the options that it was made with: winject plan {image} --drivers {drivers} \
                 -o {plan}{bundle} --overwrite"
            ))
    }

    fn image(&self) -> String {
        self.request.image.display().to_string()
    }
}

/// Whether a disk that is another one than that of the plan has a fault that a new plan would not end either.
fn holds_no_readable_windows(error: &Error) -> bool {
    error.kind() == Kind::NotWindows || is_encrypted(error)
}

/// Whether BitLocker is what hinders.
fn is_encrypted(error: &Error) -> bool {
    matches!(error.code(), ErrorCode::BitLockerLocked | ErrorCode::BitLockerState)
}

impl Planner for Application<'_> {
    fn plan<'s>(&self, report: &mut Report, inputs: &PlanInputs<'_>, stage: &'s mut Stage) -> Result<Planned<'s>> {
        let document = self.plan.document();
        let PlanInputs { table, installation, hives, boot, .. } = inputs;
        let facts = self.facts(stage, table, &installation.partition, &windows::known_hives(hives))?;
        self.require_none(document.compare_volume(&facts))?;
        let volume = open_volume(self.request, stage, installation)?;
        let more_hives = windows::load_other_hives(&volume, &installation.guest, hives)?;
        let mut differences = windows::compare_replaced(document, &volume, [hives, &more_hives], *boot)?;
        let found = windows_facts(&installation.guest);
        if found != document.windows {
            let say = |windows: &WindowsFacts| format!("{} in {}", windows.text, windows.folder);
            differences.push(format!("the image holds {}, not {}", say(&found), say(&document.windows)));
        }
        let replay = volume.device().replay().map(LogReplayFacts::of);
        if replay != document.log_replay {
            let say = |replay: &Option<LogReplayFacts>| {
                replay.as_ref().map_or_else(|| "nothing to replay".to_owned(), LogReplayFacts::text)
            };
            differences.push(format!("the NTFS log has {}, not {}", say(&replay), say(&document.log_replay)));
        }
        self.require_none(differences)?;
        let plan = document.to_plan(&self.contents)?;
        report.add_planned_drivers(document);
        report.add_changes(&installation.guest, plan.clone());
        Ok(Planned { expectation: Expectation::of_document(document), volume, plan, hives: more_hives })
    }
}
