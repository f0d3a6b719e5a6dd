//! How far a commit, an undo or a recovery is.

use std::cell::Cell;

/// A part of the work of an undo or of a recovery. Not every one has all parts, and a part can come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalPass {
    /// Reads the journal, or the undo record, to its end: bytes of that file.
    Read,
    /// Compares the image with it: bytes of the image.
    Compare,
    /// Writes it anew for files that were copied together: bytes of the image that it is about.
    Copy,
    /// Puts the old content back: bytes of the image.
    Restore,
    /// Writes once more what a run wrote that is completed: bytes of the image.
    Complete,
}

/// Told how far an undo or a recovery is, on its thread: the part, and how many of its bytes are done.
pub type OnJournalProgress<'a> = &'a dyn Fn(JournalPass, u64, u64);

/// Counts the bytes that a commit writes, or those of a part of an undo or of a recovery, and reports them.
pub(super) struct Meter<'a> {
    report: Option<Box<dyn Fn(u64, u64) + 'a>>,
    done: Cell<u64>,
    total: Cell<u64>,
}

impl<'a> Meter<'a> {
    /// A commit that is going to write `total` bytes.
    pub(super) fn new(report: Option<&'a dyn Fn(u64, u64)>, total: u64) -> Self {
        let report = report.map(|report| Box::new(report) as Box<dyn Fn(u64, u64) + 'a>);
        Self { report, done: Cell::new(0), total: Cell::new(total) }
    }

    /// A part of `total` bytes, which begins.
    pub(super) fn of_pass(on_progress: OnJournalProgress<'a>, pass: JournalPass, total: u64) -> Self {
        let report: Box<dyn Fn(u64, u64) + 'a> = Box::new(move |done, total| on_progress(pass, done, total));
        report(0, total);
        Self { report: Some(report), done: Cell::new(0), total: Cell::new(total) }
    }

    /// So many bytes more are going to be written, or compared.
    pub(super) fn expect(&self, bytes: u64) {
        self.total.set(self.total.get().saturating_add(bytes));
    }

    /// So many bytes are done.
    pub(super) fn add(&self, bytes: u64) {
        self.done.set(self.done.get().saturating_add(bytes));
        if let Some(report) = &self.report {
            report(self.done.get().min(self.total.get()), self.total.get());
        }
    }
}
