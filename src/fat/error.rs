//! What every error about a FAT volume says.

use crate::error::{Error, Layer};

/// [`Kind::Damaged`](crate::error::Kind::Damaged), with what is wrong.
pub(super) fn damaged(reason: &str) -> Error {
    Error::damaged(Layer::Partition, format!("the FAT file system is damaged: {reason}"))
}

/// A volume that is far larger than any system partition.
pub(super) fn too_large() -> Error {
    Error::unsupported(Layer::Partition, "cannot edit the FAT volume: it is far larger than a system partition")
}
