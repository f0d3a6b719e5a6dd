//! Folders of files on the host: made as they were, changed by recorded operations, compared.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use winject::internals::block::commit::{journal_path, undo_path};
use winject::internals::hex;

use crate::support::blocks::{for_each_piece, sha256};
use crate::virtual_host::{Op, folder_of};

/// The files in a folder and those below it, by their paths in it, with their SHA-256.
pub type Content = BTreeMap<String, String>;

/// The undo record of an edit names the inode of its image, so it differs from run to run; that it is there counts.
pub const RECORD: &str = "an undo record";

/// How the mark of a data file begins. It counts only as long as its image has a journal; the next edit removes one that
/// is left.
const MARK: &[u8] = b"WINJMARK";

/// What a folder holds. Temporary files of outputs are left out if `ignore_partial`: the next run removes them.
pub fn content(folder: &Path, ignore_partial: bool) -> Content {
    let mut found = Content::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name().into_string().unwrap())).unwrap();
        if path.is_dir() {
            let below = content(&path, ignore_partial).into_iter();
            found.extend(below.map(|(inner, hash)| (format!("{name}/{inner}"), hash)));
        } else if !(is_mark(&path) || (ignore_partial && name.starts_with('.') && name.ends_with(".partial"))) {
            found.insert(name, hash(&path));
        }
    }
    found
}

fn is_mark(path: &Path) -> bool {
    journal_path(&path.with_extension("")) == path && std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(MARK))
}

fn hash(path: &Path) -> String {
    if undo_path(&path.with_extension("")) == path { RECORD.into() } else { sha256(path) }
}

/// The same content without undo records.
pub fn without_record(content: &Content) -> Content {
    content.iter().filter(|(_, hash)| *hash != RECORD).map(|(name, hash)| (name.clone(), hash.clone())).collect()
}

/// Whether every file in `folder`, if there is one, has its SHA-256 for a name, as those of a plan's bundle.
pub fn is_bundle(folder: &Path) -> bool {
    let mut files = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap());
    files.all(|entry| {
        let name = entry.file_name().into_string().unwrap();
        let hash = std::fs::read(entry.path()).map(|bytes| hex::encode(&Sha256::digest(bytes)));
        name.ends_with(".partial") || hash.is_ok_and(|hash| hash == name)
    })
}

/// Makes `folder` hold what `store` holds. Files that are there stay the same files, with new content.
pub fn restore(store: &Path, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, kept) = entry.map(|entry| (entry.path(), store.join(entry.file_name()))).unwrap();
        match path.is_dir() {
            true if !kept.is_dir() => std::fs::remove_dir_all(path).unwrap(),
            false if !kept.is_file() => std::fs::remove_file(path).unwrap(),
            _ => {}
        }
    }
    for entry in std::fs::read_dir(store).unwrap() {
        let (path, to) = entry.map(|entry| (entry.path(), folder.join(entry.file_name()))).unwrap();
        if path.is_dir() { restore(&path, &to) } else { copy(&path, &to) }
    }
}

/// Copies a file with its holes; one of that name stays the same file.
fn copy(from: &Path, to: &Path) {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(to).unwrap();
    let length = for_each_piece(from, |at, piece| {
        file.write_all_at(piece, at).unwrap();
    });
    file.set_len(length).unwrap();
}

/// Applies a recorded operation to the files of a folder. What was created in a folder whose creation was lost is lost
/// with it, and so is the content of a file.
pub fn apply(folder: &Path, op: &Op) {
    let open = |path: &Path| OpenOptions::new().write(true).open(folder.join(path)).ok();
    match op {
        Op::Create(path) if folder.join(folder_of(path)).is_dir() => {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600).open(folder.join(path)).unwrap();
        }
        Op::Create(_) => {}
        Op::CreateFolder(path) => {
            std::fs::create_dir(folder.join(path)).unwrap();
        }
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
        Op::Flush(_) | Op::LostFlush(_) | Op::SyncFolder(_) => {}
    }
}

fn length_of(file: &File) -> u64 {
    file.metadata().unwrap().len()
}
