//! Hive files of the host, with their log files.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, StdinLock};
use std::path::{Path, PathBuf};

use crate::cli::{Ui, signals};
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::hive::{HIVE_BYTES_MAX, Hive, HiveFile, Replay, used_bytes};
use crate::host::{self, LockedFile, Unreadable, folder_of, is_nbd_name, refuse_rewrite, rewrite};

/// Largest `.reg` file, in bytes: the largest hive as text takes six bytes for each of its bytes (UTF-16), and line breaks.
const REG_BYTES_MAX: u64 = 8 * HIVE_BYTES_MAX;

/// Size of a hive's base block, in bytes.
const BASE_BLOCK_BYTES: u64 = 4096;

/// A hive of the host, loaded and its logs replayed.
pub(super) struct HostHive {
    path: PathBuf,
    /// For a hive that is to be changed: taken before it is read, held until it is written.
    lock: Option<LockedFile>,
    pub(super) hive: Hive,
    /// Size of the file in bytes; a clean hive is loaded only up to the end of its bins.
    size: u64,
}

fn io(what: &str, path: &Path, source: std::io::Error) -> Error {
    Error::io(Layer::Host, what, source).path(path.display().to_string())
}

/// Reads a whole file, up to [`HIVE_BYTES_MAX`].
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    read_wanted(path, |_| None).map(|(bytes, _)| bytes)
}

/// Reads at most as many bytes as `wanted` returns for the first 4096, and returns the size of the file too.
fn read_wanted(path: &Path, wanted: impl FnOnce(&[u8]) -> Option<u64>) -> Result<(Vec<u8>, u64)> {
    let cannot = |e| io("cannot read the file", path, e);
    let mut file = open(path)?;
    let size = file.metadata().map_err(cannot)?.len();
    if size > HIVE_BYTES_MAX {
        let error = Error::unsupported(Layer::Host, "cannot read the file: too large for a hive")
            .path(path.display().to_string());
        return Err(error.hint("name a hive file or a .reg file"));
    }
    let mut head = Vec::new();
    (&mut file).take(BASE_BLOCK_BYTES).read_to_end(&mut head).map_err(cannot)?;
    let wanted = wanted(&head).unwrap_or(HIVE_BYTES_MAX);
    let mut bytes = Vec::with_capacity(usize::try_from(wanted.min(size)).unwrap_or(0).max(head.len()));
    bytes.append(&mut head);
    (&mut file).take(wanted.saturating_sub(BASE_BLOCK_BYTES)).read_to_end(&mut bytes).map_err(cannot)?;
    Ok((bytes, size))
}

/// Opens a hive, a log or an image, without waiting for a writer of a pipe.
fn open(path: &Path) -> Result<File> {
    host::open(path, true).map_err(|error| match error {
        Unreadable::NotAFile(kind) => Error::unsupported(Layer::Host, format!("cannot open the file: {kind}"))
            .path(path.display().to_string())
            .hint("name a hive file or a disk image"),
        other => other.into_error("the file", path, Layer::Host),
    })
}

/// Standard input, up to a number of bytes: what comes after them is an error, and never left out.
struct Limited {
    input: StdinLock<'static>,
    left: u64,
}

impl Read for Limited {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buf)?;
        self.left =
            self.left.checked_sub(read as u64).ok_or_else(|| std::io::Error::other("too much on standard input"))?;
        Ok(read)
    }
}

/// Opens a `.reg` file, which is read piece by piece; `-` is standard input.
pub(super) fn open_reg(path: &Path) -> Result<Box<dyn Read>> {
    if path == Path::new("-") {
        return Ok(Box::new(Limited { input: std::io::stdin().lock(), left: REG_BYTES_MAX }));
    }
    let open = || {
        let file = host::open(path, false)?;
        if file.metadata()?.len() > REG_BYTES_MAX { Err(Unreadable::TooLarge(REG_BYTES_MAX)) } else { Ok(file) }
    };
    let opened = open().map(|file| Box::new(file) as Box<dyn Read>);
    opened.map_err(|error: Unreadable| {
        error.into_error("the .reg file", path, Layer::Host).hint("name a .reg file, as reg export writes it")
    })
}

/// Whether a file begins as a hive does.
pub(super) fn is_hive(path: &Path) -> Result<bool> {
    if is_nbd_name(path) {
        return Ok(false);
    }
    let mut head = [0; 4];
    let mut file = open(path)?;
    Ok(file.read_exact(&mut head).is_ok() && &head == b"regf")
}

/// Whether a file is a hive, however damaged: it begins as one, or its first bin follows where the base block ends.
pub(super) fn is_hive_or_damaged(path: &Path) -> Result<bool> {
    if is_nbd_name(path) {
        return Ok(false);
    }
    let mut file = open(path)?;
    let mut mark = [0; 4];
    let read = file.seek(SeekFrom::Start(BASE_BLOCK_BYTES)).and_then(|_| file.read_exact(&mut mark));
    Ok(is_hive(path)? || (read.is_ok() && &mark == b"hbin"))
}

impl HostHive {
    /// Opens a hive for a change, and locks its file until the value is saved or dropped.
    pub(super) fn open_for_edit(path: &Path, ui: &Ui) -> Result<Self> {
        let lock = LockedFile::lock(path)?;
        Ok(Self { lock: Some(lock), ..Self::open(path, ui)? })
    }

    pub(super) fn open(path: &Path, ui: &Ui) -> Result<Self> {
        if !is_hive(path)? {
            let error = Error::unsupported(Layer::Hive, "not a registry hive")
                .with_code(ErrorCode::NotAHive)
                .path(path.display().to_string());
            return Err(error.hint("name a hive file, such as Windows/System32/config/SYSTEM"));
        }
        let (bytes, size) = read_wanted(path, used_bytes)?;
        let file = HiveFile::open(bytes, |log| find_log(path, log)?.map(|log| read(&log)).transpose());
        let HiveFile { hive, replay } = file.map_err(|e| e.path(path.display().to_string()))?;
        show_replay(replay.as_ref(), ui);
        Ok(Self { path: path.to_owned(), lock: None, hive, size })
    }

    /// Refuses what [`save`](Self::save) would refuse, and writes nothing. Returns whether it would write.
    pub(super) fn rehearse_save(self) -> Result<bool> {
        if self.hive.is_changed() {
            refuse_rewrite(&self.path)?;
        }
        Ok(self.hive.is_changed())
    }

    /// Writes the hive back, if anything changed: to a temporary file in its folder, which then replaces it.
    pub(super) fn save(self) -> Result<bool> {
        if !self.hive.is_changed() {
            return Ok(false);
        }
        let bytes = self.hive.finish(&[]).map_err(|e| e.path(self.path.display().to_string()))?;
        let Some(mut lock) = self.lock else { return Err(Error::bug(Layer::Cli, "a hive is changed without a lock")) };
        rewrite(&mut lock, &signals::cancel(), |new, old| {
            new.write_all(&bytes)?;
            // What follows the bins stays as it is.
            if (bytes.len() as u64) < self.size {
                old.seek(SeekFrom::Start(bytes.len() as u64))?;
                std::io::copy(&mut old.take(self.size - bytes.len() as u64), new)?;
            }
            Ok(())
        })?;
        Ok(true)
    }
}

/// The log of the hive with this ending, in the same folder; the case of its name does not matter.
pub(super) fn find_log(path: &Path, ending: &str) -> Result<Option<PathBuf>> {
    let folder = folder_of(path);
    let mut wanted = path.file_name().unwrap_or_default().to_owned();
    wanted.push(ending);
    let mut entries = std::fs::read_dir(folder).map_err(|e| io("cannot read the folder", folder, e))?.flatten();
    Ok(entries.find(|entry| entry.file_name().eq_ignore_ascii_case(&wanted)).map(|entry| entry.path()))
}

pub(super) fn show_replay(replay: Option<&Replay>, ui: &Ui) {
    if let Some(replay) = replay {
        ui.note(&format!("{} log entries were replayed in memory", replay.entries));
        replay.notes.iter().for_each(|note| ui.note(note));
    }
}
