//! One operation on the volume: the block is loaded, changed by [`apply`](super::apply), and stored in memory.

use std::collections::BTreeSet;

use super::apply::{BitRange, Step, on_index, on_record, put};
use super::checkpoint::OpenAttribute;
use super::operation::{Operation, Subject};
use super::overlay::Changes;
use super::record::{Half, Update};
use super::refusal::refuse;
use super::targets::Touched;
use crate::error::Result;
use crate::ntfs::attribute::AttributeType;
use crate::ntfs::boot::Geometry;
use crate::ntfs::fixup;
use crate::ntfs::index::block;
use crate::ntfs::record::header;
use crate::ntfs::units::{FileId, RecordNumber};

/// Bytes of the header of a block with its fix-up, without which a new block is not understood.
const HEADER_MIN: usize = 0x38;

/// Bytes that a replay stores at most: what the records of a log of 128 MiB can change, block for block.
const STORED_MAX: u64 = 4 << 30;

/// Bytes of a bitmap that one record changes at most: Windows goes page by page.
const BITMAP_MAX: usize = 1 << 16;

/// Which of the two halves of a record is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// Done again: only where the block is older than the record, which it then has the LSN of.
    Redo,
    /// Taken back.
    Undo,
}

/// The volume that a replay changes.
pub(super) struct Blocks<'a> {
    pub changes: Changes<'a>,
    geometry: &'a Geometry,
    /// The last record of the log.
    last_lsn: u64,
    /// Bytes that were stored, those of blocks that were stored before included.
    stored: u64,
    pub touched: Touched,
    /// Records of files that were changed themselves, or in one of their attributes.
    pub files: BTreeSet<RecordNumber>,
}

/// An operation with its place.
struct Job<'u> {
    update: &'u Update<'u>,
    half: &'u Half<'u>,
    attribute: &'u OpenAttribute,
    lcns: &'u [u64],
    direction: Direction,
}

/// A stretch of the volume.
type Piece = (u64, usize);

impl<'a> Blocks<'a> {
    pub fn new(changes: Changes<'a>, geometry: &'a Geometry, last_lsn: u64) -> Self {
        Self { changes, geometry, last_lsn, stored: 0, touched: Touched::default(), files: BTreeSet::new() }
    }

    /// Applies one half of an update to the clusters `lcns` (0: one that needs it no more); whether anything was changed.
    ///
    /// # Errors
    /// Refused, when the block does not have the form that the operation needs.
    pub fn apply(
        &mut self,
        update: &Update<'_>,
        half: &Half<'_>,
        attribute: &OpenAttribute,
        lcns: &[u64],
        direction: Direction,
    ) -> Result<bool> {
        let job = Job { update, half, attribute, lcns, direction };
        refuse_repeated(lcns)?;
        let kind = attribute.target.kind;
        match half.operation.subject() {
            Subject::Nothing => Ok(false),
            Subject::Record => self.apply_to_record(&job),
            Subject::IndexBlock if kind == AttributeType::INDEX_ALLOCATION => self.apply_to_index(&job),
            Subject::Bytes if kind == AttributeType::INDEX_ALLOCATION => self.write_index(&job),
            Subject::IndexBlock => Err(refuse("an operation on an index block names another attribute")),
            Subject::Bytes if half.operation == Operation::UpdateNonresidentValue => {
                let at = update.block + update.record_offset + update.attribute_offset;
                let data = &half.data;
                self.touched.add_bytes(&attribute.target, update.lsn)?;
                self.by_cluster(&job, at, data.len(), |part, at| put(part, at, data))
            }
            Subject::Bytes => self.apply_to_bits(&job),
        }
    }

    /// The stretches of `length` bytes from byte `at` of the record's first cluster; `None` when a cluster needs it no more.
    fn pieces(&self, job: &Job<'_>, at: usize, length: usize) -> Result<Option<Vec<Piece>>> {
        let cluster = self.geometry.cluster_size as usize;
        let (mut at, mut left, mut out) = (at, length, Vec::with_capacity(1));
        while left > 0 {
            let lcn = match job.lcns.get(at / cluster) {
                None | Some(0) => return Ok(None),
                Some(&lcn) => lcn,
            };
            if lcn >= self.geometry.cluster_count {
                return Err(refuse(format!("it names cluster {lcn}, which is outside the volume")));
            }
            let part = left.min(cluster - at % cluster);
            out.push((self.geometry.bytes_in(lcn).saturating_add((at % cluster) as u64), part));
            at += part;
            left -= part;
        }
        Ok(Some(out))
    }

    fn load(&self, pieces: &[Piece]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for &(offset, length) in pieces {
            let start = bytes.len();
            bytes.resize(start + length, 0);
            self.changes.read(offset, bytes.get_mut(start..).unwrap_or_default())?;
        }
        Ok(bytes)
    }

    /// Stores what lies from byte `at` of the record's first cluster on.
    fn store(&mut self, job: &Job<'_>, at: usize, pieces: &[Piece], bytes: &[u8]) -> Result<()> {
        self.stored = self.stored.saturating_add(bytes.len() as u64);
        if self.stored > STORED_MAX {
            return Err(refuse("it changes the same blocks too often"));
        }
        let cluster = self.geometry.cluster_size as usize;
        let mut rest = bytes;
        let mut at = at;
        for &(offset, length) in pieces {
            let (part, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            self.changes.write(offset, part)?;
            let vcn = job.update.vcn.saturating_add((at / cluster) as u64);
            self.touched.add(&job.attribute.target, vcn, offset / cluster as u64)?;
            at += length;
            rest = tail;
        }
        Ok(())
    }

    /// Whether a block already holds what the record does.
    fn is_newer(&self, lsn: u64, job: &Job<'_>) -> Result<bool> {
        if lsn > self.last_lsn {
            return Err(refuse(format!(
                "a block of the volume was changed by the record {lsn:#x}, which comes after the end of the log"
            )));
        }
        Ok(job.direction == Direction::Redo && lsn >= job.update.lsn)
    }

    fn apply_to_record(&mut self, job: &Job<'_>) -> Result<bool> {
        let (update, operation) = (job.update, job.half.operation);
        let target = &job.attribute.target;
        if target.file.record != RecordNumber::MFT || target.kind != AttributeType::DATA || !target.name.is_empty() {
            return Err(refuse("an operation on a file record names another attribute than $MFT"));
        }
        let size = self.geometry.record_size;
        let offset = self.geometry.bytes_in(update.vcn).saturating_add(update.block as u64);
        if !offset.is_multiple_of(size.into()) {
            return Err(refuse("an operation on a file record names the middle of one"));
        }
        let number = RecordNumber(offset / u64::from(size));
        let Some(pieces) = self.pieces(job, update.block, size as usize)? else { return Ok(false) };
        let mut record = self.load(&pieces)?;
        if fixup::unseal(&mut record, fixup::FILE).is_ok() {
            if self.is_newer(header::LSN.get(&record), job)? {
                return Ok(false);
            }
        } else {
            match operation {
                Operation::InitializeFileRecordSegment
                    if update.record_offset == 0 && job.half.data.len() >= HEADER_MIN =>
                {
                    record.fill(0);
                }
                // a record that was never written is free already
                Operation::DeallocateFileRecordSegment => return Ok(false),
                _ => return Err(refuse(format!("the file record {number} cannot be read"))),
            }
        }
        let step = step_of(job);
        on_record(&mut record, operation, step, update.lsn)?;
        if header::NUMBER.get(&record) as u64 != number.0 {
            return Err(refuse(format!("the file record {number} has the number of another"))
                .expected_found(number, header::NUMBER.get(&record)));
        }
        // Windows leaves the LSN at this operation
        if job.direction == Direction::Redo && operation != Operation::UpdateRecordDataRoot {
            header::LSN.set(&mut record, update.lsn);
        }
        let base = FileId::from_raw(header::BASE.get(&record)).record;
        self.files.insert(if base == RecordNumber(0) { number } else { base });
        fixup::seal(&mut record)?;
        self.store(job, update.block, &pieces, &record)?;
        Ok(true)
    }

    /// Bytes of a block of the index, after checking that the record's first cluster begins one.
    fn index_block_size(&self, job: &Job<'_>) -> Result<usize> {
        let size = match job.attribute.index_block {
            0 => self.geometry.index_block_size,
            size => size,
        };
        let sound = size.is_power_of_two() && (512..=65536).contains(&size);
        if !sound || !self.geometry.bytes_in(job.update.vcn).is_multiple_of(u64::from(size)) {
            return Err(refuse("an operation on an index block names the middle of one"));
        }
        Ok(size as usize)
    }

    fn apply_to_index(&mut self, job: &Job<'_>) -> Result<bool> {
        let update = job.update;
        let size = self.index_block_size(job)?;
        let at = update.block + update.record_offset;
        if !at.is_multiple_of(size) {
            return Err(refuse("an operation on an index block names the middle of one"));
        }
        let Some(pieces) = self.pieces(job, at, size)? else { return Ok(false) };
        let mut node = self.load(&pieces)?;
        fixup::unseal(&mut node, fixup::INDX)
            .map_err(|e| refuse(format!("an index block of file {} cannot be read: {e}", job.attribute.target.file)))?;
        if self.is_newer(block::LSN.get(&node), job)? {
            return Ok(false);
        }
        on_index(&mut node, job.half.operation, step_of(job), update.lsn)?;
        self.store_index(job, at, &pieces, node)?;
        Ok(true)
    }

    /// Writes bytes of an index block: of a new one, the used part without fix-up.
    fn write_index(&mut self, job: &Job<'_>) -> Result<bool> {
        let (update, data) = (job.update, &job.half.data);
        if job.half.operation != Operation::UpdateNonresidentValue {
            return Err(refuse("an operation on a bitmap names an index"));
        }
        let size = self.index_block_size(job)?;
        let at = update.block + update.record_offset + update.attribute_offset;
        let (start, inside) = (at - at % size, at % size);
        if inside + data.len() > size {
            return Err(refuse("an index block is written beyond its end"));
        }
        let Some(pieces) = self.pieces(job, start, size)? else { return Ok(false) };
        let mut node = self.load(&pieces)?;
        let mut counter = None;
        if fixup::unseal(&mut node, fixup::INDX).is_ok() {
            if self.is_newer(block::LSN.get(&node), job)? {
                return Ok(false);
            }
            counter = Some(fixup::counter(&node));
        } else if inside != 0 || data.len() < HEADER_MIN {
            return Err(refuse(format!("an index block of file {} cannot be read", job.attribute.target.file)));
        }
        put(node.get_mut(inside..).unwrap_or_default(), 0, data);
        if let Some(counter) = counter.filter(|_| inside == 0) {
            fixup::set_counter(&mut node, counter);
        }
        self.store_index(job, start, &pieces, node)?;
        Ok(true)
    }

    fn store_index(&mut self, job: &Job<'_>, at: usize, pieces: &[Piece], mut node: Vec<u8>) -> Result<()> {
        if job.direction == Direction::Redo {
            block::LSN.set(&mut node, job.update.lsn);
        }
        fixup::seal(&mut node)?;
        self.files.insert(job.attribute.target.file.record);
        self.store(job, at, pieces, &node)
    }

    fn apply_to_bits(&mut self, job: &Job<'_>) -> Result<bool> {
        let set = job.half.operation == Operation::SetBitsInNonresidentBitMap;
        let range = BitRange::parse(&job.half.data).ok_or_else(|| refuse("an operation on a bitmap has no range"))?;
        let bytes = range.bytes();
        let start = usize::try_from(bytes.start).unwrap_or(usize::MAX);
        let length = usize::try_from(bytes.end - bytes.start).unwrap_or(usize::MAX);
        if length > BITMAP_MAX {
            return Err(refuse("it changes more of a bitmap than one record can").expected_found(BITMAP_MAX, length));
        }
        let base = job.update.block + job.update.record_offset;
        let kind = job.attribute.target.kind;
        let is_volume_bitmap = kind == AttributeType::DATA && job.attribute.target.file.record == RecordNumber::BITMAP;
        if !is_volume_bitmap && kind != AttributeType::BITMAP {
            return Err(refuse("an operation on a bitmap names another attribute"));
        }
        let at = base.saturating_add(start);
        self.by_cluster(job, at, length, |part, done| range.apply(part, bytes.start + done as u64, set))
    }

    /// Changes bytes that no fix-up protects, without the clusters that need it no more.
    fn by_cluster(
        &mut self,
        job: &Job<'_>,
        at: usize,
        length: usize,
        change: impl Fn(&mut [u8], usize),
    ) -> Result<bool> {
        let cluster = self.geometry.cluster_size as usize;
        // the record names all clusters that it changes
        let end = job.lcns.len().saturating_mul(cluster);
        if at.saturating_add(length) > end {
            return Err(refuse("an operation changes more than the clusters that it names"));
        }
        let (mut done, mut changed) = (0, false);
        while done < length {
            let part = (length - done).min(cluster - (at + done) % cluster);
            if let Some(pieces) = self.pieces(job, at + done, part)? {
                let mut bytes = self.load(&pieces)?;
                change(&mut bytes, done);
                self.store(job, at + done, &pieces, &bytes)?;
                changed = true;
            }
            done += part;
        }
        if changed {
            self.files.insert(job.attribute.target.file.record);
        }
        Ok(changed)
    }
}

/// Refuses a cluster that stands for two of an attribute.
fn refuse_repeated(lcns: &[u64]) -> Result<()> {
    let mut seen = BTreeSet::new();
    match lcns.iter().filter(|&&lcn| lcn != 0).find(|&lcn| !seen.insert(lcn)) {
        Some(lcn) => Err(refuse(format!("it names cluster {lcn} twice in one record"))),
        None => Ok(()),
    }
}

fn step_of<'u>(job: &Job<'u>) -> Step<'u> {
    Step {
        record_offset: job.update.record_offset,
        attribute_offset: job.update.attribute_offset,
        data: &job.half.data,
        resizes: job.update.resizes,
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::io::MemoryVolume;
    use crate::ntfs::log::summary::Target;
    use crate::ntfs::name::NtfsName;
    use crate::ntfs::units::Lcn;

    const CLUSTER: usize = 1 << 16;

    /// Sets `bits` bits of `$Bitmap`, from the first one on, in these clusters; what the volume then holds.
    fn set_bits(bits: u32, lcns: &[u64]) -> Result<Vec<u8>> {
        let device = MemoryVolume(vec![0; 8 * CLUSTER]);
        let geometry = Geometry {
            sector_size: 512,
            cluster_size: CLUSTER as u32,
            total_sectors: 1024,
            cluster_count: 8,
            mft: Lcn(1),
            mirror: Lcn(2),
            record_size: 1024,
            index_block_size: 4096,
            serial: 0,
        };
        let file = FileId { record: RecordNumber::BITMAP, sequence: 6 };
        let target = Target { file, kind: AttributeType::DATA, name: NtfsName::default() };
        let attribute = OpenAttribute { lsn: 1, index_block: 0, target };
        let range = [0u32.to_le_bytes(), bits.to_le_bytes()].concat();
        let half = |operation, data| Half { operation, data };
        let update = Update {
            lsn: 2,
            redo: half(Operation::SetBitsInNonresidentBitMap, Cow::Owned(range)),
            undo: half(Operation::Noop, Cow::Owned(Vec::new())),
            target: 0,
            record_offset: 0,
            attribute_offset: 0,
            block: 0,
            vcn: 0,
            lcns: lcns.to_vec(),
            resizes: false,
        };
        let mut blocks = Blocks::new(Changes::new(&device), &geometry, 9);
        blocks.apply(&update, &update.redo, &attribute, lcns, Direction::Redo)?;
        let mut out = vec![0; device.0.len()];
        blocks.changes.read(0, &mut out)?;
        Ok(out)
    }

    #[test]
    fn a_record_changes_a_bitmap_as_far_as_windows_would() {
        let changed = set_bits(8 * CLUSTER as u32, &[5, 3]).unwrap();
        let set: Vec<_> = changed.chunks(CLUSTER).map(|cluster| cluster.iter().all(|&byte| byte == 0xFF)).collect();
        assert_eq!(set, [false, false, false, false, false, true, false, false]);
        let refusal = set_bits(8 * CLUSTER as u32 + 1, &[5, 3]).unwrap_err().to_string();
        assert!(refusal.contains("more of a bitmap than one record can"), "{refusal}");
    }

    #[test]
    fn a_record_that_names_a_cluster_twice_is_refused() {
        let refusal = set_bits(8, &[5, 5]).unwrap_err().to_string();
        assert!(refusal.contains("names cluster 5 twice"), "{refusal}");
        assert!(set_bits(8, &[5, 0]).is_ok() && set_bits(8, &[5, 0, 0]).is_ok());
    }
}
