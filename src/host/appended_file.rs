//! A file of lines that several runs append to, one after the other.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc::{O_NOCTTY, O_NOFOLLOW, O_NONBLOCK};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::folder::folder_of;
use super::permissions::common_mode;
use super::read::describe;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};

/// Longest line that is read back, in bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// A file of lines, locked (`flock`) as long as it is open.
#[derive(Debug)]
pub(crate) struct AppendedFile {
    file: File,
    path: PathBuf,
}

impl AppendedFile {
    /// Opens the file at `path`, or makes it, open to no more users than `sources`. A file that is there is appended to if `is_ours` says so of its first line;
    /// `on_line` gets all its lines, without line breaks. A last line that was cut off is ended.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a file of something else, or what is not a regular file; [`Kind::Refused`] when another process has it
    /// open; [`Kind::Io`].
    pub(crate) fn open(
        path: &Path,
        sources: &[PathBuf],
        is_ours: impl Fn(&str) -> bool,
        mut on_line: impl FnMut(&str),
    ) -> Result<Self> {
        let shown = path.display().to_string();
        let cannot = |error| {
            Error::io(Layer::Host, "cannot open the results", error)
                .path(&shown)
                .hint("check the folder, its permissions and its space")
        };
        let mut options = File::options();
        options
            .read(true)
            .append(true)
            .create(true)
            .mode(common_mode(sources, folder_of(path)))
            .custom_flags(O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
        let mut file = options.open(path).map_err(cannot)?;
        let meta = file.metadata().map_err(cannot)?;
        if !meta.is_file() {
            let message = format!("cannot write the results: the name is that of {}", describe(meta.file_type()));
            return Err(Error::new(Kind::Usage, Layer::Host, message)
                .with_code(ErrorCode::OutputName)
                .path(&shown)
                .hint("choose another folder"));
        }
        // Where a file system has no locks, two runs in one folder are the user's care.
        if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Err(Error::refused(Layer::Host, "another run writes its results into this folder")
                .with_code(ErrorCode::ResultsInUse)
                .path(&shown)
                .hint("run the command again when that run has ended, or choose another folder with --results"));
        }
        if meta.len() > 0 {
            file.rewind().map_err(cannot)?;
            let mut lines = BufReader::new(&file);
            let (mut line, mut is_first, mut is_ended) = (Vec::new(), true, true);
            loop {
                line.clear();
                let count = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(cannot)?;
                if count == 0 {
                    break;
                }
                is_ended = line.pop_if(|last| *last == b'\n').is_some();
                let text = String::from_utf8_lossy(&line);
                if std::mem::take(&mut is_first) && !is_ours(&text) {
                    return Err(Error::new(
                        Kind::Usage,
                        Layer::Host,
                        "cannot write the results: a file of this name exists, and is not one of winject's",
                    )
                    .with_code(ErrorCode::OutputExists)
                    .path(&shown)
                    .hint("choose another folder"));
                }
                on_line(&text);
            }
            file.seek(SeekFrom::End(0)).map_err(cannot)?;
            if !is_ended {
                file.write_all(b"\n").map_err(cannot)?;
            }
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// Appends a line at once.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub(crate) fn append(&mut self, line: &str) -> Result<()> {
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(|error| self.cannot_write(error))
    }

    /// Makes everything that was appended durable.
    ///
    /// # Errors
    /// [`Kind::Io`].
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| self.cannot_write(error))
    }

    fn cannot_write(&self, error: std::io::Error) -> Error {
        Error::io(Layer::Host, "cannot write the results", error)
            .path(self.path.display().to_string())
            .hint("make space in the folder, and run the command again: what is done is seen")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_to_our_own_file_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let open = |seen: &mut Vec<String>| {
            AppendedFile::open(&path, &[], |line| line.starts_with("ours"), |line| seen.push(line.to_owned()))
        };
        let mut first = open(&mut Vec::new()).unwrap();
        first.append("ours 1").unwrap();
        assert_eq!(open(&mut Vec::new()).unwrap_err().kind(), Kind::Refused);
        first.file.write_all(b"ours, cut").unwrap();
        drop(first);
        let mut seen = Vec::new();
        open(&mut seen).unwrap().append("ours 2").unwrap();
        assert_eq!(seen, ["ours 1", "ours, cut"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "ours 1\nours, cut\nours 2\n");
        std::fs::write(&path, "a letter\n").unwrap();
        assert_eq!(open(&mut Vec::new()).unwrap_err().code(), ErrorCode::OutputExists);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(open(&mut Vec::new()).is_err());
        assert!(!folder.path().join("elsewhere").exists());
    }
}
