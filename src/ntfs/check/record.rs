//! One record: its header, and its attributes one by one (B1 to B10).

use super::code::Code;
use super::context::Context;
use super::report::Fault;
use crate::ntfs::attribute::{
    Attribute, AttributeType, FLAG_COMPRESSED, FLAG_SPARSE, header as attribute_header, non_resident, resident,
};
use crate::ntfs::field::align8;
use crate::ntfs::fixup;
use crate::ntfs::name::compare_ignoring_case;
use crate::ntfs::record::{FLAG_IN_USE, header};
use crate::ntfs::runlist::Runlist;

/// An attribute of a record, as far as it can be read.
pub(super) struct FileAttribute<'a> {
    /// The record that holds it.
    pub record: u64,
    /// Offset on the volume.
    pub offset: Option<u64>,
    pub view: Attribute<'a>,
    /// The runs of a non-resident attribute; `None` when they cannot be read.
    pub runs: Option<Runlist>,
}

impl FileAttribute<'_> {
    /// Type and name for messages: `$DATA` or `$DATA:name`.
    pub(super) fn title(&self) -> String {
        title(&self.view)
    }

    pub(super) fn is(&self, kind: AttributeType, name: &str) -> bool {
        self.view.kind() == kind && self.view.is_named(name)
    }
}

fn title(view: &Attribute<'_>) -> String {
    let name = view.name();
    if name.is_empty() { view.kind().to_string() } else { format!("{}:{name}", view.kind()) }
}

/// A record in use, its fix-ups undone.
pub(super) struct ParsedRecord<'a> {
    pub number: u64,
    pub bytes: &'a [u8],
    pub parts: Vec<FileAttribute<'a>>,
    /// Whether something in it could not be read, so that what seems to be missing may be there.
    pub broken: bool,
}

impl ParsedRecord<'_> {
    pub(super) fn flags(&self) -> u16 {
        header::FLAGS.get(self.bytes)
    }
    pub(super) fn sequence(&self) -> u16 {
        header::SEQUENCE.get(self.bytes)
    }
    pub(super) fn links(&self) -> u16 {
        header::LINKS.get(self.bytes)
    }
    pub(super) fn base(&self) -> u64 {
        header::BASE.get(self.bytes)
    }
}

/// Undoes the fix-ups of a record that is in use; `false` (and a fault, if it should be one) for any other block.
pub(super) fn unseal(context: &Context<'_>, number: u64, block: &mut [u8]) -> bool {
    if !block.starts_with(&fixup::FILE) {
        if block.starts_with(b"BAAD") {
            context.fault(
                Fault::new(Code::RecordFixup, "the record is marked as torn")
                    .record(number)
                    .at(context.record_offset(number))
                    .values("FILE", "BAAD"),
            );
        }
        return false;
    }
    let in_use = header::FLAGS.get(block) & FLAG_IN_USE != 0;
    if let Err(error) = fixup::unseal(block, fixup::FILE) {
        if in_use {
            context.fault(
                Fault::new(Code::RecordFixup, error.to_string()).record(number).at(context.record_offset(number)),
            );
        }
        return false;
    }
    in_use
}

/// Checks the header and every attribute of a record in use.
pub(super) fn parse<'a>(context: &Context<'_>, number: u64, bytes: &'a [u8]) -> ParsedRecord<'a> {
    let mut walk =
        Walk { context, number, start: context.record_offset(number), bytes, parts: Vec::new(), broken: false };
    walk.check_header();
    walk.check_attributes();
    walk.check_order();
    ParsedRecord { number, bytes, parts: walk.parts, broken: walk.broken }
}

struct Walk<'a, 'c> {
    context: &'c Context<'c>,
    number: u64,
    start: Option<u64>,
    bytes: &'a [u8],
    parts: Vec<FileAttribute<'a>>,
    broken: bool,
}

impl<'a> Walk<'a, '_> {
    /// A fault at `offset` in the record.
    fn fault(&self, code: Code, offset: usize, message: impl Into<String>) -> Fault {
        let at = self.start.map(|start| start.saturating_add(offset as u64));
        Fault::new(code, message).record(self.number).at(at)
    }

    fn report(&self, fault: Fault) {
        self.context.fault(fault);
    }

    fn check_header(&self) {
        let allocated = header::ALLOCATED.get(self.bytes) as usize;
        if allocated != self.bytes.len() {
            let fault = self.fault(Code::RecordHeader, header::ALLOCATED.offset, "wrong record size in the record");
            self.report(fault.values(self.bytes.len(), allocated));
        }
        let array_end =
            usize::from(fixup::ARRAY_OFFSET.get(self.bytes)) + 2 * usize::from(fixup::ARRAY_COUNT.get(self.bytes));
        let first = usize::from(header::FIRST_ATTRIBUTE.get(self.bytes));
        if first % 8 != 0 || first < array_end {
            let fault = self.fault(
                Code::RecordHeader,
                header::FIRST_ATTRIBUTE.offset,
                "impossible offset of the first attribute",
            );
            self.report(fault.values(align8(array_end), first));
        }
        // records of NTFS 3.0 have no number: their update sequence array stands in its place
        let has_number = usize::from(fixup::ARRAY_OFFSET.get(self.bytes)) >= header::SIZE;
        let found = u64::from(header::NUMBER.get(self.bytes));
        if has_number && found != self.number & 0xFFFF_FFFF {
            let fault =
                self.fault(Code::RecordNumber, header::NUMBER.offset, "the record has the number of another one");
            self.report(fault.values(self.number, found));
        }
        if header::SEQUENCE.get(self.bytes) == 0 {
            let fault =
                self.fault(Code::SequenceNumber, header::SEQUENCE.offset, "a record in use has no sequence number");
            self.report(fault.values("1..65535", 0));
        }
    }

    fn check_attributes(&mut self) {
        let used = header::USED.get(self.bytes) as usize;
        let mut offset = usize::from(header::FIRST_ATTRIBUTE.get(self.bytes));
        if offset % 8 != 0 || offset < 0x28 {
            self.broken = true;
            return;
        }
        loop {
            let Some(rest) = self.bytes.get(offset..).filter(|rest| rest.len() >= 8) else {
                self.report(self.fault(Code::RecordHeader, offset, "the record has no end marker"));
                self.broken = true;
                return;
            };
            if AttributeType(attribute_header::TYPE.get(rest)) == AttributeType::END {
                break;
            }
            let length = attribute_header::LENGTH.get(rest) as usize;
            if length < resident::HEADER_SIZE || !length.is_multiple_of(8) || length > rest.len() {
                let fault = self.fault(Code::AttributeForm, offset, "an attribute with an impossible length");
                self.report(fault.values(format!("24..{} and a multiple of 8", rest.len()), length));
                self.broken = true;
                return;
            }
            self.check_attribute(offset, &rest[..length]);
            offset += length;
        }
        if used != offset + 8 {
            let fault =
                self.fault(Code::RecordHeader, header::USED.offset, "the used size is not where the record ends");
            self.report(fault.values(offset + 8, used));
        }
    }

    fn check_attribute(&mut self, offset: usize, raw: &'a [u8]) {
        let kind = AttributeType(attribute_header::TYPE.get(raw));
        let view = match Attribute::parse(raw) {
            Ok(view) => view,
            Err(error) => {
                let name_end = usize::from(attribute_header::NAME_OFFSET.get(raw))
                    + 2 * usize::from(attribute_header::NAME_LENGTH.get(raw));
                let code = match attribute_header::NON_RESIDENT.get(raw) {
                    _ if name_end > raw.len() => Code::AttributeForm,
                    0 => Code::ResidentValue,
                    1 => Code::MappingPairs,
                    _ => Code::AttributeForm,
                };
                self.report(self.fault(code, offset, format!("{kind}: {error}")));
                self.broken = true;
                return;
            }
        };
        self.check_form(offset, &view);
        let mut runs = None;
        if view.is_resident() {
            self.check_resident(offset, &view);
        } else {
            runs = self.check_runs(offset, &view);
        }
        let at = self.start.map(|start| start.saturating_add(offset as u64));
        self.parts.push(FileAttribute { record: self.number, offset: at, view, runs });
    }

    /// Type, residence and size as `$AttrDef` allows them.
    fn check_form(&self, offset: usize, view: &Attribute<'_>) {
        let kind = view.kind();
        let Some(rule) = RULES.iter().find(|rule| rule.kind == kind) else {
            let fault = self.fault(Code::AttributeForm, offset, "an attribute of unknown type");
            self.report(fault.values("0x10..0x100", format!("{:#x}", kind.0)));
            return;
        };
        let is_allowed = if view.is_resident() { rule.resident } else { rule.non_resident };
        if !is_allowed {
            let form = if view.is_resident() { "resident" } else { "not resident" };
            self.report(self.fault(Code::AttributeForm, offset, format!("{} must not be {form}", title(view))));
        }
        let size = view.data_size();
        if view.lowest_vcn().0 == 0 && !(rule.least..=rule.most).contains(&size) {
            let fault = self.fault(Code::AttributeForm, offset, format!("{} has an impossible size", title(view)));
            self.report(fault.values(format!("{}..{}", rule.least, rule.most), size));
        }
        let header = if view.is_resident() { resident::HEADER_SIZE } else { non_resident::HEADER_SIZE };
        let name_offset = usize::from(attribute_header::NAME_OFFSET.get(view.bytes()));
        if !view.name_bytes().is_empty() && name_offset < header {
            let fault =
                self.fault(Code::AttributeForm, offset, format!("the name of {} lies in its header", title(view)));
            self.report(fault.values(header, name_offset));
        }
    }

    fn name_end(view: &Attribute<'_>) -> usize {
        match view.name_bytes().len() {
            0 => 0,
            length => usize::from(attribute_header::NAME_OFFSET.get(view.bytes())) + length,
        }
    }

    fn check_resident(&self, offset: usize, view: &Attribute<'_>) {
        let value = usize::from(resident::VALUE_OFFSET.get(view.bytes()));
        if value < resident::HEADER_SIZE.max(Self::name_end(view)) || value % 8 != 0 {
            let fault =
                self.fault(Code::ResidentValue, offset, format!("the value of {} lies in its header", title(view)));
            self.report(fault.values(align8(resident::HEADER_SIZE.max(Self::name_end(view))), value));
        }
        let indexed = resident::INDEXED.get(view.bytes()) & 1;
        let expected = u8::from(view.kind() == AttributeType::FILE_NAME);
        if indexed != expected {
            let fault = self.fault(Code::ResidentValue, offset, format!("wrong indexed flag of {}", title(view)));
            self.report(fault.values(expected, indexed));
        }
    }

    fn check_runs(&mut self, offset: usize, view: &Attribute<'_>) -> Option<Runlist> {
        let pairs = usize::from(non_resident::PAIRS_OFFSET.get(view.bytes()));
        if pairs < Self::name_end(view) {
            let fault =
                self.fault(Code::MappingPairs, offset, format!("the mapping pairs of {} lie in its name", title(view)));
            self.report(fault.values(align8(Self::name_end(view)), pairs));
        }
        if view.flags() & (FLAG_SPARSE | FLAG_COMPRESSED) != 0
            && view.lowest_vcn().0 == 0
            && pairs < non_resident::HEADER_SIZE_WITH_TOTAL
        {
            let message = format!("{} is sparse or compressed but has no total size", title(view));
            self.report(
                self.fault(Code::StreamSizes, offset, message).values(non_resident::HEADER_SIZE_WITH_TOTAL, pairs),
            );
        }
        match view.runlist(self.context.geometry.cluster_count) {
            Ok(runs) => Some(runs),
            Err(error) => {
                self.report(self.fault(Code::MappingPairs, offset, format!("{}: {error}", title(view))));
                self.broken = true;
                None
            }
        }
    }

    /// Order of the attributes, and their instance numbers.
    fn check_order(&self) {
        let next = header::NEXT_INSTANCE.get(self.bytes);
        for (index, part) in self.parts.iter().enumerate() {
            let at = part.offset.and_then(|at| at.checked_sub(self.start?)).and_then(|n| usize::try_from(n).ok());
            let at = at.unwrap_or(0);
            let instance = part.view.instance();
            if instance >= next {
                let message = format!("the instance of {} is not below the record's next one", part.title());
                self.report(self.fault(Code::AttributeInstance, at, message).values(format!("below {next}"), instance));
            }
            let earlier = &self.parts[..index];
            if earlier.iter().any(|other| other.view.instance() == instance) {
                let message = format!("{} repeats the instance {instance}", part.title());
                self.report(self.fault(Code::AttributeInstance, at, message).values("unique", instance));
            }
            let Some(previous) = earlier.last() else { continue };
            let names = compare_ignoring_case(previous.view.name_bytes(), part.view.name_bytes(), &self.context.upcase);
            let order = previous.view.kind().cmp(&part.view.kind()).then(names);
            let order = order.then(previous.view.lowest_vcn().cmp(&part.view.lowest_vcn()));
            if order.is_gt() {
                let message = format!("{} stands after {}", part.title(), previous.title());
                self.report(self.fault(Code::AttributeOrder, at, message));
            } else if order.is_eq() && part.view.kind() != AttributeType::FILE_NAME {
                self.report(self.fault(Code::AttributeOrder, at, format!("{} is there twice", part.title())));
            }
        }
    }
}

/// What `$AttrDef` of NTFS 3.1 allows.
struct Rule {
    kind: AttributeType,
    resident: bool,
    non_resident: bool,
    least: u64,
    most: u64,
}

const fn rule(kind: AttributeType, resident: bool, non_resident: bool, least: u64, most: u64) -> Rule {
    Rule { kind, resident, non_resident, least, most }
}

const RULES: &[Rule] = &[
    rule(AttributeType::STANDARD_INFORMATION, true, false, 0x30, 0x48),
    rule(AttributeType::ATTRIBUTE_LIST, true, true, 0, u64::MAX),
    rule(AttributeType::FILE_NAME, true, false, 0x44, 0x242),
    rule(AttributeType::OBJECT_ID, true, false, 0, 0x100),
    rule(AttributeType::SECURITY_DESCRIPTOR, true, true, 0, u64::MAX),
    // an empty label is legal although the table says 2
    rule(AttributeType::VOLUME_NAME, true, false, 0, 0x100),
    rule(AttributeType::VOLUME_INFORMATION, true, false, 0xC, 0xC),
    rule(AttributeType::DATA, true, true, 0, u64::MAX),
    rule(AttributeType::INDEX_ROOT, true, false, 0, u64::MAX),
    rule(AttributeType::INDEX_ALLOCATION, false, true, 0, u64::MAX),
    rule(AttributeType::BITMAP, true, true, 0, u64::MAX),
    rule(AttributeType::REPARSE_POINT, true, true, 0, 0x4000),
    rule(AttributeType::EA_INFORMATION, true, false, 8, 8),
    rule(AttributeType::EA, true, true, 0, 0x1_0000),
    rule(AttributeType::LOGGED_UTILITY_STREAM, true, true, 0, 0x1_0000),
];
