//! The journal of a run: what it overwrites, and what an undo of it will need.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::in_place::{Run, file_number};
use crate::block::formats::qcow2::{Source, Target, Write};
use crate::block::journal::{self, Entry, Journal, JournalFile, JournalWriter, PIECE_MAX, Record, SECTOR, sector_sums};
use crate::block::{HostRun, Storage, StorageExt, is_zero};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::nbd::NbdStorage;
use crate::units::ImageOffset;

/// The writes of the phases by file, offset and length.
type Overwritten<'a> = BTreeMap<(usize, u64, u64), Vec<&'a Write>>;

impl Run<'_> {
    /// The content of a piece of a write.
    pub(super) fn content(&self, write: &Write, from: u64, length: u64) -> Result<Vec<u8>> {
        let length = usize::try_from(length).unwrap_or(0);
        match &write.source {
            Source::Bytes(bytes) => usize::try_from(from)
                .ok()
                .and_then(|from| bytes.get(from..from.checked_add(length)?))
                .map(<[u8]>::to_vec)
                .ok_or_else(|| Error::bug(Layer::Block, "a piece beyond its write")),
            Source::Stage { offset, .. } => {
                let mut content = vec![0; length];
                let start = offset.0 + from;
                let inside = usize::try_from(self.stage.len().saturating_sub(start)).unwrap_or(usize::MAX);
                let part = content.get_mut(..length.min(inside)).unwrap_or_default();
                // All of the piece may be in the part of the last cluster that is after the disk's end.
                if !part.is_empty() {
                    self.stage.read_at(ImageOffset(start), part)?;
                }
                Ok(content)
            }
        }
    }

    /// Writes, seals and returns the journal. On an error it is removed again.
    pub(super) fn write_journal(&self, path: &Path, files: &[JournalFile]) -> Result<JournalWriter<'_>> {
        let ranges = self.overwritten(files)?;
        self.meter.expect(ranges.keys().map(|(_, _, length)| length).sum());
        let bytes: u64 =
            ranges.iter().map(|((_, _, length), writes)| length + writes.len() as u64 * (length / 128 + 4)).sum();
        let bytes = bytes + if self.purpose.is_kept { self.bytes_for_undo() } else { 0 };
        let expected = bytes + 64 * (bytes / PIECE_MAX + ranges.len() as u64 + 2) + 4096;
        let mut writer = JournalWriter::create(self.host, path, self.purpose, files, expected)?;
        let filled = ranges.iter().try_for_each(|((file, offset, length), writes)| {
            self.record_range(&mut writer, *file, *offset, *length, writes)
        });
        let filled =
            filled.and_then(|()| if self.purpose.is_kept { self.record_for_undo(&mut writer, files) } else { Ok(()) });
        // A marker counts only once the journal of the image that it names is complete.
        let marked = filled.and_then(|()| match &self.targets.data_file {
            Some(data_file) => journal::create_marker(self.host, &data_file.path, self.real_path),
            None => Ok(()),
        });
        let is_marked = marked.is_ok();
        let sealed = marked
            .and_then(|()| writer.seal().map_err(self.journal_error()).map_err(|e| e.path(path.display().to_string())));
        match sealed {
            Ok(()) => Ok(writer),
            Err(error) => {
                if !writer.abandon() {
                    // Nothing was written to the image, but the next command finds a whole journal.
                    return Err(Error::new(
                        Kind::Pending,
                        Layer::Block,
                        "the image is as it was, but the journal of a run that failed stays",
                    )
                    .path(self.path.display().to_string())
                    .source_error(error)
                    .hint(self.recover_hint()));
                }
                if is_marked {
                    self.remove_marker();
                }
                Err(error)
            }
        }
    }

    /// The ranges inside the old files that the run writes, each with its writes in the order of the phases.
    fn overwritten(&self, files: &[JournalFile]) -> Result<Overwritten<'_>> {
        let mut ranges = Overwritten::new();
        for write in self.edit.phases.iter().flatten() {
            let file = file_number(write.target);
            let old_length = files.get(file).map_or(0, |f| f.old_length);
            let length = write.source.len().min(old_length.saturating_sub(write.offset.0));
            if length > 0 {
                ranges.entry((file, write.offset.0, length)).or_default().push(write);
            }
        }
        // Records must not overlap: each sector has one old content and one history.
        let mut end = (0, 0);
        for (file, offset, length) in ranges.keys() {
            if (*file, *offset) < end {
                return Err(Error::bug(Layer::Block, "writes of an edit overlap").at(*offset));
            }
            end = (*file, offset + length);
        }
        Ok(ranges)
    }

    fn record_range(
        &self,
        writer: &mut JournalWriter<'_>,
        file: usize,
        offset: u64,
        length: u64,
        writes: &[&Write],
    ) -> Result<()> {
        let target = if file == 0 { Target::Image } else { Target::DataFile };
        let storage = self.targets.get(target)?;
        let mut at = 0;
        while at < length {
            self.cancel.check()?;
            let place = offset + at;
            let run = storage.run_at(place).map_err(self.io("cannot read the image"))?;
            let (is_hole, piece) = piece_of(run, (length - at).min(PIECE_MAX));
            let old = if is_hole {
                None
            } else {
                let mut old = vec![0; usize::try_from(piece).unwrap_or(0)];
                storage.read_exact_at(place, &mut old).map_err(self.io("cannot read the image"))?;
                self.refuse_changed(storage, place, &old)?;
                Some(old)
            };
            let variants = writes.iter().map(|w| Ok(sector_sums(&self.content(w, at, piece)?)));
            let variants = variants.collect::<Result<Vec<_>>>()?;
            let record = Record { file, offset: place, length: piece, old, variants };
            let added = writer.add(&Entry::Overwritten(record));
            added.map_err(self.journal_error())?;
            at += piece;
            self.meter.add(piece);
        }
        Ok(())
    }

    /// Refuses a remote image of which the run read something else than it holds now: nothing but its content tells that
    /// something wrote to it meanwhile.
    fn refuse_changed(&self, storage: &dyn Storage, offset: u64, now: &[u8]) -> Result<()> {
        let Some(parts) = self.stage.image().parts().filter(|_| storage.is_remote()) else { return Ok(()) };
        let mut read = vec![0; now.len()];
        parts.file.read_exact_at(offset, &mut read).map_err(self.io("cannot read the image"))?;
        let export = parts.file.as_any().and_then(|any| any.downcast_ref::<NbdStorage>());
        let is_as_planned = export.map_or(Ok(true), |export| export.is_as_first_read(offset, now.len() as u64));
        let is_as_planned = is_as_planned.map_err(self.io("cannot read the image"))?;
        if is_as_planned && read == now { Ok(()) } else { Err(self.changed(offset)) }
    }

    /// Compares a remote image once more with the journal, right before the first write: nothing else tells that something
    /// writes to it, too. What was changed is refused, and the journal removed: nothing was written.
    pub(super) fn refuse_changed_since(&self, writer: &JournalWriter<'_>, path: &Path) -> Result<()> {
        if !self.targets.image.storage.is_remote() {
            return Ok(());
        }
        let Err(error) = self.compare_with_journal(writer) else { return Ok(()) };
        self.remove_journal(path).map_err(|undo_error| self.half_written(&error, undo_error))?;
        Err(error)
    }

    fn compare_with_journal(&self, writer: &JournalWriter<'_>) -> Result<()> {
        let image = &self.targets.image.storage;
        let journal = Journal::open(Arc::clone(writer.storage()))?;
        let journal = journal.ok_or_else(|| Error::bug(Layer::Block, "a journal that was not completed"))?;
        journal.for_each(|record| {
            self.cancel.check()?;
            let mut now = vec![0; usize::try_from(record.length).unwrap_or(0)];
            image.read_exact_at(record.offset, &mut now).map_err(self.io("cannot read the image"))?;
            let is_old = record.old.map_or_else(|| is_zero(&now), |old| old == now);
            if is_old { Ok(()) } else { Err(self.changed(record.offset)) }
        })
    }

    fn changed(&self, offset: u64) -> Error {
        Error::refused(Layer::Block, "the export changed while winject worked on it")
            .with_code(ErrorCode::FileChanged)
            .path(self.path.display().to_string())
            .at(offset)
            .hint("make sure that nothing else uses the disk, and run winject again")
    }

    fn journal_error(&self) -> impl Fn(io::Error) -> Error {
        let path = self.path.display().to_string();
        move |error| {
            let hint = journal::journal_hint(&error, self.host);
            Error::io(Layer::Block, "cannot write the undo journal", error).path(path.clone()).hint(hint)
        }
    }

    /// Records what an undo needs and recovery does not: what is new beyond the old ends, the clusters that become free,
    /// and what refcounts have to be while the undo switches.
    fn record_for_undo(&self, writer: &mut JournalWriter<'_>, files: &[JournalFile]) -> Result<()> {
        let mut last = BTreeMap::new();
        for write in self.edit.phases.iter().flatten() {
            last.insert((write.target, write.offset), write);
        }
        for write in last.into_values() {
            let file = file_number(write.target);
            let (start, length) = (write.offset.0, write.source.len());
            let inside = files.get(file).map_or(0, |f| f.old_length).saturating_sub(start).min(length);
            self.add_witnesses(writer, (file, start + inside, length - inside), |at, piece| {
                self.content(write, at - start, piece)
            })?;
        }
        let image = &*self.targets.image.storage;
        for (offset, length) in self.edit.freed.iter().chain(&self.edit.abandoned) {
            self.add_witnesses(writer, (0, offset.0, *length), |at, piece| {
                let mut content = vec![0; usize::try_from(piece).unwrap_or(0)];
                image.read_or_zeros_at(at, &mut content).map_err(self.io("cannot read the image"))?;
                Ok(content)
            })?;
        }
        match self.edit.phases.as_slice() {
            [first, _, last] if self.edit.is_switch => last.iter().try_for_each(|w| self.add_between(writer, w, first)),
            _ => Ok(()),
        }
    }

    /// An upper bound for the length of what [`record_for_undo`](Self::record_for_undo) adds, for a reservation.
    fn bytes_for_undo(&self) -> u64 {
        let freed = self.edit.freed.iter().chain(&self.edit.abandoned).map(|(_, length)| length / 128 + 64);
        let new = self.edit.phases.iter().flatten().map(|write| write.source.len() / 128 + 64);
        let between = self.edit.phases.get(2).into_iter().flatten().map(|write| write.source.len() + 64);
        freed.chain(new).chain(between).sum()
    }

    /// Records the checksums of a range, whose content `read` gives.
    fn add_witnesses(
        &self,
        writer: &mut JournalWriter<'_>,
        (file, offset, length): (usize, u64, u64),
        read: impl Fn(u64, u64) -> Result<Vec<u8>>,
    ) -> Result<()> {
        let mut at = 0;
        while at < length {
            self.cancel.check()?;
            let (offset, piece) = (offset + at, (length - at).min(PIECE_MAX));
            let sums = sector_sums(&read(offset, piece)?);
            let witness = Entry::Witness { file, offset, length: piece, sums };
            writer.add(&witness).map_err(self.journal_error())?;
            at += piece;
        }
        Ok(())
    }

    /// Records what the place of a write of the last phase holds before that phase.
    fn add_between(&self, writer: &mut JournalWriter<'_>, write: &Write, first: &[Write]) -> Result<()> {
        let earlier = first.iter().find(|w| (w.target, w.offset) == (write.target, write.offset));
        let mut at = 0;
        while at < write.source.len() {
            let (offset, piece) = (write.offset.0 + at, (write.source.len() - at).min(PIECE_MAX));
            let bytes = match earlier {
                Some(earlier) => self.content(earlier, at, piece)?,
                None => {
                    let mut bytes = vec![0; usize::try_from(piece).unwrap_or(0)];
                    let read = self.targets.get(write.target)?.read_or_zeros_at(offset, &mut bytes);
                    read.map_err(self.io("cannot read the image"))?;
                    bytes
                }
            };
            let added = writer.add(&Entry::Between { offset, bytes });
            added.map_err(self.journal_error())?;
            at += piece;
        }
        Ok(())
    }
}

/// Whether the next piece of a range is a hole, and its length, at most `rest` bytes: a record is a hole or data, so that
/// a hole is never filled when it is restored. `run` begins where the piece does.
fn piece_of(run: HostRun, rest: u64) -> (bool, u64) {
    let sector = SECTOR as u64;
    if run.length >= rest {
        return (!run.is_data, rest);
    }
    let (whole, is_split) = (run.length / sector * sector, !run.length.is_multiple_of(sector));
    // A sector that is partly a hole is data.
    match (run.is_data, whole) {
        (false, 0) => (false, sector.min(rest)),
        (false, whole) => (true, whole),
        (true, whole) => (false, (whole + if is_split || whole == 0 { sector } else { 0 }).min(rest)),
    }
}

const _: () = assert!(PIECE_MAX.is_multiple_of(SECTOR as u64));
