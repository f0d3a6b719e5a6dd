//! The pass over `$MFT`: every record and every file, and whom the clusters belong to.

use std::collections::{BTreeMap, BTreeSet};

use super::bits::Bits;
use super::code::Code;
use super::context::Context;
use super::file::{Facts, File, RECORDS_MAX};
use super::record::{self, ParsedRecord};
use super::report::Fault;
use super::table::{Table, flag};
use crate::error::Result;
use crate::ntfs::attribute::AttributeType;
use crate::ntfs::attribute_list::{self, layout as list};
use crate::ntfs::name::NtfsName;
use crate::ntfs::record::{FLAG_DIRECTORY, FLAG_VIEW_INDEX, header};
use crate::ntfs::units::{FileId, RecordNumber};

/// Bytes of `$MFT` read at once.
const CHUNK: u64 = 1 << 20;
/// Blocks without a signature that are remembered.
const UNSIGNED_MAX: usize = 4096;

/// What the pass collects.
pub(super) struct Scan<'c> {
    pub context: &'c Context<'c>,
    pub table: Table,
    /// Clusters that have an owner.
    pub owned: Bits,
    /// The security ids that exist; `None` when `$Secure` cannot tell.
    pub security_ids: Option<BTreeSet<u32>>,
    pub security_used: BTreeSet<u32>,
    /// Reparse tag of each file that has one.
    pub reparse: BTreeMap<u64, u32>,
    pub object_ids: BTreeMap<u64, [u8; 16]>,
    /// Blocks that are no records, but not empty either.
    pub unsigned: Vec<u64>,
    /// What lies in `$Extend`.
    pub extend: Vec<(NtfsName, u64)>,
}

impl<'c> Scan<'c> {
    pub(super) fn new(context: &'c Context<'c>, security_ids: Option<BTreeSet<u32>>) -> Self {
        Self {
            context,
            table: Table::new(context.record_count),
            owned: Bits::new(context.geometry.cluster_count),
            security_ids,
            security_used: BTreeSet::new(),
            reparse: BTreeMap::new(),
            object_ids: BTreeMap::new(),
            unsigned: Vec::new(),
            extend: Vec::new(),
        }
    }

    /// Reads all of `$MFT`; `on_progress` gets the bytes that were read, and all of them.
    pub(super) fn read_all(&mut self, on_progress: &dyn Fn(u64, u64)) -> Result<()> {
        let size = self.context.record_size();
        let per_chunk = (CHUNK / size).max(1);
        let mut chunk = Vec::new();
        let mut first = 0;
        while first < self.context.record_count {
            let count = per_chunk.min(self.context.record_count - first);
            chunk.resize(usize::try_from(count * size).unwrap_or(0), 0);
            self.context.read_stream(&self.context.mft, first * size, &mut chunk)?;
            for (number, block) in (first..).zip(chunk.chunks_exact_mut(self.context.geometry.record_size as usize)) {
                self.check_record(number, block)?;
            }
            first += count;
            on_progress(first.saturating_mul(size), self.context.record_count.saturating_mul(size));
        }
        for base in self.table.with(flag::LIST) {
            self.check_listed_file(base)?;
        }
        self.report_orphans();
        Ok(())
    }

    /// Reads some records and everything that belongs to the same files.
    pub(super) fn read_records(&mut self, records: &BTreeSet<u64>) -> Result<()> {
        for &number in records {
            self.read_record(number)?;
        }
        for base in self.table.with(flag::LIST) {
            for number in self.records_of_list(base)? {
                self.read_record(number)?;
            }
            self.check_listed_file(base)?;
        }
        self.report_orphans();
        Ok(())
    }

    fn read_record(&mut self, number: u64) -> Result<()> {
        if number >= self.context.record_count || self.table.get(number).has(flag::SCANNED) {
            return Ok(());
        }
        let mut block = self.context.raw_record(number)?;
        self.check_record(number, &mut block)
    }

    fn check_record(&mut self, number: u64, block: &mut [u8]) -> Result<()> {
        if block.iter().take(4).all(|&byte| byte == 0) {
            return Ok(());
        }
        let in_use = record::unseal(self.context, number, block);
        let sequence = header::SEQUENCE.get(block);
        if !in_use {
            if !block.starts_with(b"FILE") && self.unsigned.len() < UNSIGNED_MAX {
                self.unsigned.push(number);
            }
            if block.starts_with(b"FILE") {
                self.table.update(number, |row| {
                    row.flags |= flag::SCANNED;
                    row.sequence = sequence;
                });
            }
            return Ok(());
        }
        let parsed = record::parse(self.context, number, block);
        self.note(&parsed);
        self.claim_clusters(&parsed);
        let row = self.table.get(number);
        if !row.has(flag::EXTENSION) && !row.has(flag::LIST) {
            let records = [parsed];
            if let Some(file) = File::new(&records) {
                let facts = file.check(self.context)?;
                self.store_facts(number, facts);
            }
        }
        Ok(())
    }

    /// Fills the record's row.
    fn note(&mut self, parsed: &ParsedRecord<'_>) {
        let header_flags = parsed.flags();
        let base = parsed.base();
        let mut flags = flag::SCANNED | flag::IN_USE;
        let has = |kind| parsed.parts.iter().any(|part| part.view.kind() == kind);
        for (bit, set) in [
            (flag::DIRECTORY, header_flags & FLAG_DIRECTORY != 0),
            (flag::VIEW_INDEX, header_flags & FLAG_VIEW_INDEX != 0),
            (flag::EXTENSION, base != 0),
            (flag::LIST, base == 0 && has(AttributeType::ATTRIBUTE_LIST)),
            (flag::BROKEN, parsed.broken),
        ] {
            flags |= if set { bit } else { 0 };
        }
        let link = u32::try_from(FileId::from_raw(base).record.0).unwrap_or(u32::MAX);
        self.table.update(parsed.number, |row| {
            row.flags |= flags;
            row.sequence = parsed.sequence();
            row.link = link;
        });
        let mut report = self.context.report();
        report.stats.records += 1;
        report.stats.files += u64::from(base == 0);
        report.stats.directories += u64::from(base == 0 && header_flags & FLAG_DIRECTORY != 0);
    }

    fn claim_clusters(&mut self, parsed: &ParsedRecord<'_>) {
        for part in &parsed.parts {
            for (lcn, length) in part.runs.iter().flat_map(|runs| runs.real()) {
                if let Some(taken) = self.owned.insert(lcn.0, length) {
                    let message = format!("clusters of {} have another owner", part.title());
                    let fault = Fault::new(Code::CrossLinkedClusters, message).record(parsed.number).at(part.offset);
                    self.context.fault(fault.values("one owner", format!("cluster {taken} owned twice")));
                }
            }
        }
    }

    /// Keeps what the other parts of the check want to know of a file.
    fn store_facts(&mut self, number: u64, facts: Facts) {
        self.table.update(number, |row| {
            row.names = row.names.wrapping_add(facts.names);
            row.facts = facts.duplicated;
            row.flags |= if facts.has_index { flag::INDEX } else { 0 };
        });
        if let Some(id) = facts.security {
            self.security_used.insert(id);
            if self.security_ids.as_ref().is_some_and(|ids| !ids.contains(&id)) {
                let fault = Fault::new(Code::SecurityId, "the file's security id has no descriptor").record(number);
                let fault = fault.at(self.context.record_offset(number));
                self.context.fault(fault.values("an id of $SII", format!("{id:#x}")));
            }
        }
        if let Some(tag) = facts.reparse_tag {
            self.reparse.insert(number, tag);
        }
        if let Some(id) = facts.object_id {
            self.object_ids.insert(number, id);
        }
        self.extend.extend(facts.extend_names.into_iter().map(|name| (name, number)));
    }

    /// A file whose attributes are spread over several records.
    fn check_listed_file(&mut self, base: u64) -> Result<()> {
        let context = self.context;
        let mut blocks = Vec::new();
        let numbers = self.records_of_list(base)?;
        if !context.spend(numbers.len()) {
            let fault = Fault::new(Code::AttributeList, "the volume's attribute lists name the same records too often");
            context.fault(fault.record(base));
            return Ok(());
        }
        for &number in std::iter::once(&base).chain(&numbers) {
            let mut block = context.raw_record(number)?;
            if context.muted(|| record::unseal(context, number, &mut block)) {
                blocks.push((number, block));
            }
        }
        let id = FileId { record: RecordNumber(base), sequence: self.table.get(base).sequence };
        let mut records = Vec::new();
        for (number, block) in &blocks {
            let parsed = context.muted(|| record::parse(context, *number, block));
            if *number != base {
                if FileId::from_raw(parsed.base()) != id {
                    let fault = Fault::new(Code::ExtensionRecord, "the attribute list names a record of another file");
                    let fault = fault.record(base).at(context.record_offset(*number));
                    context.fault(fault.values(id, FileId::from_raw(parsed.base())));
                    continue;
                }
                self.table.update(*number, |row| row.flags |= flag::CLAIMED);
                if parsed.links() != 0 {
                    let fault = Fault::new(Code::LinkCount, "an extension record has a link count").record(*number);
                    context.fault(fault.at(context.record_offset(*number)).values(0, parsed.links()));
                }
            }
            records.push(parsed);
        }
        let Some(file) = File::new(&records) else { return Ok(()) };
        match file.stream(AttributeType::ATTRIBUTE_LIST, "") {
            Some(stream) => match stream.content(context, attribute_list::LIST_SIZE_MAX)? {
                Some(bytes) => file.check_list(context, &bytes, &records),
                None => context.fault(
                    Fault::new(Code::AttributeList, "the attribute list cannot be read")
                        .record(base)
                        .at(context.record_offset(base)),
                ),
            },
            None => return Ok(()),
        }
        let facts = file.check(context)?;
        self.store_facts(base, facts);
        Ok(())
    }

    /// The other records that a file's attribute list names, ascending.
    fn records_of_list(&self, base: u64) -> Result<Vec<u64>> {
        let mut block = self.context.raw_record(base)?;
        if !self.context.muted(|| record::unseal(self.context, base, &mut block)) {
            return Ok(Vec::new());
        }
        let records = [self.context.muted(|| record::parse(self.context, base, &block))];
        let content = match File::new(&records).and_then(|f| f.stream(AttributeType::ATTRIBUTE_LIST, "")) {
            Some(stream) => stream.content(self.context, attribute_list::LIST_SIZE_MAX)?,
            None => None,
        };
        Ok(records_in_list(&content.unwrap_or_default(), base, self.context.record_count))
    }

    /// Loads a file whose faults have been reported, and hands it to `work`.
    pub(super) fn load<T>(&self, number: u64, work: impl FnOnce(&File<'_, '_>) -> Result<T>) -> Result<Option<T>> {
        let context = self.context;
        let mut numbers = vec![number];
        if self.table.get(number).has(flag::LIST) {
            let extensions = self.records_of_list(number)?;
            if context.spend(extensions.len()) {
                numbers.extend(extensions);
            }
        }
        load(context, &numbers, work)
    }

    /// Extension records that no base record lists (B14).
    fn report_orphans(&self) {
        for (number, row) in self.table.rows() {
            if !row.has(flag::EXTENSION | flag::IN_USE) || row.has(flag::CLAIMED) {
                continue;
            }
            let fault = Fault::new(Code::ExtensionRecord, "an extension record that no file lists").record(number);
            let fault = fault.at(self.context.record_offset(number));
            self.context.fault(fault.values("a file that lists it", format!("base record {}", row.link)));
        }
    }
}

/// Reads the given records (the first is the base) without reporting anything, and hands the file to `work`.
pub(super) fn load<T>(
    context: &Context<'_>,
    numbers: &[u64],
    work: impl FnOnce(&File<'_, '_>) -> Result<T>,
) -> Result<Option<T>> {
    let mut blocks = Vec::new();
    for &number in numbers {
        let mut block = context.raw_record(number)?;
        if context.muted(|| record::unseal(context, number, &mut block)) {
            blocks.push((number, block));
        }
    }
    let parsed: Vec<_> =
        context.muted(|| blocks.iter().map(|(number, block)| record::parse(context, *number, block)).collect());
    let base = parsed.first().filter(|p: &&ParsedRecord<'_>| Some(&p.number) == numbers.first());
    match base.and_then(|_| File::new(&parsed)) {
        Some(file) => work(&file).map(Some),
        None => Ok(None),
    }
}

/// Loads a file without knowing its row: with an attribute list, the records that it names.
pub(super) fn load_alone<T>(
    context: &Context<'_>,
    number: u64,
    work: impl FnOnce(&File<'_, '_>) -> Result<T>,
) -> Result<Option<T>> {
    if number >= context.record_count {
        return Ok(None);
    }
    let content = load(context, &[number], |file| match file.stream(AttributeType::ATTRIBUTE_LIST, "") {
        Some(stream) => stream.content(context, attribute_list::LIST_SIZE_MAX),
        None => Ok(None),
    })?;
    let mut numbers = vec![number];
    numbers.extend(records_in_list(&content.flatten().unwrap_or_default(), number, context.record_count));
    load(context, &numbers, work)
}

fn records_in_list(bytes: &[u8], base: u64, record_count: u64) -> Vec<u64> {
    let mut numbers = BTreeSet::new();
    let mut rest = bytes;
    while rest.len() >= list::NAME {
        numbers.insert(FileId::from_raw(list::RECORD.get(rest)).record.0);
        let length = usize::from(list::LENGTH.get(rest));
        if length < list::NAME || length > rest.len() {
            break;
        }
        rest = &rest[length..];
    }
    numbers.remove(&base);
    numbers.into_iter().filter(|&n| n < record_count).take(RECORDS_MAX).collect()
}
