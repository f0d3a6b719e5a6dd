//! Locking.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whether or not a thread that held the lock panicked: such a panic is a defect, which is reported by who joins the
/// thread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
