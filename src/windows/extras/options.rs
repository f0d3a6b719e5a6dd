//! Options: what a user puts into the guest in addition to drivers.

use std::path::{Path, PathBuf};

/// What a user puts into the guest in addition to drivers. By default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtrasOptions {
    /// Files of the host that are put into the guest.
    pub uploads: Vec<Upload>,
}

/// A file of the host, and where it goes in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The file on the host.
    pub file: PathBuf,
    /// The path in the guest as Windows spells it: `C:\Tools\x.exe`, or `\Tools\x.exe`.
    pub guest: String,
}

impl ExtrasOptions {
    /// The files of the host that are read.
    pub fn host_files(&self) -> impl Iterator<Item = &Path> {
        self.uploads.iter().map(|upload| upload.file.as_path())
    }
}
