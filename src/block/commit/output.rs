//! A new image that appears under its name only when it is complete.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::block::journal::{self, journal_of_real_path, record_of_real_path, refuse_foreign_record};
use crate::block::{Locking, Storage};
use crate::cancel::{Cancel, Reached};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::host::{AtomicFile, HostFiles, RunFiles, Target, folder_of, is_nbd_name};
use crate::nbd::is_same_export;

/// An image that is being written. Dropped before it is finished, it leaves nothing.
pub(crate) struct Output<'h> {
    // Fields drop in this order: the temporary file is gone before the lock is.
    file: AtomicFile<'h>,
    /// The file that is going to be replaced, locked until that is done.
    _replaced: Option<Arc<dyn Storage>>,
    cancel: Cancel,
    host: &'h dyn HostFiles,
    /// Where the undo record of a file of this name is.
    record: PathBuf,
}

impl<'h> Output<'h> {
    /// Begins a new file that is to become `target`, made from the files `sources` and not open to more users than they
    /// are.
    ///
    /// # Errors
    /// [`Kind::Refused`] when the file that is to be replaced is in use, [`Kind::Pending`] when an interrupted run left
    /// a journal for it, [`Kind::Io`] when the folder cannot be written, [`Kind::Cancelled`] when the job was asked to
    /// stop.
    pub(crate) fn create(
        host: &'h dyn HostFiles,
        target: Target,
        sources: &[PathBuf],
        locking: Locking,
        cancel: &Cancel,
    ) -> Result<Self> {
        let hold = cancel.hold()?;
        let place = place_of(host, target.path());
        let replaced = lock_target(host, target.path(), &place, locking)?;
        let file = AtomicFile::create_alone_on(host, target, sources, hold)?;
        Ok(Self { file, _replaced: replaced, host, cancel: cancel.clone(), record: record_of_real_path(&place) })
    }

    /// The file under its temporary name.
    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        self.file.storage()
    }

    /// See [`AtomicFile::finish`]. The undo record of a file that was replaced goes with it.
    pub(crate) fn finish(self) -> Result<()> {
        let Self { file, _replaced: replaced, cancel, host, record } = self;
        // Counted as held until the caller knows: a signal in between must not be answered with "not written".
        let _hold = cancel.hold_through();
        file.finish()?;
        cancel.reach(Reached::CommitPoint);
        let remove = || host.remove(&record).map_err(|e| Error::io(Layer::Host, "cannot remove the undo record", e));
        let owner = replaced.as_ref().and_then(|replaced| replaced.identity()).map(|identity| identity.owner);
        if replaced.is_some()
            && host.exists(&record)
            && let Err(error) = refuse_foreign_record(host, &record, owner).and_then(|()| remove())
        {
            tracing::warn!(path = %record.display(), %error, "the undo record of the file that was replaced stays");
        }
        Ok(())
    }
}

/// The file that the name of a new image leads to: a link stays a link.
///
/// # Errors
/// [`Kind::Usage`] for the name of something else than a file, or of a file that exists and is not to be replaced.
pub(crate) fn resolve_output(out: &Path, overwrite: bool) -> Result<Target> {
    let target = Target::resolve(out, "the output")?;
    target.refuse_stream()?;
    target.refuse_existing(overwrite)?;
    Ok(target)
}

/// The path of a file that need not exist, without symbolic links.
fn place_of(host: &dyn HostFiles, target: &Path) -> PathBuf {
    host.real_path(folder_of(target)).join(target.file_name().unwrap_or_default())
}

/// Locks the file that an output is going to replace, until the returned storage is dropped: a program that uses it
/// would go on with a file that has no name any more. Nor may a journal lie there: it would be taken for the new
/// file's.
fn lock_target(
    host: &dyn HostFiles,
    target: &Path,
    place: &Path,
    locking: Locking,
) -> Result<Option<Arc<dyn Storage>>> {
    let journal_file = journal_of_real_path(place);
    if host.exists(&journal_file) {
        return Err(Error::new(
            Kind::Pending,
            Layer::Host,
            "an interrupted run left a journal for a file of this name",
        )
        .path(journal_file.display().to_string())
        .hint(match host.exists(target) {
            true => format!("choose another name, or {}", journal::recover_hint(host, target, None)),
            false => "choose another name, or remove that journal: its image is gone".to_owned(),
        }));
    }
    if !host.exists(target) {
        return Ok(None);
    }
    host.lock(target, locking).map(Some)
}

/// Refuses an output that is a file of the chain it is made from, whatever it is called there.
pub(crate) fn refuse_own_files(files: &[PathBuf], target: &Path) -> Result<()> {
    if is_nbd_name(target) {
        return match files.iter().any(|file| is_same_export(file, target)) {
            true => Err(Error::new(Kind::Usage, Layer::Host, "cannot write the output: it is the input image")
                .with_code(ErrorCode::OutputIsInput)
                .path(target.display().to_string())
                .hint("name another export, or edit this one: --in-place")),
            false => Ok(()),
        };
    }
    let mut run = RunFiles::default();
    files.iter().for_each(|file| run.add_input("the input image, or a file that it needs", file));
    run.add_output("the output", target)
}
