//! Directories of ISO 9660 (ECMA-119 section 9.1) under any of its trees.

use super::rock_ridge::{self, Attributes};
use super::volume::{SECTOR, Volumes};
use super::{EXTENTS_MAX, Extent, Fields, IsoFile, Listing, Tree, damaged, join, read_bytes};
use crate::error::Result;
use crate::io::VolumeRead;

const FLAG_DIRECTORY: u8 = 0x02;
const FLAG_ASSOCIATED: u8 = 0x04;
const FLAG_MORE_EXTENTS: u8 = 0x80;
/// Length of a record without its name.
const RECORD_MIN: usize = 33;

/// A directory record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    extent: u32,
    size: u32,
    attribute_blocks: u8,
    flags: u8,
    interleaved: bool,
    name: Vec<u8>,
    /// The system use area, for Rock Ridge.
    system_use: Vec<u8>,
    /// Length on the disk.
    length: usize,
}

impl Record {
    /// Reads the record at an offset of a directory.
    pub fn parse(data: &[u8], at: usize) -> Option<Self> {
        let length = usize::from(data.u8(at)?);
        let record = data.bytes(at, length).filter(|_| length > RECORD_MIN)?;
        let name_length = usize::from(record.u8(32)?);
        let name = record.bytes(RECORD_MIN, name_length)?.to_vec();
        // an even name length is padded
        let system_use_at = RECORD_MIN + name_length + usize::from(name_length % 2 == 0);
        Some(Self {
            extent: record.u32(2)?,
            size: record.u32(10)?,
            attribute_blocks: record.u8(1)?,
            flags: record.u8(25)?,
            interleaved: record.u8(26)? != 0 || record.u8(27)? != 0,
            name,
            system_use: record.get(system_use_at..).unwrap_or_default().to_vec(),
            length,
        })
    }

    fn is_directory(&self) -> bool {
        self.flags & FLAG_DIRECTORY != 0
    }

    /// `.` and `..` have the names 0 and 1.
    fn is_self_or_parent(&self) -> bool {
        matches!(self.name.as_slice(), [0 | 1])
    }

    /// Where the data lie.
    fn at(&self, block: u64) -> u64 {
        (u64::from(self.extent) + u64::from(self.attribute_blocks)) * block
    }

    /// The name by the rules of ISO 9660 or Joliet.
    fn name(&self, tree: Tree) -> String {
        let name = if tree == Tree::Joliet {
            let units = self.name.as_chunks::<2>().0.iter().map(|&pair| u16::from_be_bytes(pair));
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        } else {
            match std::str::from_utf8(&self.name) {
                Ok(text) => text.to_owned(),
                Err(_) => self.name.iter().map(|&byte| char::from(byte)).collect(),
            }
        };
        without_version(&name, self.is_directory()).to_owned()
    }
}

/// Takes `;1` off, and the dot of a name without an ending.
fn without_version(name: &str, is_directory: bool) -> &str {
    let name = match name.rsplit_once(';') {
        Some((name, version)) if !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => name,
    };
    if is_directory { name } else { name.strip_suffix('.').filter(|n| !n.is_empty()).unwrap_or(name) }
}

/// Whether the primary tree carries Rock Ridge: its root's own record says so.
pub(super) fn has_rock_ridge<D: VolumeRead>(device: &D, set: &Volumes) -> Result<bool> {
    Ok(rock_ridge_skip(device, set)?.is_some())
}

/// How many bytes of each system use area belong to somebody else (the `SP` entry of the root's own record).
fn rock_ridge_skip<D: VolumeRead>(device: &D, set: &Volumes) -> Result<Option<usize>> {
    let Some(root) = set.root(Tree::Plain) else { return Ok(None) };
    let data = read_bytes(device, root.at(set.block), u64::from(root.size).min(SECTOR))?;
    let Some(own) = Record::parse(&data, 0) else { return Ok(None) };
    let Some(skip) = rock_ridge::announced(&own.system_use) else { return Ok(None) };
    // SUSP alone is no Rock Ridge: some entry must carry POSIX attributes or a name
    let mut at = 0;
    while let Some(record) = Record::parse(&data, at) {
        let attributes = rock_ridge::read(device, set.block, &record.system_use, skip, &mut 0)?;
        if attributes.is_rock_ridge {
            return Ok(Some(skip));
        }
        at += record.length;
    }
    Ok(None)
}

/// A directory that is still to be read.
struct Todo {
    at: u64,
    size: u64,
    path: String,
    depth: usize,
}

/// Lists all files below a root.
pub(super) fn list<D: VolumeRead>(
    device: &D,
    set: &Volumes,
    root: &Record,
    tree: Tree,
    listing: &mut Listing,
) -> Result<()> {
    let skip = if tree == Tree::RockRidge { rock_ridge_skip(device, set)? } else { None };
    let mut todo = vec![Todo { at: root.at(set.block), size: u64::from(root.size), path: String::new(), depth: 0 }];
    while let Some(directory) = todo.pop() {
        listing.enter(directory.at, directory.size, &directory.path, directory.depth)?;
        let data = read_bytes(device, directory.at, directory.size)?;
        let mut walk =
            Walk { device, set, tree, skip, listing, directory: &directory, pending: None, found: Vec::new() };
        walk.records(&data)?;
        todo.append(&mut walk.found);
    }
    Ok(())
}

/// The walk through one directory.
struct Walk<'a, D> {
    device: &'a D,
    set: &'a Volumes,
    tree: Tree,
    skip: Option<usize>,
    listing: &'a mut Listing,
    directory: &'a Todo,
    /// A file of several extents whose last record has not come yet.
    pending: Option<IsoFile>,
    found: Vec<Todo>,
}

impl<D: VolumeRead> Walk<'_, D> {
    fn records(&mut self, data: &[u8]) -> Result<()> {
        let mut at = 0;
        while at < data.len() {
            // a record never crosses a sector; the rest of a sector is zero
            if data.u8(at) == Some(0) {
                at = (at / 2048 + 1) * 2048;
                continue;
            }
            let record = Record::parse(data, at).ok_or_else(|| {
                damaged("a directory record is cut or too short")
                    .at(self.directory.at + at as u64)
                    .path(self.directory.path.clone())
            })?;
            at += record.length;
            if !record.is_self_or_parent() {
                self.record(&record)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, record: &Record) -> Result<()> {
        self.listing.count(&self.directory.path)?;
        let attributes = match self.skip {
            Some(skip) => rock_ridge::read(
                self.device,
                self.set.block,
                &record.system_use,
                skip,
                &mut self.listing.continuation_bytes,
            )?,
            None => Attributes::default(),
        };
        // a directory that was moved up is found again where its child link points
        if attributes.is_relocated || record.flags & FLAG_ASSOCIATED != 0 {
            return Ok(());
        }
        let name = attributes.name.clone().unwrap_or_else(|| record.name(self.tree));
        let Some(path) = join(&self.directory.path, &name) else {
            self.listing.leave_out(&self.directory.path, &format!("the name {name:?} is impossible"));
            return Ok(());
        };
        if let Some(block) = attributes.child_link {
            return self.child(u64::from(block) * self.set.block, path);
        }
        if record.is_directory() {
            let (at, size) = (record.at(self.set.block), u64::from(record.size));
            self.found.push(Todo { at, size, path, depth: self.directory.depth + 1 });
            return Ok(());
        }
        if let Some(why) = attributes.unreadable {
            self.listing.leave_out(&path, why);
            return Ok(());
        }
        if record.interleaved {
            self.listing.leave_out(&path, "it is recorded in interleaved mode");
            return Ok(());
        }
        self.file(record, path)
    }

    /// A directory elsewhere: its size is in its own first record.
    fn child(&mut self, at: u64, path: String) -> Result<()> {
        let data = read_bytes(self.device, at, SECTOR)?;
        let own = Record::parse(&data, 0)
            .ok_or_else(|| damaged("a child link leads to no directory").at(at).path(path.clone()))?;
        self.found.push(Todo { at, size: u64::from(own.size), path, depth: self.directory.depth + 1 });
        Ok(())
    }

    fn file(&mut self, record: &Record, path: String) -> Result<()> {
        let extent = Extent { at: Some(record.at(self.set.block)), length: u64::from(record.size) };
        let mut file = match self.pending.take() {
            Some(file) if file.path == path => file,
            Some(file) => return Err(damaged("a file of several extents has no last one").path(file.path)),
            None => IsoFile { path, size: 0, extents: Vec::new() },
        };
        file.size += extent.length;
        if extent.length > 0 {
            file.extents.push(extent);
        }
        if file.extents.len() > EXTENTS_MAX {
            return Err(damaged("a file has far too many extents").path(file.path));
        }
        if record.flags & FLAG_MORE_EXTENTS != 0 {
            self.pending = Some(file);
        } else {
            self.listing.files.push(file);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_versions() {
        for (name, directory, expected) in [
            ("VIOSTOR.SYS;1", false, "VIOSTOR.SYS"),
            ("README.;1", false, "README"),
            ("README.", false, "README"),
            ("W8.1", true, "W8.1"),
            ("a;b", false, "a;b"),
            (".", false, "."),
        ] {
            assert_eq!(without_version(name, directory), expected, "{name}");
        }
    }

    #[test]
    fn short_records_are_refused() {
        assert_eq!(Record::parse(&[], 0), None);
        assert_eq!(Record::parse(&[33; 33], 0), None, "a record has at least a name of one byte");
        let mut data = [0u8; 34];
        data[0] = 34;
        data[32] = 9;
        assert_eq!(Record::parse(&data, 0), None, "the name is longer than the record");
        data[32] = 1;
        assert!(Record::parse(&data, 0).is_some());
    }
}
