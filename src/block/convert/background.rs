//! Copying an image while its changes are still being found.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::conversion::Conversion;
use super::options::{ConvertOptions, ConvertProgress, Converted};
use super::pipeline::PROGRESS_EVERY;
use crate::block::Stage;
use crate::error::{Error, Layer, Result};

/// A new image into which the image below a stage is being copied, on threads of its own. Almost all of a disk stays as
/// it is, so the copy need not wait for the changes: [`finish`](Self::finish) writes them over it.
///
/// Dropped before it is finished, the copy is cancelled and leaves nothing.
pub(crate) struct BackgroundCopy {
    stop: Arc<AtomicBool>,
    progress: Arc<Mutex<ConvertProgress>>,
    /// Disconnected when the thread ends, also by a panic.
    ended: Receiver<()>,
    thread: Option<JoinHandle<Result<Conversion>>>,
}

impl BackgroundCopy {
    /// Makes the temporary file for the new image `out` and begins to copy the image below `stage` into it.
    ///
    /// # Errors
    /// What [`convert`](super::convert) says about the output and the options; what goes wrong later, the copy says when
    /// it is finished.
    pub(crate) fn start(stage: &Stage, out: &Path, options: &ConvertOptions<'_>) -> Result<Self> {
        let mut conversion = Conversion::begin(&stage.image().files(), out, options)?;
        let image = stage.original();
        let stop = Arc::new(AtomicBool::new(false));
        let progress = Arc::new(Mutex::new(ConvertProgress { done: 0, total: 0 }));
        let (sender, ended) = mpsc::channel();
        let copy = {
            let (stop, progress) = (Arc::clone(&stop), Arc::clone(&progress));
            move || {
                let _disconnects = sender;
                conversion.copy_image(&image, &stop, &|now| set(&progress, now))?;
                Ok(conversion)
            }
        };
        let thread = std::thread::Builder::new().spawn(copy).map_err(|e| {
            Error::io(Layer::Host, "cannot start a thread for the copy", e).path(out.display().to_string())
        })?;
        Ok(Self { stop, progress, ended, thread: Some(thread) })
    }

    /// Asks the copy to stop; it cannot be finished any more.
    pub(crate) fn cancel(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the copy, writes the changes of `stage` over it, and gives the new image its name. Nothing has its name
    /// before that, so the caller decides here whether the changes are good.
    ///
    /// # Errors
    /// See [`convert`](super::convert).
    pub(crate) fn finish(mut self, stage: &Stage, progress: &dyn Fn(ConvertProgress)) -> Result<Converted> {
        let report = || {
            let now = get(&self.progress);
            // Nothing is known while the image's extents are counted.
            if now.total > 0 {
                progress(now);
            }
        };
        while self.ended.recv_timeout(PROGRESS_EVERY) == Err(RecvTimeoutError::Timeout) {
            report();
        }
        report();
        let panicked = || Error::bug(Layer::Block, "the copying of the image panicked");
        let outcome = self.thread.take().ok_or_else(panicked)?.join();
        outcome.map_err(|_| panicked())??.finish(stage, progress)
    }
}

impl Drop for BackgroundCopy {
    fn drop(&mut self) {
        self.cancel();
        if let Some(thread) = self.thread.take() {
            // Whether it failed or panicked, its output goes with it.
            drop(thread.join());
        }
    }
}

fn get(progress: &Mutex<ConvertProgress>) -> ConvertProgress {
    *progress.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set(progress: &Mutex<ConvertProgress>, now: ConvertProgress) {
    *progress.lock().unwrap_or_else(PoisonError::into_inner) = now;
}
