//! The bitmaps of differencing VHD and VHDX files: one bit for each sector, set where this file (not its parent) has it.

use super::table_cache::TableCache;
use crate::error::Result;
use crate::units::HostOffset;

/// Which bit of a byte belongs to the first of its eight sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BitOrder {
    /// The order of VHD.
    MostSignificantFirst,
    /// The order of VHDX.
    LeastSignificantFirst,
}

/// A sector bitmap in a container's file.
pub(crate) struct SectorBitmap<'a> {
    /// Reads the bitmap's bytes.
    pub(crate) table: &'a TableCache,
    /// The bitmap's first byte.
    pub(crate) start: HostOffset,
    pub(crate) order: BitOrder,
}

impl SectorBitmap<'_> {
    /// The bit of sector `first`, and how many sectors from there on have the same one, at most `limit`.
    pub(crate) fn run(&self, first: u64, limit: u64) -> Result<(bool, u64)> {
        let mut value = None;
        let mut bit = first;
        while bit < first + limit {
            let [byte] = self.table.bytes::<1>(self.start.saturating_add(bit / 8))?;
            let byte = match self.order {
                BitOrder::MostSignificantFirst => byte.reverse_bits(),
                BitOrder::LeastSignificantFirst => byte,
            };
            let wanted = value.unwrap_or(byte >> (bit % 8) & 1 != 0);
            value = Some(wanted);
            let differing = if wanted { !byte } else { byte } & (0xFF << (bit % 8));
            if differing != 0 {
                let end = bit / 8 * 8 + u64::from(differing.trailing_zeros());
                return Ok((wanted, (end - first).clamp(1, limit)));
            }
            bit = (bit / 8 + 1) * 8;
        }
        Ok((value.unwrap_or(false), limit))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::block::MemoryStorage;

    #[test]
    fn runs_of_both_orders() {
        let bytes = [0b0000_0111, 0xFF, 0b0000_0001, 0];
        let table = TableCache::new(Arc::new(MemoryStorage::new(bytes.to_vec())), bytes.len() as u64);
        let run = |order, first, limit| {
            SectorBitmap { table: &table, start: HostOffset(0), order }.run(first, limit).unwrap()
        };
        assert_eq!(run(BitOrder::LeastSignificantFirst, 0, 32), (true, 3));
        assert_eq!(run(BitOrder::LeastSignificantFirst, 3, 32), (false, 5));
        assert_eq!(run(BitOrder::LeastSignificantFirst, 8, 24), (true, 9));
        assert_eq!(run(BitOrder::LeastSignificantFirst, 8, 4), (true, 4));
        assert_eq!(run(BitOrder::MostSignificantFirst, 0, 32), (false, 5));
        assert_eq!(run(BitOrder::MostSignificantFirst, 5, 27), (true, 11));
        assert_eq!(run(BitOrder::MostSignificantFirst, 16, 16), (false, 7));
    }
}
