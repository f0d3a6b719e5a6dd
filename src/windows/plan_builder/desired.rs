//! The desired state of the guest.

use crate::hive::RegistryData;
use crate::plan::GuestHive;

/// One fact about the guest after the run, whether or not it holds already: the manifest lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Desired {
    /// A file with this hash.
    File {
        /// Path on the volume.
        path: String,
        /// SHA-256 of its content, in hexadecimal.
        sha256: String,
    },
    /// A file of the user with this hash, outside of winject's own places.
    Upload {
        /// Path on the volume.
        path: String,
        /// SHA-256 of its content, in hexadecimal.
        sha256: String,
    },
    /// A folder that was made for files of the user.
    UploadFolder {
        /// Path on the volume.
        path: String,
    },
    /// A registry value with this type and data.
    Value {
        /// The hive that it belongs to.
        hive: GuestHive,
        /// Path of the key below the hive's root.
        key: String,
        /// Name of the value; empty for the default value.
        name: String,
        /// Type and data of the value.
        data: RegistryData,
    },
    /// A key that is absent.
    AbsentKey {
        /// The hive that it belongs to.
        hive: GuestHive,
        /// Path of the key below the hive's root.
        key: String,
    },
}
