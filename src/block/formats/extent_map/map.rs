//! What a container has to answer: where the bytes of a guest range are.

use crate::block::Format;
use crate::error::{Error, Layer, Result};

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
        /// Byte offset in it.
        offset: u64,
    },
    /// In a compressed unit of file `file` whose stream is found at `offset`.
    Compressed {
        /// Index among the container's files.
        file: usize,
        /// Byte offset of the unit in it.
        offset: u64,
        /// Guest offset (within that file's share of the disk) at which the unit begins.
        unit: u64,
        /// First wanted byte within the decompressed unit.
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

    /// Whether QEMU opens this container and finds the same bytes where this map does, the parent left aside.
    fn is_same_in_qemu(&self) -> bool;

    /// Whether any of its data are compressed.
    fn is_compressed(&self) -> bool {
        false
    }

    /// The run at `offset` (inside the guest size): at least one byte, at most `limit`.
    fn run_at(&self, offset: u64, limit: u64) -> Result<Run>;

    /// Reads stored bytes; `buf` lies inside one run.
    fn read_stored(&self, file: usize, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Reads out of a compressed unit; `buf` lies inside one run.
    fn read_compressed(&self, _file: usize, offset: u64, _unit: u64, _skip: u64, _buf: &mut [u8]) -> Result<()> {
        Err(Error::bug(Layer::Block, "this container has no compressed units").at(offset))
    }

    /// How many of `limit` stored bytes from `offset` on are of one kind: `true` for data, `false` for a hole of the
    /// host's file. Containers whose data areas are dense just say "data".
    fn stored_is_data(&self, _file: usize, _offset: u64, limit: u64) -> Result<(bool, u64)> {
        Ok((true, limit))
    }
}
