//! What an interrupted run left is dealt with before anything else.

use std::path::Path;

use super::request::Destination;
use crate::block::{PathPolicy, commit};
use crate::error::{Error, Kind, Layer, Result};

/// Rolls an interrupted run on `image` back, and returns whether there was one. A dry run must not write even that.
///
/// # Errors
/// [`Kind::Pending`] when that is not possible, or is not to be done.
pub(super) fn recover(image: &Path, policy: &PathPolicy, destination: &Destination) -> Result<bool> {
    let journal = commit::journal_path(image);
    if *destination == Destination::DryRun && journal.symlink_metadata().is_ok() {
        return Err(Error::new(Kind::Pending, Layer::Job, "an interrupted run has to be rolled back first")
            .path(journal.display().to_string())
            .hint("run winject without --dry-run: it restores the image before it does anything else"));
    }
    commit::recover(image, policy)
}
