//! How much a check reads and reports, and how it tells how far it is.

/// A part of the check of a whole volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Reads all file records.
    Records,
    /// Reads the index of each folder.
    Folders,
}

/// Told how far a check is: the pass, and how many bytes of file records it has done of how many (0: not known).
pub type OnProgress<'a> = &'a dyn Fn(Pass, u64, u64);

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
