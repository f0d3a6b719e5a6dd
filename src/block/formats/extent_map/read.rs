//! Reading host files with errors that say where.

use crate::block::{Storage, StorageExt};
use crate::error::{Error, Layer, Result};

/// Fills `buf` from `offset`; the end of the file inside the range is damage.
pub(crate) fn read_exact(storage: &dyn Storage, offset: u64, buf: &mut [u8]) -> Result<()> {
    storage.read_exact_at(offset, buf).map_err(|e| {
        if e.kind() == std::io::ErrorKind::UnexpectedEof {
            Error::damaged(Layer::Block, "the file ends too early")
                .at(offset)
                .expected_found(format_args!("{} bytes more", buf.len()), "the end of the file")
                .hint("the file is truncated: copy it again")
        } else {
            Error::io(Layer::Block, "cannot be read", e).at(offset)
        }
    })
}

/// Length of the file.
pub(crate) fn length(storage: &dyn Storage) -> Result<u64> {
    storage.len().map_err(|e| Error::io(Layer::Block, "the file's length cannot be found", e))
}

/// Whether the file has data at `offset` (or a hole), and for how many of `limit` bytes that is so.
pub(crate) fn data_run(storage: &dyn Storage, offset: u64, limit: u64) -> Result<(bool, u64)> {
    let run = storage.run_at(offset).map_err(|e| Error::io(Layer::Block, "cannot be read", e).at(offset))?;
    Ok((run.is_data || run.length == 0, if run.length == 0 { limit } else { run.length.min(limit) }))
}
