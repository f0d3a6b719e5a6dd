//! Reads of a container's files whose errors carry the offset.

use zerocopy::{FromBytes, IntoBytes};

use crate::block::{Storage, StorageExt};
use crate::error::{Error, Layer, Result};
use crate::units::HostOffset;

/// Fills `buf` from `offset`; the end of the file inside the range is damage.
pub(crate) fn read_exact(storage: &dyn Storage, offset: HostOffset, buf: &mut [u8]) -> Result<()> {
    storage.read_exact_at(offset.0, buf).map_err(|e| {
        if e.kind() == std::io::ErrorKind::UnexpectedEof {
            Error::damaged(Layer::Block, "the file ends too early")
                .at(offset)
                .expected_found(format_args!("{} bytes more", buf.len()), "the end of the file")
                .hint("the file is truncated: copy it again")
        } else {
            Error::io(Layer::Block, "cannot read the file", e).at(offset)
        }
    })
}

/// Reads the on-disk structure at `offset`; fails like [`read_exact`].
pub(crate) fn read_struct<T: FromBytes + IntoBytes>(storage: &dyn Storage, offset: HostOffset) -> Result<T> {
    let mut structure = T::new_zeroed();
    read_exact(storage, offset, structure.as_mut_bytes())?;
    Ok(structure)
}

/// Length of the file in bytes.
pub(crate) fn length(storage: &dyn Storage) -> Result<u64> {
    storage.len().map_err(|e| Error::io(Layer::Block, "cannot find the length of the file", e))
}

/// Whether the file has data at `offset` (or a hole), and for how many of `limit` bytes that is so.
pub(crate) fn data_run(storage: &dyn Storage, offset: HostOffset, limit: u64) -> Result<(bool, u64)> {
    let run = storage
        .run_at(offset.0)
        .map_err(|e| Error::io(Layer::Block, "cannot find the holes of the file", e).at(offset))?;
    Ok((run.is_data || run.length == 0, if run.length == 0 { limit } else { run.length.min(limit) }))
}
