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

/// The error for a file whose contents are compressed together.
pub(super) fn solid() -> Error {
    unsupported("its contents are compressed together (a solid WIM, as in an ESD)")
}

/// The error for a part of a file that is split into several.
pub(super) fn split() -> Error {
    unsupported("it is one part of several")
}

/// A decoder's error, as one of the file. Errors of other kinds pass through.
pub(super) fn undecodable(error: Error) -> Error {
    if error.kind() == Kind::Damaged {
        damaged("a compressed resource cannot be decoded").source_error(error)
    } else {
        error
    }
}
