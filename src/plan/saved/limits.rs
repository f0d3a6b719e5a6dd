//! How large a document and its parts may be.

use crate::error::{Error, ErrorCode, Kind, Layer};

/// Largest document that is read, in bytes.
pub const PLAN_BYTES_MAX: u64 = 64 << 20;
/// Most edits of a plan.
pub const STEPS_MAX: usize = 200_000;
/// Most values of one key that are edited. The registry looks a value up in a list, so the time grows with its square.
pub const KEY_VALUES_MAX: usize = 10_000;
/// Most ranges of a read set; beyond it, the smallest gaps between ranges are counted as read.
pub const RANGES_MAX: usize = 65_536;
/// Most disks of a machine, without the one with Windows.
pub const OTHER_DISKS_MAX: usize = 63;
/// Most findings, notes, warnings or packages.
pub const ITEMS_MAX: usize = 10_000;
/// Largest number that every JSON reader keeps.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;
/// Largest content that a document holds itself, in bytes.
pub const INLINE_BYTES_MAX: u64 = 16 << 20;
/// Largest sum of all contents, in bytes.
pub const CONTENT_BYTES_MAX: u64 = 4 << 30;
/// Most files of the user in one plan.
pub const UPLOADS_MAX: usize = 1_000;
/// Longest text for people, in bytes.
pub const TEXT_BYTES_MAX: usize = 64 << 10;
/// Longest path of a file, in UTF-16 units.
pub const PATH_UNITS_MAX: usize = 1024;
/// Longest name of a key, in UTF-16 units; the registry's own limit.
pub const KEY_UNITS_MAX: usize = 255;
/// Longest name of a value, in UTF-16 units; the registry's own limit.
pub const VALUE_UNITS_MAX: usize = 16_383;
/// Most names in the path of a key.
pub const KEY_DEPTH_MAX: usize = 64;
/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Longest `.reg` text of a key that is removed, in bytes.
pub const REMOVED_KEY_BYTES_MAX: usize = 4 << 20;

/// The error for a part of a document that winject would not have written.
pub(super) fn wrong(part: &str, why: impl Into<String>) -> Error {
    Error::new(Kind::Usage, Layer::Plan, format!("cannot use the plan: {}", why.into()))
        .with_code(ErrorCode::PlanInvalid)
        .path(part)
        .hint("winject plan does not write such a plan: find out who changed it, and make it again")
}
