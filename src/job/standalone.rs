//! The changes as a whole new image, written while they are found and verified.

use super::report::Report;
use super::request::{InjectRequest, Observer};
use super::staging::{Staged, open_image, stage_changes};
use super::verify::{VerifiedDisk, verify};
use crate::block::Stage;
use crate::block::commit::Committed;
use crate::block::convert::{Conversion, ConvertOptions, ConvertProgress, Converted, convert};
use crate::error::{Error, Layer, Result};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

/// The step in which a new image is written.
const WRITING: &str = "Writing and verifying the new image";

/// How often progress is reported at least.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Stages the changes and writes them as a new image. It gets its name only when the verified is there.
pub(super) fn write_standalone(
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
    path: &Path,
    options: &ConvertOptions<'_>,
) -> Result<Staged> {
    let opened = open_image(request, observer, report);
    let (staged, done, verified) = match opened {
        Ok(stage) if options.compression.is_none() && request.threads.is_none() => {
            convert_meanwhile(request, observer, report, stage, path, options)?
        }
        opened => {
            let staged = stage_changes(request, observer, report, opened)?;
            let (done, verified) = convert_staged(request, observer, &staged, path, options)?;
            (staged, done, verified)
        }
    };
    verified.add_to(report);
    report.run.output_sha256 = done.sha256;
    report.add_commit(Committed { path: done.path, bytes_written: done.bytes_written, warnings: Vec::new() });
    Ok(staged)
}

/// Writes the new image while the staged disk is verified; after it, when the number of threads is given.
fn convert_staged(
    request: &InjectRequest,
    observer: &dyn Observer,
    staged: &Staged,
    path: &Path,
    options: &ConvertOptions<'_>,
) -> Result<(Converted, VerifiedDisk)> {
    observer.step(WRITING);
    let progress = |p: ConvertProgress| observer.progress(p.done, p.total);
    if request.threads.is_some() {
        let verified = verify(staged, request)?;
        let options = ConvertOptions { progress: Some(&progress), ..options.clone() };
        return Ok((convert(&staged.stage, path, &options)?, verified));
    }
    let verified = Mutex::new(None);
    let verify_meanwhile = || {
        let found = verify(staged, request)?;
        *verified.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(())
    };
    let options = ConvertOptions { progress: Some(&progress), judge: Some(&verify_meanwhile), ..options.clone() };
    let done = convert(&staged.stage, path, &options)?;
    let verified = verified.into_inner().unwrap_or_else(PoisonError::into_inner);
    let verified = verified.ok_or_else(|| Error::bug(Layer::Job, "an image was written without a verified"))?;
    Ok((done, verified))
}

/// Copies the image while the changes are found and while the verified is; then writes the changes over the copy.
fn convert_meanwhile(
    request: &InjectRequest,
    observer: &dyn Observer,
    report: &mut Report,
    stage: Stage,
    path: &Path,
    options: &ConvertOptions<'_>,
) -> Result<(Staged, Converted, VerifiedDisk)> {
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
    let (staged, verified, copying) = std::thread::scope(|scope| {
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
        let verified = staged.as_ref().ok().filter(|_| is_begun).map(|staged| {
            observer.step(WRITING);
            verify(staged, request)
        });
        copy.is_wanted = matches!(verified, Some(Ok(_)));
        drop(copy);
        while is_copied.recv_timeout(PROGRESS_EVERY) == Err(RecvTimeoutError::Timeout) {
            let now = *copied();
            show(now);
        }
        (staged, verified, copying.map(ScopedJoinHandle::join))
    });
    // What is wrong with the guest or the drivers is said first, then what is wrong with the output.
    let staged = staged?;
    let conversion = conversion?;
    let verified = verified.ok_or_else(|| Error::bug(Layer::Job, "changes without a verified"))??;
    match copying {
        Some(Ok(outcome)) => outcome?,
        _ => return Err(Error::bug(Layer::Job, "the copying of the image panicked")),
    }
    let now = *copied();
    show(now);
    let done = conversion.finish(&staged.stage, options, &show)?;
    Ok((staged, done, verified))
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
