//! The files found while directories are walked, and the bounds of the walk.

use std::collections::HashSet;

use super::error::damaged;
use crate::error::Result;

/// Most files and folders of an image.
pub(super) const ENTRIES_MAX: usize = 200_000;
/// Most folders above a file.
pub(super) const DEPTH_MAX: usize = 64;
/// Bytes of all directories together.
const DIRECTORY_BYTES_MAX: u64 = 256 << 20;
/// Most pieces of one file.
pub(super) const EXTENTS_MAX: usize = 65_536;

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsoFile {
    /// Path from the root, with `/`.
    pub path: String,
    /// Size in bytes, over all extents.
    pub size: u64,
    pub(super) extents: Vec<Extent>,
}

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Where it lies in the image; none: it was never written and reads as zeros.
    pub at: Option<u64>,
    pub length: u64,
}

/// What is found while directories are walked, with its bounds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub files: Vec<IsoFile>,
    pub warnings: Vec<String>,
    entries: usize,
    directory_bytes: u64,
    visited: HashSet<u64>,
    /// Bytes of Rock Ridge continuation areas.
    pub continuation_bytes: u64,
}

impl Listing {
    /// Called once for each directory, with the place of its data.
    pub fn enter(&mut self, at: u64, length: u64, path: &str, depth: usize) -> Result<()> {
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
    pub fn count(&mut self, path: &str) -> Result<()> {
        self.entries += 1;
        if self.entries > ENTRIES_MAX {
            return Err(damaged(format!("the image has more than {ENTRIES_MAX} entries")).path(path));
        }
        Ok(())
    }

    pub fn leave_out(&mut self, path: &str, why: &str) {
        self.warnings.push(format!("{path}: left out, {why}"));
    }
}

/// Joins a name to a path; `None` for names that would lead elsewhere.
pub(super) fn join(folder: &str, name: &str) -> Option<String> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return None;
    }
    Some(if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") })
}
