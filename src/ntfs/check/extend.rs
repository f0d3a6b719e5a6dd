//! What lies in `$Extend`: the indexes of reparse points, object ids and quotas, and the change journal (C14, D6, D10).

use std::collections::{BTreeMap, BTreeSet};

use super::code::Code;
use super::context::Context;
use super::file::File;
use super::index::{self, Expected};
use super::report::Fault;
use super::scan::Scan;
use super::secure::data_of;
use super::table::flag;
use crate::error::Result;
use crate::ntfs::attribute::AttributeType;
use crate::ntfs::field::Field;
use crate::ntfs::name::NtfsName;
use crate::ntfs::units::{FileId, RecordNumber};

/// In a key of `$R`: tag and file.
const R_TAG: Field<u32> = Field::at(0);
const R_FILE: Field<u64> = Field::at(4);
const R_KEY: usize = 12;
/// In the data of `$O`: the file.
const O_FILE: Field<u64> = Field::at(0);
const O_KEY: usize = 16;

/// In `$UsnJrnl:$Max`: largest size of the journal, and the first USN that is valid.
const MAX_SIZE: Field<u64> = Field::at(0);
const MAX_LOWEST: Field<u64> = Field::at(24);
const MAX_LENGTH: u64 = 32;
/// In a journal record: length, version (USN_RECORD_V2, V3 and V4 of MS-FSCC).
const USN_LENGTH: Field<u32> = Field::at(0);
const USN_MAJOR: Field<u16> = Field::at(4);
/// No record crosses a page of this size.
const USN_PAGE: usize = 4096;
/// Bytes at the end of the journal that are looked at.
const USN_TAIL: u64 = 1 << 20;

impl Scan<'_> {
    /// Every index but the directories' and `$Secure`'s.
    pub(super) fn check_extend(&self) -> Result<()> {
        let owners: BTreeMap<u64, String> =
            self.extend.iter().map(|(name, number)| (*number, name.to_string())).collect();
        for number in self.table.with(flag::SCANNED | flag::IN_USE | flag::INDEX) {
            if number == RecordNumber::SECURE.0 {
                continue;
            }
            let owner = owners.get(&number).map(String::as_str);
            self.load(number, |file| self.check_view_indexes(file, owner))?;
        }
        if let Some((_, number)) = self.extend.iter().find(|(name, _)| *name == *"$UsnJrnl") {
            self.load(*number, |file| self.check_journal(file))?;
        }
        for (what, name, is_empty) in [
            ("reparse points", "$Reparse", self.reparse.is_empty()),
            ("object ids", "$ObjId", self.object_ids.is_empty()),
        ] {
            if !is_empty && !self.context.options.is_partial && !owners.values().any(|owner| owner == name) {
                // ntfs-3g makes no indexes of its own on volumes that have none
                let fault = Fault::new(Code::ExtendIndexes, format!("there are {what}, but no $Extend\\{name}"));
                self.context.fault(fault.record(RecordNumber::EXTEND.0).minor());
            }
        }
        Ok(())
    }

    fn check_view_indexes(&self, file: &File<'_, '_>, owner: Option<&str>) -> Result<()> {
        for name in index_names(file) {
            let name = name.to_string();
            match (owner, name.as_str()) {
                (Some("$Reparse"), "$R") => self.check_reparse_points(file)?,
                (Some("$ObjId"), "$O") => self.check_object_ids(file)?,
                (Some("$Quota"), "$Q") => {
                    check_quotas(self.context, file)?;
                }
                (Some("$Quota"), "$O") if file.find(AttributeType::INDEX_ROOT, "$Q").is_some() => {}
                _ => index::walk(self.context, file, &name, Expected::of(&name, owner), &mut |_| Ok(()))?,
            }
        }
        Ok(())
    }

    /// Whether `id` is a live file, as far as the check knows.
    fn is_live(&self, id: FileId) -> bool {
        let row = self.table.get(id.record.0);
        row.is_file() && row.sequence == id.sequence
    }

    /// Whether a partial check did not read the file.
    fn is_unread(&self, record: u64) -> bool {
        self.context.options.is_partial && !self.table.get(record).has(flag::SCANNED)
    }

    fn check_reparse_points(&self, file: &File<'_, '_>) -> Result<()> {
        let fault = |at, message: String| Fault::new(Code::ExtendIndexes, message).record(file.number).at(at);
        let mut seen = BTreeSet::new();
        index::walk(self.context, file, "$R", Expected::of("$R", None), &mut |met| {
            let (tag, id) = (R_TAG.get(met.key), FileId::from_raw(R_FILE.get(met.key)));
            seen.insert(id.record.0);
            if met.key.len() != R_KEY {
                self.context
                    .fault(fault(met.offset, "an entry of $R has another size".into()).values(R_KEY, met.key.len()));
            } else if !self.is_unread(id.record.0)
                && (!self.is_live(id) || self.reparse.get(&id.record.0) != Some(&tag))
            {
                let message = format!("$R names file {id}, which has no such reparse point");
                let found = self.reparse.get(&id.record.0).map_or("none".into(), |tag| format!("{tag:#x}"));
                self.context.fault(fault(met.offset, message).values(format!("tag {tag:#x}"), found));
            }
            Ok(())
        })?;
        for (&number, tag) in self.reparse.iter().filter(|(number, _)| !seen.contains(number)) {
            let fault =
                Fault::new(Code::ExtendIndexes, "the file's reparse point is not in $Extend\\$Reparse").record(number);
            self.context
                .fault(fault.at(self.context.record_offset(number)).values(format!("an entry for {tag:#x}"), "none"));
        }
        Ok(())
    }

    fn check_object_ids(&self, file: &File<'_, '_>) -> Result<()> {
        let fault = |at, message: String| Fault::new(Code::ExtendIndexes, message).record(file.number).at(at);
        let mut seen = BTreeSet::new();
        index::walk(self.context, file, "$O", Expected::of("$O", Some("$ObjId")), &mut |met| {
            let id = FileId::from_raw(data_of(met).map_or(0, |data| O_FILE.get(data)));
            seen.insert(id.record.0);
            // entries without a file wait for a restore
            if met.key.len() != O_KEY {
                self.context
                    .fault(fault(met.offset, "an entry of $O has another size".into()).values(O_KEY, met.key.len()));
            } else if id.to_raw() != 0
                && !self.is_unread(id.record.0)
                && (!self.is_live(id) || self.object_ids.get(&id.record.0).map(|id| &id[..]) != Some(met.key))
            {
                let message = format!("$O names file {id}, which has no such object id");
                self.context.fault(fault(met.offset, message));
            }
            Ok(())
        })?;
        for &number in self.object_ids.keys().filter(|number| !seen.contains(number)) {
            let fault =
                Fault::new(Code::ExtendIndexes, "the file's object id is not in $Extend\\$ObjId").record(number);
            self.context.fault(fault.at(self.context.record_offset(number)));
        }
        Ok(())
    }

    /// The change journal (D6): its limits, and the records at its end.
    fn check_journal(&self, file: &File<'_, '_>) -> Result<()> {
        let context = self.context;
        let fault = |at, message: &str| Fault::new(Code::ChangeJournal, message).record(file.number).at(at);
        let size = file.stream(AttributeType::DATA, "$J").map_or(0, |stream| stream.size());
        match file.stream(AttributeType::DATA, "$Max") {
            Some(max) => {
                let content = max.content(context, MAX_LENGTH)?.unwrap_or_default();
                let fault = |message| fault(max.locate(context, 0), message);
                if content.len() as u64 != MAX_LENGTH {
                    let fault = fault("the journal's limits have another size");
                    context.fault(fault.values(MAX_LENGTH, max.size()));
                } else if MAX_SIZE.get(&content) == 0 {
                    context.fault(fault("the journal may not hold anything").values("a largest size", 0));
                } else if MAX_LOWEST.get(&content) > size {
                    let fault = fault("the journal's first valid USN lies beyond its end");
                    context.fault(fault.values(format!("at most {size}"), MAX_LOWEST.get(&content)));
                }
            }
            None if size > 0 => context.fault(fault(None, "the journal has records but no limits ($Max)")),
            None => {}
        }
        let Some(stream) = file.stream(AttributeType::DATA, "$J") else { return Ok(()) };
        let Some(runs) = &stream.runs else { return Ok(()) };
        let mut start = size.saturating_sub(USN_TAIL) / USN_PAGE as u64 * USN_PAGE as u64;
        let mut page = vec![0; USN_PAGE];
        while start < size {
            let length = usize::try_from((size - start).min(USN_PAGE as u64)).unwrap_or(0);
            if context.read_stream(runs, start, &mut page[..length])?
                && let Some((at, expected, found)) = malformed_record(&page[..length], start)
            {
                let place = context.locate(runs, start + at).and_then(|(start, _)| start);
                let fault = fault(place, "a malformed record in the change journal");
                context.fault(fault.values(expected, found));
            }
            start += USN_PAGE as u64;
        }
        Ok(())
    }
}

/// The first malformed record in a page of the journal: where it is, what was expected, and what is there. Zeros end the
/// page.
fn malformed_record(page: &[u8], start: u64) -> Option<(u64, String, String)> {
    let mut at = 0;
    while page.len() - at >= 8 {
        let rest = &page[at..];
        let bad = |expected: &str, found: u64| Some((at as u64, expected.to_owned(), found.to_string()));
        let length = USN_LENGTH.get(rest) as usize;
        if length == 0 {
            return None;
        }
        // smallest record, its USN, and length and offset of its name (records of version 4 have none)
        let (least, usn, name) = match USN_MAJOR.get(rest) {
            2 => (0x3C, 24, Some(56)),
            3 => (0x4C, 40, Some(72)),
            4 => (0x38, 40, None),
            version => return bad("version 2, 3 or 4", version.into()),
        };
        if !length.is_multiple_of(8) || length < least {
            return bad(&format!("a length of at least {least} that is a multiple of 8"), length as u64);
        }
        if length > rest.len() {
            return bad("a record that ends in its page", length as u64);
        }
        let found = Field::<u64>::at(usn).get(rest);
        if found != start + at as u64 {
            return bad(&format!("USN {}", start + at as u64), found);
        }
        if let Some(name) = name {
            let end = usize::from(Field::<u16>::at(name).get(rest)) + usize::from(Field::<u16>::at(name + 2).get(rest));
            if end > length {
                return bad(&format!("a name that ends within {length} bytes"), end as u64);
            }
        }
        at += length;
    }
    None
}

/// `$Quota` (D10): each owner in `$O` has its quota in `$Q`.
fn check_quotas(context: &Context<'_>, file: &File<'_, '_>) -> Result<()> {
    let mut known = BTreeSet::new();
    index::walk(context, file, "$Q", Expected::of("$Q", None), &mut |met| {
        known.insert(Field::<u32>::at(0).get(met.key));
        Ok(())
    })?;
    index::walk(context, file, "$O", Expected::of("$O", Some("$Quota")), &mut |met| {
        let id = data_of(met).map_or(0, |data| Field::<u32>::at(0).get(data));
        if !known.contains(&id) {
            let fault =
                Fault::new(Code::QuotaIndexes, "an owner has no quota entry").record(file.number).at(met.offset);
            context.fault(fault.values("an id of $Q", id));
        }
        Ok(())
    })
}

/// The names of a file's indexes, but for the directory's.
fn index_names(file: &File<'_, '_>) -> Vec<NtfsName> {
    let roots = file.parts.iter().filter(|part| part.view.kind() == AttributeType::INDEX_ROOT);
    let names: BTreeSet<NtfsName> = roots.map(|part| part.view.name()).filter(|name| *name != *"$I30").collect();
    names.into_iter().collect()
}
