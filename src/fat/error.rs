//! What every error about a damaged FAT volume says.

use crate::error::{Error, Layer};

/// [`Kind::Damaged`](crate::error::Kind::Damaged), with what is wrong.
pub(super) fn damaged(reason: &str) -> Error {
    Error::damaged(Layer::Partition, format!("the FAT file system is damaged: {reason}"))
}
