//! Flushing the output while it is being written.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::block::Storage;
use crate::error::{Error, Layer, Result};

/// A flush begins after this many bytes, while the worker threads go on. Without it all of the output would wait for
/// the flush at the end, when nothing else is left to do.
const FLUSH_EVERY: u64 = 64 << 20;

/// A thread that flushes a file each time [`FLUSH_EVERY`] bytes were written.
pub(super) struct Flusher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when there is enough to flush, or the thread is to end.
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Bytes that were written since the last flush began.
    written: u64,
    /// Whether the thread is to end.
    is_over: bool,
    /// The error of a flush, until `wrote` reports it.
    failed: Option<std::io::Error>,
}

impl Flusher {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the host has no thread for it.
    pub(super) fn start(file: Arc<dyn Storage>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        let thread = std::thread::Builder::new().spawn(move || its.flush_until_over(&*file))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Counts bytes that were written.
    ///
    /// # Errors
    /// When a flush has failed. Linux reports that once: the flush at the end could succeed.
    pub(super) fn wrote(&self, bytes: u64) -> Result<()> {
        let mut state = self.shared.lock();
        state.written = state.written.saturating_add(bytes);
        if state.written >= FLUSH_EVERY {
            self.shared.wake.notify_one();
        }
        state.failed.take().map_or(Ok(()), |error| Err(failed(error)))
    }

    /// Waits for the flush that is under way, and ends the thread.
    ///
    /// # Errors
    /// See [`wrote`](Self::wrote).
    pub(super) fn finish(mut self) -> Result<()> {
        self.stop();
        self.wrote(0)
    }

    fn stop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // Nothing in the thread can panic.
            let _ = thread.join();
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush_until_over(&self, file: &dyn Storage) {
        let mut state = self.lock();
        while !state.is_over {
            if state.written < FLUSH_EVERY {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.written = 0;
            drop(state);
            let result = file.flush();
            state = self.lock();
            if let Err(error) = result {
                state.failed = Some(error);
                return;
            }
        }
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io(Layer::Host, "cannot flush the output", error)
}
