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

use std::collections::HashMap;

pub use fault::{Code, Fault, Severity};
pub(super) use security::descriptor_fault;

use super::layout::{LENGTH_MAX, PAGE, base, checksum};
use space::Bits;

/// Faults that one report holds at most; what comes after is left out.
pub const FAULTS_MAX: usize = 10_000;

/// Every fault of a hive file, in the order found; a sound and clean hive gives none.
///
/// Time and memory are bounded by the size of the file, whatever is in it.
#[must_use]
pub fn check(bytes: &[u8]) -> Vec<Fault> {
    let mut checker = Checker::new(bytes);
    if bytes.len() < PAGE as usize || !bytes.starts_with(base::SIGNATURE) {
        checker.add(Code::BbSignature, "base block", "no registry hive");
        return checker.faults;
    }
    checker.base_block();
    checker.bins();
    checker.tree();
    checker.ring();
    checker.orphans();
    checker.faults
}

struct Checker<'a> {
    bytes: &'a [u8],
    /// Bytes of bins that the file really has.
    length: u32,
    minor: u32,
    layered: bool,
    /// Where cells start, which of them are allocated, and which of those have an owner.
    starts: Bits,
    allocated: Bits,
    owned: Bits,
    /// Security cells and how many keys use each.
    users: HashMap<u32, u32>,
    root_security: Option<u32>,
    /// The keys from the root to the one at hand.
    trail: Vec<u32>,
    /// Reused for value names.
    names: Vec<(u64, u32)>,
    faults: Vec<Fault>,
}

impl<'a> Checker<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            length: 0,
            minor: 0,
            layered: false,
            starts: Bits::default(),
            allocated: Bits::default(),
            owned: Bits::default(),
            users: HashMap::new(),
            root_security: None,
            trail: Vec::new(),
            names: Vec::new(),
            faults: Vec::new(),
        }
    }

    fn add(&mut self, code: Code, place: impl Into<String>, text: impl Into<String>) {
        self.add_as(code, code.severity(), place, text);
    }

    fn add_as(&mut self, code: Code, severity: Severity, place: impl Into<String>, text: impl Into<String>) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault::new(code, severity, place.into(), text.into()));
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
