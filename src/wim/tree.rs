//! The directory tree of an image.

use zerocopy::{FromZeros, IntoBytes};

use super::error::damaged;
use super::format::{StoredEntry, StoredSecurity};
use super::header::Wim;
use super::lookup::Lookup;
use super::resource::ResourceReader;
use crate::error::Result;
use crate::io::VolumeRead;
use crate::upcase::Fold;

/// Most entries that are read of one tree, all questions together: a recovery image takes 20,000. A hostile tree can make each
/// of them cost a chunk.
const ENTRIES_MAX: u32 = 200_000;
/// The bit of the attributes that a folder has.
const DIRECTORY: u32 = 0x10;
/// Smallest entry of a named stream, in bytes.
const STREAM_MIN: u64 = 38;

/// A file or folder of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WimEntry {
    /// Its name; empty for the root.
    pub name: String,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// SHA-1 of its content; zero for a folder, and for an empty file.
    pub sha1: [u8; 20],
    /// Where its entries begin in the metadata.
    children: u64,
}

/// The files and folders of one image, read as they are asked for.
#[derive(Debug)]
pub struct Tree<'w, R> {
    metadata: ResourceReader<'w, R>,
    root: WimEntry,
    /// Entries that may still be read.
    left: u32,
}

impl<R: VolumeRead> Wim<R> {
    /// Opens the tree of an image, counted from 1.
    ///
    /// # Errors
    /// Damaged or unsupported, and what reading gives.
    pub fn tree(&self, lookup: &Lookup, image: u32) -> Result<Tree<'_, R>> {
        let metadata =
            lookup.metadata(image).ok_or_else(|| damaged(format_args!("it has no metadata of its image {image}")))?;
        let mut tree = Tree {
            metadata: ResourceReader::new(self, metadata)?,
            root: WimEntry { name: String::new(), is_folder: true, sha1: [0; 20], children: 0 },
            left: ENTRIES_MAX,
        };
        let mut security = StoredSecurity::new_zeroed();
        tree.fill(0, security.as_mut_bytes())?;
        // A table without descriptors may have the length 0.
        let length = u64::from(security.length.get()).max(size_of::<StoredSecurity>() as u64);
        let (root, _) =
            tree.entry(length.next_multiple_of(8))?.ok_or_else(|| damaged("its image has no root folder"))?;
        tree.root = WimEntry { is_folder: true, ..root };
        Ok(tree)
    }
}

impl<R: VolumeRead> Tree<'_, R> {
    /// The file or folder at a path (`/` between names, case ignored); `None` if the path leads nowhere.
    ///
    /// # Errors
    /// Damaged, and what reading gives.
    pub fn find(&mut self, path: &str) -> Result<Option<WimEntry>> {
        let mut at = self.root.clone();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let wanted = name.folded();
            match self.child(&at, |entry| entry.name.folded() == wanted)? {
                Some(entry) => at = entry,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// The first entry of a folder that is as it is wanted.
    ///
    /// # Errors
    /// Damaged, and what reading gives.
    pub fn child(&mut self, folder: &WimEntry, is_wanted: impl Fn(&WimEntry) -> bool) -> Result<Option<WimEntry>> {
        Ok(self.select(folder, is_wanted, 1)?.pop())
    }

    /// The entries of a folder that are as they are wanted.
    ///
    /// # Errors
    /// Damaged, and what reading gives.
    pub fn children(&mut self, folder: &WimEntry, is_wanted: impl Fn(&WimEntry) -> bool) -> Result<Vec<WimEntry>> {
        self.select(folder, is_wanted, usize::MAX)
    }

    /// The first entries of a folder, at most `count`, that are as they are wanted. Nothing is read after the last one.
    fn select(
        &mut self,
        folder: &WimEntry,
        is_wanted: impl Fn(&WimEntry) -> bool,
        count: usize,
    ) -> Result<Vec<WimEntry>> {
        let mut out = Vec::new();
        if !folder.is_folder || folder.children == 0 {
            return Ok(out);
        }
        let mut at = folder.children;
        while out.len() < count
            && let Some((entry, next)) = self.entry(at)?
        {
            if is_wanted(&entry) {
                out.push(entry);
            }
            at = next;
        }
        Ok(out)
    }

    fn fill(&mut self, at: u64, buf: &mut [u8]) -> Result<()> {
        match self.metadata.read(at, buf)? {
            true => Ok(()),
            false => Err(damaged("its directory tree ends in the middle of an entry")),
        }
    }

    /// The entry at an offset, and where the next one begins; `None` at the end of a folder.
    fn entry(&mut self, at: u64) -> Result<Option<(WimEntry, u64)>> {
        self.count_entry()?;
        let mut stored = StoredEntry::new_zeroed();
        self.fill(at, stored.length.as_mut_bytes())?;
        let length = stored.length.get();
        if length <= size_of_val(&stored.length) as u64 {
            return Ok(None);
        }
        self.fill(at, stored.as_mut_bytes())?;
        let fixed = size_of::<StoredEntry>() as u64;
        let names = u64::from(stored.name.get()) + u64::from(stored.short_name.get());
        if length < fixed + names {
            return Err(damaged("an entry of its directory tree is shorter than its names"));
        }
        let mut name = vec![0; usize::from(stored.name.get())];
        self.fill(at.saturating_add(fixed), &mut name)?;
        let units: Vec<u16> = name.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
        let entry = WimEntry {
            name: String::from_utf16_lossy(&units),
            is_folder: stored.attributes.get() & DIRECTORY != 0,
            sha1: stored.sha1,
            children: stored.children.get(),
        };
        let mut next = self.after(at, length)?;
        for _ in 0..stored.streams.get() {
            self.count_entry()?;
            let mut length = [0; 8];
            self.fill(next, &mut length)?;
            next = self.after(next, u64::from_le_bytes(length).max(STREAM_MIN))?;
        }
        Ok(Some((entry, next)))
    }

    fn count_entry(&mut self) -> Result<()> {
        let more = || damaged(format_args!("its directory tree has more than {ENTRIES_MAX} entries"));
        self.left = self.left.checked_sub(1).ok_or_else(more)?;
        Ok(())
    }

    /// Where what follows an entry begins.
    fn after(&self, at: u64, length: u64) -> Result<u64> {
        at.checked_add(length)
            .and_then(|end| end.checked_next_multiple_of(8))
            .filter(|&next| next <= self.metadata.size())
            .ok_or_else(|| damaged("an entry of its directory tree reaches beyond its end"))
    }
}
