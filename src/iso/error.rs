//! What every error about a damaged image says.

use crate::error::{Error, Layer};

/// [`Kind::Damaged`](crate::error::Kind::Damaged), with the hint to get the image again.
pub(super) fn damaged(message: impl Into<String>) -> Error {
    Error::damaged(Layer::Iso, message).hint("the image is broken; copy or download it again")
}
