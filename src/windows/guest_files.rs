//! The guest's files as inspection and planning see them: paths and bytes, read only.

use crate::error::Result;
use crate::io::VolumeRead;
use crate::ntfs::security::{Protected, is_owned_by_system};
use crate::ntfs::{Namespace, Volume};
use crate::windows::guest_paths;

/// Largest number of entries that are read of one folder.
const ENTRIES_MAX: usize = 100_000;

/// The bit of a reparse tag that says that the file stands for another one ([MS-FSCC] 2.1.2.1).
const NAME_SURROGATE: u32 = 0x2000_0000;

/// Access rights of a file or folder, and whether it is a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protection {
    /// The self-relative security descriptor; `None` if the volume's table `$Secure` has none for it.
    pub descriptor: Option<Vec<u8>>,
    /// Whether it is a junction or symbolic link, or a file with a hard link.
    pub is_link: bool,
}

/// Read access by path, with `/` between names, compared without case.
pub trait GuestFiles {
    /// The length of a file; 0 for a folder; `None` if it does not exist.
    ///
    /// # Errors
    /// When the volume is damaged there.
    fn size(&self, path: &str) -> Result<Option<u64>>;

    /// The content of a file; one longer than `limit` is an error.
    ///
    /// # Errors
    /// When the volume is damaged there, or the file is longer.
    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>>;

    /// The SHA-256 of a file's content; `None` if it does not exist.
    ///
    /// # Errors
    /// When the volume is damaged there.
    fn sha256(&self, path: &str) -> Result<Option<[u8; 32]>>;

    /// The first bytes of a file, at most `length`, as they are stored.
    ///
    /// # Errors
    /// When the volume is damaged there.
    fn head(&self, path: &str, length: usize) -> Result<Option<Vec<u8>>>;

    /// The names of the folders in a folder.
    ///
    /// # Errors
    /// When the volume is damaged there.
    fn folders(&self, path: &str) -> Result<Vec<String>>;

    /// The names of the files in a folder (not of its folders).
    ///
    /// # Errors
    /// When the volume is damaged there.
    fn file_names(&self, path: &str) -> Result<Vec<String>>;

    /// Whether a folder of this path exists.
    ///
    /// # Errors
    /// When the volume is damaged there.
    fn is_folder(&self, path: &str) -> Result<bool>;

    /// How a file or folder is protected; `None` if it does not exist.
    ///
    /// # Errors
    /// When the volume is damaged there.
    fn protection(&self, path: &str) -> Result<Option<Protection>>;

    /// Free bytes of the volume, if known.
    fn free_space(&self) -> Option<u64>;

    /// Whether a file or folder of this path exists.
    ///
    /// # Errors
    /// When the volume is damaged there.
    fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.size(path)?.is_some())
    }
}

/// Whether only the system and administrators can have written this file or folder of winject's: its folder is as a run of
/// winject left it, and it is owned by them.
///
/// # Errors
/// When the volume is damaged there.
pub fn is_trusted(files: &dyn GuestFiles, path: &str) -> Result<bool> {
    let Some(top) = files.protection(guest_paths::TOP)? else { return Ok(false) };
    let Some(found) = files.protection(path)? else { return Ok(false) };
    let is_ours = !top.is_link && top.descriptor.as_deref() == Some(Protected::Top.descriptor().as_slice());
    Ok(is_ours && !found.is_link && found.descriptor.is_some_and(|d| is_owned_by_system(&d)))
}

impl<D: VolumeRead> GuestFiles for Volume<D> {
    fn size(&self, path: &str) -> Result<Option<u64>> {
        self.find(path)?.map(|file| self.stat(file).map(|stat| stat.size)).transpose()
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let file = self.find(path)?;
        file.map(|file| self.read(file, limit).map_err(|e| e.path(path))).transpose()
    }

    fn sha256(&self, path: &str) -> Result<Option<[u8; 32]>> {
        let file = self.find(path)?;
        file.map(|file| self.hash(file).map(|(_, sha256)| sha256).map_err(|e| e.path(path))).transpose()
    }

    fn head(&self, path: &str, length: usize) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.find(path)? else { return Ok(None) };
        let mut bytes = vec![0; length];
        let got = self.read_at(file, "", 0, &mut bytes).map_err(|e| e.path(path))?;
        bytes.truncate(got);
        Ok(Some(bytes))
    }

    fn folders(&self, path: &str) -> Result<Vec<String>> {
        let Some(dir) = self.find(path)? else { return Ok(Vec::new()) };
        let entries = self.entries(dir)?.into_iter().take(ENTRIES_MAX);
        let wanted = entries.filter(|entry| entry.is_dir && entry.namespace != Namespace::Dos);
        Ok(wanted.map(|entry| entry.name.to_string()).collect())
    }

    fn file_names(&self, path: &str) -> Result<Vec<String>> {
        let Some(dir) = self.find(path)? else { return Ok(Vec::new()) };
        let entries = self.entries(dir)?.into_iter().take(ENTRIES_MAX);
        let wanted = entries.filter(|entry| !entry.is_dir && entry.namespace != Namespace::Dos);
        Ok(wanted.map(|entry| entry.name.to_string()).collect())
    }

    fn is_folder(&self, path: &str) -> Result<bool> {
        self.find(path)?.map_or(Ok(false), |file| self.stat(file).map(|stat| stat.is_dir))
    }

    fn protection(&self, path: &str) -> Result<Option<Protection>> {
        let Some(file) = self.find(path)? else { return Ok(None) };
        let stat = self.stat(file)?;
        let descriptor = stat.security.filter(|&id| id != 0).map(|id| self.security_descriptor(id)).transpose()?;
        // A file with a reparse point need not be a link: Windows keeps compressed and deduplicated files so.
        let is_link = stat.reparse_tag.is_some_and(|tag| stat.is_dir || tag & NAME_SURROGATE != 0)
            || (!stat.is_dir && stat.is_hard_linked);
        Ok(Some(Protection { descriptor: descriptor.flatten(), is_link }))
    }

    fn free_space(&self) -> Option<u64> {
        Self::free_space(self).ok()
    }

    fn exists(&self, path: &str) -> Result<bool> {
        Ok(self.find(path)?.is_some())
    }
}

#[cfg(test)]
pub(crate) mod memory {
    use sha2::{Digest, Sha256};
    use std::collections::BTreeMap;

    use super::*;

    /// Files in memory, for tests. Names are kept in lower case.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct MemoryFiles(pub BTreeMap<String, Vec<u8>>, pub Option<u64>);

    impl MemoryFiles {
        pub(crate) fn put(&mut self, path: &str, bytes: &[u8]) {
            self.0.insert(path.to_lowercase(), bytes.to_vec());
        }

        pub(crate) fn get(&self, path: &str) -> Option<&Vec<u8>> {
            self.0.get(&path.to_lowercase())
        }
    }

    impl GuestFiles for MemoryFiles {
        fn size(&self, path: &str) -> Result<Option<u64>> {
            if let Some(bytes) = self.get(path) {
                return Ok(Some(bytes.len() as u64));
            }
            let prefix = format!("{}/", path.to_lowercase());
            Ok(self.0.keys().any(|key| key.starts_with(&prefix)).then_some(0))
        }
        fn read(&self, path: &str, _: u64) -> Result<Option<Vec<u8>>> {
            Ok(self.get(path).cloned())
        }
        fn sha256(&self, path: &str) -> Result<Option<[u8; 32]>> {
            Ok(self.get(path).map(|bytes| Sha256::digest(bytes).into()))
        }
        fn head(&self, path: &str, length: usize) -> Result<Option<Vec<u8>>> {
            Ok(self.get(path).map(|bytes| bytes[..length.min(bytes.len())].to_vec()))
        }
        fn folders(&self, path: &str) -> Result<Vec<String>> {
            let prefix = format!("{}/", path.to_lowercase().trim_end_matches('/'));
            let below = self.0.keys().filter_map(|key| key.strip_prefix(&prefix));
            let mut out: Vec<String> =
                below.filter_map(|rest| rest.split_once('/').map(|(dir, _)| dir.to_owned())).collect();
            out.dedup();
            Ok(out)
        }
        fn file_names(&self, path: &str) -> Result<Vec<String>> {
            let prefix = format!("{}/", path.to_lowercase().trim_end_matches('/'));
            let below = self.0.keys().filter_map(|key| key.strip_prefix(&prefix));
            Ok(below.filter(|rest| !rest.contains('/')).map(str::to_owned).collect())
        }
        fn is_folder(&self, path: &str) -> Result<bool> {
            Ok(self.get(path).is_none() && self.exists(path)?)
        }
        /// In memory everything is as it should be.
        fn protection(&self, path: &str) -> Result<Option<Protection>> {
            use crate::ntfs::security::Protected;
            let what = match (self.get(path), path.rfind('/')) {
                (Some(_), _) => Protected::File,
                (None, Some(0)) => Protected::Top,
                (None, _) => Protected::Directory,
            };
            let found = self.exists(path)?;
            Ok(found.then(|| Protection { descriptor: Some(what.descriptor()), is_link: false }))
        }
        fn free_space(&self) -> Option<u64> {
            self.1
        }
    }
}
