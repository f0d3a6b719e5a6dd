//! What the user may choose about an injection.

use serde::{Deserialize, Serialize};

/// How storage drivers are put into `DriverDatabase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// What is needed to boot; the first-boot job then installs the packages properly.
    #[default]
    Minimal,
    /// What Windows itself writes when it installs a package: driver store, INF, catalogue, all records.
    Full,
}

/// What the user may choose about an injection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectOptions {
    /// Replace drivers of the guest that are newer than those of the media.
    pub force: bool,
    /// Let the first-boot job run again in a guest that has finished it.
    pub rearm: bool,
    /// Install the first-boot job.
    pub firstboot: bool,
    /// Keep the in-box controllers startable, so that the guest still starts from SATA, IDE or NVMe.
    pub keep_inbox_controllers: bool,
    /// How drivers are registered.
    pub registration: Registration,
    /// Certificates (DER or PEM) whose publishers the guest shall trust without asking.
    pub trusted_publishers: Vec<Vec<u8>>,
}

impl Default for InjectOptions {
    fn default() -> Self {
        Self {
            force: false,
            rearm: false,
            firstboot: true,
            keep_inbox_controllers: true,
            registration: Registration::Minimal,
            trusted_publishers: Vec::new(),
        }
    }
}
