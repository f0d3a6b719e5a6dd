//! How far a commit is.

use std::cell::Cell;

/// Counts the bytes that a commit writes, and reports them.
pub(super) struct Meter<'a> {
    report: Option<&'a dyn Fn(u64, u64)>,
    done: Cell<u64>,
    total: Cell<u64>,
}

impl<'a> Meter<'a> {
    /// A commit that is going to write `total` bytes.
    pub(super) fn new(report: Option<&'a dyn Fn(u64, u64)>, total: u64) -> Self {
        Self { report, done: Cell::new(0), total: Cell::new(total) }
    }

    /// So many bytes more are going to be written.
    pub(super) fn expect(&self, bytes: u64) {
        self.total.set(self.total.get().saturating_add(bytes));
    }

    /// So many bytes were written.
    pub(super) fn add(&self, bytes: u64) {
        self.done.set(self.done.get().saturating_add(bytes));
        if let Some(report) = self.report {
            report(self.done.get().min(self.total.get()), self.total.get());
        }
    }
}
