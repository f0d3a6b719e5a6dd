//! A folder of the host as a driver source.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::file::{FILE_SIZE_MAX, SourceFile, WARNINGS_MAX};
use crate::error::{Error, Kind, Layer, Result};
use crate::host::{self, Unreadable};

/// Deepest folder that is searched.
const DEPTH_MAX: usize = 16;
/// Most files that are listed: some fifty times a full driver ISO.
const FILES_MAX: usize = 100_000;

fn unreadable(error: std::io::Error, folder: &str) -> Error {
    Error::io(Layer::Drivers, "cannot read the driver folder", error).path(folder)
}

fn unreadable_file(error: Unreadable, path: &Path) -> Error {
    match error {
        Unreadable::Io(error) => Error::io(Layer::Drivers, "cannot read the driver file", error),
        Unreadable::NotAFile(kind) => Error::new(
            Kind::Drivers,
            Layer::Drivers,
            format!("cannot read the driver file: {kind}, not a regular file"),
        )
        .path(path.display().to_string())
        .hint("take it out of the driver folder"),
        Unreadable::TooLarge(limit) => {
            Error::new(Kind::Drivers, Layer::Drivers, "the file is too large for a driver's")
                .path(path.display().to_string())
                .expected_found(format!("at most {limit} bytes"), "more")
                .hint("leave the driver folder alone while winject runs")
        }
    }
}

/// The real path of every listed file.
pub(super) struct Directory {
    paths: HashMap<String, PathBuf>,
}

impl Directory {
    pub(super) fn open(root: &Path, warnings: &mut Vec<String>) -> Result<(Self, Vec<SourceFile>)> {
        let mut files = Vec::new();
        let mut paths = HashMap::new();
        let mut seen = HashSet::new();
        let shown = root.display().to_string();
        // The folder itself may be given by a link; only the targets of links inside it are checked.
        let real_root = root.canonicalize().map_err(|e| unreadable(e, &shown))?;
        let mut leave_out = |path: &Path, reason: &str| {
            if warnings.len() < WARNINGS_MAX {
                warnings.push(format!("{}: left out, {reason}", path.display()));
            }
        };
        let id = |meta: &Metadata| (meta.dev(), meta.ino());
        let top = std::fs::metadata(root).map_err(|e| unreadable(e, &shown))?;
        let mut todo = vec![(root.to_owned(), String::new(), 0, id(&top))];
        while let Some((folder, prefix, depth, folder_id)) = todo.pop() {
            let shown = folder.display().to_string();
            let io = |e| unreadable(e, &shown);
            // a folder that is reached twice through links is listed once
            if !seen.insert(folder_id) {
                continue;
            }
            for entry in std::fs::read_dir(&folder).map_err(io)? {
                let entry = entry.map_err(io)?;
                let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                    leave_out(&entry.path(), "the name is not UTF-8");
                    continue;
                };
                let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
                // cheaper than by the path, but it does not follow links
                let (real, meta) = match entry.metadata() {
                    Ok(meta) if !meta.is_symlink() => (entry.path(), meta),
                    _ => {
                        let found = entry.path().canonicalize().and_then(|real| Ok((real.metadata()?, real)));
                        let Ok((meta, real)) = found else {
                            leave_out(&entry.path(), "a link to nothing");
                            continue;
                        };
                        // The target of a link is copied into the guest: foreign driver media could name any file of
                        // the host.
                        if !real.starts_with(&real_root) {
                            leave_out(&entry.path(), "a link that leads out of the driver folder");
                            continue;
                        }
                        (real, meta)
                    }
                };
                if meta.is_dir() && depth < DEPTH_MAX {
                    todo.push((real, path, depth + 1, id(&meta)));
                } else if meta.is_dir() {
                    leave_out(&entry.path(), &format!("more than {DEPTH_MAX} folders deep"));
                } else if meta.is_file() {
                    paths.insert(path.clone(), real);
                    files.push(SourceFile { path, size: meta.len() });
                } else {
                    leave_out(&entry.path(), "not a regular file");
                }
                if files.len() > FILES_MAX {
                    return Err(Error::new(Kind::Drivers, Layer::Drivers, format!("more than {FILES_MAX} files"))
                        .path(root.display().to_string())
                        .hint("this is not a driver folder; give one with drivers only"));
                }
            }
        }
        Ok((Self { paths }, files))
    }

    /// A folder that holds one file only, under its own name.
    pub(super) fn of_file(path: &Path, size: u64) -> (Self, SourceFile) {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let paths = HashMap::from([(name.clone(), path.to_owned())]);
        (Self { paths }, SourceFile { path: name, size })
    }

    pub(super) fn read(&self, file: &SourceFile) -> Result<Vec<u8>> {
        let path = self.path(file)?;
        // What was a regular file when it was listed may be a pipe, or longer, by now. (The caller compares the length.)
        host::read(path, FILE_SIZE_MAX).map_err(|e| unreadable_file(e, path))
    }

    pub(super) fn read_part(&self, file: &SourceFile, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut out = vec![0; usize::try_from(length).unwrap_or(0)];
        let path = self.path(file)?;
        host::open(path, false)
            .and_then(|opened| Ok(opened.read_exact_at(&mut out, offset)?))
            .map_err(|e| unreadable_file(e, path))?;
        Ok(out)
    }

    /// The length of the file as it is now.
    pub(super) fn length(&self, file: &SourceFile) -> Result<u64> {
        let metadata = std::fs::metadata(self.path(file)?);
        metadata.map(|m| m.len()).map_err(|e| Error::io(Layer::Drivers, "cannot read the driver file", e))
    }

    fn path(&self, file: &SourceFile) -> Result<&PathBuf> {
        self.paths.get(&file.path).ok_or_else(|| Error::bug(Layer::Drivers, "a listed file has no path"))
    }
}
