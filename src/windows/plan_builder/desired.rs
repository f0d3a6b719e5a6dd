//! What shall be in the guest after the run.

use crate::plan::{GuestHive, RegData};

/// What shall be in the guest when the plan is applied, whether or not it is so already: for the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Desired {
    /// A file with this hash.
    File {
        /// Path on the volume.
        path: String,
        /// SHA-256.
        sha256: String,
    },
    /// A value.
    Value {
        /// Hive.
        hive: GuestHive,
        /// Key.
        key: String,
        /// Name.
        name: String,
        /// Type and data.
        data: RegData,
    },
    /// A key that shall not be.
    AbsentKey {
        /// Hive.
        hive: GuestHive,
        /// Key.
        key: String,
    },
}
