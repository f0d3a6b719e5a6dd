//! The error of a staged volume that is not as planned.

use crate::error::{DEFECT_HINT, Error, Kind, Layer};

pub(super) fn mismatch(what: impl Into<String>) -> Error {
    Error::new(Kind::Verify, Layer::Plan, what).hint(DEFECT_HINT)
}
