//! A hive file with the log files beside it.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::cli::Ui;
use crate::error::{Error, Kind, Layer, Result};
use crate::hive::{Hive, read_logs, used_bytes};

/// The largest hive that Windows knows.
const HIVE_MAX: u64 = 1 << 31;

/// Bytes of an export that are written at once.
const WRITTEN_AT_ONCE: usize = 64 << 10;

/// The size of a hive's base block.
const HEAD: u64 = 4096;

/// A hive file that was opened, its logs replayed.
pub(super) struct HiveFile {
    path: PathBuf,
    pub(super) hive: Hive,
    /// Bytes of the file; the hive holds only those up to the end of its bins, if it is clean.
    size: u64,
}

fn io(what: &str, path: &Path, source: std::io::Error) -> Error {
    Error::io(Layer::Host, what, source).path(path.display().to_string())
}

/// The bytes of a file, with room for no more than they need.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    read_wanted(path, |_| None).map(|(bytes, _)| bytes)
}

/// As [`read`], and the size of the file; `wanted` says by the first 4096 bytes how many are enough.
fn read_wanted(path: &Path, wanted: impl FnOnce(&[u8]) -> Option<u64>) -> Result<(Vec<u8>, u64)> {
    let cannot = |e| io("cannot read the file", path, e);
    let mut file = File::open(path).map_err(cannot)?;
    let size = file.metadata().map_err(cannot)?.len();
    if size > HIVE_MAX {
        let error = Error::unsupported(Layer::Host, "too large for a registry file").path(path.display().to_string());
        return Err(error.hint("name a hive file or a .reg file"));
    }
    let mut head = Vec::new();
    (&mut file).take(HEAD).read_to_end(&mut head).map_err(cannot)?;
    let wanted = wanted(&head).unwrap_or(HIVE_MAX);
    let mut bytes = Vec::with_capacity(usize::try_from(wanted.min(size)).unwrap_or(0).max(head.len()));
    bytes.append(&mut head);
    (&mut file).take(wanted.saturating_sub(HEAD)).read_to_end(&mut bytes).map_err(cannot)?;
    Ok((bytes, size))
}

/// Opens a `.reg` file, which may be of any length.
pub(super) fn open_reg(path: &Path) -> Result<File> {
    let metadata = std::fs::metadata(path).map_err(|e| io("cannot read the file", path, e))?;
    if !metadata.is_file() {
        let error = Error::new(Kind::Usage, Layer::Host, "not a regular file").path(path.display().to_string());
        return Err(error.hint("name a .reg file"));
    }
    File::open(path).map_err(|e| io("cannot read the file", path, e))
}

/// Whether a file begins as a hive does.
pub(super) fn is_hive(path: &Path) -> Result<bool> {
    let mut head = [0; 4];
    let mut file = File::open(path).map_err(|e| io("cannot open the file", path, e))?;
    Ok(file.read_exact(&mut head).is_ok() && &head == b"regf")
}

impl HiveFile {
    pub(super) fn open(path: &Path, ui: &Ui) -> Result<Self> {
        if !is_hive(path)? {
            let error = Error::unsupported(Layer::Hive, "not a registry hive").path(path.display().to_string());
            return Err(error.hint("name a hive file, such as Windows/System32/config/SYSTEM"));
        }
        let [log1, log2] = read_logs(|ending| find_log(path, ending)?.map(|log| read(&log)).transpose())?;
        let (bytes, size) = read_wanted(path, used_bytes)?;
        let (hive, replay) = Hive::open_with_logs(bytes, log1.as_deref(), log2.as_deref())
            .map_err(|e| e.path(path.display().to_string()))?;
        super::target::say_replay(replay.as_ref(), ui);
        Ok(Self { path: path.to_owned(), hive, size })
    }

    /// Writes the hive back, if anything changed: to a temporary file beside it that then takes its name.
    pub(super) fn save(self) -> Result<bool> {
        if !self.hive.is_changed() {
            return Ok(false);
        }
        let bytes = self.hive.finish(&[]).map_err(|e| e.path(self.path.display().to_string()))?;
        let write = |new: &mut File, old: &mut File| {
            new.write_all(&bytes)?;
            // What follows the bins stays as it is.
            if (bytes.len() as u64) < self.size {
                old.seek(SeekFrom::Start(bytes.len() as u64))?;
                std::io::copy(&mut old.take(self.size - bytes.len() as u64), new)?;
            }
            Ok(())
        };
        replace_with(&self.path, |new, old| write(new, old).map_err(|e| io("cannot write the file", &self.path, e)))?;
        Ok(true)
    }
}

/// The file beside the hive that is its log with this ending, in any case.
fn find_log(path: &Path, ending: &str) -> Result<Option<PathBuf>> {
    let folder = folder_of(path);
    let mut wanted = path.file_name().unwrap_or_default().to_owned();
    wanted.push(".");
    wanted.push(ending);
    let mut entries = std::fs::read_dir(folder).map_err(|e| io("cannot read the folder", folder, e))?.flatten();
    Ok(entries.find(|entry| entry.file_name().eq_ignore_ascii_case(&wanted)).map(|entry| entry.path()))
}

/// Writes a file as `write` says, all or nothing. What is no regular file (a device, a pipe) is written to.
pub(super) fn replace(path: &Path, write: &mut dyn FnMut(&mut dyn Write) -> Result<()>) -> Result<()> {
    let cannot = |e| io("cannot write the file", path, e);
    let mut buffered = |file: &mut File| {
        let mut out = BufWriter::with_capacity(WRITTEN_AT_ONCE, file);
        write(&mut out)?;
        out.flush().map_err(cannot)
    };
    match std::fs::metadata(path) {
        Ok(old) if old.is_file() => replace_with(path, |new, _| buffered(new)),
        // A link that leads nowhere yet is followed too.
        there if there.is_ok() || path.is_symlink() => {
            let mut file = File::options().write(true).create(true).truncate(false).open(path).map_err(cannot)?;
            buffered(&mut file)
        }
        _ => {
            let mut new = temporary(path, 0o666)?; // less what the umask takes away
            buffered(new.as_file_mut())?;
            settle(new, path)
        }
    }
}

/// Replaces a file by what `write` makes of it, all or nothing. A link stays a link: what it leads to is replaced. The
/// owner and the permissions stay.
fn replace_with(path: &Path, write: impl FnOnce(&mut File, &mut File) -> Result<()>) -> Result<()> {
    let real = path.canonicalize().map_err(|e| io("cannot find the file", path, e))?;
    let cannot = |e| io("cannot write the file", &real, e);
    let mut old = File::open(&real).map_err(cannot)?;
    let before = old.metadata().map_err(cannot)?;
    let mut new = temporary(&real, 0o600)?;
    write(new.as_file_mut(), &mut old)?;
    let owner = new.as_file().metadata().map_err(cannot)?;
    if (owner.uid(), owner.gid()) != (before.uid(), before.gid()) {
        fchown(new.as_file(), Some(before.uid()), Some(before.gid())).map_err(|e| {
            io("cannot keep the file's owner", &real, e).hint("run winject as the owner, or edit a copy of the file")
        })?;
    }
    new.as_file().set_permissions(before.permissions()).map_err(cannot)?;
    settle(new, &real)
}

/// A file beside `path` that is deleted unless it is [settled](settle).
fn temporary(path: &Path, mode: u32) -> Result<tempfile::NamedTempFile> {
    let folder = folder_of(path);
    let new = tempfile::Builder::new().permissions(PermissionsExt::from_mode(mode)).tempfile_in(folder);
    new.map_err(|e| io("cannot make a file in the folder", folder, e))
}

/// Gives a complete temporary file its name, durably.
fn settle(new: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    let cannot = |e| io("cannot write the file", path, e);
    new.as_file().sync_all().map_err(cannot)?;
    new.persist(path).map_err(|e| cannot(e.error))?;
    File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(cannot)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
