//! What a container implements: the mapping from guest ranges to ranges of its files.

use crate::block::Format;
use crate::error::{Error, Layer, Result};
use crate::units::{HostOffset, ImageOffset};

/// Where the bytes of a guest range are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Location {
    /// Not in this container: the parent's bytes, zeros without one.
    Parent,
    /// Zeros, whatever the parent says.
    Zero,
    /// As they are, from `offset` of the container's file `file`.
    Stored {
        /// Index among the container's files.
        file: usize,
        /// Where they begin in that file.
        offset: HostOffset,
    },
    /// In a compressed unit, which begins at `offset` of the container's file `file`.
    Compressed {
        /// Index among the container's files.
        file: usize,
        /// Where the unit begins in that file.
        offset: HostOffset,
        /// The disk's byte that is the unit's first.
        unit: ImageOffset,
        /// Bytes of the decompressed unit before the first wanted one.
        skip: u64,
    },
}

/// A guest range whose bytes have one location.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Length in bytes, never 0.
    pub(crate) length: u64,
    /// Where its bytes are.
    pub(crate) location: Location,
}

/// Finds the guest's bytes in the files of one container.
pub(crate) trait ExtentMap: Send + Sync {
    /// Guest size in bytes.
    fn len(&self) -> u64;

    /// Which container this is.
    fn format(&self) -> Format;

    /// Whether QEMU opens this container and reads the same disk from it, the parent not considered.
    fn is_same_in_qemu(&self) -> bool;

    /// Whether any of its data are compressed.
    fn is_compressed(&self) -> bool {
        false
    }

    /// What the container says of a program that did not close it, without a path.
    fn in_use_mark(&self) -> Option<&'static str> {
        None
    }

    /// The run at `offset` (inside the guest size): at least one byte, at most `limit`.
    fn run_at(&self, offset: ImageOffset, limit: u64) -> Result<Run>;

    /// Reads stored bytes; `buf` lies inside one run.
    fn read_stored(&self, file: usize, offset: HostOffset, buf: &mut [u8]) -> Result<()>;

    /// Reads out of a compressed unit; `buf` lies inside one run.
    fn read_compressed(
        &self,
        _file: usize,
        offset: HostOffset,
        _unit: ImageOffset,
        _skip: u64,
        _buf: &mut [u8],
    ) -> Result<()> {
        Err(Error::bug(Layer::Block, "this container has no compressed units").at(offset))
    }

    /// How many of `limit` stored bytes from `offset` on are of one kind: `true` for data, `false` for a hole of the
    /// host's file. Containers whose data areas have no holes report data.
    fn stored_is_data(&self, _file: usize, _offset: HostOffset, limit: u64) -> Result<(bool, u64)> {
        Ok((true, limit))
    }
}
