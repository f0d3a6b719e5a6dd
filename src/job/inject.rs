//! The main job: drivers into a switched-off Windows.

use super::explain::explain;
use super::locate::{Installation, locate};
use super::outputs::check_outputs;
use super::recover::recover;
use super::report::Report;
use super::request::{Destination, InjectRequest, Observer};
use super::verdict::{Verdict, judge};
use super::volume_check::{SKIPPED, check_volume};
use crate::block::commit::{self, CommitOptions, Committed, Recovery};
use crate::block::convert::{Conversion, ConvertOptions, ConvertProgress, Converted, convert};
use crate::block::{self, Stage, StageOptions};
use crate::drivers::{self, Definitions, Selection, Sources};
use crate::error::{Error, Kind, Layer, Result};
use crate::hive::Hive;
use crate::ntfs::{OpenOptions, Volume};
use crate::partition::{self, PartitionTable, PartitionView, Scheme};
use crate::plan::{self, Applied, Plan};
use crate::windows::{self, Hives};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

/// The step in which a new image is written.
const WRITING: &str = "Writing and verifying the new image";

/// How much of a compressed image is kept unpacked.
const READ_CACHE_BYTES: u64 = 32 << 20;

/// How often progress is reported at least.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Makes the Windows in an image bootable from a virtio disk.
///
/// # Errors
/// Every [`Kind`]; whatever it is, the image holds what it held before, and no output file is left behind. (An
/// interruption by the power supply in the middle of an in-place commit is undone by the next run.)
pub fn inject(request: &InjectRequest, observer: &dyn Observer) -> Result<Report> {
    let mut report = Report::of_request(request);
    inject_into(request, observer, &mut report)?;
    Ok(report)
}

/// As [`inject`], with a report that also tells how far a failed run came.
///
/// # Errors
/// As [`inject`].
pub fn inject_into(request: &InjectRequest, observer: &dyn Observer, report: &mut Report) -> Result<()> {
    let outcome = run(request, observer, report).map_err(explain);
    if let Err(error) = &outcome {
        report.fail(error);
    }
    outcome
}

fn run(request: &InjectRequest, observer: &dyn Observer, report: &mut Report) -> Result<()> {
    check_outputs(request, &[])?;
    let staged = match &request.destination {
        Destination::Standalone { path, format, compression, checksum } => {
            let options = ConvertOptions {
                format: *format,
                compression: compression.map(|(kind, _)| kind),
                level: compression.and_then(|(_, level)| level),
                checksum: *checksum,
                overwrite: request.overwrite_output,
                threads: request.threads,
                cancel: request.cancel.clone(),
                ..ConvertOptions::default()
            };
            write_standalone(request, observer, report, path, &options)?
        }
        _ => {
            let mut staged = prepare(request, observer, report)?;
            commit_staged(request, observer, report, &mut staged)?;
            staged
        }
    };
    report.run.bytes_read = staged.stage.image().bytes_read();
    report.succeed();
    report.summary = summary(report, staged.scheme);
    Ok(())
}

/// An injection that is done on the stage, and not written anywhere yet.
#[derive(Debug)]
pub struct Staged {
    /// The changed disk.
    pub stage: Stage,
    /// What was changed.
    pub plan: Plan,
    /// How the disk is divided.
    pub scheme: Scheme,
    pub(super) installation: Installation,
    pub(super) selection: Selection,
    pub(super) applied: Applied,
}

/// Everything but the writing, verified: for a caller that writes in its own way.
/// [`Report::succeed`] is to be called when that is done.
///
/// # Errors
/// As [`inject`].
pub fn prepare(request: &InjectRequest, observer: &dyn Observer, report: &mut Report) -> Result<Staged> {
    let opened = open_image(request, observer, report);
    let staged = stage_changes(request, observer, report, opened)?;
    observer.step("Verifying");
    judge(&staged, request)?.note(report);
    Ok(staged)
}

/// Everything but the verdict and the writing.
fn stage_changes(
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
    opened: Result<Stage>,
) -> Result<Staged> {
    let definitions = match &request.definitions {
        Some(path) => Definitions::load(path)?,
        None => Definitions::builtin(),
    };
    let definitions = if request.packages_only { definitions.staged_only() } else { definitions };
    report.virtio.warnings.extend(definitions.warnings.iter().cloned());
    // Neither needs the other. What is wrong with the drivers is said first.
    let (sources, found) = in_parallel(
        request,
        || open_sources(request),
        || opened.and_then(|stage| find_windows(request, observer, stage)),
    )?;
    let sources = sources?;
    let FoundWindows { mut stage, table, installation, mut hives } = found?;
    report.add_guest(stage.len(), &table, &installation.partition, &installation.guest);

    // Almost every plan edits SYSTEM and SOFTWARE, and the first edit of a hive begins with a survey of all of it.
    let original = stage.original();
    let ground = Ground { sources: &sources, definitions: &definitions, table: &table, hives: &hives };
    let survey = || hives.values().map(Hive::survey).collect::<Vec<_>>();
    let owners = || (!request.skip_volume_check).then(|| check_volume(&original, &installation.partition));
    let (surveys, rest) = in_parallel(request, survey, || {
        in_parallel(request, owners, || choose_and_plan(request, observer, report, &ground, &mut stage, &installation))
    })?;
    let (owners, planned) = rest?;
    let Planned { selection, mut volume, plan, hives: more_hives } = planned?;
    hives.values_mut().zip(surveys).for_each(|(hive, survey)| hive.adopt(survey));
    hives.extend(more_hives);

    match owners {
        Some(owners) => {
            owners?;
            report.run.volume_check = Some("passed");
        }
        None => {
            report.run.volume_check = Some("skipped");
            report.virtio.warnings.push(SKIPPED.to_owned());
        }
    }
    // Damage that was there before is not to look like a defect of the change.
    plan::check_before(volume.device(), &plan, request.state.any())
        .map_err(|error| error.path(installation.partition.label()))?;

    request.cancel.check()?;
    observer.step("Applying the plan to the staged disk");
    // an override is obeyed even when there is nothing else to do
    volume.apply_overrides()?;
    let applied = plan::apply_loaded(&plan, &mut volume, hives, request.clock)?;
    volume.flush()?;
    drop(volume);
    report.run.bytes_changed = stage.drop_unchanged()?;
    // A discarded log or hibernation is a change, even when the drivers are there already.
    report.virtio.unchanged = plan.is_empty() && !stage.is_dirty();
    Ok(Staged { stage, plan, scheme: table.scheme, installation, selection, applied })
}

/// Runs both, the first one on a thread of its own unless the user gave a number of threads.
fn in_parallel<A: Send, B>(
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

/// What the first look at the image gives.
struct FoundWindows {
    stage: Stage,
    table: PartitionTable,
    installation: Installation,
    hives: Hives,
}

/// Opens the image.
fn open_image(request: &InjectRequest, observer: &dyn Observer, report: &mut Report) -> Result<Stage> {
    observer.step("Opening the image");
    request.cancel.check()?;
    let recovery = recover(&request.image, &request.path_policy, &request.destination, &request.cancel)?;
    report.run.recovered = recovery == Recovery::Restored;
    report.run.completed = recovery == Recovery::Completed;
    let stage = open_stage(request)?;
    report.run.image_format = Some(stage.image().format().to_string());
    report.image_files = stage.image().files();
    if let Destination::Overlay(out) | Destination::Standalone { path: out, .. } = &request.destination {
        commit::refuse_own_files(&report.image_files, out)?;
    }
    // What the file itself forbids is said before any work is done.
    match request.destination {
        Destination::InPlace => commit::check_in_place(&stage, &request.image, &request.path_policy)?,
        Destination::Overlay(_) => commit::check_overlay(&stage)?,
        Destination::DryRun | Destination::Standalone { .. } => {}
    }
    Ok(stage)
}

/// Looks for Windows in the image.
fn find_windows(request: &InjectRequest, observer: &dyn Observer, stage: Stage) -> Result<FoundWindows> {
    observer.step("Looking for Windows");
    let table = partition::read(&stage).map_err(|error| error.path(request.image.display().to_string()))?;
    let (installation, hives) = locate(&stage, &table, request.partition)?;
    Ok(FoundWindows { stage, table, installation, hives })
}

/// What a plan is made from, besides the guest.
struct Ground<'a> {
    sources: &'a Sources,
    definitions: &'a Definitions,
    table: &'a PartitionTable,
    hives: &'a Hives,
}

/// A plan, and the volume that it was made for.
struct Planned<'s> {
    selection: Selection,
    volume: Volume<PartitionView<&'s mut Stage>>,
    plan: Plan,
    /// Hives that were read for it.
    hives: Hives,
}

fn choose_and_plan<'s>(
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
    ground: &Ground<'_>,
    stage: &'s mut Stage,
    installation: &Installation,
) -> Result<Planned<'s>> {
    let guest = &installation.guest;
    observer.step("Choosing drivers");
    let selection =
        drivers::select_with_or_without_storage(ground.sources, &guest.target(), ground.definitions, &request.policy)?;
    report.add_selection(guest, &selection);
    report.recommendation = Some(super::report::recommend(guest, ground.table, &selection));
    observer.step("Planning");
    let volume = open_volume(request, stage, installation)?;
    let injection = windows::plan_inspected(&volume, guest, ground.hives, &selection, &request.options)?;
    report.add_plan(guest, injection.plan.clone(), injection.record);
    Ok(Planned { selection, volume, plan: injection.plan, hives: injection.hives })
}

/// The Windows volume on the stage, for writing.
fn open_volume<'s>(
    request: &InjectRequest,
    stage: &'s mut Stage,
    installation: &Installation,
) -> Result<Volume<PartitionView<&'s mut Stage>>> {
    let options = OpenOptions {
        allow_dirty: request.state.allow_dirty,
        discard_log: request.state.discard_ntfs_log,
        discard_hibernation: request.state.discard_hibernation,
        ..OpenOptions::new(request.clock)
    };
    let label = installation.partition.label();
    let view = PartitionView::new(stage, &installation.partition)?;
    Volume::open(view, &options).map_err(|error| error.path(&label))
}

fn commit_staged(
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
    staged: &mut Staged,
) -> Result<()> {
    let stage = &mut staged.stage;
    let options = CommitOptions {
        overwrite: request.overwrite_output,
        path_policy: request.path_policy.clone(),
        cancel: request.cancel.clone(),
        ..CommitOptions::default()
    };
    let committed = match &request.destination {
        Destination::DryRun => return Ok(()),
        // Not even a lock for writing is taken when nothing changes.
        Destination::InPlace if !stage.is_dirty() => {
            report.run.output = Some(request.image.display().to_string());
            return Ok(());
        }
        Destination::InPlace => {
            observer.step("Writing into the image");
            commit::commit_in_place(stage, &request.image, &options)?
        }
        Destination::Overlay(out) => {
            observer.step("Writing the overlay");
            commit::commit_overlay(stage, &request.image, out, &options)?
        }
        Destination::Standalone { .. } => return Err(Error::bug(Layer::Job, "a new image is no commit")),
    };
    note_commit(report, committed);
    Ok(())
}

/// Stages the changes and writes them as a new image. It gets its name only when the verdict is there.
fn write_standalone(
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
    path: &Path,
    options: &ConvertOptions<'_>,
) -> Result<Staged> {
    let opened = open_image(request, observer, report);
    let (staged, done, verdict) = match opened {
        Ok(stage) if options.compression.is_none() && request.threads.is_none() => {
            convert_meanwhile(request, observer, report, stage, path, options)?
        }
        opened => {
            let staged = stage_changes(request, observer, report, opened)?;
            let (done, verdict) = convert_staged(request, observer, &staged, path, options)?;
            (staged, done, verdict)
        }
    };
    verdict.note(report);
    report.run.output_sha256 = done.sha256;
    note_commit(report, Committed { path: done.path, bytes_written: done.bytes_written, warnings: Vec::new() });
    Ok(staged)
}

/// Writes the new image while the verdict is found; after it, when the number of threads is given.
fn convert_staged(
    request: &InjectRequest,
    observer: &dyn Observer,
    staged: &Staged,
    path: &Path,
    options: &ConvertOptions<'_>,
) -> Result<(Converted, Verdict)> {
    observer.step(WRITING);
    let progress = |p: ConvertProgress| observer.progress(p.done, p.total);
    if request.threads.is_some() {
        let verdict = judge(staged, request)?;
        let options = ConvertOptions { progress: Some(&progress), ..options.clone() };
        return Ok((convert(&staged.stage, path, &options)?, verdict));
    }
    let verdict = Mutex::new(None);
    let judge = || {
        let found = judge(staged, request)?;
        *verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(())
    };
    let options = ConvertOptions { progress: Some(&progress), judge: Some(&judge), ..options.clone() };
    let done = convert(&staged.stage, path, &options)?;
    let verdict = verdict.into_inner().unwrap_or_else(PoisonError::into_inner);
    let verdict = verdict.ok_or_else(|| Error::bug(Layer::Job, "an image was written without a verdict"))?;
    Ok((done, verdict))
}

/// Copies the image while the changes are found and while the verdict is; then writes the changes over the copy.
fn convert_meanwhile(
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
    stage: Stage,
    path: &Path,
    options: &ConvertOptions<'_>,
) -> Result<(Staged, Converted, Verdict)> {
    let image = stage.original();
    let mut conversion = Conversion::begin(&stage.image().files(), path, options);
    let is_begun = conversion.is_ok();
    let stop = AtomicBool::new(false);
    let copied = Mutex::new(ConvertProgress { done: 0, total: 0 });
    let copied = || copied.lock().unwrap_or_else(PoisonError::into_inner);
    let show = |now: ConvertProgress| {
        if now.total > 0 {
            observer.progress(now.done, now.total);
        }
    };
    let (staged, verdict, copying) = std::thread::scope(|scope| {
        let mut copy = Wanted { stop: &stop, is_wanted: false };
        let (copies, is_copied) = mpsc::channel::<()>();
        let copying = conversion.as_mut().ok().map(|conversion| {
            scope.spawn(|| {
                // The other end learns of the end of this thread.
                let _copies = copies;
                conversion.copy_image(&image, &stop, &|now| *copied() = now)
            })
        });
        let staged = stage_changes(request, observer, report, Ok(stage));
        let verdict = staged.as_ref().ok().filter(|_| is_begun).map(|staged| {
            observer.step(WRITING);
            judge(staged, request)
        });
        copy.is_wanted = matches!(verdict, Some(Ok(_)));
        drop(copy);
        while is_copied.recv_timeout(PROGRESS_EVERY) == Err(RecvTimeoutError::Timeout) {
            let now = *copied();
            show(now);
        }
        (staged, verdict, copying.map(ScopedJoinHandle::join))
    });
    // What is wrong with the guest or the drivers is said first, then what is wrong with the output.
    let staged = staged?;
    let conversion = conversion?;
    let verdict = verdict.ok_or_else(|| Error::bug(Layer::Job, "changes without a verdict"))??;
    match copying {
        Some(Ok(outcome)) => outcome?,
        _ => return Err(Error::bug(Layer::Job, "the copying of the image panicked")),
    }
    let now = *copied();
    show(now);
    let done = conversion.finish(&staged.stage, options, &show)?;
    Ok((staged, done, verdict))
}

/// Tells a copy to stop when nobody wants it any more, also when that is because of a panic.
struct Wanted<'a> {
    stop: &'a AtomicBool,
    is_wanted: bool,
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        if !self.is_wanted {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

fn note_commit(report: &mut Report, committed: Committed) {
    report.run.output = Some(committed.path.display().to_string());
    report.virtio.warnings.extend(committed.warnings);
}

fn open_sources(request: &InjectRequest) -> Result<Sources> {
    if request.drivers.is_empty() {
        return Err(Error::new(Kind::Drivers, Layer::Job, "no driver source was given")
            .hint("give --drivers with the folder or the ISO image of the drivers, for instance virtio-win.iso"));
    }
    Sources::open(&request.drivers)
}

fn open_stage(request: &InjectRequest) -> Result<Stage> {
    let path_policy = request.path_policy.clone();
    let disk = request.disk.clone();
    let options = block::OpenOptions { format: request.format, path_policy, disk, ..block::OpenOptions::default() };
    // Inspection, the edit and the verdict read the same hives.
    let stage_options = StageOptions { read_cache_bytes: READ_CACHE_BYTES, ..StageOptions::default() };
    Ok(Stage::new(block::open(&request.image, &options)?, stage_options))
}

fn summary(report: &Report, scheme: Scheme) -> String {
    let windows = report.virtio.windows.as_ref().map_or_else(String::new, |windows| windows.product.clone());
    // Only what the boot check has found on the staged disk counts, not what was copied.
    let bound = report.boot.iter().filter(|answer| answer.boots).flat_map(|answer| &answer.routes);
    let mut drivers: Vec<&str> = bound.map(|route| route.service.as_str()).collect();
    drivers.sort_unstable_by_key(|name| name.to_lowercase());
    drivers.dedup_by(|a, b| a.eq_ignore_ascii_case(b));
    if drivers.is_empty() {
        let staged = format!("the packages are staged in {windows} ({scheme}), which will not boot from virtio");
        return match (report.run.dry_run, report.virtio.unchanged) {
            (_, true) => format!("Unchanged: {staged}; nothing was written."),
            (true, false) => format!("Dry run: after this plan {staged}; nothing was written."),
            (false, false) => format!("Done: {staged}."),
        };
    }
    let what = format!("{windows} ({scheme}) boots with {}", drivers.join(" and "));
    match (report.run.dry_run, report.virtio.unchanged) {
        (_, true) => format!("Unchanged: {what} already, nothing was written."),
        (true, false) => format!("Dry run: {what} after this plan; nothing was written."),
        (false, false) => format!("Done: {what}."),
    }
}
