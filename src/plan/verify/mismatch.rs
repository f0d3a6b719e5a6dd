//! The error of a staged volume that is not as planned.

use crate::error::{Error, Kind, Layer};

pub(super) fn mismatch(what: impl Into<String>) -> Error {
    Error::new(Kind::Verify, Layer::Plan, what)
        .hint("nothing was written; this is a defect of winject, please report it")
}
