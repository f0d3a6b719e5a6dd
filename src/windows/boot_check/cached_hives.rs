//! Caches the hives of a guest while several buses are checked.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::error::Result;
use crate::windows::guest_files::{GuestFiles, Protection};

/// The files of a guest; its hives are read once and cached.
pub(super) struct CachedHives<'a> {
    pub files: &'a dyn GuestFiles,
    pub hives: RefCell<BTreeMap<String, Option<Vec<u8>>>>,
}

impl GuestFiles for CachedHives<'_> {
    fn size(&self, path: &str) -> Result<Option<u64>> {
        self.files.size(path)
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        if !path.contains("/System32/config/") {
            return self.files.read(path, limit);
        }
        if let Some(bytes) = self.hives.borrow().get(path) {
            return Ok(bytes.clone());
        }
        let bytes = self.files.read(path, limit)?;
        self.hives.borrow_mut().insert(path.to_owned(), bytes.clone());
        Ok(bytes)
    }

    fn sha256(&self, path: &str) -> Result<Option<[u8; 32]>> {
        self.files.sha256(path)
    }

    fn head(&self, path: &str, length: usize) -> Result<Option<Vec<u8>>> {
        self.files.head(path, length)
    }

    fn folders(&self, path: &str) -> Result<Vec<String>> {
        self.files.folders(path)
    }

    fn file_names(&self, path: &str) -> Result<Vec<String>> {
        self.files.file_names(path)
    }

    fn protection(&self, path: &str) -> Result<Option<Protection>> {
        self.files.protection(path)
    }

    fn free_space(&self) -> Option<u64> {
        self.files.free_space()
    }

    fn exists(&self, path: &str) -> Result<bool> {
        self.files.exists(path)
    }
}
