//! What the files of an image hold, compared with a journal.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::meter::{JournalPass, Meter, OnJournalProgress};
use crate::block::journal::{Entry, Journal, Record, SECTOR, sector_sums};
use crate::block::{Storage, StorageExt};
use crate::error::{Error, Layer, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Every sector is old or what the run made of it.
    Ours,
    /// Like `Ours`, and the header is the new one.
    Switched,
    /// Another program wrote to the file; offset of the first foreign sector.
    Changed(u64),
}

pub(super) struct Examined {
    pub state: State,
    /// Offset of the first foreign sector, whatever the state.
    pub changed: Option<u64>,
    /// Some sectors are new, and were something else before.
    pub has_new: bool,
    /// Some sectors are old and some are new.
    pub is_half_written: bool,
    /// Every byte is what the run was to make of it, and that can be told (nothing was added at the end of a file,
    /// which the journal does not cover). A run with a switch is complete when it has [switched](State::Switched).
    pub is_complete: bool,
}

/// Compares every sector that the run overwrites, for a run that may be anywhere between its beginning and its end.
/// `meter` counts the bytes of the image.
pub(super) fn examine(journal: &Journal, files: &[Arc<dyn Storage>], meter: &Meter<'_>) -> Result<Examined> {
    let (mut has_old, mut has_new) = (false, false);
    let mut is_complete =
        !journal.purpose.is_switch && journal.files.iter().all(|file| file.new_length == file.old_length);
    let mut changed = None;
    for (storage, file) in files.iter().zip(&journal.files) {
        let length = storage.len().map_err(unreadable)?;
        if length < file.old_length || length > file.new_length {
            changed.get_or_insert(length);
        }
    }
    let mut is_switched = false;
    journal.for_each(|record| {
        let Some(storage) = files.get(record.file) else { return Ok(()) };
        let mut found = vec![0; usize::try_from(record.length).unwrap_or(0)];
        storage.read_or_zeros_at(record.offset, &mut found).map_err(unreadable)?;
        let (sums_found, sums_old) = (sector_sums(&found), old_sums(&record));
        for (index, sum) in sums_found.iter().enumerate() {
            let is_old = sums_old.get(index) == Some(sum);
            let is_new = record.variants.iter().any(|v| v.get(index) == Some(sum));
            has_old |= is_old && !is_new;
            has_new |= is_new && !is_old;
            is_complete &= record.variants.last().is_some_and(|v| v.get(index) == Some(sum));
            if !is_old && !is_new {
                changed.get_or_insert(record.offset + (index * SECTOR) as u64);
            }
            is_switched |= journal.purpose.is_switch && record.file == 0 && record.offset == 0 && index == 0 && !is_old;
        }
        meter.add(record.length);
        Ok(())
    })?;
    let state = match (is_switched, changed) {
        (true, _) => State::Switched,
        (false, Some(offset)) => State::Changed(offset),
        (false, None) => State::Ours,
    };
    let is_complete = is_complete && has_new && state == State::Ours;
    Ok(Examined { state, changed, has_new, is_half_written: has_old && has_new, is_complete })
}

fn old_sums(record: &Record) -> Vec<u32> {
    match &record.old {
        Some(old) => sector_sums(old),
        None => sector_sums(&vec![0; usize::try_from(record.length).unwrap_or(0)]),
    }
}

fn unreadable(error: std::io::Error) -> Error {
    Error::io(Layer::Block, "cannot compare the image with its journal", error)
}

/// How far files are from what a run left behind.
#[derive(Debug, Default)]
pub(super) struct Differences {
    /// The places that are not as the run left them: file, offset, length in bytes. Not all if there are many.
    pub places: Vec<(usize, u64, u64)>,
    /// How many there are.
    pub count: usize,
    /// Whether everything is as it was before the run.
    pub is_old: bool,
}

impl Differences {
    /// Places that are named at most.
    pub const PLACES_MAX: usize = 20;

    /// Whether everything is as the run left it.
    pub fn is_none(&self) -> bool {
        self.count == 0
    }

    fn add(&mut self, file: usize, offset: u64, length: u64) {
        if let Some((last, start, so_far)) = self.places.last_mut()
            && (*last, start.saturating_add(*so_far)) == (file, offset)
        {
            *so_far += length;
            return;
        }
        self.count += 1;
        if self.places.len() < Self::PLACES_MAX {
            self.places.push((file, offset, length));
        }
    }
}

/// Compares the files with what the whole run left behind, the places included that only an undo needs.
pub(super) fn differences(
    journal: &Journal,
    files: &[Arc<dyn Storage>],
    on_progress: OnJournalProgress<'_>,
) -> Result<Differences> {
    let compared = journal.ranges.overwritten.saturating_add(journal.ranges.witnessed);
    let meter = Meter::of_pass(on_progress, JournalPass::Compare, compared);
    let mut found = Differences { is_old: true, ..Differences::default() };
    for (number, (storage, file)) in files.iter().zip(&journal.files).enumerate() {
        let length = storage.len().map_err(unreadable)?;
        found.is_old &= length == file.old_length;
        if length != file.new_length {
            found.add(number, length.min(file.new_length), length.abs_diff(file.new_length));
        }
    }
    journal.for_each_entry(|entry| {
        let (file, offset, length, expected) = match &entry {
            Entry::Overwritten(record) => (record.file, record.offset, record.length, record.variants.last()),
            Entry::Witness { file, offset, length, sums } => (*file, *offset, *length, Some(sums)),
            Entry::Between { .. } => return Ok(()),
        };
        let Some(storage) = files.get(file) else { return Ok(()) };
        let mut content = vec![0; usize::try_from(length).unwrap_or(0)];
        storage.read_or_zeros_at(offset, &mut content).map_err(unreadable)?;
        let sums = sector_sums(&content);
        if let Entry::Overwritten(record) = &entry
            && found.is_old
        {
            found.is_old = old_sums(record) == sums;
        }
        for (index, (sum, sector)) in sums.iter().zip(content.chunks(SECTOR)).enumerate() {
            if expected.and_then(|sums| sums.get(index)) != Some(sum) {
                found.add(file, offset + (index * SECTOR) as u64, sector.len() as u64);
            }
        }
        meter.add(length);
        Ok(())
    })?;
    Ok(found)
}

/// Offset of the first place that only an undo needs and that is neither as the run left it nor as the undo makes it on
/// its way.
pub(super) fn first_changed_witness(
    journal: &Journal,
    files: &[Arc<dyn Storage>],
    meter: &Meter<'_>,
) -> Result<Option<u64>> {
    meter.expect(journal.ranges.witnessed);
    let mut between = BTreeMap::new();
    journal.for_each_entry(|entry| {
        if let Entry::Between { offset, bytes } = entry {
            let sums = sector_sums(&bytes).into_iter().enumerate();
            between.extend(sums.map(|(index, sum)| (offset + (index * SECTOR) as u64, sum)));
        }
        Ok(())
    })?;
    let mut changed = None;
    journal.for_each_entry(|entry| {
        let Entry::Witness { file, offset, length, sums } = entry else { return Ok(()) };
        let Some(storage) = files.get(file) else { return Ok(()) };
        let mut content = vec![0; usize::try_from(length).unwrap_or(0)];
        storage.read_or_zeros_at(offset, &mut content).map_err(unreadable)?;
        for (index, (sum, expected)) in sector_sums(&content).iter().zip(&sums).enumerate() {
            let at = offset + (index * SECTOR) as u64;
            if sum != expected && (file != 0 || between.get(&at) != Some(sum)) {
                changed.get_or_insert(at);
            }
        }
        meter.add(length);
        Ok(())
    })?;
    Ok(changed)
}
