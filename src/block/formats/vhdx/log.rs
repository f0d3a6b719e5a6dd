//! The log: changes of metadata that a crash may have left unwritten (MS-VHDX 2.3). A reader replays it in memory.

use std::collections::HashMap;
use std::mem::offset_of;
use std::sync::Arc;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{Header, checksum};
use super::replayed::{Page, Replayed, SECTOR, SECTOR_BYTES};
use crate::block::Storage;
use crate::block::formats::extent_map::{length, read_exact};
use crate::error::{Error, Layer, Result};
use crate::guid::Guid;
use crate::units::HostOffset;

/// Largest file length that a log may declare: twice the largest disk.
const FILE_MAX: u64 = 128 << 40;

/// How often the log's length may be run through the checksum while looking for entries. Entries do not overlap in an
/// honest log, so that once is enough there.
const CHECKSUM_PASSES: u64 = 8;

/// How many entries may be visited while looking for the active sequence.
const STEPS_MAX: usize = 1 << 18;

const ENTRY_SIGNATURE: [u8; 4] = *b"loge";
const ZERO_SIGNATURE: [u8; 4] = *b"zero";
const DATA_SIGNATURE: [u8; 4] = *b"desc";
const SECTOR_SIGNATURE: [u8; 4] = *b"data";

/// What a log entry begins with ("Entry Header", MS-VHDX 2.3.1.1); its descriptors follow, then its data sectors.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StoredEntry {
    signature: [u8; 4],
    /// CRC-32C of the whole entry, this field taken as zero.
    checksum: U32,
    /// Bytes of the entry.
    entry_length: U32,
    /// Where, in the log, the sequence begins that this entry ends.
    tail: U32,
    sequence_number: U64,
    descriptor_count: U32,
    reserved: U32,
    /// That of the header, or the entry is left over from before.
    log_guid: [u8; 16],
    /// The length that the file has at least since the entry was written.
    flushed_file_offset: U64,
    /// The length that the file has when all changes are made.
    last_file_offset: U64,
}

const _: () = assert!(size_of::<StoredEntry>() == 64);

/// A descriptor of an entry ("Zero Descriptor" and "Data Descriptor", MS-VHDX 2.3.1.2 and 2.3.1.3).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StoredDescriptor {
    signature: [u8; 4],
    /// The last four bytes of the sector, whose place has a sequence number; reserved in a zero descriptor.
    trailing_bytes: [u8; 4],
    /// The first eight bytes of the sector; in a zero descriptor the number of bytes to zero.
    leading_bytes: [u8; 8],
    /// Where the change belongs in the file.
    file_offset: U64,
    /// That of the entry.
    sequence_number: U64,
}

const _: () = assert!(size_of::<StoredDescriptor>() == 32);

/// The data of a data descriptor ("Data Sector", MS-VHDX 2.3.1.4).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StoredSector {
    signature: [u8; 4],
    /// Upper half of the entry's sequence number.
    sequence_high: U32,
    data: [u8; 4084],
    /// Lower half of the entry's sequence number.
    sequence_low: U32,
}

const _: () = assert!(size_of::<StoredSector>() == SECTOR_BYTES);

/// Byte offset in the log, from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct LogOffset(u64);

impl LogOffset {
    /// This offset moved by `bytes`, perhaps beyond the end of the log, which is a ring.
    fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }
}

/// A valid entry's header.
#[derive(Debug, Clone, Copy)]
struct Entry {
    length: u64,
    /// Where, in the log, the sequence begins that the entry ends.
    tail: LogOffset,
    sequence: u64,
    descriptors: u64,
    flushed_file_offset: u64,
    last_file_offset: u64,
}

/// The file as it is after its log has been replayed. The file itself is not touched.
pub(super) fn replay(storage: Arc<dyn Storage>, header: &Header) -> Result<Arc<dyn Storage>> {
    if header.log_guid.is_zero() {
        return Ok(storage);
    }
    let log =
        Log { storage: storage.as_ref(), offset: header.log_offset, length: header.log_length, guid: header.log_guid };
    let entries = log.entries()?;
    let Some((start, head)) = log.active(&entries)? else {
        return Err(Error::damaged(Layer::Block, "the VHDX's log is not empty, but no sequence in it is valid")
            .at(header.log_offset)
            .hint("let Hyper-V repair the file, or copy it again"));
    };
    let file_length = length(storage.as_ref())?;
    if head.flushed_file_offset > file_length {
        return Err(Error::damaged(Layer::Block, "the VHDX is truncated: its log was written to a longer file")
            .expected_found(format_args!("{} bytes", head.flushed_file_offset), format_args!("{file_length} bytes"))
            .hint("copy the file again"));
    }
    if head.last_file_offset > FILE_MAX {
        return Err(
            Error::damaged(Layer::Block, "the VHDX's log declares an invalid file length").at(header.log_offset)
        );
    }
    let mut replayed = Replayed::new(Arc::clone(&storage), file_length.max(head.last_file_offset));
    let mut at = start;
    loop {
        let entry = entries.get(&at).ok_or_else(|| Error::bug(Layer::Block, "a log sequence with a gap"))?;
        log.apply(at, entry, &mut replayed)?;
        if entry.sequence == head.sequence {
            tracing::warn!(pages = replayed.page_count(), "VHDX: the log was not empty; it was replayed in memory");
            return Ok(Arc::new(replayed));
        }
        at = log.after(at, entry);
    }
}

struct Log<'a> {
    storage: &'a dyn Storage,
    offset: HostOffset,
    length: u64,
    guid: Guid,
}

impl Log<'_> {
    /// Where the byte `at` of the log is in the file.
    fn place(&self, at: LogOffset) -> HostOffset {
        self.offset.saturating_add(at.0)
    }

    /// Fills `buf` from `at`. The log is a ring: its start follows its end.
    fn read(&self, at: LogOffset, buf: &mut [u8]) -> Result<()> {
        let (mut at, mut rest) = (at.0 % self.length, buf);
        while !rest.is_empty() {
            let here = usize::try_from(self.length - at).unwrap_or(usize::MAX).min(rest.len());
            let (part, tail) = rest.split_at_mut(here);
            read_exact(self.storage, self.place(LogOffset(at)), part)?;
            (at, rest) = (0, tail);
        }
        Ok(())
    }

    /// Reads the on-disk structure at `at`.
    fn read_struct<T: FromBytes + IntoBytes>(&self, at: LogOffset) -> Result<T> {
        let mut structure = T::new_zeroed();
        self.read(at, structure.as_mut_bytes())?;
        Ok(structure)
    }

    /// Where the entry that follows `entry` at `at` begins.
    fn after(&self, at: LogOffset, entry: &Entry) -> LogOffset {
        LogOffset(at.plus(entry.length).0 % self.length)
    }

    /// All valid entries, by their offset in the log.
    fn entries(&self) -> Result<HashMap<LogOffset, Entry>> {
        let mut entries = HashMap::new();
        let mut budget = self.length * CHECKSUM_PASSES;
        let mut raw = Vec::new();
        for at in (0..self.length).step_by(SECTOR_BYTES).map(LogOffset) {
            let stored: StoredEntry = self.read_struct(at)?;
            let Some(entry) = self.parse(&stored) else { continue };
            budget = budget.checked_sub(entry.length).ok_or_else(|| {
                Error::damaged(Layer::Block, "the entries of the VHDX's log overlap").at(self.place(at))
            })?;
            // The log is at most 64 MiB, and no entry is longer.
            raw.resize(entry.length as usize, 0);
            self.read(at, &mut raw)?;
            if stored.checksum == checksum(&raw) {
                entries.insert(at, entry);
            }
        }
        Ok(entries)
    }

    /// The entry, if its header is one of this log; its checksum is not examined.
    fn parse(&self, stored: &StoredEntry) -> Option<Entry> {
        let entry = Entry {
            length: stored.entry_length.get().into(),
            tail: LogOffset(stored.tail.get().into()),
            sequence: stored.sequence_number.get(),
            descriptors: stored.descriptor_count.get().into(),
            flushed_file_offset: stored.flushed_file_offset.get(),
            last_file_offset: stored.last_file_offset.get(),
        };
        let is_valid = stored.signature == ENTRY_SIGNATURE
            && stored.log_guid == self.guid.0
            && entry.sequence > 0
            && entry.length >= SECTOR
            && entry.length.is_multiple_of(SECTOR)
            && entry.length <= self.length
            && entry.tail.0.is_multiple_of(SECTOR)
            && entry.tail.0 < self.length
            && size_of::<StoredEntry>() as u64 + entry.descriptors * size_of::<StoredDescriptor>() as u64
                <= entry.length;
        is_valid.then_some(entry)
    }

    /// Where the active sequence begins, and its last entry: of the valid sequences the one with the greatest number.
    fn active(&self, entries: &HashMap<LogOffset, Entry>) -> Result<Option<(LogOffset, Entry)>> {
        let mut heads: Vec<&Entry> = entries.values().collect();
        heads.sort_by_key(|e| std::cmp::Reverse(e.sequence));
        let mut steps = 0;
        for head in heads {
            let mut at = head.tail;
            let mut previous: Option<u64> = None;
            while let Some(entry) = entries.get(&at) {
                steps += 1;
                if steps > STEPS_MAX {
                    return Err(Error::damaged(Layer::Block, "the VHDX's log has too many sequences").at(self.offset));
                }
                if previous.is_some_and(|p| p.checked_add(1) != Some(entry.sequence)) || entry.sequence > head.sequence
                {
                    break;
                }
                if entry.sequence == head.sequence {
                    return Ok(Some((head.tail, *head)));
                }
                previous = Some(entry.sequence);
                at = self.after(at, entry);
            }
        }
        Ok(None)
    }

    /// Applies the entry at `at`. The data sectors follow the descriptors, in their order.
    fn apply(&self, at: LogOffset, entry: &Entry, to: &mut Replayed) -> Result<()> {
        let damaged = |message: &str| Error::damaged(Layer::Block, message).at(self.place(at));
        let mut raw = vec![0; entry.descriptors as usize * size_of::<StoredDescriptor>()];
        self.read(at.plus(size_of::<StoredEntry>() as u64), &mut raw)?;
        let mut data = (size_of::<StoredEntry>() + raw.len()).next_multiple_of(SECTOR_BYTES) as u64;
        let descriptors = <[StoredDescriptor]>::ref_from_bytes(&raw).unwrap_or_default();
        for descriptor in descriptors {
            let target = HostOffset(descriptor.file_offset.get());
            if descriptor.sequence_number != entry.sequence || !target.0.is_multiple_of(SECTOR) {
                return Err(damaged("a descriptor in the VHDX's log does not belong to its entry"));
            }
            match descriptor.signature {
                ZERO_SIGNATURE => {
                    let length = u64::from_le_bytes(descriptor.leading_bytes);
                    let end =
                        target.checked_add(length).filter(|end| length.is_multiple_of(SECTOR) && end.0 <= to.length());
                    to.zero(target, end.ok_or_else(|| damaged("the VHDX's log zeroes beyond the end of the file"))?);
                }
                DATA_SIGNATURE => {
                    if data + SECTOR > entry.length || target.checked_add(SECTOR).is_none_or(|end| end.0 > to.length())
                    {
                        return Err(damaged("the VHDX's log writes beyond the end of its entry or of the file"));
                    }
                    let sector: StoredSector = self.read_struct(at.plus(data))?;
                    data += SECTOR;
                    let sequence = u64::from(sector.sequence_high.get()) << 32 | u64::from(sector.sequence_low.get());
                    if sector.signature != SECTOR_SIGNATURE || sequence != entry.sequence {
                        return Err(damaged("a data sector in the VHDX's log does not belong to its entry"));
                    }
                    to.replace_page(target, restore(&sector, descriptor));
                }
                _ => return Err(damaged("the VHDX's log has a descriptor of an unknown kind")),
            }
        }
        Ok(())
    }
}

/// The page as it belongs into the file: the descriptor has the bytes whose places the sequence numbers took.
fn restore(sector: &StoredSector, descriptor: &StoredDescriptor) -> Page {
    let mut page = Box::new([0; SECTOR_BYTES]);
    page.copy_from_slice(sector.as_bytes());
    let (leading, trailing) = (offset_of!(StoredSector, data), offset_of!(StoredSector, sequence_low));
    page[..leading].copy_from_slice(&descriptor.leading_bytes);
    page[trailing..].copy_from_slice(&descriptor.trailing_bytes);
    page
}
