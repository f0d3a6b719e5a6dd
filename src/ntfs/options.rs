//! How a volume is opened, and what is asked of a new file.

use super::format::units::FileId;
use super::shared_replay::Replay;
use crate::clock::FileTime;

/// How to open a volume.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The time stamp of everything written.
    pub clock: FileTime,
    /// Open for reading only; the states that forbid an edit (unclean log, dirty flag, hibernation) are accepted.
    pub read_only: bool,
    /// Whether a log that is not closed is replayed in memory. The replayed blocks are written before the first edit;
    /// the caller has [`check`](super::check::check) judge them, see [`Volume::device`](super::Volume::device).
    pub replay: Replay,
    /// Accept a volume whose dirty flag is set.
    pub allow_dirty: bool,
    /// Empty a `$LogFile` that is not closed and was not replayed, and set the dirty flag, so that Windows checks the
    /// volume.
    pub discard_log: bool,
    /// Remove the hibernation state; the saved session is lost. Unless the log was replayed, set the dirty flag.
    pub discard_hibernation: bool,
    /// Which 8.3 names new files get.
    pub short_names: ShortNames,
}

/// Which 8.3 names new files get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShortNames {
    /// As Windows does it on this volume: none where short names are switched off on the volume, else one for every
    /// name that is not itself 8.3.
    #[default]
    AsVolume,
    /// None: every name is in namespace 0, which is legal on every volume.
    Never,
}

impl OpenOptions {
    /// For editing: every state in which an edit could do harm is refused.
    #[must_use]
    pub fn new(clock: FileTime) -> Self {
        Self {
            clock,
            read_only: false,
            replay: Replay::WhereOpen,
            allow_dirty: false,
            discard_log: false,
            discard_hibernation: false,
            short_names: ShortNames::AsVolume,
        }
    }

    /// For reading only: no state is refused, and every changing call is.
    #[must_use]
    pub fn read_only() -> Self {
        Self { read_only: true, ..Self::new(FileTime(1)) }
    }
}

/// Whose security id a new file gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// The same as this file's, which must have a security id; else the nearest parent's that has one.
    Like(FileId),
    /// The same as the parent directory's; if that has a descriptor of its own, the first child's that has an id.
    LikeParent,
    /// An id in `$Secure`.
    Id(u32),
}

/// Metadata of a new file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateOptions {
    /// Where the security id in `$STANDARD_INFORMATION` comes from.
    pub security: Security,
    /// DOS attributes; `None` gives 0x20 for files and 0 for directories.
    pub attributes: Option<u32>,
    /// All four times; `None`: the volume's clock.
    pub time: Option<FileTime>,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self { security: Security::LikeParent, attributes: None, time: None }
    }
}
