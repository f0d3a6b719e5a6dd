//! Bins, cells, and who owns them.

use super::cell_bitmap::CellBitmap;
use super::checker::Checker;
use super::fault::Code;
use crate::field::Le;
use crate::hive::format::{CELL_MAX, NIL, PAGE, VOLATILE, bin};

impl<'a> Checker<'a> {
    pub(super) fn bins(&mut self) {
        self.ownerless = CellBitmap::over(self.length);
        let mut at = 0;
        while at < self.length {
            let header = self.bytes.get((at + PAGE) as usize..).unwrap_or_default();
            let place = || format!("bin {at:#x}");
            if !header.starts_with(bin::SIGNATURE) {
                self.add(Code::HbSignature, place(), "not a hive bin");
                at += PAGE;
                continue;
            }
            let says = bin::OFFSET.try_get(header).unwrap_or(0);
            if says != at {
                self.add(Code::HbOffset, place(), format!("the bin says it is at {says:#x}"));
            }
            let size = bin::SIZE.try_get(header).unwrap_or(0);
            if size == 0 || !size.is_multiple_of(PAGE) || size > self.length - at {
                self.add(Code::HbSize, place(), format!("size {size:#x}"));
                at += PAGE;
                continue;
            }
            self.cells(at + bin::HEADER, at + size);
            at += size;
        }
    }

    fn cells(&mut self, from: u32, end: u32) {
        let (mut at, mut after_free) = (from, false);
        while at < end {
            let word = self.size_word(at);
            let size = word.unsigned_abs();
            if size < 8 || size > end - at {
                self.add(Code::CeSize, format!("cell {at:#x}"), format!("size {word}, its bin ends at {end:#x}"));
                return;
            }
            if !size.is_multiple_of(8) {
                self.add(Code::CeAlign, format!("cell {at:#x}"), format!("size {word} is not a multiple of 8"));
            }
            if word < 0 {
                if at % 8 == 0 {
                    self.ownerless.set(at);
                }
                if size as usize > CELL_MAX + 8 {
                    self.add(Code::CeHuge, format!("cell {at:#x}"), format!("{size} bytes"));
                }
            } else if after_free {
                self.add(Code::CeCoalesce, format!("cell {at:#x}"), "a free cell follows a free cell");
            }
            after_free = word > 0;
            at += size;
        }
    }

    fn size_word(&self, at: u32) -> i32 {
        let start = at as usize + PAGE as usize;
        self.bytes.get(start..start + 4).and_then(u32::try_load).unwrap_or(0) as i32
    }

    /// The data of a cell that [`bins`](Self::bins) found; empty if there is none.
    pub(super) fn data(&self, at: u32) -> &'a [u8] {
        let start = at as usize + PAGE as usize;
        let size = self.size_word(at).unsigned_abs() as usize;
        self.bytes.get(start + 4..start + size).unwrap_or_default()
    }

    /// The data of the allocated cell that `what` refers to. It must have no owner yet and gets one.
    pub(super) fn claim(
        &mut self,
        at: u32,
        what: impl Fn() -> String,
        place: &dyn Fn(&Self) -> String,
    ) -> Option<&'a [u8]> {
        if at.is_multiple_of(8) && self.ownerless.get(at) {
            self.ownerless.clear(at);
            return Some(self.data(at));
        }
        let fault = if at == NIL {
            (Code::RfNil, format!("{} is missing", what()))
        } else if at & VOLATILE != 0 {
            (Code::RfVolatile, format!("{} points into volatile space ({at:#x})", what()))
        } else if at >= self.length {
            (Code::RfRange, format!("{} points outside the hive ({at:#x})", what()))
        } else if !self.is_start(at) {
            (Code::RfNocell, format!("{}: no cell starts at {at:#x}", what()))
        } else if self.size_word(at) >= 0 {
            (Code::RfFree, format!("{} points to the free cell {at:#x}", what()))
        } else {
            (Code::RfShared, format!("{}: cell {at:#x} belongs to something else already", what()))
        };
        let place = place(self);
        self.add(fault.0, place, fault.1);
        None
    }

    /// Whether a cell, allocated or free, starts at this offset. Sound hives never ask, so the map is made on demand.
    fn is_start(&mut self, at: u32) -> bool {
        if self.starts.is_none() {
            let mut starts = CellBitmap::over(self.length);
            let mut bin_at = 0;
            while bin_at < self.length {
                let Some(size) = self.bin_size(bin_at) else {
                    bin_at += PAGE;
                    continue;
                };
                let (mut cell, end) = (bin_at + bin::HEADER, bin_at + size);
                while cell < end {
                    let size = self.size_word(cell).unsigned_abs();
                    if size < 8 || size > end - cell {
                        break;
                    }
                    if cell.is_multiple_of(8) {
                        starts.set(cell);
                    }
                    cell += size;
                }
                bin_at = end;
            }
            self.starts = Some(starts);
        }
        at.is_multiple_of(8) && self.starts.as_ref().is_some_and(|starts| starts.get(at))
    }

    /// The size of the bin at this offset, if there is one that is walked.
    fn bin_size(&self, at: u32) -> Option<u32> {
        let header = self.bytes.get((at + PAGE) as usize..).filter(|header| header.starts_with(bin::SIGNATURE))?;
        bin::SIZE.try_get(header).filter(|&size| size != 0 && size.is_multiple_of(PAGE) && size <= self.length - at)
    }

    /// A list that a key without entries still points to. It does not count as an orphan.
    pub(super) fn stale_list(&mut self, at: u32) {
        if at.is_multiple_of(8) && self.ownerless.get(at) {
            *self.stale_lists.entry(at).or_default() += 1;
        }
    }

    pub(super) fn orphans(&mut self) {
        self.stale_lists.retain(|&at, _| self.ownerless.get(at));
        self.stale_lists.keys().for_each(|&at| self.ownerless.clear(at));
        let ownerless = std::mem::take(&mut self.ownerless);
        for (first, lost) in ownerless.marked() {
            for bit in (0..64).filter(|bit| lost >> bit & 1 != 0) {
                let at = first + bit * 8;
                let data = self.data(at);
                let start: String = data.iter().take(2).map(|b| b.escape_ascii().to_string()).collect();
                let text = format!("{} bytes, starting with \"{start}\", nothing refers to it", data.len() + 4);
                self.add(Code::CeOrphan, format!("cell {at:#x}"), text);
            }
        }
    }
}
