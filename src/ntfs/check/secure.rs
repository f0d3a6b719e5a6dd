//! `$Secure`: descriptors, their copies and both indexes (D1 to D3, D5).

use std::collections::{BTreeMap, BTreeSet};

use super::code::Code;
use super::context::Context;
use super::file::{File, Stream};
use super::index::{self, Expected, IndexEntry};
use super::report::Fault;
use super::scan;
use crate::error::Result;
use crate::ntfs::attribute::AttributeType;
use crate::ntfs::field::Field;
use crate::ntfs::index::entry;
use crate::ntfs::security::descriptor;
use crate::ntfs::security::sds::{BLOCK, HEADER, SdsEntry};
use crate::ntfs::units::RecordNumber;

/// Bytes of `$SDS` that are read: far more than any system has.
const SDS_MAX: u64 = 256 << 20;

/// Checks `$Secure` and returns the security ids that exist; `None` when they cannot be told.
pub(super) fn check(context: &Context<'_>) -> Result<Option<BTreeSet<u32>>> {
    let missing = |what: &str| {
        let fault =
            Fault::new(Code::SecurityDescriptor, format!("$Secure has no {what}")).record(RecordNumber::SECURE.0);
        context.fault(fault.at(context.record_offset(RecordNumber::SECURE.0)));
    };
    let found = scan::load_alone(context, RecordNumber::SECURE.0, |file| {
        let Some(sds) = file.stream(AttributeType::DATA, "$SDS") else {
            missing("$SDS");
            return Ok(None);
        };
        if file.find(AttributeType::INDEX_ROOT, "$SII").is_none()
            || file.find(AttributeType::INDEX_ROOT, "$SDH").is_none()
        {
            missing("$SII or $SDH");
            return Ok(None);
        }
        Ok(Some(Secure { context, sds }.check_all(file)?))
    })?;
    match found {
        None => {
            missing("record");
            Ok(None)
        }
        Some(ids) => Ok(ids),
    }
}

struct Secure<'s, 'p, 'a> {
    context: &'s Context<'s>,
    sds: Stream<'p, 'a>,
}

impl Secure<'_, '_, '_> {
    fn fault(&self, code: Code, at: Option<u64>, message: String) -> Fault {
        Fault::new(code, message).record(RecordNumber::SECURE.0).at(at)
    }

    /// Where a byte of `$SDS` is on the volume.
    fn at(&self, offset: u64) -> Option<u64> {
        self.sds.locate(self.context, offset)
    }

    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.sds.read(self.context, offset, &mut bytes)?;
        Ok(bytes)
    }

    fn check_all(&self, file: &File<'_, '_>) -> Result<BTreeSet<u32>> {
        let by_id = self.read_index(file, "$SII", 4)?;
        let by_hash = self.read_index(file, "$SDH", 8)?;
        for entry in by_id.values() {
            self.check_descriptor(entry)?;
        }
        self.context.report().stats.descriptors = by_id.len() as u64;
        for (id, entry) in &by_id {
            if by_hash.get(id) != Some(entry) {
                let fault = self.fault(
                    Code::SecurityIndexes,
                    self.at(entry.offset),
                    format!("$SDH does not name id {id:#x} as $SII does"),
                );
                self.context.fault(fault.values(format!("{entry:x?}"), format!("{:x?}", by_hash.get(id))));
            }
        }
        for (id, entry) in by_hash.iter().filter(|(id, _)| !by_id.contains_key(id)) {
            let fault = self.fault(
                Code::SecurityIndexes,
                self.at(entry.offset),
                format!("$SDH names id {id:#x}, $SII does not"),
            );
            self.context.fault(fault);
        }
        self.report_unlisted(&by_id)?;
        Ok(by_id.into_keys().collect())
    }

    /// The entries of one index by id; each key must agree with the entry's data.
    fn read_index(&self, file: &File<'_, '_>, name: &str, key_length: usize) -> Result<BTreeMap<u32, SdsEntry>> {
        let mut found = BTreeMap::new();
        index::walk(self.context, file, name, Expected::of(name, None), &mut |met: &IndexEntry<'_>| {
            let Some(entry) = data_of(met).and_then(SdsEntry::parse).filter(|_| met.key.len() == key_length) else {
                let message = format!("{name} has an entry of another size");
                self.context
                    .fault(self.fault(Code::SecurityIndexes, met.offset, message).values(key_length, met.key.len()));
                return Ok(());
            };
            let word = |at| Field::<u32>::at(at).get(met.key);
            let agrees =
                if key_length == 4 { word(0) == entry.id } else { (word(0), word(4)) == (entry.hash, entry.id) };
            if !agrees {
                let message = format!("{name} has an entry whose key disagrees with its data");
                self.context.fault(
                    self.fault(Code::SecurityIndexes, met.offset, message)
                        .values(format!("{entry:x?}"), format!("{:x?}", met.key)),
                );
            }
            found.insert(entry.id, entry);
            Ok(())
        })?;
        Ok(found)
    }

    /// One descriptor and its copy (D1, D2).
    fn check_descriptor(&self, entry: &SdsEntry) -> Result<()> {
        let at = self.at(entry.offset);
        if !entry.is_in_place(self.sds.size()) || entry.length as usize > HEADER + descriptor::MAX {
            let fault = self.fault(
                Code::SecurityDescriptor,
                at,
                format!("the descriptor of id {:#x} lies outside its block", entry.id),
            );
            self.context.fault(fault.values(format!("inside {:#x} bytes", self.sds.size()), format!("{entry:x?}")));
            return Ok(());
        }
        let bytes = self.read(entry.offset, entry.length as usize)?;
        let (Some(stored), Some(body)) = (SdsEntry::parse(&bytes), bytes.get(HEADER..)) else { return Ok(()) };
        if stored != *entry {
            let fault = self.fault(
                Code::SecurityDescriptor,
                at,
                format!("the header of id {:#x} disagrees with $SII", entry.id),
            );
            self.context.fault(fault.values(format!("{entry:x?}"), format!("{stored:x?}")));
        }
        let hash = descriptor::hash(body);
        if hash != entry.hash {
            let fault = self.fault(
                Code::SecurityDescriptor,
                at,
                format!("the descriptor of id {:#x} has another hash", entry.id),
            );
            self.context.fault(fault.values(format!("{:#x}", entry.hash), format!("{hash:#x}")));
        } else if let Err(error) = descriptor::validate(body) {
            self.context.fault(self.fault(Code::SecurityDescriptor, at, format!("id {:#x}: {error}", entry.id)));
        }
        let copy = self.read(entry.offset + BLOCK, entry.length as usize)?;
        if copy != bytes {
            let place = copy.iter().zip(&bytes).position(|(a, b)| a != b).unwrap_or(0) as u64;
            let fault = self.fault(
                Code::SecurityMirror,
                self.at(entry.offset + BLOCK + place),
                format!("the copy of id {:#x} differs", entry.id),
            );
            self.context.fault(fault.values("the same bytes", format!("a difference at {place}")));
        }
        Ok(())
    }

    /// Whole entries in `$SDS` that no index names. Gaps and garbage are allowed, so only what has its own offset, its
    /// hash and its copy counts.
    fn report_unlisted(&self, by_id: &BTreeMap<u32, SdsEntry>) -> Result<()> {
        let size = self.sds.size().min(SDS_MAX);
        let mut base = 0;
        while base < size {
            let block = self.read(base, usize::try_from(BLOCK.min(size - base)).unwrap_or(0))?;
            let mut at = 0;
            while let Some(entry) = block.get(at..).and_then(SdsEntry::parse) {
                let length = entry.length as usize;
                let body = block.get(at + HEADER..at.saturating_add(length)).unwrap_or_default();
                let is_real = entry.offset == base + at as u64
                    && entry.is_in_place(self.sds.size())
                    && entry.id != 0
                    && !body.is_empty()
                    && descriptor::hash(body) == entry.hash;
                if !is_real {
                    at += 16;
                    continue;
                }
                if !by_id.contains_key(&entry.id) && self.read(entry.offset + BLOCK, HEADER)? == entry.to_bytes() {
                    let message = format!("$SDS holds id {:#x}, which $SII does not name", entry.id);
                    self.context.fault(self.fault(Code::SecurityIndexes, self.at(entry.offset), message));
                }
                at = (at + length).next_multiple_of(16);
            }
            base += 2 * BLOCK;
        }
        Ok(())
    }
}

/// The data of a view index's entry.
pub(super) fn data_of<'a>(met: &IndexEntry<'a>) -> Option<&'a [u8]> {
    let (offset, length) = (entry::DATA_OFFSET.get(met.bytes), entry::DATA_LENGTH.get(met.bytes));
    met.bytes.get(usize::from(offset)..)?.get(..usize::from(length))
}

/// Descriptors that nothing uses (D5): one minor finding, as Windows drops them on its own.
pub(super) fn report_unused(context: &Context<'_>, ids: &BTreeSet<u32>, used: &BTreeSet<u32>) {
    let count = ids.difference(used).count();
    if count > 0 {
        context.fault(Fault::new(
            Code::UnusedDescriptor,
            format!("{count} security descriptors are not used by any file"),
        ));
    }
}
