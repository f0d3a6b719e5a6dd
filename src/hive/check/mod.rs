//! Checks a whole hive against every rule that the Windows kernel enforces or relies on.
//!
//! The checker walks bins, cells, keys, indexes, values and security cells, and sees to it that every allocated cell
//! belongs to exactly one owner. It shares the declarations of the structures with the editor, but none of its code.

mod fault;
mod keys;
mod lists;
mod security;
mod space;
mod values;

use std::collections::BTreeMap;

pub use fault::{Code, Fault, Severity};
pub(super) use security::descriptor_fault;

use super::layout::{LENGTH_MAX, PAGE, base, checksum};
use space::Bits;

/// Errors, and warnings, that one report names; of what comes after it says only how many there are of each rule.
pub const FAULTS_MAX: usize = 10_000;

/// Every fault of a hive file, in the order found; a sound and clean hive gives none.
///
/// Time and memory are bounded by the size of the file, whatever is in it.
#[must_use]
pub fn check(bytes: &[u8]) -> Vec<Fault> {
    survey(bytes).faults
}

/// What an editor wants to know about a hive before it touches it.
#[derive(Default)]
pub(crate) struct Survey {
    pub(super) faults: Vec<Fault>,
    /// Lists that only keys without subkeys (or values) still point to, and how many do: left over, nobody else's.
    pub(super) stale_lists: BTreeMap<u32, u32>,
    /// By how much the reference counts of security cells are too high.
    pub(super) surplus: BTreeMap<u32, u32>,
}

/// The full check, and what it met on the way.
pub(super) fn survey(bytes: &[u8]) -> Survey {
    let mut checker = Checker::new(bytes);
    if bytes.len() < PAGE as usize || !bytes.starts_with(base::SIGNATURE) {
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
pub(super) fn new_fault<'f>(before: &[Fault], after: &'f [Fault]) -> Option<&'f Fault> {
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

struct Checker<'a> {
    bytes: &'a [u8],
    /// Bytes of bins that the file really has.
    length: u32,
    minor: u32,
    layered: bool,
    /// Allocated cells that nothing has referred to yet.
    ownerless: Bits,
    /// Where cells start; made when a reference is wrong, to say in which way.
    starts: Option<Bits>,
    /// Security cells and how many keys use each.
    users: BTreeMap<u32, u32>,
    root_security: Option<u32>,
    /// The keys from the root to the one at hand.
    trail: Vec<u32>,
    /// Reused for value names.
    names: Vec<(u64, u32)>,
    faults: Vec<Fault>,
    /// Named errors and warnings, and the faults of each code that are only counted.
    errors: usize,
    warnings: usize,
    unnamed: BTreeMap<(Code, Severity), u32>,
    stale_lists: BTreeMap<u32, u32>,
    surplus: BTreeMap<u32, u32>,
}

impl<'a> Checker<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            length: 0,
            minor: 0,
            layered: false,
            ownerless: Bits::default(),
            starts: None,
            users: BTreeMap::new(),
            root_security: None,
            trail: Vec::new(),
            names: Vec::new(),
            faults: Vec::new(),
            errors: 0,
            warnings: 0,
            unnamed: BTreeMap::new(),
            stale_lists: BTreeMap::new(),
            surplus: BTreeMap::new(),
        }
    }

    fn into_survey(mut self) -> Survey {
        let unnamed = self.unnamed.iter().map(|(&(code, severity), &more)| Fault::unnamed(code, severity, more));
        self.faults.extend(unnamed);
        Survey { faults: self.faults, stale_lists: self.stale_lists, surplus: self.surplus }
    }

    fn add(&mut self, code: Code, place: impl Into<String>, text: impl Into<String>) {
        self.add_as(code, code.severity(), place, text);
    }

    fn add_as(&mut self, code: Code, severity: Severity, place: impl Into<String>, text: impl Into<String>) {
        let named = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        if *named < FAULTS_MAX {
            *named += 1;
            self.faults.push(Fault::new(code, severity, place.into(), text.into()));
        } else {
            let more = self.unnamed.entry((code, severity)).or_default();
            *more = more.saturating_add(1);
        }
    }

    fn base_block(&mut self) {
        let head = self.bytes;
        let field = |field: super::layout::Field<u32>| field.get(head).unwrap_or(0);
        let place = "base block";
        let sum = checksum(head).unwrap_or(0);
        if sum != field(base::CHECKSUM) {
            self.add(Code::BbChecksum, place, format!("stored {:08x}, computed {sum:08x}", field(base::CHECKSUM)));
        }
        let (first, second) = (field(base::PRIMARY_SEQUENCE), field(base::SECONDARY_SEQUENCE));
        if first != second {
            self.add(Code::BbSequence, place, format!("sequence numbers {first} and {second}: the hive is dirty"));
        }
        let rules = [
            (Code::BbMajor, base::MAJOR, 1..=1, "major version"),
            (Code::BbMinor, base::MINOR, 3..=6, "minor version"),
            (Code::BbType, base::TYPE, 0..=0, "file type"),
            (Code::BbFormat, base::FORMAT, 1..=1, "file format"),
            (Code::BbCluster, base::CLUSTER, 1..=1, "clustering factor"),
        ];
        for (code, rule, good, what) in rules {
            if !good.contains(&field(rule)) {
                self.add(code, place, format!("{what} {}", field(rule)));
            }
        }
        self.minor = field(base::MINOR);
        self.check_length(field(base::LENGTH));
        let flags = field(base::FLAGS);
        if base::TRANSACTION_SIGNATURE.get(head) == Some(u32::from_le_bytes(*b"rmtm")) && flags & !3 != 0 {
            self.add(Code::BbFlags, place, format!("unknown flags {flags:#x}"));
        }
        self.layered = self.minor >= 6 && flags & base::FLAG_LAYERED != 0;
    }

    fn check_length(&mut self, length: u32) {
        if length == 0 || !length.is_multiple_of(PAGE) || length > LENGTH_MAX {
            self.add(Code::BbLength, "base block", format!("{length:#x} bytes of bins"));
        }
        let have = self.bytes.len().saturating_sub(PAGE as usize);
        if have < length as usize {
            let text = format!("{length:#x} bytes of bins, the file has {have:#x}");
            self.add(Code::BbTruncated, "base block", text);
        }
        if !self.bytes.len().is_multiple_of(PAGE as usize) {
            self.add(Code::BbFilesize, "base block", "the file's size is no multiple of 4096");
        }
        self.length = match u32::try_from(have) {
            Ok(have) if have < length => have & !(PAGE - 1),
            _ => length.min(LENGTH_MAX),
        };
    }
}
