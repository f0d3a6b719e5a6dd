//! The mark by which an export is recognised: NBD has no inode numbers.
//!
//! A journal records the length and a hash of the beginning of the disk as it was before the edit. A recovery computes the same
//! from what the disk holds now and what the journal puts back.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::block::journal::{Journal, JournalFile};
use crate::block::{Storage, StorageExt};
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::hex;
use crate::nbd::IDENTITY;

/// Refuses an edit for which the container in an export would have to grow: a server exports a disk of one size.
pub(super) fn refuse_growth(storage: &dyn Storage, files: &[JournalFile], path: &Path) -> Result<()> {
    let Some(file) = files.first().filter(|file| storage.is_remote() && file.new_length > file.old_length) else {
        return Ok(());
    };
    let missing = file.new_length - file.old_length;
    let what = format!("the image in the export would have to grow by {missing} bytes, but an NBD export has one size");
    Err(Error::refused(Layer::Block, what)
        .with_code(ErrorCode::NotEditableInPlace)
        .path(path.display().to_string())
        .hint("let the server open the image: qemu-nbd -t -k SOCKET -f qcow2 IMAGE, then edit that export"))
}

/// The mark of an export as it is now, for its journal.
pub(super) fn mark(storage: &dyn Storage) -> Result<String> {
    mark_of(storage, &read_beginning(storage)?)
}

/// Whether the journal was made for this export: with what it recorded, the export is again what it was. True for files,
/// which are known otherwise.
pub(super) fn is_of(journal: &Journal, files: &[Arc<dyn Storage>]) -> Result<bool> {
    let (Some(storage), Some(recorded)) = (files.first(), journal.files.first()) else { return Ok(true) };
    if !storage.is_remote() {
        return Ok(true);
    }
    let mut beginning = read_beginning(&**storage)?;
    journal.for_each(|record| {
        let start = usize::try_from(record.offset).unwrap_or(usize::MAX);
        if let Some(place) = beginning.get_mut(start..) {
            let old = record.old.unwrap_or_default();
            let length = place.len().min(usize::try_from(record.length).unwrap_or(usize::MAX));
            let old = old.iter().copied().chain(std::iter::repeat(0));
            place.iter_mut().take(length).zip(old).for_each(|(byte, old)| *byte = old);
        }
        Ok(())
    })?;
    Ok(mark_of(&**storage, &beginning)? == recorded.name)
}

fn read_beginning(storage: &dyn Storage) -> Result<Vec<u8>> {
    let length = storage.len().map_err(unreadable)?.min(IDENTITY);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    storage.read_exact_at(0, &mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn mark_of(storage: &dyn Storage, beginning: &[u8]) -> Result<String> {
    let length = storage.len().map_err(unreadable)?;
    Ok(format!("export of {length} bytes, sha256 of the beginning {}", hex::encode(&Sha256::digest(beginning))))
}

fn unreadable(error: std::io::Error) -> Error {
    Error::io(Layer::Block, "cannot read the beginning of the export", error)
}
