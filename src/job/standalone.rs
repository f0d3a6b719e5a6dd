//! Writes the changed disk as a whole new image, while the changes are planned and verified.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::disks::OpenedDisks;
use super::report::Report;
use super::request::{InjectRequest, Observer};
use super::staging::{Staged, StagingJob};
use super::step::Step;
use super::verify::{VerifiedDisk, verify};
use crate::block::Image;
use crate::block::commit::Committed;
use crate::block::convert::{BackgroundCopy, ConvertOptions, ConvertProgress, Converted, ExportCopy, Inputs, convert};
use crate::error::{Error, Layer, Result};
use crate::host::is_nbd_name;

/// Stages the changes and writes the disk as a new image, which gets its name after the verification.
pub(super) fn write_standalone(
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
    job: &dyn StagingJob,
    path: &Path,
    options: &ConvertOptions<'_>,
) -> Result<Staged> {
    let opened = job.open(report);
    let (staged, done, verified) = match opened {
        Ok(disks) if is_nbd_name(path) => convert_to_export(request, observer, report, job, disks, path, options)?,
        Ok(disks) if options.compression.is_none() && request.threads.is_none() => {
            convert_meanwhile(observer, report, job, disks, path, options)?
        }
        opened => {
            let staged = job.stage(report, opened)?;
            let (done, verified) = convert_staged(request, observer, &staged, path, options)?;
            (staged, done, verified)
        }
    };
    verified.add_to(report);
    report.run.output_sha256 = done.sha256;
    let (path, bytes_written, notes) = (done.path, done.bytes_written, done.notes);
    report.add_commit(Committed { path, bytes_written, notes, ..Committed::default() });
    Ok(staged)
}

/// Writes the disk to an export, of which nothing is overwritten before the staged disk is verified.
fn convert_to_export(
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
    job: &dyn StagingJob,
    disks: OpenedDisks,
    path: &Path,
    options: &ConvertOptions<'_>,
) -> Result<(Staged, Converted, VerifiedDisk)> {
    let others: Vec<&dyn Image> = disks.others.iter().map(|other| other.stage.image()).collect();
    let inputs = Inputs { disks: &others, files: &request.drivers };
    let copy = ExportCopy::begin(&disks.stage, inputs, path, options)?;
    let staged = job.stage(report, Ok(disks))?;
    observer.step(Step::Verify);
    let verified = verify(&staged)?;
    observer.step(Step::Copy);
    let progress = |now: ConvertProgress| observer.progress(now.done, now.total);
    let done = copy.run(&staged.stage, &ConvertOptions { progress: Some(&progress), ..options.clone() })?;
    Ok((staged, done, verified))
}

/// Writes the new image while the staged disk is verified; one after the other if the number of threads is given.
fn convert_staged(
    request: &InjectRequest,
    observer: &dyn Observer,
    staged: &Staged,
    path: &Path,
    options: &ConvertOptions<'_>,
) -> Result<(Converted, VerifiedDisk)> {
    observer.step(Step::Copy);
    let progress = |p: ConvertProgress| observer.progress(p.done, p.total);
    if request.threads.is_some() {
        let verified = verify(staged)?;
        let options = ConvertOptions { progress: Some(&progress), ..options.clone() };
        return Ok((convert(&staged.stage, path, &options)?, verified));
    }
    let verified = Mutex::new(None);
    let verify_meanwhile = || {
        let found = verify(staged)?;
        *verified.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(())
    };
    let options = ConvertOptions { progress: Some(&progress), verify: Some(&verify_meanwhile), ..options.clone() };
    let done = convert(&staged.stage, path, &options)?;
    let verified = verified.into_inner().unwrap_or_else(PoisonError::into_inner);
    let verified = verified.ok_or_else(|| Error::bug(Layer::Job, "an image was written without being verified"))?;
    Ok((done, verified))
}

/// Copies the image while the changes are planned and verified; then writes them over the copy.
fn convert_meanwhile(
    observer: &dyn Observer,
    report: &mut Report,
    job: &dyn StagingJob,
    disks: OpenedDisks,
    path: &Path,
    options: &ConvertOptions<'_>,
) -> Result<(Staged, Converted, VerifiedDisk)> {
    let copy = BackgroundCopy::start(&disks.stage, path, options);
    // An error of the guest or the drivers is reported before one of the output.
    let staged = job.stage(report, Ok(disks))?;
    let copy = copy?;
    observer.step(Step::Copy);
    let verified = verify(&staged)?;
    let done = copy.finish(&staged.stage, &|now| observer.progress(now.done, now.total))?;
    Ok((staged, done, verified))
}
