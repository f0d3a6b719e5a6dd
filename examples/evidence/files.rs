//! Folders of files on the host: made as they were, changed by recorded operations, compared.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::support::blocks::{for_each_piece, sha256};
use crate::virtual_host::Op;

/// The names in a folder with the SHA-256 of the files.
pub type Content = BTreeMap<String, String>;

/// The undo record of an edit names the inode of its image, so it differs from run to run; that it is there counts.
const RECORD: &str = ".winject-undo";

/// How the mark of a data file begins. It counts only as long as its image has a journal; the next edit removes one that
/// is left.
const MARK: &[u8] = b"WINJMARK";

/// What a folder holds. Temporary files of outputs are left out if `ignore_partial`: the next run removes them.
pub fn content(folder: &Path, ignore_partial: bool) -> Content {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = names.filter(|name| !(ignore_partial && name.starts_with('.') && name.ends_with(".partial")));
    let names = names.filter(|name| !is_mark(&folder.join(name)));
    names.map(|name| (hash(folder, &name), name)).map(|(hash, name)| (name, hash)).collect()
}

fn is_mark(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "winject-journal")
        && std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(MARK))
}

fn hash(folder: &Path, name: &str) -> String {
    if name.ends_with(RECORD) { "an undo record".into() } else { sha256(&folder.join(name)) }
}

/// The same content without undo records.
pub fn without_record(content: &Content) -> Content {
    content
        .iter()
        .filter(|(name, _)| !name.ends_with(RECORD))
        .map(|(name, hash)| (name.clone(), hash.clone()))
        .collect()
}

/// Makes `folder` hold what `store` holds. Files that are there stay the same files, with new content.
pub fn restore(store: &Path, folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if !store.join(entry.file_name()).exists() {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    for entry in std::fs::read_dir(store).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &folder.join(entry.file_name()));
    }
}

/// Copies a file with its holes; one of that name stays the same file.
pub fn copy(from: &Path, to: &Path) {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(to).unwrap();
    let length = for_each_piece(from, |at, piece| {
        file.write_all_at(piece, at).unwrap();
    });
    file.set_len(length).unwrap();
}

/// Applies a recorded operation to the files of a folder.
pub fn apply(folder: &Path, op: &Op) {
    let open = |path: &Path| OpenOptions::new().write(true).open(folder.join(path)).ok();
    match op {
        Op::Create(path) => {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600).open(folder.join(path)).unwrap();
        }
        // A file whose creation was lost has lost its content too.
        Op::Write(path, offset, data) => {
            if let Some(file) = open(path) {
                file.write_all_at(data, *offset).unwrap();
            }
        }
        Op::SetLen(path, length) => {
            if let Some(file) = open(path) {
                file.set_len(*length).unwrap();
            }
        }
        Op::Reserve(path, offset, length) => {
            if let Some(file) = open(path)
                && length_of(&file) < offset + length
            {
                file.set_len(offset + length).unwrap();
            }
        }
        Op::Punch(path, offset, length) => {
            if let Some(file) = open(path) {
                let end = (offset + length).min(length_of(&file));
                file.write_all_at(&vec![0; end.saturating_sub(*offset) as usize], *offset).unwrap();
            }
        }
        Op::Remove(path) => {
            let _ = std::fs::remove_file(folder.join(path));
        }
        Op::Rename(from, to) => {
            let _ = std::fs::rename(folder.join(from), folder.join(to));
        }
        Op::Flush(_) | Op::LostFlush(_) | Op::SyncFolder => {}
    }
}

fn length_of(file: &File) -> u64 {
    file.metadata().unwrap().len()
}
