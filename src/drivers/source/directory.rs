//! A folder of the host as a driver source.

use super::SourceFile;
use crate::error::{Error, Kind, Layer, Result};
use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Deepest folder that is looked into.
const DEPTH_MAX: usize = 16;
/// Most files that are listed: some fifty times a full driver ISO.
const FILES_MAX: usize = 100_000;

fn unreadable(error: std::io::Error, folder: &str) -> Error {
    Error::io(Layer::Drivers, "cannot read the driver folder", error).path(folder)
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
                    warnings.push(format!("{}: left out, the name is not UTF-8", entry.path().display()));
                    continue;
                };
                let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
                // cheaper than by the path, but it does not follow links
                let meta = match entry.metadata() {
                    Ok(meta) if !meta.is_symlink() => Ok(meta),
                    _ => std::fs::metadata(entry.path()),
                };
                let Ok(meta) = meta else {
                    warnings.push(format!("{}: left out, a link to nothing", entry.path().display()));
                    continue;
                };
                if meta.is_dir() && depth < DEPTH_MAX {
                    todo.push((entry.path(), path, depth + 1, id(&meta)));
                } else if meta.is_dir() {
                    warnings.push(format!("{}: left out, more than {DEPTH_MAX} folders deep", entry.path().display()));
                } else if meta.is_file() {
                    paths.insert(path.clone(), entry.path());
                    files.push(SourceFile { path, size: meta.len() });
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

    pub(super) fn read(&self, file: &SourceFile) -> Result<Vec<u8>> {
        std::fs::read(self.path(file)?).map_err(|e| Error::io(Layer::Drivers, "cannot read the driver file", e))
    }

    pub(super) fn read_part(&self, file: &SourceFile, offset: u64, length: u64) -> Result<Vec<u8>> {
        let mut out = vec![0; usize::try_from(length).unwrap_or(0)];
        let opened = std::fs::File::open(self.path(file)?);
        opened
            .and_then(|opened| opened.read_exact_at(&mut out, offset))
            .map_err(|e| Error::io(Layer::Drivers, "cannot read the driver file", e))?;
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
