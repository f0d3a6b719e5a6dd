//! An opened image: its files and their data.

use super::error::damaged;
use super::host::HostFile;
use super::listing::{IsoFile, Listing};
use super::tree::Tree;
use super::{directory, udf, volume};
use crate::error::{Error, Layer, Result};
use crate::io::VolumeRead;
use crate::units::VolumeOffset;

/// An image whose directories have been read; the files' data are read on demand.
#[derive(Debug)]
pub struct Iso<D> {
    device: D,
    tree: Tree,
    files: Vec<IsoFile>,
    warnings: Vec<String>,
}

impl Iso<HostFile> {
    /// Opens an image of the host.
    ///
    /// # Errors
    /// As [`Iso::open`], or when the file cannot be read.
    pub fn open_path(path: &std::path::Path) -> Result<Self> {
        Self::open(HostFile::open(path)?).map_err(|e| e.within(path.display()))
    }
}

impl<D: VolumeRead> Iso<D> {
    /// Opens an image with the best of its trees.
    ///
    /// # Errors
    /// Unsupported: this is neither ISO 9660 nor UDF. Damaged: it is, but contradicts itself or is cut short.
    pub fn open(device: D) -> Result<Self> {
        let trees = trees(&device)?;
        let best = trees.first().copied();
        Self::open_tree(device, best.ok_or_else(not_an_iso)?)
    }

    /// Opens an image with a chosen one of its trees.
    ///
    /// # Errors
    /// As [`open`](Self::open); also when the image does not have that tree.
    pub fn open_tree(device: D, tree: Tree) -> Result<Self> {
        let mut listing = Listing::default();
        match tree {
            Tree::Udf => udf::list(&device, &mut listing)?,
            _ => {
                let set = volume::read(&device)?.ok_or_else(not_an_iso)?;
                let root = set.root(tree).ok_or_else(not_an_iso)?;
                directory::list(&device, &set, root, tree, &mut listing)?;
            }
        }
        let length = device.len();
        for file in &listing.files {
            let end = file.extents.iter().filter_map(|e| e.at?.checked_add(e.length)).max().unwrap_or(0);
            if end > length {
                return Err(Error::damaged(Layer::Iso, "the image is cut short: a file lies beyond its end")
                    .path(file.path.clone())
                    .expected_found(format!("at least {end} bytes"), length)
                    .hint("copy or download the image again"));
            }
        }
        Ok(Self { device, tree, files: listing.files, warnings: listing.warnings })
    }

    /// The tree that is read.
    #[must_use]
    pub fn tree(&self) -> Tree {
        self.tree
    }

    /// All files, in the order of the directories.
    #[must_use]
    pub fn files(&self) -> &[IsoFile] {
        &self.files
    }

    /// What was left out (symbolic links, compressed files), and why.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// When the image cannot be read, or the file is larger than `limit`.
    pub fn read(&self, file: &IsoFile, limit: u64) -> Result<Vec<u8>> {
        let length = usize::try_from(file.size).ok().filter(|_| file.size <= limit).ok_or_else(|| {
            Error::unsupported(Layer::Iso, format!("the file has {} bytes; at most {limit} are read", file.size))
                .path(file.path.clone())
        })?;
        self.read_part(file, 0, length as u64)
    }

    /// Reads a part of a file; shorter if the file ends before it.
    ///
    /// # Errors
    /// When the image cannot be read.
    pub fn read_part(&self, file: &IsoFile, offset: u64, length: u64) -> Result<Vec<u8>> {
        let length = length.min(file.size.saturating_sub(offset));
        let mut out = vec![0; usize::try_from(length).map_err(|_| damaged("a file is far too large"))?];
        let mut rest = out.as_mut_slice();
        let mut before = 0u64;
        for extent in &file.extents {
            let skip = offset.saturating_sub(before).min(extent.length);
            before = before.saturating_add(extent.length);
            let take = usize::try_from(extent.length - skip).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(take);
            if let Some(at) = extent.at.filter(|_| !now.is_empty()) {
                self.device.read_at(VolumeOffset(at + skip), now).map_err(|e| e.path(file.path.clone()))?;
            }
            rest = later;
        }
        Ok(out)
    }
}

/// Which trees an image holds, best first.
///
/// # Errors
/// When the image cannot be read, or its descriptors contradict themselves.
pub fn trees<D: VolumeRead>(device: &D) -> Result<Vec<Tree>> {
    let mut out = Vec::new();
    if let Some(set) = volume::read(device)? {
        out.extend([Tree::Joliet, Tree::Enhanced, Tree::Plain].into_iter().filter(|&tree| set.root(tree).is_some()));
        if directory::has_rock_ridge(device, &set)? {
            out.push(Tree::RockRidge);
        }
    }
    if udf::is_present(device) {
        out.push(Tree::Udf);
    }
    out.sort();
    Ok(out)
}

fn not_an_iso() -> Error {
    Error::unsupported(Layer::Iso, "not an ISO 9660 or UDF image").hint("give an ISO image or a folder")
}
