//! The cells of a hive: reading, allocating, freeing.
//!
//! Allocation keeps the file small and the damage local: the free cell that fits best is split down to the last eight
//! bytes, freed cells merge with their neighbours inside the bin, and only when nothing fits the hive grows by a bin,
//! into the unused tail of the file first. A cell is never moved unless its owner asks.

use std::collections::{BTreeMap, BTreeSet};

use super::format::{LENGTH_MAX, NIL, PAGE, VOLATILE, bin};
use crate::error::{Error, Layer, Place, Result};
use crate::field::{Field, Le};

/// Where a cell is: bytes from the start of the first bin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CellOffset(pub(super) u32);

impl CellOffset {
    /// From a field that may hold "no cell".
    pub(super) fn from_field(value: u32) -> Option<Self> {
        (value != NIL).then_some(Self(value))
    }

    /// Offset in the file.
    pub(super) fn in_file(self) -> u64 {
        u64::from(self.0) + u64::from(PAGE)
    }
}

impl From<CellOffset> for Place {
    fn from(at: CellOffset) -> Self {
        Self::Offset(at.in_file())
    }
}

/// The error of a structure that contradicts the format.
pub(super) fn damaged(at: CellOffset, what: impl Into<String>) -> Error {
    Error::damaged(Layer::Hive, what).at(at)
}

/// Total size of a cell that holds `data` bytes.
pub(super) fn cell_size(data: usize) -> Result<u32> {
    let size = data.checked_add(4 + 7).map(|n| n & !7).and_then(|n| u32::try_from(n).ok());
    size.filter(|&n| n < LENGTH_MAX).map(|n| n.max(8)).ok_or_else(|| {
        Error::refused(Layer::Hive, format!("{data} bytes do not fit into a hive")).hint("shorten the data")
    })
}

/// The file, and the map of its free cells while it is being edited.
pub(super) struct Cells {
    /// Base block, bins, and whatever follows them.
    bytes: Vec<u8>,
    /// Total size of the bins in bytes.
    length: u32,
    by_offset: BTreeMap<u32, u32>,
    by_size: BTreeSet<(u32, u32)>,
}

impl Cells {
    /// Over a whole file; `length` of bins must lie inside it.
    pub(super) fn new(bytes: Vec<u8>, length: u32) -> Self {
        Self { bytes, length, by_offset: BTreeMap::new(), by_size: BTreeSet::new() }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn length(&self) -> u32 {
        self.length
    }

    /// The data of an allocated cell, its size word left out.
    pub(super) fn data(&self, at: CellOffset) -> Result<&[u8]> {
        let size = self.allocated_size(at)?;
        let start = at.in_file() as usize;
        self.bytes.get(start + 4..start + size as usize).ok_or_else(|| damaged(at, "cell leaves the file"))
    }

    /// Like [`data`](Self::data), for writing.
    pub(super) fn data_mut(&mut self, at: CellOffset) -> Result<&mut [u8]> {
        let size = self.allocated_size(at)?;
        let start = at.in_file() as usize;
        self.bytes.get_mut(start + 4..start + size as usize).ok_or_else(|| damaged(at, "cell leaves the file"))
    }

    fn size_word(&self, at: u32) -> Option<i32> {
        let start = (u64::from(at) + u64::from(PAGE)) as usize;
        Some(u32::try_load(self.bytes.get(start..start + 4)?)? as i32)
    }

    fn set_size_word(&mut self, at: u32, size: i32) -> Result<()> {
        let start = CellOffset(at).in_file() as usize;
        let word =
            self.bytes.get_mut(start..start + 4).ok_or_else(|| damaged(CellOffset(at), "cell outside the file"))?;
        word.copy_from_slice(&size.to_le_bytes());
        Ok(())
    }

    fn allocated_size(&self, at: CellOffset) -> Result<u32> {
        if at.0 & VOLATILE != 0 || at.0 < bin::HEADER || at.0 >= self.length {
            return Err(damaged(at, format!("reference to {:#x}, outside the hive", at.0)));
        }
        let word = self.size_word(at.0).ok_or_else(|| damaged(at, "cell outside the file"))?;
        let size = word.unsigned_abs();
        if word >= 0 {
            return Err(damaged(at, "reference to a free cell"));
        }
        if size < 8 || size > self.length - at.0 {
            return Err(damaged(at, format!("cell of {size} bytes")));
        }
        Ok(size)
    }

    /// A field of the structure in a cell.
    pub(super) fn get<T: Le>(&self, at: CellOffset, field: Field<T>) -> Result<T> {
        field.try_get(self.data(at)?).ok_or_else(|| damaged(at, "cell is too short for its structure"))
    }

    /// Sets a field of the structure in a cell.
    pub(super) fn put<T: Le>(&mut self, at: CellOffset, field: Field<T>, value: T) -> Result<()> {
        field.try_set(self.data_mut(at)?, value).ok_or_else(|| damaged(at, "cell is too short for its structure"))
    }

    /// Builds the map of free cells; the bins must have passed the checker.
    pub(super) fn index_free(&mut self) -> Result<()> {
        self.by_offset.clear();
        self.by_size.clear();
        let mut bin_at = 0;
        while bin_at < self.length {
            let header = self.bytes.get((bin_at + PAGE) as usize..).unwrap_or_default();
            let size = bin::SIZE.try_get(header).unwrap_or(0);
            let bad = size < PAGE || size > self.length - bin_at;
            if bad {
                return Err(damaged(CellOffset(bin_at), format!("bin of {size} bytes")));
            }
            let mut at = bin_at + bin::HEADER;
            while at < bin_at + size {
                let word = self.size_word(at).unwrap_or(0);
                if word.unsigned_abs() < 8 || word.unsigned_abs() > bin_at + size - at {
                    return Err(damaged(CellOffset(at), format!("cell of {word} bytes")));
                }
                if word > 0 {
                    self.by_offset.insert(at, word.unsigned_abs());
                    self.by_size.insert((word.unsigned_abs(), at));
                }
                at += word.unsigned_abs();
            }
            bin_at += size;
        }
        Ok(())
    }

    /// A new cell with room for `data` bytes, all zero.
    pub(super) fn allocate(&mut self, data: usize) -> Result<CellOffset> {
        let need = cell_size(data)?;
        let (size, at) = match self.by_size.range((need, 0)..).next() {
            Some(&best) => best,
            None => self.grow(need)?,
        };
        self.by_offset.remove(&at);
        self.by_size.remove(&(size, at));
        self.set_size_word(at, -(need as i32))?;
        if size > need {
            self.add_free(at + need, size - need)?;
        }
        let at = CellOffset(at);
        self.data_mut(at)?.fill(0);
        Ok(at)
    }

    /// A new cell with this content.
    pub(super) fn allocate_with(&mut self, data: &[u8]) -> Result<CellOffset> {
        let at = self.allocate(data.len())?;
        self.overwrite(at, data)?;
        Ok(at)
    }

    /// Replaces the start of a cell's data.
    pub(super) fn overwrite(&mut self, at: CellOffset, data: &[u8]) -> Result<()> {
        let cell = self.data_mut(at)?;
        cell.get_mut(..data.len()).ok_or_else(|| damaged(at, "content does not fit its cell"))?.copy_from_slice(data);
        Ok(())
    }

    /// Frees a cell; it merges with free neighbours in its bin.
    pub(super) fn free(&mut self, at: CellOffset) -> Result<()> {
        let size = self.allocated_size(at)?;
        self.add_free(at.0, size)
    }

    /// Makes room for `data` bytes without moving the cell, if the cell after it is free and large enough.
    pub(super) fn extend_in_place(&mut self, at: CellOffset, data: usize) -> Result<bool> {
        let (size, need) = (self.allocated_size(at)?, cell_size(data)?);
        if size >= need {
            return Ok(true);
        }
        let next = at.0 + size;
        let Some(&free) = self.by_offset.get(&next) else { return Ok(false) };
        if free < need - size {
            return Ok(false);
        }
        self.by_offset.remove(&next);
        self.by_size.remove(&(free, next));
        self.set_size_word(at.0, -(need as i32))?;
        let rest = size + free - need;
        if rest > 0 {
            self.add_free(at.0 + need, rest)?;
        }
        let start = CellOffset(next).in_file() as usize;
        if let Some(new) = self.bytes.get_mut(start..start + (need - size) as usize) {
            new.fill(0);
        }
        Ok(true)
    }

    /// Grows a cell to hold `data` bytes, in place if possible; returns where it is now. The caller switches the
    /// reference; the old cell is free already.
    pub(super) fn grow_cell(&mut self, at: CellOffset, data: usize) -> Result<CellOffset> {
        if self.extend_in_place(at, data)? {
            return Ok(at);
        }
        let new = self.allocate(data)?;
        let old = self.data(at)?.to_vec();
        self.overwrite(new, &old)?;
        self.free(at)?;
        Ok(new)
    }

    // A bin's last cell ends where the next bin's header is, and no cell starts there: so looking up neighbours by
    // offset can never merge across bins.
    fn add_free(&mut self, at: u32, size: u32) -> Result<()> {
        let (mut at, mut size) = (at, size);
        if let Some(follower) = self.by_offset.remove(&(at + size)) {
            self.by_size.remove(&(follower, at + size));
            size += follower;
        }
        let before = self.by_offset.range(..at).next_back().map(|(&o, &s)| (o, s));
        if let Some((start, length)) = before.filter(|&(start, length)| start + length == at) {
            self.by_offset.remove(&start);
            self.by_size.remove(&(length, start));
            at = start;
            size += length;
        }
        self.by_offset.insert(at, size);
        self.by_size.insert((size, at));
        self.set_size_word(at, size as i32)
    }

    /// Appends a bin with a free cell of at least `need` bytes; returns that cell.
    fn grow(&mut self, need: u32) -> Result<(u32, u32)> {
        let at = self.length;
        let size = need.checked_add(bin::HEADER + PAGE - 1).map(|n| n & !(PAGE - 1));
        let end = size.and_then(|size| at.checked_add(size)).filter(|&end| end <= LENGTH_MAX);
        let (Some(size), Some(end)) = (size, end) else {
            return Err(Error::refused(Layer::Hive, "the hive is full (2 GiB)").hint("remove keys from it first"));
        };
        let (start, file_end) = (CellOffset(at).in_file() as usize, CellOffset(end).in_file() as usize);
        if self.bytes.len() < file_end {
            // By an eighth, not by the whole that a vector takes.
            if self.bytes.capacity() < file_end {
                let room = file_end - self.bytes.len();
                self.bytes.reserve_exact(room.max(self.bytes.len() / 8));
            }
            self.bytes.resize(file_end, 0);
        }
        let Some(new) = self.bytes.get_mut(start..file_end) else {
            return Err(Error::bug(Layer::Hive, "a new bin outside the file"));
        };
        new.fill(0); // the tail of a live hive holds remains of older bins
        if let Some(signature) = new.get_mut(..4) {
            signature.copy_from_slice(bin::SIGNATURE);
        }
        bin::OFFSET.try_set(new, at);
        bin::SIZE.try_set(new, size);
        self.length = end;
        self.add_free(at + bin::HEADER, size - bin::HEADER)?;
        Ok((size - bin::HEADER, at + bin::HEADER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Cells {
        let mut cells = Cells::new(vec![0; 4096], 0);
        cells.grow(8).unwrap();
        cells
    }

    #[test]
    fn freed_neighbours_merge_until_the_bin_is_one_cell() {
        let mut cells = empty();
        let at: Vec<CellOffset> = (0..4).map(|_| cells.allocate(20).unwrap()).collect();
        for i in [1, 3, 2, 0] {
            cells.free(at[i]).unwrap();
        }
        assert_eq!(cells.by_offset.iter().collect::<Vec<_>>(), [(&32, &4064)]);
        assert!(cells.free(at[0]).is_err(), "a free cell cannot be freed again");
    }

    #[test]
    fn best_fit_splits_down_to_eight_bytes() {
        let mut cells = empty();
        let a = cells.allocate(60).unwrap(); // 64
        let b = cells.allocate(4).unwrap(); // 8, keeps the holes apart
        let c = cells.allocate(36).unwrap(); // 40
        let _d = cells.allocate(4).unwrap();
        cells.free(a).unwrap();
        cells.free(c).unwrap();
        assert_eq!(cells.allocate(25).unwrap(), c, "32 of 40");
        assert_eq!(cells.allocate(4).unwrap(), CellOffset(c.0 + 32), "the last 8");
        assert!(b > a);
    }

    #[test]
    fn merging_never_crosses_a_bin() {
        let mut cells = empty();
        let first = cells.allocate(4060).unwrap();
        let second = cells.allocate(4060).unwrap();
        assert_eq!((first.0, second.0, cells.length()), (32, 4096 + 32, 8192));
        cells.free(second).unwrap();
        cells.free(first).unwrap();
        assert_eq!(cells.by_offset.len(), 2);
        let large = cells.allocate(4061).unwrap();
        assert_eq!(large.0, 8192 + 32, "a cell larger than a page gets a bin of its own");
        assert_eq!(cells.length(), 16384);
    }

    #[test]
    fn a_bin_in_a_used_tail_is_zeroed() {
        let mut cells = Cells::new(vec![0xEE; 3 * 4096], 0);
        cells.grow(8).unwrap();
        let at = cells.allocate(100).unwrap();
        assert!(cells.data(at).unwrap().iter().all(|&b| b == 0));
        assert_eq!(cells.bytes().len(), 3 * 4096, "the file does not grow");
        assert_eq!(cells.bytes()[4096 + 12], 0);
    }

    #[test]
    fn extension_takes_from_the_follower() {
        let mut cells = empty();
        let a = cells.allocate(20).unwrap();
        assert!(cells.extend_in_place(a, 100).unwrap());
        assert_eq!(cells.data(a).unwrap().len(), 100);
        let _b = cells.allocate(4).unwrap();
        assert!(!cells.extend_in_place(a, 200).unwrap());
        let moved = cells.grow_cell(a, 200).unwrap();
        assert_ne!(a, moved);
    }

    #[test]
    fn references_outside_are_damage() {
        let cells = empty();
        for bad in [0, 8, 4096, 0x8000_0020, NIL, 32] {
            assert!(cells.data(CellOffset(bad)).is_err(), "{bad:#x}");
        }
    }
}
