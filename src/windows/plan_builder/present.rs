//! What a path of the volume holds, compared with what winject wrote there.

use super::builder::PlanBuilder;
use crate::error::Result;

/// What is at the path of a file that winject wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Absent,
    /// A file with the content that winject wrote.
    AsWritten,
    /// A file with another content, or a folder.
    Changed,
    /// A link, or a file that has other names, too.
    Link,
}

impl PlanBuilder<'_> {
    /// Compares a file with the hash of what winject wrote.
    ///
    /// # Errors
    /// When the volume is damaged there.
    pub fn compare_file(&self, path: &str, sha256: &[u8; 32]) -> Result<Present> {
        let Some(found) = self.files.protection(path)? else { return Ok(Present::Absent) };
        if found.is_link {
            return Ok(Present::Link);
        }
        if self.files.is_folder(path)? || self.files.sha256(path)? != Some(*sha256) {
            return Ok(Present::Changed);
        }
        Ok(Present::AsWritten)
    }

    /// The content of a file of at most `limit` bytes; `None` when it is not there.
    ///
    /// # Errors
    /// When the volume is damaged there, or the file is longer.
    pub fn read_small_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.files.read(path, limit)
    }

    /// The length of a file; `None` when it is not there.
    ///
    /// # Errors
    /// When the volume is damaged there.
    pub fn file_size(&self, path: &str) -> Result<Option<u64>> {
        self.files.size(path)
    }

    /// Whether this is a folder, and not a link to one.
    ///
    /// # Errors
    /// When the volume is damaged there.
    pub fn is_own_folder(&self, path: &str) -> Result<bool> {
        Ok(self.files.is_folder(path)? && self.files.protection(path)?.is_some_and(|found| !found.is_link))
    }

    /// Whether a folder of this path exists.
    ///
    /// # Errors
    /// When the volume is damaged there.
    pub fn is_folder(&self, path: &str) -> Result<bool> {
        self.files.is_folder(path)
    }
}
