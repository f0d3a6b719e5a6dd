//! What becomes of every entry of the manifest: removed, or left with a reason.

use std::collections::BTreeSet;

use serde::Serialize;

use super::manifest::Listed;

/// Something of winject's, or changed by it, that stays in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct LeftItem {
    /// What it is: "driver viostor", "DevicePath".
    pub what: String,
    /// Why it stays.
    pub reason: String,
}

/// The account of a removal.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// What is removed, in words.
    pub removed: Vec<String>,
    /// What is left.
    pub left: Vec<LeftItem>,
    /// Indexes of the listed files that are accounted for as left.
    pub left_files: BTreeSet<usize>,
    /// Indexes of the listed values that are accounted for as left.
    pub left_values: BTreeSet<usize>,
    gone_files: BTreeSet<usize>,
    gone_values: BTreeSet<usize>,
}

impl Ledger {
    /// Says in words what is removed.
    pub(super) fn remove(&mut self, what: impl Into<String>) {
        self.removed.push(what.into());
    }

    /// Says in words what is left, and why.
    pub(super) fn leave(&mut self, what: impl Into<String>, reason: impl Into<String>) {
        self.left.push(LeftItem { what: what.into(), reason: reason.into() });
    }

    /// A listed file is gone, or will be.
    pub(super) fn file_is_gone(&mut self, index: usize) {
        self.left_files.remove(&index);
        self.gone_files.insert(index);
    }

    /// A listed file stays.
    pub(super) fn file_is_left(&mut self, index: usize) {
        if !self.gone_files.contains(&index) {
            self.left_files.insert(index);
        }
    }

    /// A listed value is gone, or will be.
    pub(super) fn value_is_gone(&mut self, index: usize) {
        self.left_values.remove(&index);
        self.gone_values.insert(index);
    }

    /// A listed value stays.
    pub(super) fn value_is_left(&mut self, index: usize) {
        if !self.gone_values.contains(&index) {
            self.left_values.insert(index);
        }
    }

    /// The listed files that are not accounted for yet.
    pub(super) fn open_files(&self, listed: &Listed) -> Vec<usize> {
        let is_open = |at: &usize| !self.gone_files.contains(at) && !self.left_files.contains(at);
        (0..listed.files.len()).filter(is_open).collect()
    }

    /// The listed values that are not accounted for yet.
    pub(super) fn open_values(&self, listed: &Listed) -> Vec<usize> {
        let is_open = |at: &usize| !self.gone_values.contains(at) && !self.left_values.contains(at);
        (0..listed.values.len()).filter(is_open).collect()
    }
}
