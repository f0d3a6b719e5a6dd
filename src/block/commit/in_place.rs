//! The commit in place: changes are written into the image's own file.
//!
//! Order of events: locks; plan; journal (flushed, with its name); space; the plan's phases, each flushed; journal
//! removed, or renamed to the undo record, which is the commit point.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::export_mark;
use super::meter::Meter;
use super::options::{CommitOptions, Committed};
use super::rollback::{self, Outcome};
use super::settle::{Settled, settle};
use super::space::Reservation;
use super::targets::{Targets, editable_format, open_targets, owner_of};
use crate::block::formats::qcow2::{self, Edit, Source, Target, Write};
use crate::block::journal::{self, JournalFile, JournalWriter, Purpose, journal_of_real_path, record_of_real_path};
use crate::block::{Format, HostFiles, Stage, Storage};
use crate::cancel::{Cancel, Reached};
use crate::error::{Error, Kind, Layer, Result};
use crate::units::HostOffset;

/// Data is copied in pieces of this size.
const COPY_BYTES: u64 = 1 << 20;

/// Unused clusters become a hole if at least so many bytes lie together. A hole costs as much time as a flush where the
/// file system discards what is freed (ext4 with `discard`: 4 to 40 ms each, measured); smaller runs stay allocated, and are
/// the first that the next allocation in the image takes.
const PUNCH_BYTES_MIN: u64 = 1 << 20;

const DEVICE_WARNING: &str =
    "the undo journal of a device, and its undo record, are next to its node and do not survive a power cut";

/// [`super::commit_in_place`] on any host.
///
/// # Errors
/// Those of [`super::commit_in_place`].
pub fn in_place(host: &dyn HostFiles, stage: &mut Stage, path: &Path, options: &CommitOptions) -> Result<Committed> {
    // Held until it is known how far the run came.
    let _hold = options.cancel.hold_through();
    let result = write_in_place(host, stage, path, options);
    options.cancel.reach_by(&result, |done| if done.bytes_written > 0 { Reached::CommitPoint } else { Reached::Start });
    result
}

fn write_in_place(host: &dyn HostFiles, stage: &mut Stage, path: &Path, options: &CommitOptions) -> Result<Committed> {
    // The journal is next to the real file, so that it is found by whatever name the image is opened.
    let real_path = host.real_path(path);
    let journal = journal_of_real_path(&real_path);
    if host.exists(&journal) {
        return Err(journal::pending(host, path));
    }
    let format = editable_format(stage, path)?;
    stage.drop_unchanged()?;
    if !stage.is_dirty() {
        let path = path.to_owned();
        return Ok(Committed { path, ..Committed::default() });
    }
    // From here on there are files that have to be removed again.
    let _hold = options.cancel.hold()?;
    let targets = open_targets(host, stage, &real_path, options)?;
    let record = record_of_real_path(&real_path);
    journal::refuse_foreign_record(host, &record, owner_of(&*targets.image.storage))?;
    let edit = match format {
        Format::Raw => plan_raw(stage, &targets)?,
        _ => qcow2::plan_edit(&targets.image.storage, path, stage)?,
    };
    let mut warnings = edit.warnings.clone();
    if targets.image.storage.fingerprint().is_some_and(|print| print.inode == 0) {
        // Device nodes usually live in a folder in memory.
        warnings.push(DEVICE_WARNING.to_owned());
    }
    let purpose = Purpose { is_switch: edit.is_switch, is_kept: options.keep_undo };
    let meter = Meter::new(options.progress, edit.phases.iter().flatten().map(|write| write.source.len()).sum());
    let run = Run { host, stage, targets, edit, purpose, path, real_path: &real_path, cancel: &options.cancel, meter };
    let lengths = run.lengths()?;
    export_mark::refuse_growth(&*run.targets.image.storage, &lengths, path)?;
    let writer = run.write_journal(&journal, &lengths)?;
    run.reserve(&lengths, &journal)?;
    run.refuse_changed_since(&writer, &journal)?;
    let mut phases_begun = 0;
    let result = run.write_phases(&mut phases_begun);
    let settled = match result {
        Ok(()) => {
            let settled = settle(host, &journal, &record, purpose.is_kept, run.owner())
                .map_err(|error| error.hint(run.recover_hint()))?;
            if settled.not_durable.is_none() {
                run.remove_marker();
                // The old tables are given up when nothing restores them any more: no undo, and no journal that a power
                // cut brings back.
                if settled.record.is_none() {
                    run.punch_freed();
                }
            }
            settled
        }
        Err(error) => match run.undo(&writer, phases_begun, &journal, &record) {
            Ok(None) => return Err(error),
            Ok(Some(settled)) => {
                warnings.push(format!("the image holds the changes, but may have unused clusters left: {error}"));
                settled
            }
            Err(undo_error) => return Err(run.half_written(&error, undo_error)),
        },
    };
    warnings.extend(settled.no_record.into_iter().chain(settled.not_durable));
    let bytes_written = run.edit.bytes_written;
    let data_file = run.targets.data_file.as_ref().map(|file| &*file.path);
    let undo_command = settled.record.as_ref().map(|_| journal::command_on("undo", path, data_file));
    let (path, undo_record) = (path.to_owned(), settled.record);
    Ok(Committed { path, bytes_written, warnings, notes: Vec::new(), undo_record, undo_command })
}

fn plan_raw(stage: &Stage, targets: &Targets) -> Result<Edit> {
    let stored =
        targets.image.storage.len().map_err(|e| Error::io(Layer::Block, "cannot find the length of the image", e))?;
    let mut edit = Edit::default();
    let mut writes = Vec::new();
    for (offset, length) in stage.dirty_ranges() {
        if offset.0 + length > stored {
            return Err(Error::unsupported(
                Layer::Block,
                "cannot change the bytes after the last whole sector of the file",
            )
            .path(targets.image.path.display().to_string())
            .hint("make the file's length a multiple of 512 bytes"));
        }
        edit.bytes_written += length;
        let source = Source::Stage { offset, length };
        writes.push(Write { target: Target::Image, offset: HostOffset(offset.0), source });
    }
    edit.phases.push(writes);
    Ok(edit)
}

/// Number of a file in the journal.
pub(super) fn file_number(target: Target) -> usize {
    usize::from(target == Target::DataFile)
}

/// A run that writes into the image's own file.
pub(super) struct Run<'a> {
    pub host: &'a dyn HostFiles,
    pub stage: &'a Stage,
    pub targets: Targets,
    pub edit: Edit,
    pub purpose: Purpose,
    pub path: &'a Path,
    /// The same without symbolic links.
    pub real_path: &'a Path,
    pub cancel: &'a Cancel,
    pub meter: Meter<'a>,
}

impl Run<'_> {
    pub fn io(&self, what: &'static str) -> impl Fn(io::Error) -> Error + use<> {
        let path = self.path.display().to_string();
        let hint = match self.targets.image.storage.is_remote() {
            true => "check the NBD server, and the storage of what it exports",
            false => "check free space and permissions",
        };
        move |e| Error::io(Layer::Block, what, e).path(path.clone()).hint(hint)
    }

    fn files(&self) -> impl Iterator<Item = Arc<dyn Storage>> {
        self.targets.all().map(|(_, open)| Arc::clone(&open.storage))
    }

    /// What the user does about a journal that stays.
    pub fn recover_hint(&self) -> String {
        let data_file = self.targets.data_file.as_ref().map(|file| &*file.path);
        journal::retry_hint(self.host, self.path, data_file)
    }

    /// Lengths of the files before and after.
    fn lengths(&self) -> Result<Vec<JournalFile>> {
        let mut files = Vec::new();
        for (target, open) in self.targets.all() {
            let old_length = open.storage.len().map_err(self.io("cannot find the length of the image"))?;
            let ends = self.edit.phases.iter().flatten().filter(|w| w.target == target);
            let end = ends.map(|w| w.offset.0 + w.source.len()).max().unwrap_or(0);
            let end = if target == Target::Image { end.max(self.edit.image_length) } else { end };
            let name = match target {
                Target::Image if open.storage.is_remote() => export_mark::mark(&*open.storage)?,
                Target::Image => String::new(),
                Target::DataFile => qcow2::data_file_name(&self.targets.image.storage)?.unwrap_or_default(),
            };
            let identity = open.storage.identity();
            files.push(JournalFile { old_length, new_length: end.max(old_length), identity, name });
        }
        Ok(files)
    }

    pub fn remove_marker(&self) {
        if let Some(data_file) = &self.targets.data_file {
            journal::remove_marker(self.host, &data_file.path);
        }
    }

    /// Makes sure that no write can fail for want of space: the new end of each file, and holes that are filled. If there
    /// is not enough, the files are as they were, and the journal goes.
    fn reserve(&self, files: &[JournalFile], journal: &Path) -> Result<()> {
        let full = self.io("cannot reserve the space for the change");
        let mut reserved = Reservation::new(self.files()).map_err(&full)?;
        let mut reserve_all = || {
            for (number, file) in files.iter().enumerate() {
                reserved.lengthen(number, file.new_length)?;
            }
            let mut writes = self.edit.phases.iter().flatten();
            writes.try_for_each(|w| reserved.fill_holes(file_number(w.target), w.offset.0, w.source.len()))
        };
        let Err(error) = reserve_all().map_err(&full) else { return Ok(()) };
        let given_back = reserved.give_back().map_err(self.io("cannot give the reserved space back"));
        match given_back.and_then(|()| self.remove_journal(journal)) {
            Ok(()) => {
                self.remove_marker();
                Err(error)
            }
            Err(undo_error) => Err(self.half_written(&error, undo_error)),
        }
    }

    /// Writes and flushes the phases; `phases_begun` counts them.
    fn write_phases(&self, phases_begun: &mut usize) -> Result<()> {
        let failed = self.io("cannot write to the image");
        let mut is_past_switch = false;
        for (_, open) in self.targets.all() {
            // The file ends at a whole cluster even where a file system cannot reserve.
            let length = self.edit.image_length;
            if Arc::ptr_eq(&open.storage, &self.targets.image.storage) && open.storage.len().map_err(&failed)? < length
            {
                open.storage.set_len(length).map_err(&failed)?;
            }
        }
        for phase in &self.edit.phases {
            *phases_begun += 1;
            // With the header the new tables count; what comes after that is finished.
            is_past_switch |= self.edit.is_switch && phase.iter().any(|w| w.target == Target::Image && w.offset.0 == 0);
            for write in phase {
                if !is_past_switch {
                    self.cancel.check()?;
                }
                let storage = self.targets.get(write.target)?;
                let mut at = 0;
                while at < write.source.len() {
                    let piece = (write.source.len() - at).min(COPY_BYTES);
                    storage.write_at(write.offset.0 + at, &self.content(write, at, piece)?).map_err(&failed)?;
                    at += piece;
                    self.meter.add(piece);
                }
            }
            for (target, open) in self.targets.all() {
                if phase.iter().any(|w| w.target == target) {
                    open.storage.flush().map_err(&failed)?;
                }
            }
        }
        Ok(())
    }

    /// The user to whom the image belongs.
    fn owner(&self) -> Option<u32> {
        owner_of(&*self.targets.image.storage)
    }

    /// Undoes the run after an error. Returns `None` if the image holds its old content, else what became of the journal.
    fn undo(
        &self,
        writer: &JournalWriter<'_>,
        phases_begun: usize,
        journal: &Path,
        record: &Path,
    ) -> Result<Option<Settled>> {
        let files: Vec<_> = self.files().collect();
        let done = rollback::undo(Arc::clone(writer.storage()), &files, self.path, phases_begun <= 1)?;
        let settled = match done.outcome {
            Outcome::Completed | Outcome::GivenUp => {
                Some(settle(self.host, journal, record, done.is_kept, self.owner())?)
            }
            Outcome::Restored | Outcome::NotWritten | Outcome::Undone => {
                self.remove_journal(journal)?;
                None
            }
        };
        self.remove_marker();
        Ok(settled)
    }

    pub fn remove_journal(&self, journal: &Path) -> Result<()> {
        let removed = journal::remove(self.host, journal);
        removed.map_err(|e| Error::io(Layer::Host, "cannot remove the undo journal", e))
    }

    pub fn half_written(&self, error: &Error, undo_error: Error) -> Error {
        let error = error.text_within(Layer::Block, self.path.display());
        Error::new(Kind::Pending, Layer::Block, format!("{error}; and undoing it failed"))
            .path(self.path.display().to_string())
            .source_error(undo_error)
            .hint(self.recover_hint())
    }

    /// Punches holes for large runs of unused clusters. A file system that cannot do it keeps the space allocated.
    fn punch_freed(&self) {
        for (offset, length) in self.edit.freed.iter().filter(|(_, length)| *length >= PUNCH_BYTES_MIN) {
            if let Err(error) = self.targets.image.storage.punch(offset.0, *length) {
                tracing::debug!(%error, %offset, "cannot punch a hole");
                return;
            }
        }
    }
}
