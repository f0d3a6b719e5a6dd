//! Taking the last edit in place back.

use std::path::Path;

use super::explain::explain;
use super::recover::observe_journal;
use super::request::Observer;
use super::step::Step;
use crate::block::ImageName;
use crate::block::commit::{self, UndoOptions, Undone};
use crate::error::Result;

/// Gives an image back what it held before the last edit in place, byte for byte, from the undo record that the edit left
/// next to it.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) when there is no record, it was made for another file, or something else has
/// written to the same places since; then nothing is touched. [`Kind::Pending`](crate::Kind::Pending) when an
/// interrupted run has to be recovered first, or this undo was interrupted.
pub fn undo(image: &Path, options: &UndoOptions, observer: &dyn Observer) -> Result<Undone> {
    observer.step(Step::Open);
    let image = ImageName::of(image).require_file("take an edit back").map_err(|error| {
        error.replace_hint(
            "an edit over NBD keeps no undo record: remove takes injected drivers out again, or restore a copy of the disk from before \
             it",
        )
    });
    let undo = |image| commit::undo_with_progress(image, options, &observe_journal(observer));
    image.and_then(undo).map_err(explain)
}

/// Removes the undo record of an image, which stays as it is.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) when there is none, or it is not winject's.
pub fn forget_undo(image: &Path) -> Result<()> {
    let image = ImageName::of(image).require_file("remove an undo record");
    let image = image.map_err(|error| error.replace_hint("an edit over NBD keeps no undo record"));
    image.and_then(commit::forget).map_err(explain)
}
