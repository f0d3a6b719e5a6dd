//! Runs a check, and compares the outcome of two.

use std::collections::BTreeMap;

use super::checker::{Checker, Survey};
use super::fault::{Code, Fault, Severity};
use crate::hive::format::{PAGE, base_block};

/// Every fault of a hive file, in the order found; a sound and clean hive gives none.
///
/// Time and memory are bounded by the size of the file, whatever is in it.
#[must_use]
pub fn check(bytes: &[u8]) -> Vec<Fault> {
    survey(bytes).faults
}

/// The full check, and what it met on the way.
pub(in super::super) fn survey(bytes: &[u8]) -> Survey {
    let mut checker = Checker::new(bytes);
    if bytes.len() < PAGE as usize || !bytes.starts_with(base_block::SIGNATURE) {
        checker.add(Code::BbSignature, "base block", "no registry hive");
        return checker.into_survey();
    }
    checker.base_block();
    checker.bins();
    checker.tree();
    checker.ring();
    checker.orphans();
    checker.into_survey()
}

/// The first fault of `after` that was not there `before`.
pub(in super::super) fn new_fault<'f>(before: &[Fault], after: &'f [Fault]) -> Option<&'f Fault> {
    if before.iter().chain(after).all(Fault::is_named) {
        let mut known: Vec<_> = before.iter().map(Fault::identity).collect();
        known.sort_unstable();
        return after.iter().find(|fault| known.binary_search(&fault.identity()).is_err());
    }
    // Which ones are named depends on the order in which they are met: only their numbers can be compared.
    let mut left: BTreeMap<(Code, Severity), u64> = BTreeMap::new();
    before.iter().for_each(|fault| *left.entry((fault.code(), fault.severity())).or_default() += fault.count());
    after.iter().find(|fault| {
        let left = left.entry((fault.code(), fault.severity())).or_default();
        let known = *left >= fault.count();
        *left = left.saturating_sub(fault.count());
        !known
    })
}
