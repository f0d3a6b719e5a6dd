//! Directories: finding a path, listing.

use std::ops::ControlFlow;

use super::attributes::{base_record, system_file};
use super::btree::Btree;
use super::pager::Pager;
use crate::error::{Error, Layer, Result};
use crate::io::VolumeRead;
use crate::ntfs::format::error::damaged;
use crate::ntfs::format::file_name::{DIRECTORY, FileName, VIEW_INDEX, layout};
use crate::ntfs::format::index_node::{Collation, EntryView};
use crate::ntfs::format::name::{NAME_UNITS_MAX, Namespace, NtfsName};
use crate::ntfs::format::units::{FileId, RecordNumber};

/// The index of names.
pub(crate) const I30: &str = "$I30";
/// The names of a path.
pub(crate) fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split(['/', '\\']).filter(|c| !c.is_empty())
}

/// Splits a path into its directory and its last name.
pub(crate) fn split_path(path: &str) -> Result<(Vec<&str>, &str)> {
    let mut names: Vec<&str> = components(path).collect();
    let last = names.pop().ok_or_else(|| {
        Error::refused(Layer::Ntfs, "the root directory itself cannot be named here").hint("name a file below it")
    })?;
    Ok((names, last))
}

/// The key of a directory entry for a name.
pub(crate) fn name_key(name: &NtfsName) -> Vec<u8> {
    let mut key = Vec::with_capacity(layout::NAME + 2 * name.units().len());
    key.resize(layout::NAME, 0);
    layout::NAME_LENGTH.set(&mut key, name.units().len() as u8);
    crate::field::push_utf16(&mut key, name.units());
    key
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The long or the short name, as stored.
    pub name: NtfsName,
    /// The file that the name leads to.
    pub file: FileId,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Bytes of content, from the copy in the directory: not up to date for hard links that were changed through another name.
    pub size: u64,
    /// DOS attributes, from the copy in the directory.
    pub attributes: u32,
    /// Namespace; entries of [`Namespace::Dos`] repeat a file under its short name.
    pub namespace: Namespace,
}

/// A directory that was opened for reading.
#[derive(Debug)]
pub(crate) struct Directory<'a, D> {
    file: FileId,
    tree: Btree<'a, D>,
}

impl<'a, D: VolumeRead> Directory<'a, D> {
    /// Opens a directory; refused when the file is not one.
    pub(crate) fn open(pager: &'a Pager<D>, file: FileId) -> Result<Self> {
        Ok(Self { file, tree: Btree::open(pager, file, I30)? })
    }

    /// The entry for `name`: the file, and the stored `$FILE_NAME`. A name that agrees in case is preferred to one that
    /// does not.
    pub(crate) fn find(&self, name: &NtfsName) -> Result<Option<(FileId, FileName)>> {
        if self.tree.collation() != Collation::FileName {
            return Err(damaged("a directory is not sorted by name"));
        }
        let key = name_key(name);
        let read = |entry: &EntryView<'_>| (entry.file(), FileName::parse(entry.key()));
        let mut found = self.tree.find(&key, false, read)?;
        if let Some((_, Ok(first))) = &found
            && first.name != *name
            && let Some(better) = self.tree.find(&key, true, read)?
        {
            found = Some(better);
        }
        found.map(|(file, name)| name.map(|n| (file, n))).transpose()
    }

    /// All names, in the order of the index.
    pub(crate) fn entries(&self) -> Result<Vec<DirectoryEntry>> {
        let mut entries = Vec::new();
        self.tree.walk(&mut |entry| {
            let name = FileName::parse(entry.key())?;
            // the root lists itself
            if entry.file().record != self.file.record {
                entries.push(DirectoryEntry {
                    name: name.name,
                    file: entry.file(),
                    is_dir: name.duplicate.attributes & DIRECTORY != 0,
                    size: name.duplicate.data_size,
                    attributes: name.duplicate.attributes & !(DIRECTORY | VIEW_INDEX),
                    namespace: name.namespace,
                });
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(entries)
    }

    /// Whether it has no entries.
    pub(crate) fn is_empty(&self) -> Result<bool> {
        let mut is_empty = true;
        self.tree.walk(&mut |_| {
            is_empty = false;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(is_empty)
    }

    /// The first ordinary files, at most `limit`, and whether they are directories.
    pub(crate) fn first_children(&self, limit: usize) -> Result<Vec<(FileId, bool)>> {
        let mut children = Vec::new();
        self.tree.walk(&mut |entry| {
            let name = FileName::parse(entry.key())?;
            if entry.file().record >= RecordNumber::FIRST_USER {
                children.push((entry.file(), name.duplicate.attributes & DIRECTORY != 0));
            }
            Ok(if children.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(children)
    }
}

/// The entry for `name` in a directory, as [`Directory::find`]; `None`, too, for a name that no file can have.
pub(crate) fn entry_in<D: VolumeRead>(
    pager: &Pager<D>,
    dir: FileId,
    name: &NtfsName,
) -> Result<Option<(FileId, FileName)>> {
    if name.is_empty() || name.units().len() > NAME_UNITS_MAX {
        return Ok(None);
    }
    Directory::open(pager, dir)?.find(name)
}

/// The file called `name` in a directory.
pub(crate) fn find_in<D: VolumeRead>(pager: &Pager<D>, dir: FileId, name: &NtfsName) -> Result<Option<FileId>> {
    Ok(entry_in(pager, dir, name)?.map(|(file, _)| file))
}

/// The file at a path from the root; `None` if there is none.
pub(crate) fn find_path<D: VolumeRead>(pager: &Pager<D>, path: &str) -> Result<Option<FileId>> {
    let root = system_file(pager, RecordNumber::ROOT)?;
    find_names(pager, root, components(path)).map_err(|e| e.path(path))
}

/// The file at the end of `names`, from a directory on; `None` if there is none.
pub(crate) fn find_names<'a, D: VolumeRead>(
    pager: &Pager<D>,
    from: FileId,
    names: impl Iterator<Item = &'a str>,
) -> Result<Option<FileId>> {
    let mut file = from;
    for name in names {
        if !base_record(pager, file)?.is_directory() {
            return Ok(None);
        }
        match find_in(pager, file, &name.into())? {
            Some(found) => file = found,
            None => return Ok(None),
        }
    }
    Ok(Some(file))
}
