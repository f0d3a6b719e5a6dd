//! Adds hints to errors that have none.

use std::io::ErrorKind;

use crate::error::{Error, Kind};

/// Adds a hint if the layer that failed gave none, as is the case for most errors of the host.
pub fn explain(error: Error) -> Error {
    if error.hint_text().is_some() {
        return error;
    }
    let host = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>());
    let hint = match (error.kind(), host.map(std::io::Error::kind)) {
        (_, Some(ErrorKind::NotFound)) => "check the path",
        (_, Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)) => {
            "check the permissions of the file and of its folder"
        }
        (_, Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)) => {
            "free some space, or write to another disk; the image is as it was"
        }
        (_, Some(ErrorKind::IsADirectory)) => "give the image file, not its folder",
        (Kind::Io, _) => "check the disk and its file system; the image is as it was",
        (Kind::Damaged, _) => "check the guest's disk (chkdsk in the guest), shut it down cleanly and export it again",
        (Kind::Unsupported, _) => "convert the image to qcow2 or raw, or change this in the guest, and try again",
        (Kind::Refused, _) => "shut the guest down cleanly (not hibernated) and export it again",
        _ => return error,
    };
    error.hint(hint)
}
