//! The main job: injects drivers into a switched-off Windows.

use super::choose_disk::choose_disk;
use super::disks::OpenedDisks;
use super::explain::explain;
use super::outputs::check_outputs;
use super::phases::PhaseClock;
use super::report::Report;
use super::request::{InjectRequest, Observer};
use super::staging::{Staged, StagingJob, open_image, stage_changes};
use super::standalone::write_standalone;
use super::step::Step;
use super::verify::verify;
use super::write_stage::commit_stage;
use crate::block::commit::CommitOptions;
use crate::block::convert::ConvertOptions;
use crate::error::Result;

/// Makes the Windows in an image bootable from a virtio disk.
///
/// Everything is changed and verified on a copy-on-write stage in memory; only then is the result written to the
/// request's [`Destination`](super::Destination). The observer is called on the calling thread. A Windows that has the
/// drivers already is left as it is, which [`Virtio::unchanged`](super::report::Virtio::unchanged) says.
///
/// ```no_run
/// use winject::{Destination, FileTime, InjectRequest, Observer, Step, inject};
///
/// struct Lines;
///
/// impl Observer for Lines {
///     fn step(&self, step: Step) {
///         println!("{}", step.title());
///     }
///     fn progress(&self, done: u64, total: u64) {
///         println!("{done} of {total} bytes");
///     }
/// }
///
/// # fn main() -> winject::Result<()> {
/// let drivers = vec!["virtio-win.iso".into()];
/// let request = InjectRequest::new("guest.qcow2", drivers, Destination::InPlace, FileTime::now());
/// println!("{}", inject(&request, &Lines)?.summary);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Every [`Kind`](crate::Kind). The image holds what it held before, and no output file is left. (If power fails in the
/// middle of an in-place commit, [`recover`](super::recover()) undoes or completes it from the journal.)
pub fn inject(request: &InjectRequest, observer: &dyn Observer) -> Result<Report> {
    let mut report = Report::of_request(request);
    inject_into(request, observer, &mut report)?;
    Ok(report)
}

/// Like [`inject`], but fills the caller's report, which shows how far a failed run came.
///
/// # Errors
/// Those of [`inject`].
pub fn inject_into(request: &InjectRequest, observer: &dyn Observer, report: &mut Report) -> Result<()> {
    let job = |observer: &dyn Observer, report: &mut Report| run(request, observer, report).map_err(explain);
    let outcome = PhaseClock::measure(observer, report, job);
    if let Err(error) = &outcome {
        report.fail(error);
    }
    outcome
}

fn run(request: &InjectRequest, observer: &dyn Observer, report: &mut Report) -> Result<()> {
    check_outputs(request, &[])?;
    let request = &choose_disk(request, observer, report)?;
    run_staging_job(request, observer, report, &Injection { request, observer })
}

/// Stages the changes of a job, verifies them, and writes them to the request's destination.
///
/// # Errors
/// Those of the job, of the verification and of the commit; nothing is written then.
pub(super) fn run_staging_job(
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
    job: &dyn StagingJob,
) -> Result<()> {
    let staged = match request.destination.new_image() {
        Some((path, options)) => {
            let options = ConvertOptions {
                overwrite: request.overwrite_output,
                threads: request.threads,
                cancel: request.cancel.clone(),
                nbd: request.nbd.clone(),
                ..options
            };
            write_standalone(request, observer, report, job, path, &options)?
        }
        None => {
            let mut staged = stage_and_verify(observer, report, job)?;
            commit_staged(request, observer, report, &mut staged)?;
            staged
        }
    };
    report.run.bytes_read = staged.bytes_read();
    report.succeed();
    report.summary = report.outcome(staged.scheme);
    Ok(())
}

/// Does everything but writing, for a caller that writes the staged disk itself and then calls [`Report::succeed`].
///
/// # Errors
/// Those of [`inject`].
pub fn prepare(request: &InjectRequest, observer: &dyn Observer, report: &mut Report) -> Result<Staged> {
    let request = &choose_disk(request, observer, report)?;
    stage_and_verify(observer, report, &Injection { request, observer })
}

/// Stages the changes of a job and verifies them, without writing them anywhere.
///
/// # Errors
/// Those of the job and of the verification.
pub(super) fn stage_and_verify(observer: &dyn Observer, report: &mut Report, job: &dyn StagingJob) -> Result<Staged> {
    let opened = job.open(report);
    let staged = job.stage(report, opened)?;
    observer.step(Step::Verify);
    verify(&staged)?.add_to(report);
    Ok(staged)
}

/// The injection of drivers, which are chosen for the guest.
struct Injection<'a> {
    request: &'a InjectRequest,
    observer: &'a dyn Observer,
}

impl StagingJob for Injection<'_> {
    fn open(&self, report: &mut Report) -> Result<OpenedDisks> {
        open_image(self.request, self.observer, report)
    }
    fn stage(&self, report: &mut Report, opened: Result<OpenedDisks>) -> Result<Staged> {
        stage_changes(self.request, self.observer, report, opened)
    }
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
        keep_undo: request.keep_undo,
        ..CommitOptions::default()
    };
    let committed = commit_stage(stage, &request.image, &request.destination, options, observer)?;
    let Some(committed) = committed else { return Ok(()) };
    let undo = committed.undo_record.as_deref().map(|path| path.display().to_string());
    tracing::info!(path = %committed.path.display(), bytes = committed.bytes_written, ?undo, "written");
    report.add_commit(committed);
    Ok(())
}
