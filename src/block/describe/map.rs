//! The map of an image: which ranges are data, which are zeros.

use serde::Serialize;

use crate::block::{ExtentKind, Image};
use crate::error::Result;
use crate::units::ImageOffset;

/// A range of one kind, as `qemu-img map --output=json` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct MapEntry {
    /// Offset of the first byte on the disk.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Whether any layer of the chain says what the range is.
    pub present: bool,
    /// Whether it reads as zeros.
    pub zero: bool,
    /// Whether data are stored for it.
    pub data: bool,
}

/// Calls `entry` with the ranges of the disk in ascending order, neighbours of one kind joined.
///
/// # Errors
/// When the container's tables cannot be read.
pub fn map(image: &dyn Image, mut entry: impl FnMut(MapEntry)) -> Result<()> {
    let mut pending: Option<MapEntry> = None;
    let mut at = 0;
    while at < image.len() {
        let extent = image.extent_at(ImageOffset(at), image.len() - at)?;
        let next = MapEntry {
            start: at,
            length: extent.length.max(1),
            present: extent.kind != ExtentKind::Unallocated,
            zero: extent.kind.is_zero(),
            data: extent.kind == ExtentKind::Data,
        };
        at = at.saturating_add(next.length);
        match &mut pending {
            Some(last) if (last.present, last.zero) == (next.present, next.zero) => last.length += next.length,
            _ => {
                if let Some(last) = pending.replace(next) {
                    entry(last);
                }
            }
        }
    }
    if let Some(last) = pending {
        entry(last);
    }
    Ok(())
}
