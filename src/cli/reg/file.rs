//! A hive file with the log files beside it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::cli::Ui;
use crate::error::{Error, Layer, Result};
use crate::hive::Hive;

/// The largest hive that Windows knows.
const HIVE_MAX: u64 = 1 << 31;

/// A hive file that was opened, its logs replayed.
pub(super) struct HiveFile {
    path: PathBuf,
    pub(super) hive: Hive,
    logs: Vec<Vec<u8>>,
}

fn io(what: &str, path: &Path, source: std::io::Error) -> Error {
    Error::io(Layer::Host, what, source).path(path.display().to_string())
}

/// The bytes of a file, with room for no more than they need.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let cannot = |e| io("cannot read the file", path, e);
    let mut file = File::open(path).map_err(cannot)?;
    let size = file.metadata().map_err(cannot)?.len();
    if size > HIVE_MAX {
        let error = Error::unsupported(Layer::Host, "too large for a registry file").path(path.display().to_string());
        return Err(error.hint("name a hive file or a .reg file"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    (&mut file).take(HIVE_MAX).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
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
        let logs: Vec<Vec<u8>> = find_logs(path)?.iter().map(|log| read(log)).collect::<Result<_>>()?;
        let log = |i: usize| logs.get(i).map(Vec::as_slice);
        let (hive, replay) =
            Hive::open_with_logs(read(path)?, log(0), log(1)).map_err(|e| e.path(path.display().to_string()))?;
        super::target::say_replay(replay.as_ref(), ui);
        Ok(Self { path: path.to_owned(), hive, logs })
    }

    /// Writes the hive back, if anything changed: to a temporary file beside it that then takes its name.
    pub(super) fn save(self) -> Result<bool> {
        if !self.hive.is_changed() {
            return Ok(false);
        }
        let logs: Vec<&[u8]> = self.logs.iter().map(Vec::as_slice).collect();
        let bytes = self.hive.finish(&logs).map_err(|e| e.path(self.path.display().to_string()))?;
        replace(&self.path, &bytes)?;
        Ok(true)
    }
}

/// `NAME.LOG1` and `NAME.LOG2` beside the hive in any case; else `NAME.LOG`.
fn find_logs(path: &Path) -> Result<Vec<PathBuf>> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_ascii_lowercase();
    let entries = std::fs::read_dir(folder).map_err(|e| io("cannot read the folder", folder, e))?;
    let mut found = [None, None, None];
    for entry in entries.flatten() {
        let lower = entry.file_name().to_ascii_lowercase();
        for (slot, ending) in found.iter_mut().zip([".log1", ".log2", ".log"]) {
            let mut wanted: OsString = name.clone();
            wanted.push(ending);
            if lower == wanted {
                slot.get_or_insert(entry.path());
            }
        }
    }
    let [log1, log2, log] = found;
    let pair: Vec<PathBuf> = log1.into_iter().chain(log2).collect();
    Ok(if pair.is_empty() { log.into_iter().collect() } else { pair })
}

/// Replaces a file's content, all or nothing.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    // A link stays a link: what it leads to is replaced.
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let cannot = |e| io("cannot write the file", &real, e);
    let folder = real.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(cannot)?;
    temporary.write_all(bytes).map_err(cannot)?;
    let mode = match std::fs::metadata(&real) {
        Ok(old) => old.permissions(),
        Err(_) => std::os::unix::fs::PermissionsExt::from_mode(0o644),
    };
    temporary.as_file().set_permissions(mode).map_err(cannot)?;
    temporary.as_file().sync_all().map_err(cannot)?;
    temporary.persist(&real).map_err(|e| cannot(e.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(cannot)
}
