//! Which short names are known to be taken.

use std::collections::HashMap;

use crate::ntfs::format::name::{NtfsName, ShortForms};
use crate::ntfs::format::units::FileId;

/// Directories and common beginnings that are remembered.
const HINTS_MAX: usize = 4096;

/// For directories with many names that begin alike: the short forms up to a number are taken, and need not be tried
/// again for each new name. Only a hint: a form above the number may be taken, too.
#[derive(Debug, Default)]
pub(crate) struct ShortNameHints(HashMap<(FileId, NtfsName), usize>);

impl ShortNameHints {
    /// The number of forms known to be taken in a directory.
    pub fn taken(&self, directory: FileId, forms: &ShortForms) -> usize {
        self.0.get(&(directory, forms.get(0))).copied().unwrap_or(0)
    }

    /// Remembers that the first `taken` forms are taken in a directory.
    pub fn set_taken(&mut self, directory: FileId, forms: &ShortForms, taken: usize) {
        if self.0.len() >= HINTS_MAX {
            self.0.clear();
        }
        self.0.insert((directory, forms.get(0)), taken);
    }
}
