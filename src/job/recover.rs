//! What an interrupted run left is dealt with before anything else.

use std::path::Path;

use super::request::Destination;
use crate::block::commit::Recovery;
use crate::block::{PathPolicy, commit};
use crate::cancel::Cancel;
use crate::error::Result;

/// Deals with an interrupted run on `image` if this run may write to it. All others leave everything as it is: opening
/// the image refuses it then.
///
/// # Errors
/// [`Kind::Pending`](crate::Kind::Pending) when that is not possible.
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
