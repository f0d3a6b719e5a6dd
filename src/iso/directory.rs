//! Directories of ISO 9660 (ECMA-119 section 9.1) under any of its trees.

use super::bytes::read_bytes;
use super::error::damaged;
use super::listing::{EXTENTS_MAX, Extent, IsoFile, Listing, join};
use super::record::Record;
use super::rock_ridge::{self, Attributes};
use super::tree::Tree;
use super::volume::{SECTOR, Volumes};
use crate::error::Result;
use crate::io::VolumeRead;

/// The rest of a sector in which no record fits is zero.
const SECTOR_BYTES: usize = SECTOR as usize;

/// Whether the primary tree carries Rock Ridge: its root's own record says so.
pub(super) fn has_rock_ridge<D: VolumeRead>(device: &D, set: &Volumes) -> Result<bool> {
    Ok(rock_ridge_skip(device, set)?.is_some())
}

/// How many bytes of each system use area to skip (the `SP` entry of the root's own record).
fn rock_ridge_skip<D: VolumeRead>(device: &D, set: &Volumes) -> Result<Option<usize>> {
    let Some(root) = set.root(Tree::Plain) else { return Ok(None) };
    let data = read_bytes(device, root.at(set.block), u64::from(root.size).min(SECTOR))?;
    let Some(own) = Record::parse(&data, 0) else { return Ok(None) };
    let Some(skip) = rock_ridge::announced(&own.system_use) else { return Ok(None) };
    // SUSP alone is not Rock Ridge: some entry must carry POSIX attributes or a name
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
            if data.get(at) == Some(&0) {
                at = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
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
        if attributes.is_relocated || record.is_associated() {
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
        if record.is_interleaved {
            self.listing.leave_out(&path, "it is recorded in interleaved mode");
            return Ok(());
        }
        self.file(record, path)
    }

    /// A directory elsewhere: its size is in its own first record.
    fn child(&mut self, at: u64, path: String) -> Result<()> {
        let data = read_bytes(self.device, at, SECTOR)?;
        let own = Record::parse(&data, 0)
            .ok_or_else(|| damaged("a child link does not lead to a directory").at(at).path(path.clone()))?;
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
        if record.has_more_extents() {
            self.pending = Some(file);
        } else {
            self.listing.files.push(file);
        }
        Ok(())
    }
}
