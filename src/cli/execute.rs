//! Runs an injection: shows its steps and its outcome, and writes its reports.

use std::path::{Path, PathBuf};

use super::request::InjectSpec;
use super::signals::{self, Subject};
use super::{Progress, Ui, worker};
use crate::error::{Kind, Result};
use crate::escape::escape;
use crate::exit::ExitCode;
use crate::job::report::RemovalRecord;
use crate::job::{self, Destination, FinishedOutput, InjectRequest, Machine, Observer, Report, Step};

/// Runs an injection.
///
/// # Errors
/// What is wrong with the request, and whatever the job fails with.
pub fn execute(spec: &InjectSpec, ui: &Ui) -> Result<ExitCode> {
    let request = spec.request()?;
    let reports = &spec.guest.report;
    let machine = &spec.guest.machine;
    machine.prepare(&request, ui)?;
    if worker::is_worker()
        && let Some(FinishedOutput { mut report, .. }) = job::find_finished_output(&request)?
    {
        worker::note_done_before();
        // The batch may have been stopped before they were written.
        let written = write_reports(&mut report, reports, ui);
        show_outcome(&report, ui)?;
        let described = describe_machine(spec, &report, ui);
        return written.and(described).map(|()| ExitCode::Done);
    }
    // Of a worker that edits in place, an earlier run may have written the description: it is compared when it is made.
    let may_exist = worker::is_worker() && request.destination == Destination::InPlace;
    let texts: Vec<_> = machine.outputs().filter(|(_, path)| !may_exist || !path.is_file()).collect();
    job::check_text_outputs(&request, reports, &texts)?;
    carry_out_and(
        &request,
        reports,
        ui,
        |observer, report| job::inject_into(&request, observer, report),
        |report| describe_machine(spec, report, ui),
    )
}

fn describe_machine(spec: &InjectSpec, report: &Report, ui: &Ui) -> Result<()> {
    let machine = &spec.guest.machine;
    machine.show(|| Machine::of_report(report), spec.output.overwrite, &report.image_files, ui)
}

/// Runs a job that does what `request` says, writes its report to the files `reports`, and shows the outcome.
///
/// # Errors
/// Whatever the job fails with; else, when a report cannot be written.
pub fn carry_out(
    request: &InjectRequest,
    reports: &[PathBuf],
    ui: &Ui,
    run: impl FnOnce(&dyn Observer, &mut Report) -> Result<()>,
) -> Result<ExitCode> {
    carry_out_and(request, reports, ui, run, |_| Ok(()))
}

/// Like [`carry_out`], with something else that is made from the report of a run that succeeded.
fn carry_out_and(
    request: &InjectRequest,
    reports: &[PathBuf],
    ui: &Ui,
    run: impl FnOnce(&dyn Observer, &mut Report) -> Result<()>,
    finish: impl FnOnce(&Report) -> Result<()>,
) -> Result<ExitCode> {
    if let Some(subject) = subject(request) {
        signals::set_subject(subject);
    }
    if request.other_disks.is_empty() {
        ui.name_image(&request.image);
    }
    let mut report = Report::of_request(request);
    let watcher = Watcher { is_in_place: request.destination == Destination::InPlace, ..Watcher::new(ui) };
    let outcome = run(&watcher, &mut report);
    drop(watcher);
    if !is_reported(&outcome) {
        return outcome.map(|()| ExitCode::Usage);
    }
    // The reports describe what was done: they are written even if a signal comes.
    let _hold = signals::cancel().hold_through();
    let written = write_reports(&mut report, reports, ui);
    outcome?;
    show_outcome(&report, ui)?;
    let finished = finish(&report);
    written.and(finished).map(|()| ExitCode::Done)
}

/// Whether there are reports of an outcome. A run that did not begin, or was cancelled, is not reported: it would replace
/// the report of an earlier, good run.
pub(super) fn is_reported<T>(outcome: &Result<T>) -> bool {
    !matches!(outcome, Err(error) if matches!(error.kind(), Kind::Usage | Kind::Cancelled))
}

/// What a run writes, apart from its reports.
fn subject(request: &InjectRequest) -> Option<Subject> {
    match &request.destination {
        // Which of several disks is written, the job finds out.
        Destination::InPlace if !request.other_disks.is_empty() => None,
        destination => Subject::of(destination, &request.image),
    }
}

/// Reports are written for failures too. One that cannot be written does not hide what happened to the image. From then on the
/// commands in the report work as they stand there.
pub(super) fn write_reports(report: &mut Report, paths: &[PathBuf], ui: &Ui) -> Result<()> {
    report.complete_commands(&|text| ui.complete(text).into_owned());
    let mut failed = None;
    for path in paths {
        match job::report::write(report, path, &signals::cancel()) {
            Ok(files) => {
                for file in files {
                    ui.note(&format!("report written: {}", file.display()));
                }
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(()), Err)
}

fn show_outcome(report: &Report, ui: &Ui) -> Result<()> {
    if ui.is_json() {
        ui.json_document(&report.to_json()?);
    }
    if report.run.recovered {
        ui.note("an earlier run was interrupted; the image was restored first");
    }
    if report.run.completed {
        ui.note("an earlier run was interrupted when it had written everything; it was completed first");
    }
    for warning in &report.virtio.warnings {
        ui.warn(warning);
    }
    report.run.output_notes.iter().for_each(|note| ui.note(note));
    let is_shown = (report.run.dry_run || ui.verbosity() > 0) && !ui.is_quiet();
    if let Some(plan) = report.changes.as_ref().filter(|_| is_shown) {
        ui.answer(&plan.to_string());
    }
    if let Some(windows) = &report.virtio.windows {
        ui.done(&format!("Windows:  {} (build {}, {})", windows.product, windows.build, windows.arch));
    }
    if let Some(start) = &report.bitlocker {
        ui.done(&format!("BitLocker: {}", start.volume));
        // The other case is a warning.
        if !start.asks_for_key {
            ui.done(&format!("          {}", start.first_start));
        }
    }
    if let Some(replay) = &report.log_replay {
        ui.done(&format!("NTFS log: {replay}"));
        if ui.verbosity() > 0 {
            replay.lines().iter().skip(1).for_each(|line| ui.done(&format!("          {line}")));
        }
    }
    match (&report.run.plan, &report.removal) {
        (_, Some(removal)) => show_removal(removal, ui),
        (Some(plan), None) => ui.done(&format!("Plan:     {} (sha256 {})", plan.path, plan.sha256)),
        (None, None) => {
            let staged: Vec<&str> = report.virtio.packages_staged.iter().map(|p| p.service.as_str()).collect();
            ui.done(&format!("Packages: {}", staged.join(", ")));
        }
    }
    if let Some(machine) = &report.recommendation {
        let buses = if machine.buses.is_empty() { machine.bus.to_owned() } else { machine.buses.join(" or ") };
        ui.done(&format!(
            "Machine:  {}, {}, disk on {buses}, network {}, clock {}",
            machine.machine, machine.firmware, machine.net_model, machine.clock
        ));
        for note in &machine.notes {
            ui.done(&format!("          {note}"));
        }
    }
    ui.done(&report.summary);
    if let Some(output) = report.run.output.as_deref().filter(|_| !report.run.dry_run) {
        ui.done(&format!("Output:   {output}"));
        if let Some(undo) = &report.run.undo {
            ui.done(&format!("Undo:     {undo}"));
        }
        if let Some(sum) = &report.run.output_sha256 {
            ui.answer(&escape(&format!("{sum}  {output}")));
        }
    }
    Ok(())
}

/// Shows what a removal takes out of the guest, what it leaves, and from which disks the guest boots.
fn show_removal(removal: &RemovalRecord, ui: &Ui) {
    for what in &removal.removed {
        ui.done(&format!("Removed:  {what}"));
    }
    for item in &removal.left {
        ui.done(&format!("Left:     {} ({})", item.what, item.reason));
    }
    if !removal.boots_before.is_empty() {
        let listed = |disks: &[String]| if disks.is_empty() { "no disk".to_owned() } else { disks.join(", ") };
        ui.done(&format!("Before:   boots from {}", listed(&removal.boots_before)));
        ui.done(&format!("After:    boots from {}", listed(&removal.boots_after)));
    }
}

/// Shows the steps of a job.
pub(super) struct Watcher {
    progress: Progress,
    /// Whether the job writes into its image.
    is_in_place: bool,
}

impl Watcher {
    pub(super) fn new(ui: &Ui) -> Self {
        Self { progress: ui.progress(), is_in_place: false }
    }

    /// Takes the progress line away until the next step.
    pub(super) fn pause(&self) {
        self.progress.pause();
    }
}

impl Observer for Watcher {
    fn step(&self, step: Step) {
        tracing::info!("{}", step.title());
        self.progress.phase(step.name(), step.title());
    }
    fn image(&self, path: &Path) {
        tracing::info!(path = %path.display(), "the disk with Windows");
        if self.is_in_place {
            signals::set_subject(Subject::InPlace(path.to_owned()));
        }
    }
    fn progress(&self, done: u64, total: u64) {
        self.progress.set(done, total);
    }
}
