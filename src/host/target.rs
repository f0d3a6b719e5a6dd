//! The file that the name of an output leads to.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::file_id::FileId;
use super::folder::folder_of;
use super::nbd_name::is_nbd_name;
use super::read::describe;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};

/// How the name of an undo journal ends, after that of its image.
pub(crate) const JOURNAL_ENDING: &str = ".winject-journal";
/// How the name of an undo record ends, after that of its image.
pub(crate) const UNDO_RECORD_ENDING: &str = ".winject-undo";

/// Symbolic links that are followed, as Linux counts.
const LINKS_MAX: usize = 40;

/// The file that an output's name leads to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    what: &'static str,
    /// The path as the user spelled it, for messages.
    given: PathBuf,
    path: PathBuf,
    pub(super) existing: Option<Existing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    Regular(FileId),
    /// A pipe, a terminal or the like, which is written to.
    Stream,
}

impl Target {
    /// Finds out where the output `path` leads; `what` it is, with an article ("the report").
    ///
    /// A symbolic link is followed if it belongs to the current user or to root: in a folder that others can write to,
    /// their links would choose which of the user's files is replaced.
    ///
    /// # Errors
    /// [`Kind::Usage`] for `-`, a folder, a block device or a socket, a link or pipe of another user, and the name of a
    /// journal or an undo record; [`Kind::Io`] when the host cannot tell.
    pub(crate) fn resolve(path: &Path, what: &'static str) -> Result<Self> {
        let shown = path.display().to_string();
        let refused = |reason: &str, hint: &str| {
            let error = Error::new(Kind::Usage, Layer::Host, format!("cannot write {what}: {reason}"))
                .with_code(ErrorCode::OutputName);
            Err(error.path(&shown).hint(hint))
        };
        let cannot = |e| Error::io(Layer::Host, format!("cannot write {what}"), e).path(&shown);
        let another = "choose another name";
        if path.as_os_str() == "-" {
            return refused("`-` does not stand for standard output here", "name a file (`./-` for one of that name)");
        }
        if is_nbd_name(path) {
            return refused(
                "it is an NBD export, and this needs a file",
                "name a file; only a whole disk is written to an export: -o URI, or winject convert IMAGE URI",
            );
        }
        if path.as_os_str().is_empty() {
            return refused("the name is empty", "name a file");
        }
        let target = |path: PathBuf, existing| Ok(Self { what, given: shown.clone().into(), path, existing });
        // A pipe that /dev/fd names has no path of its own.
        if let Ok(meta) = std::fs::metadata(path)
            && !meta.is_file()
        {
            let kind = meta.file_type();
            return match kind {
                kind if kind.is_char_device() => target(path.to_owned(), Some(Existing::Stream)),
                kind if kind.is_fifo() && is_trusted(meta.uid()) => target(path.to_owned(), Some(Existing::Stream)),
                kind if kind.is_fifo() => refused("the named pipe belongs to another user", another),
                kind => refused(&format!("the name is that of {}", describe(kind)), another),
            };
        }
        let mut at = path.to_owned();
        for _ in 0..LINKS_MAX {
            match at.symlink_metadata() {
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    if is_reserved(&at) {
                        return refused("the name is kept for undo journals and records", another);
                    }
                    refuse_missing_folder(&at, what)?;
                    return target(at, None);
                }
                Err(error) => return Err(cannot(error)),
                Ok(meta) if meta.is_symlink() => {
                    if !is_trusted(meta.uid()) {
                        return refused(
                            "the symbolic link belongs to another user",
                            "remove the link, or name the file that it leads to",
                        );
                    }
                    at = folder_of(&at).join(std::fs::read_link(&at).map_err(cannot)?);
                }
                Ok(meta) => {
                    if is_reserved(&at) {
                        return refused("the name is kept for undo journals and records", another);
                    }
                    return target(at, Some(Existing::Regular(FileId::from(&meta))));
                }
            }
        }
        refused("too many symbolic links", another)
    }

    /// The output of exactly this name: a symbolic link in its place is refused, of whatever owner.
    ///
    /// # Errors
    /// [`Kind::Usage`] when something other than a regular file has the name; [`Kind::Io`] when the host cannot tell.
    pub(crate) fn of_name(path: &Path, what: &'static str) -> Result<Self> {
        let target = |existing| Self { what, given: path.to_owned(), path: path.to_owned(), existing };
        let meta = match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(target(None)),
            found => found.map_err(target(None).cannot())?,
        };
        if !meta.is_file() {
            let what = format!("cannot write {what}: the name is that of {}", describe(meta.file_type()));
            return Err(Error::new(Kind::Usage, Layer::Host, what)
                .path(path.display().to_string())
                .hint("remove it, or choose another name"));
        }
        Ok(target(Some(Existing::Regular(FileId::from(&meta)))))
    }

    /// The path of the file itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a regular file of that name.
    pub(crate) fn is_existing(&self) -> bool {
        matches!(self.existing, Some(Existing::Regular(_)))
    }

    /// The path without symbolic links, if the folder exists.
    pub(super) fn real_path(&self) -> Option<PathBuf> {
        Some(folder_of(&self.path).canonicalize().ok()?.join(self.path.file_name()?))
    }

    /// Refuses what is not a regular file: an image is not written to a pipe or a terminal.
    ///
    /// # Errors
    /// [`Kind::Usage`].
    pub(crate) fn refuse_stream(&self) -> Result<()> {
        match self.existing {
            Some(Existing::Stream) => {
                let error =
                    Error::new(Kind::Usage, Layer::Host, format!("cannot write {}: not a regular file", self.what));
                Err(error.path(self.given.display().to_string()).hint("choose another name"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses an existing file unless it may be replaced.
    ///
    /// # Errors
    /// [`Kind::Usage`].
    pub(crate) fn refuse_existing(&self, overwrite: bool) -> Result<()> {
        if self.is_existing() && !overwrite { Err(self.exists()) } else { Ok(()) }
    }

    /// Whether another file has the name by now than when the target was resolved.
    pub(super) fn is_taken_by_another(&self) -> bool {
        let Ok(meta) = self.path.symlink_metadata() else { return false };
        self.existing != Some(Existing::Regular(FileId::from(&meta)))
    }

    /// The error for a file that may not be replaced.
    pub(crate) fn exists(&self) -> Error {
        Error::new(Kind::Usage, Layer::Host, format!("cannot write {}: the file exists already", self.what))
            .with_code(ErrorCode::OutputExists)
            .path(self.given.display().to_string())
            .hint("choose another name, or replace the file with --overwrite (in a document: `overwrite: true`)")
    }

    pub(crate) fn cannot(&self) -> impl Fn(io::Error) -> Error + use<> {
        let (what, path) = (self.what, self.given.display().to_string());
        move |error| {
            Error::io(Layer::Host, format!("cannot write {what}"), error)
                .path(&path)
                .hint("check that the folder exists, that it may be written to, and that there is space in it")
        }
    }
}

/// Whether the name is that of a journal or an undo record, of which only commits make any.
pub(crate) fn is_reserved(path: &Path) -> bool {
    let name = path.as_os_str().to_string_lossy();
    [JOURNAL_ENDING, UNDO_RECORD_ENDING].iter().any(|ending| name.ends_with(ending))
}

/// Refuses a new file or folder at `path` whose folder does not exist; `what` it is, with an article.
///
/// # Errors
/// [`Kind::Usage`].
pub(crate) fn refuse_missing_folder(path: &Path, what: &str) -> Result<()> {
    let (reason, hint) = match folder_of(path).metadata() {
        Ok(meta) if !meta.is_dir() => ("its folder is a file", "choose another name"),
        _ if is_missing(folder_of(path)) => ("its folder does not exist", "create the folder first"),
        // Where the host does not let us look, writing says why.
        _ => return Ok(()),
    };
    Err(Error::new(Kind::Usage, Layer::Host, format!("cannot write {what}: {reason}"))
        .with_code(ErrorCode::OutputName)
        .path(path.display().to_string())
        .hint(hint))
}

/// Whether no file or folder has this name.
fn is_missing(path: &Path) -> bool {
    let is_absence = |kind| matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    path.metadata().is_err_and(|error| is_absence(error.kind()))
}

/// Whether a link or a pipe of this user may be written through.
fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == rustix::process::geteuid().as_raw()
}
