//! What marks a file as waiting for a recovery: the journal of an image, or the marker of an external data file.
//!
//! The journal of an edit is in the image's folder. A program that opens the image's data file alone, as a raw disk, would
//! not see it. So the data file has a marker with the journal's name meanwhile. It names the image, relative to the data
//! file's folder, and counts as long as that image has a journal: one that a crash left behind means nothing.
//!
//! Layout, little endian: magic, version, length of the path, the path, a CRC-32 over all of it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::journal::{self, PATH_BYTES_MAX};
use super::journal_beside;
use crate::block::{HostFiles, Storage, StorageExt};
use crate::error::{Error, Kind, Layer, Result};
use crate::host::{PRIVATE, folder_of};

const MAGIC: &[u8; 8] = b"WINJMARK";
const VERSION: u32 = 1;
/// Magic, version, length of the path.
const HEAD: usize = 16;

/// Recovery state of a file, by its journal or marker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing.
    Clear,
    /// A journal that was never completed, or a marker whose image has no journal: nothing is half written.
    Unused,
    /// A complete journal.
    Journal,
    /// The marker of a data file whose image, which is named, has a journal.
    DataFileOf(PathBuf),
}

/// Reads the journal or marker of the file `real_path`, which belongs to the user `owner`.
///
/// # Errors
/// [`Kind::Pending`] when there is something that does not count or cannot be read.
pub(super) fn standing(host: &dyn HostFiles, real_path: &Path, owner: Option<u32>) -> Result<Standing> {
    let path = journal_beside(real_path);
    if !host.exists(&path) {
        return Ok(Standing::Clear);
    }
    let storage = host.open_journal(&path, owner)?;
    let unreadable = |e: io::Error| {
        Error::new(Kind::Pending, Layer::Host, "cannot read the undo journal")
            .path(path.display().to_string())
            .source_error(e)
            .hint("when the cause is gone, run winject again on the image")
    };
    if journal::is_unused(&*storage).map_err(unreadable)? {
        return Ok(Standing::Unused);
    }
    let mut magic = [0; MAGIC.len()];
    storage.read_or_zeros_at(0, &mut magic).map_err(unreadable)?;
    if magic != *MAGIC {
        return Ok(Standing::Journal);
    }
    // The journal is completed when the marker is durable, so one that is not whole belongs to none.
    let Some(name) = read(&*storage).map_err(unreadable)? else { return Ok(Standing::Unused) };
    let image = host.real_path(&folder_of(real_path).join(name));
    if host.exists(&image) && !has_journal(host, &image) {
        return Ok(Standing::Unused);
    }
    Ok(Standing::DataFileOf(image))
}

/// Whether an image has a complete journal, or one that cannot be judged.
fn has_journal(host: &dyn HostFiles, image: &Path) -> bool {
    let path = journal_beside(image);
    host.exists(&path)
        && host.open_journal(&path, None).map_or(true, |journal| !journal::is_unused(&*journal).unwrap_or(false))
}

/// Puts a marker beside the data file of an image, durably.
///
/// # Errors
/// When it cannot be created; none is left then.
pub(super) fn create(host: &dyn HostFiles, data_file: &Path, image: &Path) -> Result<()> {
    let path = journal_beside(data_file);
    let name = relative(folder_of(data_file), image);
    let name = name.as_os_str().as_bytes();
    let mut bytes = Vec::from(*MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(u32::try_from(name.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(name);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    let write = || {
        let storage = host.create(&path, PRIVATE)?;
        let written = storage.write_at(0, &bytes).and_then(|()| storage.flush());
        let written = written.and_then(|()| host.sync_folder_of(&path));
        if written.is_err() {
            remove(host, data_file);
        }
        written
    };
    write().map_err(|e| {
        Error::io(Layer::Host, "cannot mark the data file as being changed", e)
            .path(path.display().to_string())
            .hint("the data file's folder must be writable and have space")
    })
}

/// Removes the marker beside a data file. One that stays means nothing when the image has no journal.
pub(super) fn remove(host: &dyn HostFiles, data_file: &Path) {
    let path = journal_beside(data_file);
    if host.exists(&path)
        && let Err(error) = host.remove(&path)
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a marker");
    }
}

/// Removes what an interrupted run left beside a data file without meaning.
///
/// # Errors
/// [`Kind::Pending`] when it has a meaning, or does not count.
pub(super) fn clear(host: &dyn HostFiles, data_file: &Path, owner: Option<u32>) -> Result<()> {
    match standing(host, data_file, owner)? {
        Standing::Clear => Ok(()),
        Standing::Unused => {
            remove(host, data_file);
            Ok(())
        }
        Standing::Journal => Err(super::pending(data_file)),
        Standing::DataFileOf(image) => Err(super::pending_data_file(data_file, &image)),
    }
}

/// Reads the path in a marker; `None` if the marker is not complete.
fn read(storage: &dyn Storage) -> io::Result<Option<PathBuf>> {
    let mut head = [0; HEAD];
    storage.read_or_zeros_at(0, &mut head)?;
    let word = |at: usize| head.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let length = word(12);
    if word(8) != VERSION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    if length > PATH_BYTES_MAX {
        return Ok(None);
    }
    let end = HEAD + length as usize;
    let mut bytes = vec![0; end + 4];
    storage.read_or_zeros_at(0, &mut bytes)?;
    let (content, sum) = bytes.split_at(end);
    let is_whole = crc32fast::hash(content).to_le_bytes() == *sum;
    Ok(is_whole.then(|| PathBuf::from(OsStr::from_bytes(content.get(HEAD..).unwrap_or_default()))))
}

/// How `to` is named from `folder`; both are free of symbolic links.
fn relative(folder: &Path, to: &Path) -> PathBuf {
    let common = folder.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(common).filter(|c| *c != Component::CurDir).map(|_| Component::ParentDir);
    up.chain(to.components().skip(common)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_from_folder_to_folder() {
        for (folder, to, name) in [
            ("/a/b", "/a/b/i.qcow2", "i.qcow2"),
            ("/a/b", "/a/c/i.qcow2", "../c/i.qcow2"),
            ("/a/b/c", "/i.qcow2", "../../../i.qcow2"),
            ("/", "/a/i.qcow2", "a/i.qcow2"),
        ] {
            assert_eq!(relative(Path::new(folder), Path::new(to)), Path::new(name));
        }
    }
}
