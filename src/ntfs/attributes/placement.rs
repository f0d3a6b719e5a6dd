//! Deciding which attribute of a file goes to which of its records.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::owned::OwnedAttribute;
use crate::error::{Error, Layer, Result};
use crate::ntfs::format::attribute::{AttributeType, FLAG_ENCRYPTED, header as attribute_header, resident};
use crate::ntfs::format::name::{NtfsName, compare_ignoring_case};
use crate::ntfs::format::units::{FileId, RecordNumber, Vcn};
use crate::ntfs::format::upcase::UpcaseTable;

/// Room for the attribute list in record 0: eight entries. It is always the same, so that the first extent of `$MFT` is
/// always split at the same VCN.
pub(super) const MFT_LIST_ROOM: usize = resident::HEADER_SIZE + 8 * 0x20;

/// Attributes that stay in the base record whatever happens.
pub(super) fn must_stay(file: FileId, attr: &OwnedAttribute) -> bool {
    match attr.kind {
        AttributeType::STANDARD_INFORMATION => true,
        // Vista-era systems do not mount a volume whose root's TxF data has moved (KB974729)
        AttributeType::LOGGED_UTILITY_STREAM => file == FileId::ROOT,
        _ if attr.is_unnamed_data() => file.record == RecordNumber::MFT && attr.lowest == Vcn(0),
        _ => false,
    }
}

/// Which attributes leave the base record last: smaller is later.
pub(super) fn rank(attr: &OwnedAttribute) -> u8 {
    match attr.kind {
        AttributeType::FILE_NAME | AttributeType::VOLUME_NAME | AttributeType::VOLUME_INFORMATION => 0,
        AttributeType::INDEX_ROOT => 1,
        _ if attr.is_resident() => 2,
        _ if attr.lowest == Vcn(0) => 3,
        _ => 4,
    }
}

/// Whether a resident attribute may be moved into clusters to make room.
pub(super) fn may_leave_record(attr: &OwnedAttribute) -> bool {
    attr.is_resident()
        && attribute_header::FLAGS.get(&attr.bytes) & FLAG_ENCRYPTED == 0
        && matches!(
            attr.kind,
            AttributeType::DATA
                | AttributeType::SECURITY_DESCRIPTOR
                | AttributeType::REPARSE_POINT
                | AttributeType::EA
                | AttributeType::BITMAP
        )
}

/// Which attribute goes to which record.
pub(super) struct Placement {
    file: FileId,
    capacity: usize,
    base_used: usize,
    used: BTreeMap<RecordNumber, usize>,
    /// For each attribute, the record it goes to.
    pub target: Vec<Option<RecordNumber>>,
}

impl Placement {
    pub fn new(file: FileId, capacity: usize, list: usize) -> Self {
        Self { file, capacity, base_used: list, used: BTreeMap::new(), target: Vec::new() }
    }

    /// Chooses what is in the base record: what must, what was there, and what is new, as far as it fits.
    pub fn keep_in_base(&mut self, list: &[OwnedAttribute]) -> Result<()> {
        self.target = vec![None; list.len()];
        let mut order: Vec<usize> = (0..list.len()).collect();
        order.sort_by_key(|&i| (!must_stay(self.file, &list[i]), rank(&list[i]), list[i].bytes.len()));
        for index in order {
            let attr = &list[index];
            let must = must_stay(self.file, attr);
            let was_here = attr.locations.first().is_none_or(|h| h.0 == self.file.record);
            if (must || was_here) && self.base_used + attr.bytes.len() <= self.capacity {
                self.base_used += attr.bytes.len();
                self.target[index] = Some(self.file.record);
            } else if must {
                return Err(Error::refused(Layer::Ntfs, "the base record of a file cannot hold what it must")
                    .hint("the file has too much in its record; nothing was changed"));
            }
        }
        Ok(())
    }

    /// Leaves attributes in the extension records in which they are, as far as they still fit.
    pub fn keep_in_extensions(&mut self, list: &[OwnedAttribute]) {
        for (index, attr) in list.iter().enumerate() {
            if let (None, Some(&(location, _))) = (self.target[index], attr.locations.first())
                && location != self.file.record
            {
                let used = self.used.entry(location).or_default();
                if *used + attr.bytes.len() <= self.capacity {
                    *used += attr.bytes.len();
                    self.target[index] = Some(location);
                }
            }
        }
    }

    /// A new extension record.
    pub fn add_record(&mut self, record: RecordNumber) {
        self.used.insert(record, 0);
    }

    /// Puts an attribute into the first extension with room.
    pub fn put_anywhere(&mut self, index: usize, attr: &OwnedAttribute) -> bool {
        let capacity = self.capacity;
        for (&record, used) in &mut self.used {
            if *used + attr.bytes.len() <= capacity {
                *used += attr.bytes.len();
                self.target[index] = Some(record);
                return true;
            }
        }
        false
    }
}

/// The order of attributes in a record and in a list: type, name in upper case, VCN.
pub(super) fn sort(upcase: &UpcaseTable, list: &mut [OwnedAttribute]) {
    let le = |name: &NtfsName| name.units().iter().flat_map(|u| u.to_le_bytes()).collect::<Vec<u8>>();
    list.sort_by(|a, b| {
        a.kind
            .cmp(&b.kind)
            .then_with(|| {
                if a.name == b.name {
                    Ordering::Equal
                } else {
                    compare_ignoring_case(&le(&a.name), &le(&b.name), upcase)
                }
            })
            .then_with(|| a.name.cmp(&b.name))
            .then(a.lowest.cmp(&b.lowest))
    });
}
