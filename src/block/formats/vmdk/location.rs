//! Addresses inside one extent.

use crate::units::HostOffset;

/// Byte offset in the part of the disk that an extent makes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ExtentOffset(pub u64);

/// Where the bytes of a range of an extent are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GrainLocation {
    /// Not in this extent: the parent's bytes.
    Parent,
    /// Nowhere: they read as zeros.
    Zero,
    /// From here on in the extent's file.
    Stored(HostOffset),
    /// In the compressed grain that is stored at `offset`.
    Compressed {
        offset: HostOffset,
        /// The grain's first byte.
        grain: ExtentOffset,
        /// Bytes of the grain before the first wanted one.
        skip: u64,
    },
}
