//! Writes a staged disk where its job says, with the step and the bytes that an observer is told.

use std::path::Path;

use super::request::{Destination, Observer};
use super::step::Step;
use crate::block::Stage;
use crate::block::commit::{self, CommitOptions, Committed};
use crate::block::convert::{ConvertOptions, ConvertProgress, Converted, convert};
use crate::error::{Error, Layer, Result};

/// Writes the changes of the stage over `image` into it, or as an overlay; `None` for a dry run. An image without changes
/// is not even locked for writing.
///
/// # Errors
/// Those of the commit; [`Kind::Bug`](crate::Kind::Bug) for a new image, which is [converted](convert_stage) instead.
pub(super) fn commit_stage(
    stage: &mut Stage,
    image: &Path,
    destination: &Destination,
    options: CommitOptions<'_>,
    observer: &dyn Observer,
) -> Result<Option<Committed>> {
    let report_progress = |done, total| observer.progress(done, total);
    let options = CommitOptions { progress: Some(&report_progress), ..options };
    let committed = match destination {
        Destination::DryRun => return Ok(None),
        Destination::InPlace if !stage.is_dirty() => Committed { path: image.to_owned(), ..Committed::default() },
        Destination::InPlace => {
            observer.step(Step::CommitInPlace);
            commit::commit_in_place(stage, image, &options)?
        }
        Destination::Overlay(out) => {
            observer.step(Step::CommitOverlay);
            commit::commit_overlay(stage, image, out, &options)?
        }
        Destination::Standalone { .. } => return Err(Error::bug(Layer::Job, "a new image is not committed")),
    };
    Ok(Some(committed))
}

/// Writes the staged disk as a whole new image.
///
/// # Errors
/// Those of [`convert`].
pub(super) fn convert_stage(
    stage: &Stage,
    path: &Path,
    options: ConvertOptions<'_>,
    observer: &dyn Observer,
) -> Result<Converted> {
    observer.step(Step::Copy);
    let progress = |now: ConvertProgress| observer.progress(now.done, now.total);
    convert(stage, path, &ConvertOptions { progress: Some(&progress), ..options })
}
