//! Errors about a broken INF.

use crate::error::{Error, ErrorCode, Kind, Layer};

/// An error about a line of an INF. Line 0: about the whole file.
pub(super) fn error_at(file: &str, line: usize, message: impl Into<String>) -> Error {
    let place = if line == 0 { file.to_owned() } else { format!("{file}:{line}") };
    Error::new(Kind::Drivers, Layer::Drivers, message)
        .with_code(ErrorCode::DriverBroken)
        .path(place)
        .hint("the driver package is broken; take it from its maker again")
}
