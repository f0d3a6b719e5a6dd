//! Outputs: where a name leads, and files that appear under their name only when they are complete.

use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::file_id::FileId;
use super::folder::folder_of;
use super::leftover;
use super::locked_file::LockedFile;
use super::target::{Existing, Target};
use crate::cancel::{Cancel, Hold};
use crate::error::{Error, Layer, Result};

/// How many names for a temporary file are tried.
const NAMES_MAX: u32 = 100;

/// Permissions for a new file in `folder` that is made from `sources`: what each of them allows, never to be executed.
/// Where the new file's group is another one, its members are among the source's others. The umask comes on top.
pub(crate) fn common_mode(sources: &[PathBuf], folder: &Path) -> u32 {
    const SET_GROUP_ID: u32 = 0o2000;
    let group = match std::fs::metadata(folder) {
        Ok(meta) if meta.mode() & SET_GROUP_ID != 0 => meta.gid(),
        _ => rustix::process::getegid().as_raw(),
    };
    let mode_of = |file: &PathBuf| {
        let Ok(meta) = std::fs::metadata(file) else { return 0o600 };
        let mode = meta.mode();
        if meta.gid() == group {
            return mode;
        }
        let others = mode & (mode >> 3) & 0o7;
        (mode & 0o700) | (others << 3) | others
    };
    sources.iter().map(mode_of).fold(0o666, |mode, next| mode & next) | 0o600
}

/// Creates the temporary file for `path` in its folder, and removes those that killed runs left there.
fn create_temporary(path: &Path, mode: u32) -> io::Result<NamedTempFile> {
    leftover::remove(path);
    let prefix = leftover::prefix(path);
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(&prefix).suffix(leftover::SUFFIX).permissions(PermissionsExt::from_mode(mode));
    for _ in 0..NAMES_MAX {
        let temporary = builder.tempfile_in(folder_of(path))?;
        match leftover::claim(temporary.as_file()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            claimed => return claimed.map(|()| temporary),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A file that is written under a temporary name in the folder of its target. Dropped before it is finished, it is
/// removed.
#[derive(Debug)]
pub(crate) struct NewFile {
    temporary: NamedTempFile,
    target: Target,
    /// Given up last, when the temporary file is gone.
    hold: Hold,
}

impl NewFile {
    /// Begins a file that is to become `target`, made from the files `sources` and open to no more users than they are.
    /// `hold` says whether a request to stop keeps it from being finished.
    ///
    /// # Errors
    /// [`Kind::Io`] when the file cannot be created.
    pub(crate) fn create(target: Target, sources: &[PathBuf], hold: Hold) -> Result<Self> {
        let mode = common_mode(sources, folder_of(target.path()));
        let temporary = create_temporary(target.path(), mode).map_err(target.cannot())?;
        Ok(Self { temporary, target, hold })
    }

    /// The file's destination.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The file under its temporary name.
    pub(crate) fn file(&self) -> &File {
        self.temporary.as_file()
    }

    /// Makes the content durable and gives the file its name. Only the file that was there when the target was resolved
    /// is replaced.
    ///
    /// # Errors
    /// [`Kind::Usage`] when there is another file by now, [`Kind::Cancelled`] when the job was asked to stop,
    /// [`Kind::Io`] when the host fails; then the target is as it was.
    pub(crate) fn finish(self) -> Result<()> {
        let Self { temporary, target, hold } = self;
        temporary.as_file().sync_all().map_err(target.cannot())?;
        hold.check()?;
        let seen = match target.path().symlink_metadata() {
            Ok(meta) => Some(Existing::Regular(FileId::from(&meta))),
            Err(_) => None,
        };
        if seen.is_some() && seen != target.existing {
            return Err(target.exists());
        }
        let named = match target.existing {
            None => temporary.persist_noclobber(target.path()),
            Some(_) => temporary.persist(target.path()),
        };
        named.map_err(|e| match e.error.kind() {
            io::ErrorKind::AlreadyExists => target.exists(),
            _ => target.cannot()(e.error),
        })?;
        File::open(folder_of(target.path())).and_then(|folder| folder.sync_all()).map_err(target.cannot())
    }
}

/// Replaces a locked file by what `write` makes of it (new file, old file), all or nothing. Owner and permissions stay.
///
/// # Errors
/// [`Kind::Io`] when the host fails, [`Kind::Refused`] when something that takes no lock replaced the file meanwhile,
/// [`Kind::Cancelled`] when the job was asked to stop; then the file is as it was.
pub(crate) fn rewrite(
    locked: &mut LockedFile,
    cancel: &Cancel,
    write: impl FnOnce(&mut File, &mut File) -> io::Result<()>,
) -> Result<()> {
    let path = locked.path().to_owned();
    let cannot = |what: &'static str| {
        let path = path.display().to_string();
        move |e| Error::io(Layer::Host, what, e).path(path)
    };
    let LockedFile { file: old, meta: before, .. } = locked;
    if before.nlink() > 1 {
        return Err(Error::refused(
            Layer::Host,
            "the file has several names (hard links); the others would not follow",
        )
        .path(path.display().to_string())
        .hint("edit a copy of the file"));
    }
    let hold = cancel.hold()?;
    let mut new = create_temporary(&path, 0o600).map_err(cannot("cannot create a file in the folder"))?;
    old.rewind().and_then(|()| write(new.as_file_mut(), old)).map_err(cannot("cannot write the file"))?;
    let owner = new.as_file().metadata().map_err(cannot("cannot write the file"))?;
    if (owner.uid(), owner.gid()) != (before.uid(), before.gid()) {
        fchown(new.as_file(), Some(before.uid()), Some(before.gid())).map_err(|e| {
            cannot("cannot keep the file's owner")(e).hint("run winject as the owner, or edit a copy of the file")
        })?;
    }
    new.as_file().set_permissions(before.permissions()).map_err(cannot("cannot write the file"))?;
    new.as_file().sync_all().map_err(cannot("cannot write the file"))?;
    let now = std::fs::metadata(&path).map_err(cannot("cannot write the file"))?;
    let mark = |meta: &std::fs::Metadata| (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
    if mark(&now) != mark(before) {
        return Err(Error::refused(Layer::Host, "the file changed while winject worked on it")
            .path(path.display().to_string())
            .hint("make sure that nothing else uses the file, and run winject again"));
    }
    hold.check()?;
    new.persist(&path).map_err(|e| cannot("cannot write the file")(e.error))?;
    File::open(folder_of(&path)).and_then(|folder| folder.sync_all()).map_err(cannot("cannot write the file"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use super::*;
    use crate::cancel::Cancel;
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
        let begun = NewFile::create(target(), &[], cancel.hold().unwrap()).unwrap();
        let through = NewFile::create(target(), &[], cancel.hold_through()).unwrap();
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
