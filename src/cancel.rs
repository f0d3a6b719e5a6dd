//! Cancelling a job from outside, for instance when the process gets a signal.
//!
//! The library installs no signal handlers. A caller keeps a clone of the [`Cancel`] that it gives to a job and calls
//! [`Cancel::request`]. The job polls it wherever it writes, removes what it had begun, and fails with
//! [`Kind::Cancelled`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use crate::error::{Error, Kind, Layer, Result};

/// Stops a job from another thread or a signal handler's thread. Clones are the same flag.
///
/// ```no_run
/// use winject::{Destination, FileTime, InjectRequest, Silent, inject};
///
/// # fn main() -> winject::Result<()> {
/// let drivers = vec!["virtio-win.iso".into()];
/// let request = InjectRequest::new("guest.qcow2", drivers, Destination::InPlace, FileTime::now());
/// let cancel = request.cancel.clone();
/// std::thread::spawn(move || {
///     std::thread::sleep(std::time::Duration::from_secs(60));
///     let _ = cancel.request();
/// });
/// inject(&request, &Silent)?; // fails with Kind::Cancelled after a minute
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_requested: AtomicBool,
    holds: AtomicUsize,
    was_held: AtomicBool,
    /// A [`Reached`] as a number.
    reached: AtomicU8,
}

/// What a job was doing when it was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing has been written: the process can end at once.
    Reading,
    /// There are unfinished files: the job will clean up and end.
    Writing,
    /// What had to be written is complete, or cleaned up: the process can end at once.
    Written,
}

/// How far a job came with what it is to write, each step including the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reached {
    /// The user's files are as they were.
    #[default]
    Start,
    /// An earlier, interrupted run was completed or rolled back, and nothing else changed.
    Recovery,
    /// A recovery was asked for, and rolled the interrupted run back.
    RolledBack,
    /// An edit was taken back.
    Undone,
    /// The change was completed.
    CommitPoint,
    /// A copy to an export was begun and not completed.
    Incomplete,
    /// The change is neither completed nor rolled back: a recovery has to do it.
    Pending,
}

/// As long as it lives there is something on the host that has to be cleaned up: see [`Cancel::hold`].
#[derive(Debug)]
pub struct Hold {
    cancel: Cancel,
    /// Whether what it stands for is finished even when the job was asked to stop.
    is_through: bool,
}

impl Cancel {
    /// Asks the job to stop. Returns what it is doing.
    #[must_use]
    pub fn request(&self) -> Stage {
        // Sequentially consistent, as in `hold`: either this sees the hold, or `hold` sees the request.
        self.0.is_requested.store(true, Ordering::SeqCst);
        match (self.0.holds.load(Ordering::SeqCst), self.0.was_held.load(Ordering::SeqCst)) {
            (0, false) => Stage::Reading,
            (0, true) => Stage::Written,
            _ => Stage::Writing,
        }
    }

    /// Whether the job was asked to stop.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.is_requested.load(Ordering::SeqCst)
    }

    /// How far the job came. The answer is final when the job has ended, or when [`request`](Self::request) says that
    /// nothing is being written.
    #[must_use]
    pub fn reached(&self) -> Reached {
        match self.0.reached.load(Ordering::SeqCst) {
            0 => Reached::Start,
            1 => Reached::Recovery,
            2 => Reached::RolledBack,
            3 => Reached::Undone,
            4 => Reached::CommitPoint,
            5 => Reached::Incomplete,
            _ => Reached::Pending,
        }
    }

    /// Called by a job that came so far, as long as it [holds](Self::hold).
    pub fn reach(&self, point: Reached) {
        self.0.reached.fetch_max(point as u8, Ordering::SeqCst);
    }

    /// Called by a job that writes to a file of the user, as long as it [holds](Self::hold): `result` is what came of it,
    /// and `point` says how far a success came.
    pub(crate) fn reach_by<T>(&self, result: &Result<T>, point: impl FnOnce(&T) -> Reached) {
        match result {
            Ok(done) => self.reach(point(done)),
            Err(error) if error.kind() == Kind::Pending => self.reach(Reached::Pending),
            Err(_) => {}
        }
    }

    /// Called by a job where it can still stop.
    ///
    /// # Errors
    /// [`Kind::Cancelled`] when the job was asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.is_requested() { Err(cancelled()) } else { Ok(()) }
    }

    /// Called by a job before it makes files that it has to finish or remove (a temporary file, a journal); the result is
    /// held until it has.
    ///
    /// # Errors
    /// [`Kind::Cancelled`] when the job was asked to stop: then nothing may be begun.
    pub fn hold(&self) -> Result<Hold> {
        let hold = self.count_hold(false);
        self.check().map(|()| hold)
    }

    /// Like [`hold`](Self::hold), for a short step that is finished even if the job was asked to stop.
    #[must_use]
    pub fn hold_through(&self) -> Hold {
        self.count_hold(true)
    }

    fn count_hold(&self, is_through: bool) -> Hold {
        self.0.holds.fetch_add(1, Ordering::SeqCst);
        self.0.was_held.store(true, Ordering::SeqCst);
        Hold { cancel: self.clone(), is_through }
    }
}

impl Hold {
    /// To be called before the files get their names.
    ///
    /// # Errors
    /// [`Kind::Cancelled`] when the job was asked to stop, unless it is to be finished even then.
    pub fn check(&self) -> Result<()> {
        if self.is_through { Ok(()) } else { self.cancel.check() }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.cancel.0.holds.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The error of a job that was asked to stop.
pub(crate) fn cancelled() -> Error {
    Error::new(Kind::Cancelled, Layer::Job, "interrupted; nothing was changed").hint("run the command again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_begins_after_a_request() {
        let cancel = Cancel::default();
        assert!(!cancel.is_requested());
        let hold = cancel.hold().unwrap();
        assert_eq!(cancel.clone().request(), Stage::Writing);
        assert_eq!(cancel.check().unwrap_err().kind(), Kind::Cancelled);
        assert_eq!(cancel.hold().unwrap_err().kind(), Kind::Cancelled);
        drop(hold);
        assert_eq!(cancel.request(), Stage::Written);
        let hold = cancel.hold_through();
        assert_eq!(cancel.request(), Stage::Writing);
        drop(hold);
        assert_eq!(Cancel::default().request(), Stage::Reading);
    }

    #[test]
    fn what_was_reached_stays_reached() {
        let cancel = Cancel::default();
        assert_eq!(cancel.reached(), Reached::Start);
        for (point, reached) in [
            (Reached::Recovery, Reached::Recovery),
            (Reached::Start, Reached::Recovery),
            (Reached::RolledBack, Reached::RolledBack),
            (Reached::Undone, Reached::Undone),
            (Reached::CommitPoint, Reached::CommitPoint),
            (Reached::Recovery, Reached::CommitPoint),
            (Reached::Incomplete, Reached::Incomplete),
            (Reached::Pending, Reached::Pending),
        ] {
            cancel.clone().reach(point);
            assert_eq!(cancel.reached(), reached);
        }
    }
}
