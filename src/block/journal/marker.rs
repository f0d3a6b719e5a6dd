//! The marker of an external data file whose image has a journal.
//!
//! The journal of an edit is in the image's folder. A program that opens the image's data file alone, as a raw disk,
//! would not see it. So the data file has a marker with the journal's name meanwhile. It names the image, relative to
//! the data file's folder, and counts as long as that image has a journal: one that a crash left is ignored.
//!
//! Layout, little endian: magic, version, length of the path, the path, a CRC-32 over all of it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::path::{creation_hint, journal_of_real_path};
use super::record::PATH_BYTES_MAX;
use crate::error::{Error, Layer, Result};
use crate::host::{HostFiles, PRIVATE, Storage, StorageExt, folder_of};

pub(super) const MAGIC: &[u8; 8] = b"WINJMARK";
const VERSION: u32 = 1;
/// Magic, version, length of the path.
const HEAD: usize = 16;

/// Creates the marker of an image's data file, next to that file, and makes it durable.
///
/// # Errors
/// When it cannot be created; none is left then.
pub(crate) fn create(host: &dyn HostFiles, data_file: &Path, image: &Path) -> Result<()> {
    let path = journal_of_real_path(data_file);
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
        let hint = creation_hint(&e, "the data file");
        Error::io(Layer::Host, "cannot mark the data file as being changed", e)
            .path(path.display().to_string())
            .hint(hint)
    })
}

/// Removes the marker of a data file. If that fails, the marker is ignored once the image has no journal.
pub(crate) fn remove(host: &dyn HostFiles, data_file: &Path) {
    let path = journal_of_real_path(data_file);
    if host.exists(&path)
        && let Err(error) = host.remove(&path)
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a marker");
    }
}

/// Reads the path in a marker; `None` if the marker is not complete.
pub(super) fn read(storage: &dyn Storage) -> io::Result<Option<PathBuf>> {
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
