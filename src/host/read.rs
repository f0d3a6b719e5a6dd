//! Inputs: opened without waiting for a writer, read up to a limit.

use std::fs::{File, FileType};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::libc::{O_NOCTTY, O_NONBLOCK};
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Kind, Layer};

/// Why an input was not opened or read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// Not a regular file; says what it is.
    NotAFile(&'static str),
    /// Longer than this limit, in bytes.
    TooLarge(u64),
    /// It cannot be opened or read, for the host's reason.
    Io(io::Error),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Unreadable {
    /// The error for an input called `what` ("the certificate"): [`Kind::Usage`] for a wrong kind of file or a wrong
    /// size, [`Kind::Io`] for what the host says.
    pub(crate) fn into_error(self, what: &str, path: &Path, layer: Layer) -> Error {
        let error = match self {
            Self::NotAFile(kind) => {
                Error::new(Kind::Usage, layer, format!("cannot read {what}: {kind}, not a regular file"))
            }
            Self::TooLarge(limit) => {
                Error::new(Kind::Usage, layer, format!("cannot read {what}: larger than {}", size(limit)))
            }
            Self::Io(error) => Error::io(layer, format!("cannot read {what}"), error),
        };
        error.path(path.display().to_string())
    }
}

/// A limit in its largest whole unit.
fn size(bytes: u64) -> String {
    match bytes {
        0x4000_0000.. => format!("{} GiB", bytes >> 30),
        0x10_0000.. => format!("{} MiB", bytes >> 20),
        _ => format!("{bytes} bytes"),
    }
}

/// What a file is, in words.
pub(crate) fn describe(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_file() => "a regular file",
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_char_device() => "a character device",
        kind if kind.is_block_device() => "a block device",
        kind if kind.is_socket() => "a socket",
        _ => "a symbolic link",
    }
}

/// Opens a regular file, or a block device if `allow_block`, for reading. Anything else is refused before it is opened
/// (to open a device may have an effect of its own), and again when it is open, because it may have been exchanged.
pub(crate) fn open(path: &Path, allow_block: bool) -> Result<File, Unreadable> {
    let refuse = |kind: FileType| {
        let fits = kind.is_file() || (allow_block && kind.is_block_device());
        if fits { Ok(()) } else { Err(Unreadable::NotAFile(describe(kind))) }
    };
    refuse(std::fs::metadata(path)?.file_type())?;
    // O_NONBLOCK: a FIFO that took the file's name a moment ago is not waited for. It changes nothing for files.
    let file = File::options().read(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path)?;
    refuse(file.metadata()?.file_type())?;
    Ok(file)
}

/// Opens a file of any kind for reading: does not follow a symbolic link, does not wait for the writer of a FIFO.
pub(crate) fn open_as_it_is(path: &Path) -> io::Result<File> {
    open_with(path, OFlags::RDONLY)
}

/// As [`open_as_it_is`], for reading and writing.
pub(crate) fn open_as_it_is_for_writing(path: &Path) -> io::Result<File> {
    open_with(path, OFlags::RDWR)
}

fn open_with(path: &Path, access: OFlags) -> io::Result<File> {
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// The content of a regular file of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Unreadable> {
    let file = open(path, false)?;
    let length = file.metadata()?.len();
    if length > limit {
        return Err(Unreadable::TooLarge(limit));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    // Files of /proc have no length, and any file may grow.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(Unreadable::TooLarge(limit)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), b"12345").unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        std::os::unix::fs::symlink("pipe", at("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert_eq!(read(&at("file"), 5).unwrap(), b"12345");
        assert!(matches!(read(&at("file"), 4), Err(Unreadable::TooLarge(4))));
        for (path, kind) in [
            (at("pipe"), "a named pipe"),
            (at("link"), "a named pipe"),
            (at("socket"), "a socket"),
            (folder.path().to_owned(), "a folder"),
            ("/dev/zero".into(), "a character device"),
        ] {
            assert!(matches!(read(&path, 5), Err(Unreadable::NotAFile(found)) if found == kind), "{}", path.display());
        }
        // Without a length, and with more bytes than the limit.
        assert!(matches!(read(Path::new("/proc/self/status"), 5), Err(Unreadable::TooLarge(5))));
        assert!(matches!(read(&at("missing"), 5), Err(Unreadable::Io(_))));
    }
}
