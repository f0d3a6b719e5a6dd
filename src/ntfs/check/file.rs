//! One file: its attributes over all its records (B5, B11, B13 to B17, C11), and what the other parts of the check want
//! to know of it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use super::code::Code;
use super::context::Context;
use super::record::{FileAttribute, ParsedRecord};
use super::report::Fault;
use crate::ntfs::attribute::{AttributeType, FLAG_COMPRESSED, FLAG_SPARSE, StreamSizes, non_resident};
use crate::ntfs::attribute_list::layout as list;
use crate::ntfs::file_name::{self, layout as name_layout};
use crate::ntfs::name::{Namespace, NtfsName, compare_ignoring_case, is_short};
use crate::ntfs::record::{FLAG_DIRECTORY, FLAG_VIEW_INDEX};
use crate::ntfs::runlist::Runlist;
use crate::ntfs::standard_information::layout as information;
use crate::ntfs::units::{FileId, RecordNumber, Vcn};

/// Records that a file has at most: far above what the largest attribute list can name.
pub(super) const RECORDS_MAX: usize = 16384;

/// All extents of one attribute.
pub(super) struct Stream<'p, 'a> {
    pub first: &'p FileAttribute<'a>,
    /// The joined runs; `None` when resident or unreadable.
    pub runs: Option<Runlist>,
}

impl Stream<'_, '_> {
    pub(super) fn size(&self) -> u64 {
        self.first.view.data_size()
    }

    /// Fills `buf` from byte `offset`; what is not there reads as zeros. Returns whether all of it was there.
    pub(super) fn read(&self, context: &Context<'_>, offset: u64, buf: &mut [u8]) -> crate::Result<bool> {
        match (self.first.view.value(), &self.runs) {
            (Some(value), _) => {
                let rest = usize::try_from(offset).ok().and_then(|at| value.get(at..)).unwrap_or_default();
                let count = rest.len().min(buf.len());
                buf[..count].copy_from_slice(&rest[..count]);
                buf[count..].fill(0);
                Ok(count == buf.len())
            }
            (None, Some(runs)) => context.read_stream(runs, offset, buf),
            (None, None) => {
                buf.fill(0);
                Ok(false)
            }
        }
    }

    /// Where byte `offset` is on the volume.
    pub(super) fn locate(&self, context: &Context<'_>, offset: u64) -> Option<u64> {
        match &self.runs {
            Some(runs) => context.locate(runs, offset).and_then(|(start, _)| start),
            None => self.first.offset,
        }
    }

    /// The whole content, up to `limit` bytes; `None` when it is longer or cannot be read.
    pub(super) fn content(&self, context: &Context<'_>, limit: u64) -> crate::Result<Option<Vec<u8>>> {
        if let Some(value) = self.first.view.value() {
            return Ok(Some(value.to_vec()).filter(|v| v.len() as u64 <= limit));
        }
        let Some(runs) = self.runs.as_ref().filter(|_| self.size() <= limit) else { return Ok(None) };
        let mut bytes = vec![0; usize::try_from(self.size()).unwrap_or(0)];
        context.read_stream(runs, 0, &mut bytes)?;
        Ok(Some(bytes))
    }
}

/// A file: its base record, and all attributes of all its records.
pub(super) struct File<'p, 'a> {
    pub number: u64,
    pub id: FileId,
    pub flags: u16,
    links: u16,
    broken: bool,
    pub parts: Vec<&'p FileAttribute<'a>>,
}

/// What [`File::check`] finds out for the others.
#[derive(Default)]
pub(super) struct Facts {
    /// Sum of the names' hashes, see [`name_hash`].
    pub names: u64,
    /// Hash of what directory entries repeat, see [`Duplicated::hash`].
    pub duplicated: u64,
    pub security: Option<u32>,
    pub reparse_tag: Option<u32>,
    pub object_id: Option<[u8; 16]>,
    pub has_index: bool,
    /// The file's names in the directory `$Extend`.
    pub extend_names: Vec<NtfsName>,
}

impl<'p, 'a> File<'p, 'a> {
    /// Joins the records of a file; the first is the base record.
    pub(super) fn new(records: &'p [ParsedRecord<'a>]) -> Option<Self> {
        let base = records.first()?;
        Some(Self {
            number: base.number,
            id: FileId { record: RecordNumber(base.number), sequence: base.sequence() },
            flags: base.flags(),
            links: base.links(),
            broken: records.iter().any(|r| r.broken),
            parts: records.iter().flat_map(|r| &r.parts).collect(),
        })
    }

    fn fault(&self, code: Code, message: impl Into<String>) -> Fault {
        Fault::new(code, message).record(self.number)
    }

    fn report(&self, context: &Context<'_>, fault: Fault) {
        context.fault(fault.at(context.record_offset(self.number)));
    }

    pub(super) fn find(&self, kind: AttributeType, name: &str) -> Option<&'p FileAttribute<'a>> {
        self.parts.iter().find(|part| part.is(kind, name)).copied()
    }

    /// The stream with this name, its extents joined.
    pub(super) fn stream(&self, kind: AttributeType, name: &str) -> Option<Stream<'p, 'a>> {
        let mut extents: Vec<_> = self.parts.iter().filter(|part| part.is(kind, name)).copied().collect();
        extents.sort_by_key(|part| part.view.lowest_vcn());
        self.join(&extents)
    }

    fn join(&self, extents: &[&'p FileAttribute<'a>]) -> Option<Stream<'p, 'a>> {
        let first = *extents.first()?;
        if first.view.is_resident() {
            return Some(Stream { first, runs: None });
        }
        let mut runs = Runlist::starting_at(Vcn(0));
        let whole = extents.iter().all(|part| part.runs.as_ref().is_some_and(|more| runs.append(more).is_ok()));
        Some(Stream { first, runs: whole.then_some(runs) })
    }

    /// The file's names as they lie in the record.
    pub(super) fn names(&self) -> impl Iterator<Item = (&'p FileAttribute<'a>, &'a [u8])> + '_ {
        self.parts
            .iter()
            .filter(|part| part.view.kind() == AttributeType::FILE_NAME)
            .filter_map(|part| part.view.value().map(|value| (*part, value)))
    }

    /// Everything that can be decided with the file's own records.
    pub(super) fn check(&self, context: &Context<'_>) -> crate::Result<Facts> {
        self.check_streams(context);
        let mut facts = Facts::default();
        self.check_information(context, &mut facts);
        self.check_names(context, &mut facts);
        self.check_required_attributes(context);
        self.check_index_attributes(context, &mut facts);
        self.check_system_file(context);
        if let Some(value) = self.find(AttributeType::OBJECT_ID, "").and_then(|part| part.view.value()) {
            facts.object_id = value.first_chunk().copied();
        }
        if let Some(stream) = self.stream(AttributeType::REPARSE_POINT, "") {
            let content = stream.content(context, 0x1_0000)?;
            facts.reparse_tag = content.as_ref().and_then(|c| c.first_chunk()).map(|tag| u32::from_le_bytes(*tag));
        }
        facts.duplicated = Duplicated::of(self).hash();
        Ok(facts)
    }

    /// Joins the extents of every stream and compares them with the sizes (B10, B11).
    fn check_streams(&self, context: &Context<'_>) {
        let order = |a: &&FileAttribute<'_>, b: &&FileAttribute<'_>| -> Ordering {
            a.view.kind().cmp(&b.view.kind()).then_with(|| a.view.name_bytes().cmp(b.view.name_bytes()))
        };
        let mut parts: Vec<_> =
            self.parts.iter().filter(|part| part.view.kind() != AttributeType::FILE_NAME).copied().collect();
        parts.sort_by(|a, b| order(a, b).then(a.view.lowest_vcn().cmp(&b.view.lowest_vcn())));
        for extents in parts.chunk_by(|a, b| order(a, b).is_eq()) {
            self.check_extents(context, extents);
        }
    }

    fn check_extents(&self, context: &Context<'_>, extents: &[&'p FileAttribute<'a>]) {
        let first = extents[0];
        let at = |fault: Fault, part: &FileAttribute<'_>| context.fault(fault.at(part.offset));
        if extents.iter().any(|part| part.view.is_resident() != first.view.is_resident())
            || (first.view.is_resident() && extents.len() > 1)
        {
            at(self.fault(Code::AttributeList, format!("{} is there twice", first.title())), first);
            return;
        }
        if first.view.is_resident() {
            return;
        }
        if first.view.lowest_vcn() != Vcn(0) {
            let fault = self.fault(Code::AttributeList, format!("the first extent of {} is missing", first.title()));
            at(fault.values(0, first.view.lowest_vcn()), first);
            return;
        }
        let mut runs = Runlist::starting_at(Vcn(0));
        for part in extents {
            let Some(more) = &part.runs else { return };
            let expected = runs.end();
            if runs.append(more).is_err() {
                let message = format!("the extents of {} leave a gap or overlap", first.title());
                at(
                    self.fault(Code::AttributeList, message).values(format!("VCN {expected}"), part.view.lowest_vcn()),
                    part,
                );
                return;
            }
        }
        self.check_sizes(context, first, &runs);
    }

    fn check_sizes(&self, context: &Context<'_>, first: &FileAttribute<'_>, runs: &Runlist) {
        let sizes = StreamSizes::of(&first.view);
        let cluster = context.cluster_size();
        let report = |what: &str, expected: String, found: u64| {
            let fault = self.fault(Code::StreamSizes, format!("{what} of {}", first.title()));
            context.fault(fault.at(first.offset).values(expected, found));
        };
        let mapped = runs.end().saturating_mul(cluster);
        if sizes.allocated != mapped {
            report("the allocated size is not what the runs map", mapped.to_string(), sizes.allocated);
        }
        if sizes.data > sizes.allocated {
            report("the data size exceeds the allocated size", format!("at most {}", sizes.allocated), sizes.data);
        }
        if sizes.initialized > sizes.data {
            report("the initialized size exceeds the data size", format!("at most {}", sizes.data), sizes.initialized);
        }
        let pairs = usize::from(non_resident::PAIRS_OFFSET.get(first.view.bytes()));
        if sizes.has_total() && pairs >= non_resident::HEADER_SIZE_WITH_TOTAL {
            let real = runs.real_clusters().saturating_mul(cluster);
            let total = non_resident::TOTAL_ALLOCATED.get(first.view.bytes());
            if total != real {
                report("the total allocated size", real.to_string(), total);
            }
        }
        // the list of bad clusters is one hole without the sparse flag
        let is_bad_clusters = self.number == RecordNumber::BAD_CLUSTERS.0;
        let holes = runs.runs().iter().filter(|run| run.lcn.is_none()).count();
        if sizes.flags & (FLAG_SPARSE | FLAG_COMPRESSED) == 0 && holes > 0 && !is_bad_clusters {
            report("holes in a stream that is neither sparse nor compressed: runs", "0 holes".into(), holes as u64);
        }
    }

    fn check_information(&self, context: &Context<'_>, facts: &mut Facts) {
        let Some(part) = self.find(AttributeType::STANDARD_INFORMATION, "") else {
            if !self.broken {
                self.report(context, self.fault(Code::RequiredAttributes, "the file has no $STANDARD_INFORMATION"));
            }
            return;
        };
        let Some(value) = part.view.value() else { return };
        if value.len() != information::SIZE_1X && value.len() != information::SIZE_3X {
            let fault = self.fault(Code::RequiredAttributes, "$STANDARD_INFORMATION has an impossible length");
            context.fault(fault.at(part.offset).values("48 or 72", value.len()));
        }
        if part.record != self.number {
            let fault = self.fault(Code::RequiredAttributes, "$STANDARD_INFORMATION is not in the base record");
            context.fault(fault.at(part.offset).values(self.number, part.record));
        }
        if value.len() >= information::SIZE_3X {
            facts.security = Some(information::SECURITY.get(value)).filter(|&id| id != 0);
        }
    }

    fn check_names(&self, context: &Context<'_>, facts: &mut Facts) {
        let mut count = 0u64;
        let mut pairs: Vec<(u64, u8)> = Vec::new();
        for (part, value) in self.names() {
            count += 1;
            let bad = |code, message: &str| {
                let name = file_name::name_bytes(value).map(NtfsName::from_le_bytes).unwrap_or_default();
                context.fault(self.fault(code, format!("{message}: \"{name}\"")).at(part.offset));
            };
            let Some(name) = file_name::name_bytes(value).filter(|name| !name.is_empty()) else {
                bad(Code::AttributeForm, "a $FILE_NAME is cut short");
                continue;
            };
            if value.len() != name_layout::NAME + name.len() {
                bad(Code::AttributeForm, "a $FILE_NAME is longer than its name");
            }
            let parent = FileId::from_raw(name_layout::PARENT.get(value));
            let Some(namespace) = Namespace::from_raw(name_layout::NAMESPACE.get(value)) else {
                bad(Code::FileNameForm, "a name has an unknown namespace");
                continue;
            };
            facts.names = facts.names.wrapping_add(name_hash(value));
            pairs.push((name_layout::PARENT.get(value), namespace.to_raw()));
            let name = NtfsName::from_le_bytes(name);
            if let Some(problem) = self.find_name_problem(context, &name, namespace) {
                bad(Code::FileNameForm, problem);
            }
            if parent.record == RecordNumber::EXTEND {
                facts.extend_names.push(name);
            }
        }
        pairs.sort_unstable();
        for names in pairs.chunk_by(|a, b| a.0 == b.0) {
            let of = |kind: Namespace| names.iter().filter(|&&(_, namespace)| namespace == kind.to_raw()).count();
            let (long, short) = (of(Namespace::Win32), of(Namespace::Dos));
            if long != short {
                let fault = self.fault(Code::FileNameForm, "long names and short names in a directory do not pair");
                self.report(context, fault.values(format!("{long} short"), short));
            }
        }
        if count != u64::from(self.links) && !self.broken {
            let fault = self.fault(Code::LinkCount, "the link count is not the number of names");
            self.report(context, fault.values(count, self.links));
        }
    }

    fn find_name_problem(&self, context: &Context<'_>, name: &NtfsName, namespace: Namespace) -> Option<&'static str> {
        let forbidden = |list: &[u8]| name.units().iter().any(|&u| u8::try_from(u).is_ok_and(|c| list.contains(&c)));
        if forbidden(b"\0/") {
            return Some("a name holds a character that no name may have");
        }
        let control = name.units().iter().any(|&u| u < 0x20);
        if namespace != Namespace::Posix && (control || forbidden(b"\\:*?\"<>|")) {
            return Some("a Win32 name holds a character that Windows forbids");
        }
        let is_short_space = matches!(namespace, Namespace::Dos | Namespace::Win32AndDos);
        if self.number < RecordNumber::FIRST_USER.0 || !is_short_space {
            return None;
        }
        let lower = name.units().iter().any(|&u| context.upcase.upper(u) != u);
        if !is_short_in_any_code_page(name) || (namespace == Namespace::Dos && lower) {
            return Some("a DOS name is not an 8.3 name");
        }
        None
    }

    fn check_required_attributes(&self, context: &Context<'_>) {
        if self.broken {
            return;
        }
        let has = |kind| self.parts.iter().any(|part| part.view.kind() == kind);
        // the reserved records 12 to 15 have no names
        if !has(AttributeType::FILE_NAME) && !(12..=15).contains(&self.number) {
            self.report(context, self.fault(Code::RequiredAttributes, "the file has no name"));
        }
        let is_in_extend = self
            .names()
            .any(|(_, value)| FileId::from_raw(name_layout::PARENT.get(value)).record == RecordNumber::EXTEND);
        let needs_data = self.flags & !1 & 0xF == 0 && !is_in_extend;
        if needs_data && self.find(AttributeType::DATA, "").is_none() {
            self.report(context, self.fault(Code::RequiredAttributes, "the file has no unnamed $DATA"));
        }
        if has(AttributeType::EA) != has(AttributeType::EA_INFORMATION) {
            self.report(context, self.fault(Code::RequiredAttributes, "$EA and $EA_INFORMATION are not both there"));
        }
    }

    fn check_index_attributes(&self, context: &Context<'_>, facts: &mut Facts) {
        let roots = || self.parts.iter().filter(|part| part.view.kind() == AttributeType::INDEX_ROOT);
        facts.has_index = roots().next().is_some();
        if self.broken {
            return;
        }
        let is_directory = self.flags & FLAG_DIRECTORY != 0;
        let has_names = roots().any(|part| part.view.is_named("$I30"));
        if is_directory != has_names {
            let fault = self.fault(Code::RecordFlags, "the directory flag disagrees with the index $I30");
            self.report(context, fault.values(has_names, is_directory));
        }
        let is_view = self.flags & FLAG_VIEW_INDEX != 0;
        let has_view = roots().any(|part| !part.view.is_named("$I30"));
        if is_view && !has_view {
            let fault = self.fault(Code::RecordFlags, "the view-index flag disagrees with the indexes");
            self.report(context, fault.values(has_view, is_view));
        }
    }

    /// Names and sequence numbers of the first records (B17).
    fn check_system_file(&self, context: &Context<'_>) {
        const NAMES: [&str; 12] = [
            "$MFT", "$MFTMirr", "$LogFile", "$Volume", "$AttrDef", ".", "$Bitmap", "$Boot", "$BadClus", "$Secure",
            "$UpCase", "$Extend",
        ];
        let Some(expected) = usize::try_from(self.number).ok().and_then(|n| NAMES.get(n)) else { return };
        let name = self.names().next().and_then(|(_, value)| file_name::name_bytes(value));
        let name = name.map(NtfsName::from_le_bytes).unwrap_or_default();
        if name != **expected && !self.broken {
            let fault = self.fault(Code::SystemFile, "a system file has another name");
            self.report(context, fault.values(expected, name));
        }
        let sequence = self.number.max(1);
        if u64::from(self.id.sequence) != sequence {
            let fault = self.fault(Code::SystemFile, "a system file has another sequence number");
            self.report(context, fault.values(sequence, self.id.sequence));
        }
        let is_directory = self.flags & FLAG_DIRECTORY != 0;
        let should_be = [RecordNumber::ROOT.0, RecordNumber::EXTEND.0].contains(&self.number);
        if is_directory != should_be {
            let fault = self.fault(Code::SystemFile, "a system file has the wrong kind");
            self.report(context, fault.values(should_be, is_directory));
        }
    }

    /// Compares the attribute list with the attributes (B13); `records` are those of the file.
    pub(super) fn check_list(&self, context: &Context<'_>, bytes: &[u8], records: &[ParsedRecord<'_>]) {
        let at = self.find(AttributeType::ATTRIBUTE_LIST, "").and_then(|part| part.offset);
        let report = |message: String| context.fault(self.fault(Code::AttributeList, message).at(at));
        let by_number: BTreeMap<u64, &ParsedRecord<'_>> = records.iter().map(|r| (r.number, r)).collect();
        let mut listed: Vec<(u64, u16)> = Vec::new();
        let mut rest = bytes;
        let mut previous: Option<(u32, Vec<u8>, u64)> = None;
        while !rest.is_empty() {
            let length = usize::from(list::LENGTH.get(rest));
            let name_length = 2 * usize::from(list::NAME_LENGTH.get(rest));
            if length < list::NAME + name_length || length % 8 != 0 || length > rest.len() {
                report(format!("an entry of the attribute list has an impossible length {length}"));
                return;
            }
            let entry = &rest[..length];
            rest = &rest[length..];
            let kind = AttributeType(list::TYPE.get(entry));
            if usize::from(list::NAME_OFFSET.get(entry)) != list::NAME {
                let fault = self.fault(Code::AttributeList, format!("wrong name offset in the list entry of {kind}"));
                context.fault(fault.at(at).values(list::NAME, list::NAME_OFFSET.get(entry)));
            }
            let name = entry[list::NAME..list::NAME + name_length].to_vec();
            let lowest = list::LOWEST_VCN.get(entry);
            let place = FileId::from_raw(list::RECORD.get(entry));
            let instance = list::INSTANCE.get(entry);
            let holds = |part: &FileAttribute<'_>| {
                part.view.instance() == instance
                    && part.view.kind() == kind
                    && part.view.name_bytes() == name
                    && part.view.lowest_vcn().0 == lowest
            };
            let record = by_number.get(&place.record.0).filter(|record| record.sequence() == place.sequence);
            let found = record.is_some_and(|record| record.parts.iter().any(holds));
            if !found && !self.broken {
                report(format!(
                    "the attribute list names {kind} at VCN {lowest} in record {place}, which is not there"
                ));
            }
            let order = previous.as_ref().map(|(k, n, v)| {
                k.cmp(&kind.0).then_with(|| compare_ignoring_case(n, &name, &context.upcase)).then(v.cmp(&lowest))
            });
            if order == Some(Ordering::Greater) {
                report(format!("the attribute list is out of order at {kind}"));
            }
            previous = Some((kind.0, name, lowest));
            listed.push((place.record.0, instance));
        }
        listed.sort_unstable();
        if let Some(twice) = listed.windows(2).find(|two| two[0] == two[1]) {
            report(format!("the attribute list names instance {} of record {} twice", twice[0].1, twice[0].0));
        }
        for part in self.parts.iter().filter(|part| part.view.kind() != AttributeType::ATTRIBUTE_LIST) {
            if listed.binary_search(&(part.record, part.view.instance())).is_err() {
                report(format!("{} in record {} is not in the attribute list", part.title(), part.record));
            }
        }
    }
}

/// Whether a name has the 8.3 form. Windows takes every character of the machine's OEM code page, which a volume does
/// not tell, so everything above ASCII passes.
fn is_short_in_any_code_page(name: &NtfsName) -> bool {
    let units = name.units().iter().map(|&unit| if unit < 0x80 { unit } else { u16::from(b'A') }).collect();
    is_short(&NtfsName::from_units(units))
}

/// Hash of what a name and its directory entry must have in common: parent, namespace, name.
pub(super) fn name_hash(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(value.get(..8).unwrap_or_default());
    hasher.write(value.get(name_layout::NAME_LENGTH.offset..).unwrap_or_default());
    // a sum of hashes must not be blind to any single one
    hasher.finish() | 1
}

/// What directory entries repeat of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Duplicated {
    pub times: [u64; 3],
    pub attributes: u32,
    pub allocated: u64,
    pub size: u64,
}

impl Duplicated {
    /// As the file's own attributes have it.
    pub(super) fn of(file: &File<'_, '_>) -> Self {
        let information =
            file.find(AttributeType::STANDARD_INFORMATION, "").and_then(|part| part.view.value()).unwrap_or_default();
        let mut this = Self {
            times: [information::CREATED, information::MODIFIED, information::CHANGED].map(|f| f.get(information)),
            attributes: information::ATTRIBUTES.get(information) & ATTRIBUTES_COMPARED,
            allocated: 0,
            size: 0,
        };
        if file.flags & FLAG_DIRECTORY == 0
            && let Some(data) = file.parts.iter().find(|p| p.is(AttributeType::DATA, "") && p.view.lowest_vcn().0 == 0)
        {
            this.size = data.view.data_size();
            this.allocated = match data.view.value() {
                Some(value) => (value.len() as u64).saturating_add(7) & !7,
                None if StreamSizes::of(&data.view).has_total() => non_resident::TOTAL_ALLOCATED.get(data.view.bytes()),
                None => StreamSizes::of(&data.view).allocated,
            };
        }
        this
    }

    /// As a directory entry has it.
    pub(super) fn of_key(key: &[u8]) -> Self {
        Self {
            times: [name_layout::CREATED, name_layout::MODIFIED, name_layout::CHANGED].map(|f| f.get(key)),
            attributes: name_layout::ATTRIBUTES.get(key) & ATTRIBUTES_COMPARED,
            allocated: name_layout::ALLOCATED.get(key),
            size: name_layout::DATA_SIZE.get(key),
        }
    }

    /// The fields in which `other` differs, as `self` and as `other` has them.
    pub(super) fn differences(&self, other: &Self) -> (String, String) {
        let pairs = [
            ("created", self.times[0], other.times[0]),
            ("modified", self.times[1], other.times[1]),
            ("changed", self.times[2], other.times[2]),
            ("attributes", self.attributes.into(), other.attributes.into()),
            ("allocated", self.allocated, other.allocated),
            ("size", self.size, other.size),
        ];
        let differing = pairs.iter().filter(|(_, a, b)| a != b);
        let (ours, theirs): (Vec<_>, Vec<_>) =
            differing.map(|(name, a, b)| (format!("{name} {a}"), format!("{name} {b}"))).unzip();
        (ours.join(", "), theirs.join(", "))
    }

    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        std::hash::Hash::hash(self, &mut hasher);
        hasher.finish()
    }
}

/// Attribute bits that a directory entry repeats: not the directory bits, and not the compression bit, which writers
/// keep in different ways.
const ATTRIBUTES_COMPARED: u32 = 0x0FFF_F76F;
