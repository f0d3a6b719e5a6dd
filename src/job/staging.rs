//! From the image to a staged disk that holds the changes: open, find Windows, choose drivers, plan, apply.

use std::path::{Path, PathBuf};

use super::disks::{OpenedDisks, OtherDisk, disk_file, disk_name, on_disk, open_disk, open_others};
use super::expectation::Expectation;
use super::locate::{Installation, locate};
use super::outputs::check_destination;
use super::recover::{UNDO_GIVEN_UP, recover_first};
use super::report::{self, Report};
use super::report_log::report_log;
use super::request::{InjectRequest, Observer};
use super::step::Step;
use super::volume_check::{SKIPPED, VolumeChecked, check_volume};
use crate::block::commit::Recovery;
use crate::block::{self, Stage};
use crate::drivers::{self, Definitions, Sources};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::escape::{shell_argument, shell_options};
use crate::hive::Hive;
use crate::ntfs::{OpenOptions, Replay, Volume};
use crate::partition::{BitLockerKeys, Content as FileSystem, Disk, Partition, PartitionTable, PartitionView, Scheme};
use crate::plan::{self, Applied, BootFiles, GuestHive, Plan};
use crate::windows::{self, BootVolume, Hives, WantedDriver};

/// An injection that is done on the stage, and not written anywhere yet.
#[derive(Debug)]
pub struct Staged {
    /// The disk with the changes on it.
    pub stage: Stage,
    /// The changes, as they were planned.
    pub plan: Plan,
    /// Kind of the disk's partition table.
    pub scheme: Scheme,
    /// What findings call the disk.
    pub(super) name: String,
    pub(super) bitlocker: BitLockerKeys,
    pub(super) others: Vec<OtherDisk>,
    pub(super) installation: Installation,
    pub(super) applied: Applied,
    /// What was written to the boot volume.
    pub(super) boot_files: Option<BootFiles>,
    /// What the boot check has to show.
    pub(super) expectation: Expectation,
    /// Whether the volume may carry the mark for a check by Windows.
    pub(super) is_marked: bool,
    /// Whether the logs of volumes were replayed.
    pub(super) replay: Replay,
}

impl Staged {
    /// Bytes read from the files of all disks.
    pub(super) fn bytes_read(&self) -> u64 {
        let others = self.others.iter().map(OtherDisk::bytes_read);
        others.fold(self.stage.image().bytes_read(), u64::saturating_add)
    }
}

/// Finds Windows, plans and applies the changes on the stage; nothing is verified or written yet.
pub(super) fn stage_changes(
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
    opened: Result<OpenedDisks>,
) -> Result<Staged> {
    let (drivers, found) = find_drivers_and_windows(request, observer, report, opened)?;
    stage_plan(request, observer, report, found, &DriverPlanner { request, observer, drivers: &drivers })
}

/// The drivers to choose from.
pub(super) struct Drivers {
    sources: Sources,
    definitions: Definitions,
}

/// Opens the driver media and finds Windows in the image.
pub(super) fn find_drivers_and_windows(
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
    opened: Result<OpenedDisks>,
) -> Result<(Drivers, FoundWindows)> {
    let definitions = match &request.definitions {
        Some(path) => Definitions::load(path)?,
        None => Definitions::builtin(),
    };
    let definitions = if request.packages_only { definitions.staged_only() } else { definitions };
    report.virtio.warnings.extend(definitions.warnings.iter().cloned());
    // The two are independent of each other. An error of the drivers is reported first.
    let (sources, found) = in_parallel(
        request,
        || open_sources(request),
        || opened.and_then(|disks| find_windows(request, observer, disks)),
    )?;
    Ok((Drivers { sources: sources?, definitions }, found?))
}

/// A job that changes a guest, up to the staged disk.
pub(super) trait StagingJob {
    /// Opens the disks, and refuses a destination that the one with Windows does not allow.
    ///
    /// # Errors
    /// When a disk cannot be opened, is in use, or holds an interrupted run that this job does not recover from.
    fn open(&self, report: &mut Report) -> Result<OpenedDisks>;

    /// Finds Windows, plans and applies the changes on the stage; nothing is verified or written yet. An error of opening
    /// the image is passed on, unless another one comes first.
    ///
    /// # Errors
    /// Whatever keeps the changes from being made.
    fn stage(&self, report: &mut Report, opened: Result<OpenedDisks>) -> Result<Staged>;
}

/// Makes the plan of a run for the Windows that was found.
pub(super) trait Planner {
    /// Makes the plan, which changes nothing on the stage, and adds what is known to the report.
    ///
    /// # Errors
    /// When there is no such plan for this guest, or the volume cannot be edited in its state.
    fn plan<'s>(&self, report: &mut Report, inputs: &PlanInputs<'_>, stage: &'s mut Stage) -> Result<Planned<'s>>;
}

/// Plans, checks the volume and applies the plan on the stage.
pub(super) fn stage_plan(
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
    found: FoundWindows,
    planner: &dyn Planner,
) -> Result<Staged> {
    let FoundWindows { mut stage, others, table, installation, mut hives, boot } = found;
    report.add_guest(stage.len(), &table, &installation.partition, &installation.guest);

    // The image is checked while the plan is made and applied to the stage, which the check does not see: whatever it
    // finds, nothing has been written to the image by then.
    let original = stage.original();
    // It runs on another thread besides the steps of this one, and reports no bytes.
    let owners = || {
        let (partition, is_skipped) = (&installation.partition, request.skip_volume_check);
        check_volume(&original, partition, &request.state, is_skipped, &|_, _, _| ())
    };
    if request.threads.is_some() {
        observer.step(Step::CheckVolume);
    }
    let stage_plan = || {
        // Almost every plan edits SYSTEM and SOFTWARE, and the first edit of a hive begins with a survey of all of it.
        let inputs = PlanInputs {
            table: &table,
            installation: &installation,
            hives: &hives,
            others: &others,
            boot: boot.as_ref(),
        };
        let survey = || hives.values().map(Hive::survey).collect::<Vec<_>>();
        let (surveys, planned) = in_parallel(request, survey, || planner.plan(report, &inputs, &mut stage))?;
        let Planned { expectation, volume, plan, hives: more_hives } = planned?;
        report_log(report, &volume, &original, &installation.partition);
        hives.values_mut().zip(surveys).for_each(|(hive, survey)| hive.adopt(survey));
        hives.extend(more_hives);
        let store = hives.remove(&GuestHive::Bcd);
        let applied = apply_plan(request, observer, &installation, &plan, volume, hives);
        let applied = applied.and_then(|applied| {
            Ok((applied, apply_boot_edits(request, &mut stage, &installation, boot.as_ref(), &plan, store)?))
        });
        if request.threads.is_none() {
            observer.step(Step::CheckVolume);
        }
        Ok::<_, Error>((expectation, plan, applied))
    };
    let (owners, staged) = if request.trusts_unchanged && request.threads.is_some() {
        let staged = stage_plan();
        let is_unchanged = matches!(&staged, Ok((_, plan, Ok(_))) if plan.is_empty()) && !stage.is_dirty();
        ((!is_unchanged).then(owners), staged)
    } else {
        let (owners, staged) = in_parallel(request, owners, stage_plan)?;
        (Some(owners), staged)
    };
    let (expectation, plan, applied) = staged?;
    // Damage of the whole volume says more than what came of it.
    if let Some(owners) = owners {
        report_volume_check(owners, report)?;
    }
    let (applied, boot_files) = applied?;
    report.run.bytes_changed = stage.drop_unchanged()?;
    tracing::info!(edits = plan.len(), bytes = report.run.bytes_changed, "the changes are on the staged disk");
    // A discarded log or hibernation is a change, even if the drivers are installed already.
    report.virtio.unchanged = plan.is_empty() && !stage.is_dirty();
    let is_marked = request.state.any();
    let name = disk_name(request, &request.image);
    Ok(Staged {
        stage,
        plan,
        scheme: table.scheme,
        name,
        bitlocker: request.bitlocker.clone(),
        others,
        installation,
        applied,
        boot_files,
        expectation,
        is_marked,
        replay: request.state.replay(),
    })
}

/// Adds the outcome of the check of the whole volume to the report.
pub(super) fn report_volume_check(checked: Result<VolumeChecked>, report: &mut Report) -> Result<()> {
    match checked? {
        VolumeChecked::Passed => report.run.volume_check = Some("passed"),
        VolumeChecked::Skipped => {
            report.run.volume_check = Some("skipped");
            report.virtio.warnings.push(SKIPPED.to_owned());
        }
    }
    Ok(())
}

/// Applies a plan to the stage, after what it touches was checked.
fn apply_plan(
    request: &InjectRequest,
    observer: &dyn Observer,
    installation: &Installation,
    plan: &Plan,
    mut volume: StagedVolume<'_>,
    hives: Hives,
) -> Result<Applied> {
    // Existing damage must not be taken for a fault of the change.
    plan::check_before(volume.device(), plan, request.state.any())
        .map_err(|error| error.path(installation.partition.label()))?;
    request.cancel.check()?;
    observer.step(Step::Stage);
    // The replay of the log and overrides change the volume even if the plan is empty.
    volume.apply_admission()?;
    plan::apply(plan, &mut volume, hives, request.clock)
}

/// Applies the plan's edits of the boot volume to the stage, after those of the Windows volume, which may be the same.
fn apply_boot_edits(
    request: &InjectRequest,
    stage: &mut Stage,
    installation: &Installation,
    boot: Option<&BootVolume>,
    plan: &Plan,
    store: Option<Hive>,
) -> Result<Option<BootFiles>> {
    let Some(BootVolume { partition, .. }) = boot else { return Ok(None) };
    let Some(files) = planned_boot_files(request, stage, boot, plan, store)? else { return Ok(None) };
    let at = |error: Error| error.path(partition.label());
    // The Windows volume is checked anyway.
    let is_unchecked = partition.number != installation.partition.number && partition.content == FileSystem::Ntfs;
    if is_unchecked {
        check_volume(stage.original(), partition, &request.state, request.skip_volume_check, &|_, _, _| ())?;
    }
    let view = PartitionView::new(stage, partition)?;
    let mut options = open_options(request);
    // The overrides have marked the Windows volume by now.
    options.allow_dirty |= partition.number == installation.partition.number && request.state.any();
    plan::apply_boot(&files, view, partition, &options).map_err(at)?;
    Ok(Some(files))
}

/// What the plan makes of the boot volume.
pub(super) fn planned_boot_files(
    request: &InjectRequest,
    stage: &Stage,
    boot: Option<&BootVolume>,
    plan: &Plan,
    store: Option<Hive>,
) -> Result<Option<BootFiles>> {
    let Some(BootVolume { partition, .. }) = boot else { return Ok(None) };
    let read =
        |path: &str, limit: u64| plan::read_boot_volume(PartitionView::new(stage, partition)?, partition, path, limit);
    plan::boot_files(plan, &read, store, request.clock)
}

/// Runs both, the first one on a thread of its own unless the user gave a number of threads.
pub(super) fn in_parallel<A: Send, B>(
    request: &InjectRequest,
    other: impl FnOnce() -> A + Send,
    main: impl FnOnce() -> B,
) -> Result<(A, B)> {
    if request.threads.is_some() {
        return Ok((other(), main()));
    }
    std::thread::scope(|scope| {
        let other = scope.spawn(other);
        let main = main();
        let other = other.join().map_err(|_| Error::bug(Layer::Job, "a thread of the job panicked"))?;
        Ok((other, main))
    })
}

/// The Windows of an image, before anything is changed.
pub(super) struct FoundWindows {
    pub(super) stage: Stage,
    pub(super) others: Vec<OtherDisk>,
    pub(super) table: PartitionTable,
    pub(super) installation: Installation,
    /// With the boot configuration, if it can be edited.
    pub(super) hives: Hives,
    pub(super) boot: Option<BootVolume>,
}

impl FoundWindows {
    /// Adds the boot volume to the Windows that was found.
    ///
    /// # Errors
    /// [`Kind::Refused`] when BitLocker is in a state in which the volume must not be written; when the disk cannot be read.
    pub(super) fn with_boot_volume(
        request: &InjectRequest,
        disks: OpenedDisks,
        table: PartitionTable,
        installation: Installation,
        mut hives: Hives,
    ) -> Result<Self> {
        let OpenedDisks { stage, others } = disks;
        let Installation { partition, guest } = &installation;
        // Before anything is planned: nothing of what follows would be written.
        if let Some(refusal) = partition.write_refusal() {
            return Err(refusal);
        }
        let found = windows::find_boot_volume(&stage, &table, partition, guest, request.state.allow_dirty)?;
        let (boot, store) = found.unzip();
        hives.extend(store.flatten().map(|store| (GuestHive::Bcd, store)));
        Ok(Self { stage, others, table, installation, hives, boot })
    }
}

/// Recovers from an interrupted run, opens the image, and refuses a destination that the image does not allow.
pub(super) fn open_image(request: &InjectRequest, observer: &dyn Observer, report: &mut Report) -> Result<OpenedDisks> {
    request.cancel.check()?;
    let recovery =
        recover_first(&request.image, &request.path_policy, &request.destination, &request.cancel, observer)?;
    observer.step(Step::Open);
    report.run.recovered = matches!(recovery, Recovery::Restored | Recovery::Undone);
    report.run.completed = recovery == Recovery::Completed;
    if recovery == Recovery::GivenUp {
        report.virtio.warnings.push(UNDO_GIVEN_UP.to_owned());
    }
    open_unrecovered(request, report)
}

/// Opens the image, and refuses a destination that the image does not allow. An interrupted run is an error.
pub(super) fn open_unrecovered(request: &InjectRequest, report: &mut Report) -> Result<OpenedDisks> {
    let stage = open_disk(request, &request.image)?;
    report.run.image_format = Some(stage.image().format().to_string());
    report.image_files = stage.image().files();
    report.disk_files = vec![disk_file(request, &request.image, &stage)];
    report.virtio.warnings.extend(block::use_notes(stage.image()));
    let others = open_others(request, &stage, report)?;
    // Refuse early: nothing of what follows would help.
    check_destination(&stage, &request.image, &request.path_policy, request.judged_destination(), |error| {
        error.hint(format!("write a new image: {}", new_image_command(request, report)))
    })?;
    Ok(OpenedDisks { stage, others })
}

/// The command that does the same without writing into the image, as it is typed into a shell.
fn new_image_command(request: &InjectRequest, report: &Report) -> String {
    let argument = |path: &PathBuf| shell_argument(path, "IMAGE");
    let (image, others) = (argument(&request.image), &request.other_disks);
    match &report.run.plan {
        Some(plan) => {
            let plan = shell_argument(Path::new(&plan.path), "PLAN.json");
            let (others, drivers) =
                (shell_options("--image", others.iter()), shell_options("--drivers", request.drivers.iter()));
            format!("winject apply {plan} --image {image}{others}{drivers} -o NEW.qcow2")
        }
        None => {
            let others: String = others.iter().map(|path| format!(" {}", argument(path))).collect();
            let drivers = shell_options("--drivers", request.drivers.iter());
            let verb = if report.run.is_removal { "remove" } else { "inject" };
            format!("winject {verb} {image}{others}{drivers} -o NEW.qcow2")
        }
    }
}

/// Reads the partition table and finds the Windows to work on.
pub(super) fn find_windows(
    request: &InjectRequest,
    observer: &dyn Observer,
    disks: OpenedDisks,
) -> Result<FoundWindows> {
    observer.step(Step::Inspect);
    let OpenedDisks { stage, others } = disks;
    let read = request.bitlocker.read_partitions(&stage);
    let table = read.map_err(|error| error.path(request.image.display().to_string()))?;
    let table = table.with_replay(request.state.replay());
    let found = locate(&stage, &table, request.partition);
    let (installation, hives) = found.map_err(|error| on_disk(request, error))?;
    tracing::info!(partition = installation.partition.number, "found {}", installation.guest);
    FoundWindows::with_boot_volume(request, OpenedDisks { stage, others }, table, installation, hives)
}

/// What every plan is made from: the disk and the guest as they are.
pub(super) struct PlanInputs<'a> {
    pub(super) table: &'a PartitionTable,
    pub(super) installation: &'a Installation,
    /// The hives that inspection read.
    pub(super) hives: &'a Hives,
    /// The disks of the machine without its Windows.
    pub(super) others: &'a [OtherDisk],
    /// The boot volume of the disk; its boot configuration is among the hives.
    pub(super) boot: Option<&'a BootVolume>,
}

/// The Windows volume on a stage.
pub(super) type StagedVolume<'s> = Volume<PartitionView<&'s mut Stage>>;

/// A plan, and the volume that it was made for.
pub(super) struct Planned<'s> {
    /// What the boot check has to show with it.
    pub(super) expectation: Expectation,
    pub(super) volume: StagedVolume<'s>,
    pub(super) plan: Plan,
    /// Hives that were read for it, in addition to those of inspection.
    pub(super) hives: Hives,
}

/// Plans the injection of drivers that are chosen for the guest.
pub(super) struct DriverPlanner<'a> {
    pub(super) request: &'a InjectRequest,
    pub(super) observer: &'a dyn Observer,
    pub(super) drivers: &'a Drivers,
}

impl Planner for DriverPlanner<'_> {
    fn plan<'s>(&self, report: &mut Report, inputs: &PlanInputs<'_>, stage: &'s mut Stage) -> Result<Planned<'s>> {
        let Self { request, observer, drivers: Drivers { sources, definitions } } = self;
        let PlanInputs { table, installation, hives, boot, .. } = inputs;
        let guest = &installation.guest;
        observer.step(Step::ChooseDrivers);
        let mut selection =
            drivers::select_with_or_without_storage(sources, &guest.target(), definitions, &request.policy)?;
        if request.options.extras.guest_agent {
            selection.guest_agent = Some(drivers::find_guest_agent(sources, guest.arch)?);
        }
        report.add_selection(guest, &selection);
        report.recommendation = Some(report::recommend(guest, table, &selection));
        log_choice(report);
        observer.step(Step::Plan);
        let wanted = WantedDriver::chosen(&selection);
        // Not through the stage, whose reads a saved plan depends on: what is found changes no edit.
        let recovery =
            windows::find_recovery(&stage.original(), table, &installation.partition, &guest.windows_dir, &wanted);
        let volume = open_volume(request, stage, installation)?;
        let mut injection = windows::plan_inspected(&volume, guest, hives, *boot, &selection, &request.options)?;
        injection.plan.warnings.extend(recovery.warning(guest, &injection.record.packages_staged));
        report.virtio.recovery = Some(recovery);
        report.add_plan(guest, injection.plan.clone(), injection.record);
        let expectation = Expectation::new(request, guest, &selection);
        Ok(Planned { expectation, volume, plan: injection.plan, hives: injection.hives })
    }
}

/// Tells which packages were chosen and which were not, with the reasons.
fn log_choice(report: &Report) {
    for driver in &report.virtio.drivers_found {
        let version = driver.driver_version.as_deref().unwrap_or_default();
        tracing::info!(driver = %driver.name, folder = %driver.src_path, version, "chosen: {}", driver.reason);
    }
    for skipped in &report.virtio.skipped {
        tracing::info!(package = %skipped.name, "not used: {}", skipped.reason);
    }
}

/// The Windows volume on the stage, for writing.
pub(super) fn open_volume<'s>(
    request: &InjectRequest,
    stage: &'s mut Stage,
    installation: &Installation,
) -> Result<StagedVolume<'s>> {
    let options = open_options(request);
    let label = installation.partition.label();
    let view = PartitionView::new(stage, &installation.partition)?;
    let volume = Volume::open_shared(view, &installation.partition.replay, &options);
    volume.map_err(|error| error.path(&label))
}

/// The volume of a partition, only for reading.
pub(super) fn open_to_read<D: Disk>(disk: D, partition: &Partition) -> Result<Volume<PartitionView<D>>> {
    Volume::open_shared(PartitionView::new(disk, partition)?, &partition.replay, &OpenOptions::read_only())
}

/// How a volume that is edited is opened.
fn open_options(request: &InjectRequest) -> OpenOptions {
    request.state.open_options(request.clock)
}

fn open_sources(request: &InjectRequest) -> Result<Sources> {
    if request.drivers.is_empty() {
        return Err(Error::new(Kind::Drivers, Layer::Job, "no drivers given").with_code(ErrorCode::NoDrivers)
            .hint("name the folder or the ISO image of the drivers: --drivers virtio-win.iso, in a document virtio_drivers_dir"));
    }
    Sources::open(&request.drivers)
}
