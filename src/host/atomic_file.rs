//! Files that appear under their name only when they are complete.
//!
//! The content is written under a temporary name in the folder of the target, made durable, and renamed; then the
//! rename is made durable. A file that is not finished is removed; what a killed run leaves is removed by the next one.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Seek};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file_id::several_names;
use super::file_storage::FileStorage;
use super::files::{HostFiles, RealHost};
use super::folder::folder_of;
use super::leftover;
use super::locked_file::LockedFile;
use super::permissions::{PRIVATE, common_mode};
use super::storage::Storage;
use super::target::Target;
use crate::cancel::{Cancel, Hold, Reached};
use crate::error::{Error, ErrorCode, Layer, Result};

/// How many names for a temporary file are tried.
const NAMES_MAX: u32 = 100;

/// A file that is written under a temporary name in the folder of its target. Dropped before it is finished, it is
/// removed. Through [`io::Write`] it is written from start to end.
pub(crate) struct AtomicFile<'h, S: Storage + ?Sized = dyn Storage> {
    host: &'h dyn HostFiles,
    temporary: PathBuf,
    target: Target,
    storage: Arc<S>,
    /// Bytes that were written through [`io::Write`].
    appended: u64,
    is_named: bool,
    /// Given up last, when the temporary file is gone.
    hold: Hold,
}

impl<S: Storage + ?Sized> fmt::Debug for AtomicFile<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { temporary, target, .. } = self;
        f.debug_struct("AtomicFile").field("temporary", temporary).field("target", target).finish_non_exhaustive()
    }
}

impl AtomicFile<'static> {
    /// Begins a file on the real host; see [`create_on`](Self::create_on).
    ///
    /// # Errors
    /// Those of [`create_on`](Self::create_on).
    pub(crate) fn create(target: Target, sources: &[PathBuf], hold: Hold) -> Result<Self> {
        Self::create_on(&RealHost, target, sources, hold)
    }

    /// Like [`create`](Self::create), in a folder that was cleared of leftovers before ([`super::remove_leftovers_in`]), whose
    /// names are not read again: for many files in one folder.
    ///
    /// # Errors
    /// Those of [`create_on`](Self::create_on).
    pub(crate) fn create_in_cleared(target: Target, sources: &[PathBuf], hold: Hold) -> Result<Self> {
        let mode = common_mode(sources, folder_of(target.path()));
        Self::create_with(&RealHost, target, hold, |path| RealHost.create(path, mode))
    }
}

impl<'h> AtomicFile<'h> {
    /// Begins a file that is to become `target`, made from the files `sources` and open to no more users than they are.
    /// `hold` says whether a request to stop keeps it from being finished.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io) when the file cannot be created.
    pub(crate) fn create_on(host: &'h dyn HostFiles, target: Target, sources: &[PathBuf], hold: Hold) -> Result<Self> {
        let mode = common_mode(sources, folder_of(target.path()));
        host.remove_leftovers(target.path());
        Self::create_with(host, target, hold, |path| host.create(path, mode))
    }

    /// Like [`create_on`](Self::create_on), for a file whose making takes long: of two runs that make it, the second finds out at
    /// once.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) when another run is making it, and those of [`create_on`](Self::create_on).
    pub(crate) fn create_alone_on(
        host: &'h dyn HostFiles,
        target: Target,
        sources: &[PathBuf],
        hold: Hold,
    ) -> Result<Self> {
        let mode = common_mode(sources, folder_of(target.path()));
        let temporary = leftover::only_name(target.path());
        for _ in 0..NAMES_MAX {
            host.remove_leftovers(target.path());
            match host.create(&temporary, mode) {
                Ok(storage) => {
                    return Ok(Self { host, temporary, target, storage, appended: 0, is_named: false, hold });
                }
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(target.cannot()(error)),
                Err(_) if host.is_claimed(&temporary) => {
                    return Err(Error::refused(Layer::Host, "another run is writing the output")
                        .with_code(ErrorCode::ImageInUse)
                        .path(target.path().display().to_string())
                        .hint("wait until it has ended, or choose another name"));
                }
                // It has just ended, or the file system has no locks: then nothing is taken for a leftover.
                Err(_) => {}
            }
        }
        Self::create_with(host, target, hold, |path| host.create(path, mode))
    }
}

impl<'h, S: Storage + ?Sized> AtomicFile<'h, S> {
    /// Creates the temporary file by `create`, which claims it (see [`leftover::claim`]) or says that the name is taken.
    fn create_with(
        host: &'h dyn HostFiles,
        target: Target,
        hold: Hold,
        create: impl Fn(&Path) -> io::Result<Arc<S>>,
    ) -> Result<Self> {
        for number in 0..NAMES_MAX {
            let temporary = leftover::temporary_name(target.path(), number);
            match create(&temporary) {
                Ok(storage) => {
                    return Ok(Self { host, temporary, target, storage, appended: 0, is_named: false, hold });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(target.cannot()(error)),
            }
        }
        Err(target.cannot()(io::ErrorKind::AlreadyExists.into())
            .hint("remove the temporary files of earlier runs, .*.winject-*.partial, from the folder"))
    }

    /// The destination of the file.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The file under its temporary name.
    pub(crate) fn storage(&self) -> &Arc<S> {
        &self.storage
    }

    /// Makes the content durable, gives the file its name, and makes that durable. Only the file that was there when
    /// the target was resolved is replaced.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind::Usage) when there is another file by now,
    /// [`Kind::Cancelled`](crate::Kind::Cancelled) when the job was asked to stop, [`Kind::Io`](crate::Kind::Io) when
    /// the host fails; then the target is as it was, unless only the last step failed.
    pub(crate) fn finish(self) -> Result<()> {
        self.finish_with(|| ())
    }

    /// Like [`finish`](Self::finish); `on_named` is called when the file has its name, also if that cannot be made durable.
    ///
    /// # Errors
    /// Those of [`finish`](Self::finish).
    pub(crate) fn finish_with(self, on_named: impl FnOnce()) -> Result<()> {
        self.finish_if(|| Ok(()), on_named)
    }

    /// Like [`finish`](Self::finish), without waiting until content and name are on stable storage: for a file that the next
    /// run makes again.
    ///
    /// # Errors
    /// Those of [`finish`](Self::finish).
    pub(crate) fn finish_soon(mut self) -> Result<()> {
        self.give_name(|| ())
    }

    /// Like [`finish_with`](Self::finish_with), if `check` passes when the content is durable.
    fn finish_if(mut self, check: impl FnOnce() -> Result<()>, on_named: impl FnOnce()) -> Result<()> {
        let cannot = self.target.cannot();
        self.storage.flush().map_err(&cannot)?;
        check()?;
        self.give_name(on_named)?;
        self.host.sync_folder_of(self.target.path()).map_err(cannot)
    }

    fn give_name(&mut self, on_named: impl FnOnce()) -> Result<()> {
        let cannot = self.target.cannot();
        self.hold.check()?;
        if self.target.is_taken_by_another() {
            return Err(self.target.exists());
        }
        let is_replaced = self.target.is_existing();
        self.host.rename(&self.temporary, self.target.path(), is_replaced).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => self.target.exists(),
            _ => cannot(e),
        })?;
        self.is_named = true;
        on_named();
        Ok(())
    }
}

impl<S: Storage + ?Sized> Drop for AtomicFile<'_, S> {
    fn drop(&mut self) {
        if !self.is_named
            && let Err(error) = self.host.remove(&self.temporary)
        {
            tracing::warn!(path = %self.temporary.display(), %error, "cannot remove a temporary file");
        }
    }
}

impl<S: Storage + ?Sized> io::Write for AtomicFile<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.storage.write_at(self.appended, bytes)?;
        self.appended += bytes.len() as u64;
        Ok(bytes.len())
    }

    /// Nothing is buffered here. [`AtomicFile::finish`] makes the content durable.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Refuses what [`rewrite`] would refuse of the file at `path`, and touches nothing.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) for a file with several names, and those of [`Target::resolve`].
pub(crate) fn refuse_rewrite(path: &Path) -> Result<()> {
    let cannot = |e| Error::io(Layer::Host, "cannot open the file", e).path(path.display().to_string());
    let real = path.canonicalize().map_err(cannot)?;
    rewritten(&real, &real.metadata().map_err(cannot)?).map(drop)
}

/// The file at `path` as the target of a rewrite.
fn rewritten(path: &Path, meta: &Metadata) -> Result<Target> {
    if meta.nlink() > 1 {
        return Err(several_names(path, "the others would not follow"));
    }
    Target::resolve(path, "the file")
}

/// Replaces a locked file by what `write` makes of it (new file, old file), all or nothing. Owner and permissions stay.
///
/// # Errors
/// [`Kind::Io`](crate::Kind::Io) when the host fails, [`Kind::Refused`](crate::Kind::Refused) when something that takes
/// no lock replaced the file meanwhile, [`Kind::Cancelled`](crate::Kind::Cancelled) when the job was asked to stop;
/// then the file is as it was.
pub(crate) fn rewrite(
    locked: &mut LockedFile,
    cancel: &Cancel,
    write: impl FnOnce(&mut dyn io::Write, &mut File) -> io::Result<()>,
) -> Result<()> {
    let path = locked.path().to_owned();
    let shown = path.display().to_string();
    let LockedFile { file: old, meta: before, .. } = locked;
    let target = rewritten(&path, before)?;
    let hold = cancel.hold()?;
    let cannot = target.cannot();
    let create = |path: &Path| Ok(Arc::new(RealHost.create_file(path, PRIVATE)?));
    RealHost.remove_leftovers(target.path());
    let mut new: AtomicFile<'_, FileStorage> = AtomicFile::create_with(&RealHost, target, hold, create)?;
    old.rewind().and_then(|()| write(&mut new, old)).map_err(&cannot)?;
    let file = new.storage().file();
    let owner = file.metadata().map_err(&cannot)?;
    if (owner.uid(), owner.gid()) != (before.uid(), before.gid()) {
        fchown(file, Some(before.uid()), Some(before.gid())).map_err(|e| {
            Error::io(Layer::Host, "cannot keep the file's owner", e)
                .path(&shown)
                .hint("run winject as the owner, or edit a copy of the file")
        })?;
    }
    // After the owner: a change of owner takes bits of the mode away.
    file.set_permissions(before.permissions()).map_err(&cannot)?;
    // Held until the caller knows: a signal in between must not be answered with "as it was".
    let _hold = cancel.hold_through();
    let check = || {
        let now = std::fs::metadata(&path).map_err(&cannot)?;
        let mark = |meta: &std::fs::Metadata| (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
        if mark(&now) == mark(before) {
            return Ok(());
        }
        Err(Error::refused(Layer::Host, "the file changed while winject worked on it")
            .with_code(ErrorCode::FileChanged)
            .path(&shown)
            .hint("make sure that nothing else uses the file, and run winject again"))
    };
    new.finish_if(check, || ())?;
    cancel.reach(Reached::CommitPoint);
    Ok(())
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::error::Kind;
    use crate::host::TextOutput;

    const LEFT: &str = ".file.winject-aB3xyz.partial";

    /// The names in the folder, sorted.
    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn whatever_is_written_removes_what_a_killed_run_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let leave = || std::fs::write(folder.path().join(LEFT), b"half").unwrap();
        leave();
        let target = Target::resolve(&path, "the output").unwrap();
        let mut output = TextOutput::create(target, &[], false, &Cancel::default()).unwrap();
        output.write(b"new").unwrap();
        output.finish().unwrap();
        assert_eq!(names(folder.path()), ["file"]);
        leave();
        let mut locked = LockedFile::lock(&path).unwrap();
        rewrite(&mut locked, &Cancel::default(), |new, _| new.write_all(b"changed")).unwrap();
        assert_eq!(names(folder.path()), ["file"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"changed");
    }

    #[test]
    fn a_request_to_stop_leaves_nothing_unless_the_file_is_finished_through_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let cancel = Cancel::default();
        let target = || Target::resolve(&path, "the output").unwrap();
        let begun = AtomicFile::create(target(), &[], cancel.hold().unwrap()).unwrap();
        let through = AtomicFile::create(target(), &[], cancel.hold_through()).unwrap();
        assert_eq!(cancel.request(), crate::cancel::Stage::Writing);
        assert_eq!(begun.finish().unwrap_err().kind(), Kind::Cancelled);
        assert_eq!(TextOutput::create(target(), &[], false, &cancel).unwrap_err().kind(), Kind::Cancelled);
        assert_eq!(names(folder.path()).len(), 1);
        through.finish().unwrap();
        assert_eq!(names(folder.path()), ["file"]);
        let mut locked = LockedFile::lock(&path).unwrap();
        let stopped = rewrite(&mut locked, &cancel, |new, _| new.write_all(b"changed"));
        assert_eq!(stopped.unwrap_err().kind(), Kind::Cancelled);
        assert_eq!(names(folder.path()), ["file"]);
        assert_eq!(cancel.request(), crate::cancel::Stage::Written);
    }
}
