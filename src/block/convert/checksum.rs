//! The SHA-256 of the finished output.

use std::io;
use std::path::Path;
use std::sync::mpsc;

use sha2::{Digest, Sha256};

use crate::block::{Image, Storage};
use crate::cancel::Cancel;
use crate::error::{Error, Layer, Result};
use crate::host::{self, FileStorage};
use crate::units::ImageOffset;

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// SHA-256 of an output that an earlier run wrote, in hexadecimal digits.
///
/// # Errors
/// [`Kind::Io`](crate::Kind::Io) when the file cannot be read, [`Kind::Cancelled`](crate::Kind::Cancelled).
pub(crate) fn checksum_of(path: &Path, cancel: &Cancel) -> Result<String> {
    let cannot = |error| Error::io(Layer::Block, "cannot read the output", error).path(path.display().to_string());
    let file = host::open(path, false).map_err(|error| error.into_error("the output", path, Layer::Block))?;
    let sum = sha256(&FileStorage::from_file(file, path)?, cancel).map_err(cannot)?;
    cancel.check()?;
    Ok(sum)
}

/// SHA-256 of the first `size` bytes of a disk, in hexadecimal digits: an export may have more after it.
///
/// # Errors
/// When it cannot be read; [`Kind::Cancelled`](crate::Kind::Cancelled).
pub(crate) fn checksum_of_disk(disk: &dyn Image, size: u64, cancel: &Cancel) -> Result<String> {
    let read = |at: u64, buf: &mut [u8]| {
        let count = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX).min(buf.len());
        let part = buf.get_mut(..count).unwrap_or_default();
        disk.read_at(ImageOffset(at), part).map(|()| part.len())
    };
    let sum = digest(read, cancel)?;
    cancel.check()?;
    Ok(sum)
}

/// SHA-256 of the file's content in hexadecimal digits; when `cancel` is requested it ends early, with a value that means nothing.
pub(super) fn sha256(file: &dyn Storage, cancel: &Cancel) -> io::Result<String> {
    digest(|at, buf| file.read_at(at, buf), cancel)
}

/// SHA-256 of what `read` reads from an offset on, until that is nothing. One thread reads while this one computes; when `cancel`
/// is requested it ends early, with a value that means nothing.
fn digest<E: Send>(
    read: impl Fn(u64, &mut [u8]) -> std::result::Result<usize, E> + Send,
    cancel: &Cancel,
) -> std::result::Result<String, E> {
    let mut digest = Sha256::new();
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel::<std::result::Result<Vec<u8>, E>>(4);
        scope.spawn(move || {
            let mut at = 0;
            loop {
                let mut block = vec![0; READ_BYTES];
                let read = read(at, &mut block);
                let is_last = !matches!(read, Ok(n) if n > 0) || cancel.is_requested();
                let message = read.map(|n| {
                    block.truncate(n);
                    at += n as u64;
                    block
                });
                if sender.send(message).is_err() || is_last {
                    break;
                }
            }
        });
        for block in receiver {
            digest.update(&block?);
        }
        Ok(())
    })
    .map(|()| crate::hex::encode(&digest.finalize()))
}
