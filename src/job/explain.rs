//! Adds hints to errors that have none.

use std::io::ErrorKind;

use crate::error::{Error, Kind};

/// Adds a hint if the layer that failed gave none, as is the case for most errors of the host.
pub fn explain(error: Error) -> Error {
    let error = explain_path(error);
    if error.hint_text().is_some() {
        return error;
    }
    let hint = match (error.kind(), host_kind(&error)) {
        (_, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)) => {
            "free some space, or write to another disk; the image is as it was"
        }
        (Kind::Io, _) => "check the disk and its file system; the image is as it was",
        (Kind::Damaged, _) => "check the guest's disk (chkdsk in the guest), shut it down cleanly and export it again",
        (Kind::Unsupported, _) => "convert the image to qcow2 or raw, or change this in the guest, and try again",
        (Kind::Refused, _) => "shut the guest down cleanly (not hibernated) and export it again",
        _ => return error,
    };
    error.hint(hint)
}

/// Adds a hint to an error that has none, if a path does not lead to a file that can be opened.
pub fn explain_path(error: Error) -> Error {
    if error.hint_text().is_some() {
        return error;
    }
    let hint = match host_kind(&error) {
        Some(ErrorKind::NotFound) => "check the path",
        Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
            "check the permissions of the file and of its folder"
        }
        Some(ErrorKind::IsADirectory) => "give the image file, not its folder",
        _ => return error,
    };
    error.hint(hint)
}

fn host_kind(error: &Error) -> Option<ErrorKind> {
    let host = std::error::Error::source(error)?.downcast_ref::<std::io::Error>()?;
    Some(host.kind())
}
