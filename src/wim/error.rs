//! What every error about a WIM file says.

use crate::error::{Error, Kind, Layer};

/// [`Kind::Damaged`], with what is wrong.
pub(super) fn damaged(reason: impl std::fmt::Display) -> Error {
    Error::damaged(Layer::Wim, format!("the WIM file is damaged: {reason}"))
}

/// [`Kind::Unsupported`], with what it is.
pub(super) fn unsupported(what: impl std::fmt::Display) -> Error {
    Error::unsupported(Layer::Wim, format!("cannot read the WIM file: {what}"))
}

/// A decoder's error, as one of the file. What else kept it from being read stays as it is.
pub(super) fn undecodable(error: Error) -> Error {
    if error.kind() == Kind::Damaged {
        damaged("a compressed resource cannot be decoded").source_error(error)
    } else {
        error
    }
}
