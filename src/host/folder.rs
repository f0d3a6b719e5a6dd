//! Folders of paths.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::permissions::common_mode;

/// The folder that holds `path`.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The path of a file with an ending after its name.
pub(crate) fn next_to(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Makes sure that a folder is there, open to no more users than the files `sources`; returns whether it is new. Its
/// parent must be there.
pub(crate) fn create_folder(path: &Path, sources: &[PathBuf]) -> io::Result<bool> {
    let readable = common_mode(sources, folder_of(path));
    // Who may read a file may also enter the folder.
    let mode = readable | (readable & 0o444) >> 2;
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes sure that a folder is there, with those above it; a new one is open to the current user alone, and durable.
pub(crate) fn create_private_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let is_new = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.is_dir();
    let new: Vec<&Path> = path.ancestors().take_while(is_new).collect();
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(path)?;
    // Each name is in the folder above it.
    new.into_iter().try_for_each(|folder| std::fs::File::open(folder_of(folder))?.sync_all())
}

/// Removes a folder that is empty.
pub(crate) fn remove_folder(path: &Path) -> io::Result<()> {
    std::fs::remove_dir(path)
}
