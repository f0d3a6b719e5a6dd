//! The most frequent error of this layer.

use crate::error::{Error, Layer};

/// The error for an on-disk structure that breaks the rules of the format.
pub(crate) fn damaged(message: impl Into<String>) -> Error {
    Error::damaged(Layer::Ntfs, message)
}
