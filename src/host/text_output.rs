//! Text outputs: a new file, or a pipe or terminal.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::libc::{O_NOCTTY, O_NONBLOCK};

use super::atomic_file::AtomicFile;
use super::folder::folder_of;
use super::target::{Existing, Target};
use crate::cancel::Cancel;
use crate::error::Result;

/// An answer that the user wants in a file: a new file, or a pipe or terminal that is there.
#[derive(Debug)]
pub(crate) enum TextOutput {
    File(AtomicFile<'static>),
    Stream(File, Target),
}

impl TextOutput {
    /// Begins the output `target`, made from `sources`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the file exists and may not be replaced, [`Kind::Io`] when it cannot be opened; a pipe
    /// without a reader is not waited for. [`Kind::Cancelled`] when the job was asked to stop.
    pub(crate) fn create(target: Target, sources: &[PathBuf], overwrite: bool, cancel: &Cancel) -> Result<Self> {
        target.refuse_existing(overwrite)?;
        if target.existing != Some(Existing::Stream) {
            return Ok(Self::File(AtomicFile::create(target, sources, cancel.hold()?)?));
        }
        let open = || {
            let file = File::options().write(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(target.path())?;
            // It has a reader. From here on a slow one is waited for.
            let flags = rustix::fs::fcntl_getfl(&file)?;
            rustix::fs::fcntl_setfl(&file, flags - rustix::fs::OFlags::NONBLOCK)?;
            Ok(file)
        };
        let file = open().map_err(target.cannot())?;
        Ok(Self::Stream(file, target))
    }

    /// Refuses what [`create`](Self::create) would refuse of a file, and creates nothing.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind::Usage) when the file exists and may not be replaced, [`Kind::Io`](crate::Kind::Io) when its
    /// folder does not exist.
    pub(crate) fn rehearse(target: &Target, overwrite: bool) -> Result<()> {
        target.refuse_existing(overwrite)?;
        match folder_of(target.path()).metadata() {
            Ok(meta) if meta.is_dir() => Ok(()),
            Ok(_) => Err(target.cannot()(ErrorKind::NotADirectory.into())),
            Err(error) => Err(target.cannot()(error)),
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::File(new) => new.write_all(bytes).map_err(new.target().cannot()),
            Self::Stream(file, target) => file.write_all(bytes).map_err(target.cannot()),
        }
    }

    /// See [`AtomicFile::finish`].
    ///
    /// # Errors
    /// See [`AtomicFile::finish`].
    pub(crate) fn finish(self) -> Result<()> {
        self.finish_with(|| ())
    }

    /// See [`AtomicFile::finish_with`].
    ///
    /// # Errors
    /// See [`AtomicFile::finish`].
    pub(crate) fn finish_with(self, on_named: impl FnOnce()) -> Result<()> {
        match self {
            Self::File(new) => new.finish_with(on_named),
            Self::Stream(..) => {
                on_named();
                Ok(())
            }
        }
    }
}
