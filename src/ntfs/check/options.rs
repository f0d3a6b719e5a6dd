//! How much a check reads and reports.

/// Options of a check of an NTFS volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckOptions {
    /// Faults of one code that are reported in full; more are only counted.
    pub per_code: u64,
    /// Whether only some files are read: what no named file refers to is not missed then.
    pub(super) is_partial: bool,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { per_code: 50, is_partial: false }
    }
}

impl CheckOptions {
    /// Reports at most `count` faults of each code in full.
    #[must_use]
    pub fn per_code(count: u64) -> Self {
        Self { per_code: count, ..Self::default() }
    }
}
