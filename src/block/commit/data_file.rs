//! External data files: which of them an edit in place may write.

use std::path::Path;

use crate::error::{Error, Layer, Result};
use crate::escape::shell_argument;
use crate::host::PathPolicy;

/// Refuses a data file that the user has not allowed to be written: an image may come from an attacker and name the
/// disk of another guest.
pub(super) fn refuse_foreign_data_file(policy: &PathPolicy, image: &Path, data_file: &Path) -> Result<()> {
    if policy.allows_writing(data_file) {
        return Ok(());
    }
    let allowed = shell_argument(data_file, "FILE");
    Err(foreign_data_file(image, data_file)
        .hint(format!("if that file is this guest's own, allow it by name: --allow-path {allowed}")))
}

/// The refusal of a data file, without a hint.
pub(super) fn foreign_data_file(image: &Path, data_file: &Path) -> Error {
    let data_file = data_file.display();
    Error::refused(Layer::Block, format!("the image keeps its data in another file: {data_file}"))
        .path(image.display().to_string())
}
