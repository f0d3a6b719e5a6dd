//! The state of a check, and the rules of the base block.

use std::collections::BTreeMap;

use super::cell_bitmap::CellBitmap;
use super::fault::{Code, Fault, Severity};
use crate::field::Field;
use crate::hive::format::base_block::{self, checksum};
use crate::hive::format::{LENGTH_MAX, PAGE};

/// Errors, and warnings, that one report names; of what comes after it says only how many there are of each rule.
pub const FAULTS_MAX: usize = 10_000;

/// What the editor needs to know about a hive before it changes it.
#[derive(Default)]
pub(crate) struct Survey {
    pub(in super::super) faults: Vec<Fault>,
    /// Lists that only keys without subkeys (or values) still point to, and how many do: leftovers that nothing else uses.
    pub(in super::super) stale_lists: BTreeMap<u32, u32>,
    /// By how much the reference counts of security cells are too high.
    pub(in super::super) surplus: BTreeMap<u32, u32>,
}

impl Survey {
    /// The first fault for which Windows would drop keys.
    pub(crate) fn first_error(&self) -> Option<&Fault> {
        self.faults.iter().find(|fault| fault.severity() == Severity::Error)
    }
}

/// A check in progress; each file of this folder adds the rules of one structure.
pub(super) struct Checker<'a> {
    pub(super) bytes: &'a [u8],
    /// Bytes of bins that the file really has.
    pub(super) length: u32,
    pub(super) minor: u32,
    pub(super) layered: bool,
    /// Allocated cells that nothing has referred to yet.
    pub(super) ownerless: CellBitmap,
    /// Where cells start; made when a reference is wrong, to say in which way.
    pub(super) starts: Option<CellBitmap>,
    /// Security cells and how many keys use each.
    pub(super) users: BTreeMap<u32, u32>,
    pub(super) root_security: Option<u32>,
    /// The keys from the root to the one at hand.
    pub(super) trail: Vec<u32>,
    /// Reused for value names.
    pub(super) names: Vec<(u64, u32)>,
    pub(super) faults: Vec<Fault>,
    /// Named errors and warnings, and the faults of each code that are only counted.
    pub(super) errors: usize,
    pub(super) warnings: usize,
    pub(super) unnamed: BTreeMap<(Code, Severity), u32>,
    pub(super) stale_lists: BTreeMap<u32, u32>,
    pub(super) surplus: BTreeMap<u32, u32>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            length: 0,
            minor: 0,
            layered: false,
            ownerless: CellBitmap::default(),
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

    pub(super) fn into_survey(mut self) -> Survey {
        let unnamed = self.unnamed.iter().map(|(&(code, severity), &more)| Fault::unnamed(code, severity, more));
        self.faults.extend(unnamed);
        Survey { faults: self.faults, stale_lists: self.stale_lists, surplus: self.surplus }
    }

    pub(super) fn add(&mut self, code: Code, place: impl Into<String>, text: impl Into<String>) {
        self.add_as(code, code.severity(), place, text);
    }

    pub(super) fn add_as(&mut self, code: Code, severity: Severity, place: impl Into<String>, text: impl Into<String>) {
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

    pub(super) fn base_block(&mut self) {
        let head = self.bytes;
        let field = |field: Field<u32>| field.try_get(head).unwrap_or(0);
        let place = "base block";
        let sum = checksum(head).unwrap_or(0);
        if sum != field(base_block::CHECKSUM) {
            self.add(
                Code::BbChecksum,
                place,
                format!("stored {:08x}, computed {sum:08x}", field(base_block::CHECKSUM)),
            );
        }
        let (first, second) = (field(base_block::PRIMARY_SEQUENCE), field(base_block::SECONDARY_SEQUENCE));
        if first != second {
            self.add(Code::BbSequence, place, format!("sequence numbers {first} and {second}: the hive is dirty"));
        }
        let rules = [
            (Code::BbMajor, base_block::MAJOR, 1..=1, "major version"),
            (Code::BbMinor, base_block::MINOR, 3..=6, "minor version"),
            (Code::BbType, base_block::TYPE, 0..=0, "file type"),
            (Code::BbFormat, base_block::FORMAT, 1..=1, "file format"),
            (Code::BbCluster, base_block::CLUSTER, 1..=1, "clustering factor"),
        ];
        for (code, rule, good, what) in rules {
            if !good.contains(&field(rule)) {
                self.add(code, place, format!("{what} {}", field(rule)));
            }
        }
        self.minor = field(base_block::MINOR);
        self.check_length(field(base_block::LENGTH));
        let flags = field(base_block::FLAGS);
        if base_block::TRANSACTION_SIGNATURE.try_get(head) == Some(u32::from_le_bytes(*b"rmtm")) && flags & !3 != 0 {
            self.add(Code::BbFlags, place, format!("unknown flags {flags:#x}"));
        }
        self.layered = self.minor >= 6 && flags & base_block::FLAG_LAYERED != 0;
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
            self.add(Code::BbFilesize, "base block", "the file's size is not a multiple of 4096");
        }
        self.length = match u32::try_from(have) {
            Ok(have) if have < length => have & !(PAGE - 1),
            _ => length.min(LENGTH_MAX),
        };
    }
}
