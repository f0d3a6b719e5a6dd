//! Recovery from an interrupted run, before anything else.

use std::path::Path;

use super::request::Destination;
use crate::block::commit::Recovery;
use crate::block::{PathPolicy, commit};
use crate::cancel::Cancel;
use crate::error::Result;

/// Rolls back or completes an interrupted run on `image`, if this run may write to it. Other runs leave it as it is, and
/// opening the image refuses it.
///
/// # Errors
/// [`Kind::Pending`](crate::Kind::Pending) when that is impossible.
pub(super) fn recover(
    image: &Path,
    policy: &PathPolicy,
    destination: &Destination,
    cancel: &Cancel,
) -> Result<Recovery> {
    if *destination != Destination::InPlace {
        return Ok(Recovery::Nothing);
    }
    let _hold = cancel.hold()?;
    commit::recover(image, policy)
}
