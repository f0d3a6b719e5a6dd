//! Putting back what a journal holds, and the questions of a qcow2 file before and after it.

use std::path::Path;
use std::sync::Arc;

use super::meter::{JournalPass, Meter, OnJournalProgress};
use crate::block::journal::{Entry, Journal, Record, SECTOR};
use crate::block::{Storage, StorageExt, is_zero, qcow2};
use crate::error::{Error, Kind, Layer, Result};
use crate::units::HostOffset;

pub(super) fn io(error: std::io::Error) -> Error {
    Error::io(Layer::Block, "cannot restore the old content", error)
}

/// Writes the header that the host shows once more, and flushes it. The flush that should have stored it may have
/// failed; after a failed flush Linux shows the pages as clean although they were never stored. Only when the header is
/// durable may clusters be freed that the tables of another header use.
pub(super) fn sync_header(image: &Arc<dyn Storage>) -> Result<()> {
    let mut sector = [0; SECTOR];
    image.read_exact_at(0, &mut sector).map_err(io)?;
    image.write_at(0, &sector).map_err(io)?;
    image.flush().map_err(io)
}

/// Whether the image uses the L1 table of the old header, whatever else of its header has changed: QEMU rewrites the header
/// of an image that it repairs.
pub(super) fn has_old_tables(journal: &Journal, image: &Arc<dyn Storage>) -> Result<bool> {
    let mut old = None;
    journal.for_each(|record| {
        if (record.file, record.offset) == (0, 0) {
            old = record.old.as_deref().and_then(qcow2::l1_table_offset);
        }
        Ok(())
    })?;
    let mut sector = [0; SECTOR];
    image.read_exact_at(0, &mut sector).map_err(io)?;
    Ok(old.is_some() && old == qcow2::l1_table_offset(&sector))
}

/// Cuts off what the interrupted run added after the old end, unless something refers to it: a guest may have run in
/// the meantime, whose new clusters are there.
pub(super) fn cut_unused_end(image: &Arc<dyn Storage>, old_length: u64, path: &Path) -> Result<()> {
    let length = image.len().map_err(io)?;
    if length <= old_length {
        return Ok(());
    }
    let (used, cluster_size) = match qcow2::end_in_use(image, path) {
        Ok(end) => end,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the file stays longer than it needs to be");
            return Ok(());
        }
    };
    let mut end = used.0.clamp(old_length, length);
    // The last cluster may have been cut short before. What is missing of it is zeros, unless a guest wrote there.
    if end - old_length < cluster_size {
        let mut rest = vec![0; usize::try_from(end - old_length).unwrap_or(0)];
        image.read_exact_at(old_length, &mut rest).map_err(io)?;
        if is_zero(&rest) {
            end = old_length;
        }
    }
    if end < length {
        image.set_len(end).map_err(io)?;
        image.flush().map_err(io)?;
    }
    Ok(())
}

/// Whether the old refcounts would be too low: a guest that ran after the interruption may have taken the very clusters
/// that the run wanted, and then its refcounts look like the run's. Returns where.
pub(super) fn lost_reference(journal: &Journal, image: &Arc<dyn Storage>, path: &Path) -> Result<Option<u64>> {
    let blocks = match qcow2::refcount_blocks(image, path) {
        Ok(blocks) => blocks,
        // An image that is damaged otherwise is at least given back as it was.
        Err(error) if error.kind() != Kind::Io => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut old = Vec::new();
    journal.for_each(|record| {
        let end = record.offset.saturating_add(record.length);
        let first = blocks.partition_point(|block| block.end.0 <= record.offset);
        if record.file == 0 && blocks.get(first).is_some_and(|block| block.start.0 < end) {
            let zeros = || vec![0; usize::try_from(record.length).unwrap_or(0)];
            old.push((HostOffset(record.offset), record.old.unwrap_or_else(zeros)));
        }
        Ok(())
    })?;
    match qcow2::first_lost_reference(image, path, &old) {
        Err(error) if error.kind() != Kind::Io => Ok(None),
        result => Ok(result?.map(u64::from)),
    }
}

/// Takes a finished run back, from whatever step of a run or of an undo the files are at: for a switch, what both the old
/// and the new tables need; then the old header; only then the rest.
pub(super) fn put_back(
    journal: &Journal,
    files: &[Arc<dyn Storage>],
    path: &Path,
    on_progress: OnJournalProgress<'_>,
) -> Result<()> {
    let (Some(image), Some(file)) = (files.first(), journal.files.first()) else {
        return Err(Error::bug(Layer::Block, "a journal without files"));
    };
    if !journal.purpose.is_switch {
        return restore(journal, files, &restore_meter(journal, on_progress));
    }
    let meter = restore_meter(journal, on_progress);
    meter.expect(journal.ranges.between);
    journal.for_each_entry(|entry| match entry {
        Entry::Between { offset, bytes } => {
            image.write_at(offset, &bytes).map_err(io)?;
            meter.add(bytes.len() as u64);
            Ok(())
        }
        _ => Ok(()),
    })?;
    image.flush().map_err(io)?;
    journal.for_each(|record| match record.old {
        Some(old) if (record.file, record.offset) == (0, 0) => image.write_at(0, &old).map_err(io),
        _ => Ok(()),
    })?;
    image.flush().map_err(io)?;
    restore(journal, files, &meter)?;
    cut_unused_end(image, file.old_length, path)
}

/// The meter of a [`restore`].
pub(super) fn restore_meter<'a>(journal: &Journal, on_progress: OnJournalProgress<'a>) -> Meter<'a> {
    Meter::of_pass(on_progress, JournalPass::Restore, journal.ranges.overwritten)
}

/// Writes the old content of everything that the run overwrites, and flushes it. Files get their old lengths, except for a
/// switch: see [`cut_unused_end`].
pub(super) fn restore(journal: &Journal, files: &[Arc<dyn Storage>], meter: &Meter<'_>) -> Result<()> {
    journal.for_each(|record| {
        files.get(record.file).map_or(Ok(()), |storage| restore_record(storage, &record))?;
        meter.add(record.length);
        Ok(())
    })?;
    for (storage, file) in files.iter().zip(&journal.files) {
        storage.flush().map_err(io)?;
        restore_length(journal, storage, file.old_length)?;
    }
    Ok(())
}

/// Cuts a file to its old length. Last: as long as the tables are new, the file must hold what they refer to.
fn restore_length(journal: &Journal, storage: &Arc<dyn Storage>, old_length: u64) -> Result<()> {
    if !journal.purpose.is_switch && storage.len().map_err(io)? != old_length {
        storage.set_len(old_length).map_err(io)?;
        storage.flush().map_err(io)?;
    }
    Ok(())
}

/// Like [`restore`], for a run that failed in its first phase, which writes no sector twice: what reads as old was not
/// changed, and is not written. A later run cannot know that, see [`sync_header`].
pub(super) fn restore_first_phase(journal: &Journal, files: &[Arc<dyn Storage>]) -> Result<()> {
    let mut is_changed = vec![false; files.len()];
    journal.for_each(|record| {
        let Some(storage) = files.get(record.file) else { return Ok(()) };
        let mut found = vec![0; usize::try_from(record.length).unwrap_or(0)];
        storage.read_exact_at(record.offset, &mut found).map_err(io)?;
        match &record.old {
            Some(old) if *old == found => return Ok(()),
            None if is_zero(&found) => {
                // Space that was reserved there is given back.
                if let Err(error) = storage.punch(record.offset, record.length) {
                    tracing::debug!(%error, offset = record.offset, "cannot punch a hole");
                }
                return Ok(());
            }
            _ => {}
        }
        if let Some(is_changed) = is_changed.get_mut(record.file) {
            *is_changed = true;
        }
        restore_record(storage, &record)
    })?;
    for ((storage, file), is_changed) in files.iter().zip(&journal.files).zip(is_changed) {
        if is_changed {
            storage.flush().map_err(io)?;
        }
        restore_length(journal, storage, file.old_length)?;
    }
    Ok(())
}

fn restore_record(storage: &Arc<dyn Storage>, record: &Record) -> Result<()> {
    match &record.old {
        Some(old) => storage.write_at(record.offset, old).map_err(io),
        None => storage.punch(record.offset, record.length).or_else(|_| {
            let zeros = vec![0; usize::try_from(record.length).unwrap_or(0)];
            storage.write_at(record.offset, &zeros).map_err(io)
        }),
    }
}
