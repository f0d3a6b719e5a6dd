//! A file of a source, and the limits of what is read from driver media.

/// Largest file that is read from driver media, in bytes. The largest drivers known have some 60 MB.
pub const FILE_SIZE_MAX: u64 = 256 << 20;

/// Most warnings about a source.
pub(super) const WARNINGS_MAX: usize = 100;

/// A file of a [`Source`](super::Source).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Path below the source's root, with `/`.
    pub path: String,
    /// Size in bytes when the source was opened.
    pub size: u64,
}

impl SourceFile {
    /// The folder, without a trailing slash; empty for the root.
    #[must_use]
    pub fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// The file's name without its folder.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}
