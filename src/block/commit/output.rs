//! A new file that appears under its name only when it is complete.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::CommitOptions;
use crate::block::journal::journal_beside;
use crate::block::{Locking, Storage};
use crate::cancel::{Cancel, Hold};
use crate::error::{Error, Kind, Layer, Result};
use crate::host::{HostFiles, folder_of};
use crate::host::{RunFiles, common_mode, leftover};

/// How many names for the temporary file are tried.
const NAMES_MAX: u32 = 100;

/// A file that is written under a temporary name beside its target and renamed when it is complete. Dropped before
/// that, it is removed.
pub struct Output<'a> {
    host: &'a dyn HostFiles,
    temporary: PathBuf,
    target: PathBuf,
    storage: Arc<dyn Storage>,
    replace: bool,
    /// The file that is going to be replaced, locked until that is done.
    replaced: Option<Arc<dyn Storage>>,
    is_finished: bool,
    cancel: Cancel,
    _hold: Hold,
}

impl std::fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("temporary", &self.temporary).field("target", &self.target).finish()
    }
}

impl<'a> Output<'a> {
    /// Begins a new file that is to become `target`, made from the files `sources` and not open to more users than they
    /// are.
    ///
    /// # Errors
    /// [`Kind::Usage`] when `target` exists and is not to be replaced, [`Kind::Refused`] when it is in use,
    /// [`Kind::Pending`] when an interrupted run left a journal for it, [`Kind::Io`] when the folder cannot be written.
    pub fn create(
        host: &'a dyn HostFiles,
        target: &Path,
        sources: &[PathBuf],
        options: &CommitOptions,
    ) -> Result<Self> {
        let replace = options.overwrite;
        if !replace && host.exists(target) {
            return Err(exists(target));
        }
        let hold = options.cancel.hold()?;
        let replaced = lock_target(host, target, options.locking)?;
        host.remove_leftovers(target);
        let mode = common_mode(sources, folder_of(target));
        for number in 0..NAMES_MAX {
            let mut name = leftover::prefix(target);
            name.push(format!("{}n{number}{}", std::process::id(), leftover::SUFFIX));
            let temporary = target.with_file_name(name);
            match host.create(&temporary, mode) {
                Ok(storage) => {
                    let target = target.to_owned();
                    return Ok(Self {
                        host,
                        temporary,
                        target,
                        storage,
                        replace,
                        replaced,
                        is_finished: false,
                        cancel: options.cancel.clone(),
                        _hold: hold,
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    return Err(Error::io(Layer::Host, "the output cannot be created", e)
                        .path(target.display().to_string())
                        .hint("does the folder exist, and may you write to it?"));
                }
            }
        }
        Err(Error::new(Kind::Io, Layer::Host, "too many temporary files of earlier runs")
            .path(target.display().to_string())
            .hint("remove the files .*.winject-*.partial beside it"))
    }

    /// The file under its temporary name.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Makes the content durable, gives the file its name, and makes that durable.
    ///
    /// # Errors
    /// [`Kind::Io`]; then the target is as it was (unless only the last step failed).
    pub fn finish(mut self) -> Result<()> {
        let failed = |what: &str, e| Error::io(Layer::Host, what, e).path(self.target.display().to_string());
        self.storage.flush().map_err(|e| failed("the output cannot be made durable", e))?;
        self.cancel.check()?;
        self.host.rename(&self.temporary, &self.target, self.replace).map_err(|e| {
            if e.kind() == io::ErrorKind::AlreadyExists { exists(&self.target) } else { failed("cannot be renamed", e) }
        })?;
        self.is_finished = true;
        self.replaced = None;
        self.host.sync_folder_of(&self.target).map_err(|e| failed("the folder cannot be made durable", e))
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        if !self.is_finished
            && let Err(error) = self.host.remove(&self.temporary)
        {
            tracing::warn!(path = %self.temporary.display(), %error, "cannot remove a temporary file");
        }
    }
}

/// Makes sure that nobody uses the file that an output is going to replace, and keeps it so as long as what is returned
/// lives: its user would go on with a file that has no name any more. Nor may a journal lie there: it would be taken
/// for the new file's.
pub(crate) fn lock_target(host: &dyn HostFiles, target: &Path, locking: Locking) -> Result<Option<Arc<dyn Storage>>> {
    let name = target.file_name().unwrap_or_default();
    let place = host.real_path(folder_of(target)).join(name);
    let journal = journal_beside(&place);
    if host.exists(&journal) {
        return Err(Error::new(
            Kind::Pending,
            Layer::Host,
            "an interrupted run left a journal for a file of this name",
        )
        .path(journal.display().to_string())
        .hint("choose another name; or let winject restore that image first, or remove it and its journal"));
    }
    if !host.exists(target) {
        return Ok(None);
    }
    host.lock(target, locking).map(Some)
}

fn exists(target: &Path) -> Error {
    Error::new(Kind::Usage, Layer::Host, "cannot write the output: the file exists already")
        .path(target.display().to_string())
        .hint("choose another name, or replace the file with --overwrite")
}

/// Refuses an output that is a file of the chain it is made from, whatever it is called there.
pub(crate) fn refuse_own_files(files: &[PathBuf], target: &Path) -> Result<()> {
    let mut run = RunFiles::default();
    files.iter().for_each(|file| run.add_input("the input image, or a file that it needs", file));
    run.add_output("the output", target)
}
