//! Reading ISO 9660 (Rock Ridge, Joliet, level 4) and UDF.
//!
//! An image may hold the same files under several trees of names. The richest one is read: Rock Ridge, then Joliet, then
//! UDF, then the names of ISO 9660:1999, then the plain ones. Opening reads directories only; a file's data are read
//! when somebody asks for them.
//!
//! Everything comes from an untrusted image: every directory is visited once, depth, count and sizes are bounded, and
//! every extent is checked against the end of the image.

mod directory;
mod host;
mod rock_ridge;
mod udf;
mod volume;

pub use host::HostFile;

use crate::error::{Error, Layer, Result};
use crate::io::VolumeRead;
use crate::units::VolumeOffset;
use std::fmt;

/// Most files and folders of an image.
pub const ENTRIES_MAX: usize = 200_000;
/// Deepest folder.
pub const DEPTH_MAX: usize = 64;
/// Bytes of all directories together.
const DIRECTORY_BYTES_MAX: u64 = 256 << 20;
/// Most pieces of one file.
const EXTENTS_MAX: usize = 65_536;

/// The trees of names that an image can hold, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    /// ISO 9660 with the names of Rock Ridge (IEEE P1282).
    RockRidge,
    /// The supplementary tree with Unicode names.
    Joliet,
    /// Universal Disk Format (ECMA-167).
    Udf,
    /// The enhanced tree of ISO 9660:1999 ("level 4").
    Enhanced,
    /// ISO 9660 as it was in 1988.
    Plain,
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RockRidge => "Rock Ridge",
            Self::Joliet => "Joliet",
            Self::Udf => "UDF",
            Self::Enhanced => "ISO 9660:1999",
            Self::Plain => "ISO 9660",
        })
    }
}

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsoFile {
    /// Path from the root, with `/`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    extents: Vec<Extent>,
}

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    /// Where it lies in the image; none: it was never written and reads as zeros.
    at: Option<u64>,
    length: u64,
}

/// An opened image.
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
    Error::unsupported(Layer::Iso, "this is no ISO 9660 or UDF image").hint("give an ISO image or a folder")
}

fn damaged(message: impl Into<String>) -> Error {
    Error::damaged(Layer::Iso, message).hint("the image is broken; copy or download it again")
}

/// What is found while directories are walked, with its bounds.
#[derive(Debug, Default)]
struct Listing {
    files: Vec<IsoFile>,
    warnings: Vec<String>,
    entries: usize,
    directory_bytes: u64,
    visited: std::collections::HashSet<u64>,
    /// Bytes of Rock Ridge continuation areas.
    continuation_bytes: u64,
}

impl Listing {
    /// Called once for each directory, with the place of its data.
    fn enter(&mut self, at: u64, length: u64, path: &str, depth: usize) -> Result<()> {
        self.directory_bytes = self.directory_bytes.saturating_add(length);
        if !self.visited.insert(at) {
            return Err(damaged("a directory is reached twice: the directories form a loop").at(at).path(path));
        }
        if depth > DEPTH_MAX {
            return Err(damaged(format!("directories are more than {DEPTH_MAX} deep")).at(at).path(path));
        }
        if self.directory_bytes > DIRECTORY_BYTES_MAX {
            return Err(damaged("the directories are far too large").at(at).path(path));
        }
        Ok(())
    }

    /// Called for each entry of a directory.
    fn count(&mut self, path: &str) -> Result<()> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(damaged(format!("the image has more than {ENTRIES_MAX} entries")).path(path));
        }
        Ok(())
    }

    fn leave_out(&mut self, path: &str, why: &str) {
        self.warnings.push(format!("{path}: left out, {why}"));
    }
}

/// Reads `length` bytes, which must be inside the image.
fn read_bytes<D: VolumeRead>(device: &D, at: u64, length: u64) -> Result<Vec<u8>> {
    if at.checked_add(length).is_none_or(|end| end > device.len()) {
        return Err(damaged("the image is cut short: a directory lies beyond its end")
            .at(at)
            .expected_found(format!("{length} bytes"), format!("an image of {}", device.len())));
    }
    let length = usize::try_from(length).map_err(|_| damaged("a directory is far too large").at(at))?;
    let mut out = vec![0; length];
    device.read_at(VolumeOffset(at), &mut out)?;
    Ok(out)
}

/// Little-endian numbers of a structure; `None` beyond its end.
trait Fields {
    fn bytes(&self, at: usize, length: usize) -> Option<&[u8]>;
    fn u8(&self, at: usize) -> Option<u8> {
        self.bytes(at, 1)?.first().copied()
    }
    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.bytes(at, 2)?.try_into().ok()?))
    }
    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(at, 4)?.try_into().ok()?))
    }
    fn u64(&self, at: usize) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(at, 8)?.try_into().ok()?))
    }
}

impl Fields for [u8] {
    fn bytes(&self, at: usize, length: usize) -> Option<&[u8]> {
        self.get(at..at.checked_add(length)?)
    }
}

/// Joins a name to a path; `None` for names that would lead elsewhere.
fn join(folder: &str, name: &str) -> Option<String> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return None;
    }
    Some(if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") })
}
