//! Storing the output while it is being written.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::block::Storage;
use crate::error::{Error, Layer, Result};
use crate::sync::lock;
use crate::units::HostOffset;

/// The host is asked to begin to store what was written after so many bytes, while the worker threads go on. Without it all of
/// the output would wait for the flush at the end, when nothing else is left to do.
const WRITE_BACK_EVERY: u64 = 2 << 20;

/// Bytes that the host may still be storing: what was written before them is asked for once more, and leaves its cache then. An
/// output of any size takes as much of the cache, whose pages serve again at once.
const BEHIND: u64 = 16 << 20;

/// Where the host cannot begin without waiting, a flush begins after so many bytes.
const FLUSH_EVERY: u64 = 64 << 20;

/// Ranges so close to each other are stored together.
const GAP: u64 = 256 << 10;

/// A thread that has a file stored piece by piece.
pub(super) struct Flusher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when there is enough to store, or the thread is to end.
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// What was written, and is not yet asked for.
    written: Ranges,
    /// Whether the thread is to end.
    is_over: bool,
    /// The error of a flush, until `wrote` reports it.
    failed: Option<std::io::Error>,
}

/// Ranges of a file, and how many bytes were put into them.
#[derive(Default)]
struct Ranges {
    ranges: Vec<Range<u64>>,
    bytes: u64,
}

impl Ranges {
    /// Adds a range, as a part of the last one where they are close.
    fn add(&mut self, range: Range<u64>) {
        self.bytes = self.bytes.saturating_add(range.end.saturating_sub(range.start));
        match self.ranges.last_mut() {
            Some(last) if (last.start..=last.end.saturating_add(GAP)).contains(&range.start) => {
                last.end = last.end.max(range.end);
            }
            _ => self.ranges.push(range),
        }
    }
}

impl Flusher {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the host has no thread for it.
    pub(super) fn start(file: Arc<dyn Storage>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        let thread = std::thread::Builder::new().spawn(move || its.store_until_over(&*file))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Notes bytes that were written.
    ///
    /// # Errors
    /// When a flush has failed. Linux reports that once: the flush at the end could succeed.
    pub(super) fn wrote(&self, to: HostOffset, bytes: u64) -> Result<()> {
        let mut state = lock(&self.shared.state);
        state.written.add(to.0..to.0.saturating_add(bytes));
        if state.written.bytes >= WRITE_BACK_EVERY {
            self.shared.wake.notify_one();
        }
        state.take_failure()
    }

    /// Waits for what is under way, and ends the thread.
    ///
    /// # Errors
    /// See [`wrote`](Self::wrote).
    pub(super) fn finish(mut self) -> Result<()> {
        self.stop();
        lock(&self.shared.state).take_failure()
    }

    fn stop(&mut self) {
        lock(&self.shared.state).is_over = true;
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

impl State {
    fn take_failure(&mut self) -> Result<()> {
        let failed = |error| Error::io(Layer::Host, "cannot flush the output", error);
        self.failed.take().map_or(Ok(()), |error| Err(failed(error)))
    }
}

impl Shared {
    fn store_until_over(&self, file: &dyn Storage) {
        // Ranges that the host was asked to store, and bytes since the last flush where it cannot be asked.
        let (mut begun, mut begun_bytes, mut unstored) = (VecDeque::new(), 0, 0);
        let mut state = lock(&self.state);
        while !state.is_over {
            if state.written.bytes < WRITE_BACK_EVERY {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let written = std::mem::take(&mut state.written);
            drop(state);
            for range in written.ranges {
                let length = range.end - range.start;
                if file.begin_write_back(range.start, length) {
                    begun_bytes += length;
                    begun.push_back(range);
                } else {
                    unstored += length;
                }
            }
            while begun_bytes > BEHIND
                && let Some(range) = begun.pop_front()
            {
                begun_bytes -= range.end - range.start;
                file.begin_write_back(range.start, range.end - range.start);
            }
            let mut result = Ok(());
            if unstored >= FLUSH_EVERY {
                unstored = 0;
                result = file.flush();
            }
            state = lock(&self.state);
            if let Err(error) = result {
                state.failed = Some(error);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_are_close_become_one() {
        let mut ranges = Ranges::default();
        for (start, end) in [(0, 10), (10, 20), (30, 40), (1 << 30, (1 << 30) + 5), (50, 60)] {
            ranges.add(start..end);
        }
        assert_eq!(ranges.ranges, [0..40, 1 << 30..(1 << 30) + 5, 50..60]);
        assert_eq!(ranges.bytes, 45);
    }
}
