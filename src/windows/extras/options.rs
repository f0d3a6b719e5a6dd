//! Options: what a user puts into the guest in addition to drivers.

use std::path::{Path, PathBuf};

/// Time limit of a first-boot script by default, in seconds.
pub const SCRIPT_SECONDS: u32 = 600;

/// What a user puts into the guest in addition to drivers. By default nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtrasOptions {
    /// Files of the host that are put into the guest.
    pub uploads: Vec<Upload>,
    /// Scripts and programs of the host that the first-boot job runs, in this order: `.cmd`, `.bat`, `.ps1`, `.exe`, `.msi`.
    pub scripts: Vec<PathBuf>,
    /// Time limit of each of them, in seconds: 600 by default, at most a day.
    pub script_seconds: u32,
    /// Install the QEMU guest agent, which is on the driver media.
    pub guest_agent: bool,
}

impl Default for ExtrasOptions {
    fn default() -> Self {
        Self { uploads: Vec::new(), scripts: Vec::new(), script_seconds: SCRIPT_SECONDS, guest_agent: false }
    }
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
        self.uploads.iter().map(|upload| &upload.file).chain(&self.scripts).map(PathBuf::as_path)
    }
}
