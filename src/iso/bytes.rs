//! Bytes of an image, and structures in them.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::error::damaged;
use crate::error::Result;
use crate::io::VolumeRead;
use crate::units::VolumeOffset;

/// Reads `length` bytes, which must be inside the image.
pub(super) fn read_bytes<D: VolumeRead>(device: &D, at: u64, length: u64) -> Result<Vec<u8>> {
    if at.checked_add(length).is_none_or(|end| end > device.len()) {
        return Err(damaged("the image is cut short: a directory lies beyond its end")
            .at(at)
            .expected_found(format!("{length} bytes"), format!("an image of {}", device.len())));
    }
    let length = usize::try_from(length).map_err(|_| damaged("a directory is far too large").at(at))?;
    let mut out = vec![0; length];
    device.read_at(VolumeOffset(at), &mut out)?;
    Ok(out)
}

/// The structure at the start of `bytes`; `None` when it is cut off.
pub(super) fn view<T: FromBytes + KnownLayout + Immutable + Unaligned>(bytes: &[u8]) -> Option<&T> {
    T::ref_from_prefix(bytes).ok().map(|(structure, _)| structure)
}
