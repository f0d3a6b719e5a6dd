//! Sizes and limits of the format, and the two special marks of a cell offset.

/// A cell offset that stands for no cell.
pub(crate) const NIL: u32 = 0xFFFF_FFFF;
/// The base block, and the granularity of bins.
pub(crate) const PAGE: u32 = 4096;
/// Bit 31 of a cell offset: the cell lives in memory only.
pub(crate) const VOLATILE: u32 = 0x8000_0000;
/// Largest total size of bins (offsets have 31 bits, and the last page stays unused).
pub(crate) const LENGTH_MAX: u32 = 0x7FFF_E000;
/// Levels of keys, the root included ("Registry element size limits").
pub(crate) const DEPTH_MAX: usize = 512;
/// Characters of a key's name ("Registry element size limits").
pub(crate) const KEY_NAME_MAX: usize = 255;
/// Characters of a value's name ("Registry element size limits").
pub(crate) const VALUE_NAME_MAX: usize = 16383;
/// Data bytes of the largest cell that the kernel takes for a key.
pub(crate) const KEY_CELL_MAX: usize = 0x45C;
/// Data bytes in one segment of big data; longer data of a hive ≥ 1.4 is big data.
pub(crate) const SEGMENT: usize = 16344;
/// Largest cell that Windows allocates.
pub(crate) const CELL_MAX: usize = 1 << 20;
/// Entries that Windows puts into one fast leaf (`lf`).
pub(crate) const FAST_LEAF_MAX: usize = 507;
/// Entries that Windows puts into one `li` or `lh` leaf.
pub(crate) const LEAF_MAX: usize = 1013;
