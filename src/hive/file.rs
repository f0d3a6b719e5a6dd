//! Loading a hive with its transaction logs, wherever the files are.

use super::editor::Hive;
use super::log::Replay;
use crate::error::Result;

/// Largest hive that is loaded, in bytes: the largest that Windows supports.
pub const HIVE_BYTES_MAX: u64 = 1 << 31;
/// Largest log that is loaded, in bytes.
pub const LOG_BYTES_MAX: u64 = 256 << 20;

/// What the names of a hive's log files add to the name of the hive, as Windows looks for them: since Vista a pair; the
/// single log of Windows XP counts only where there is no pair; next to a pair it is a leftover of an upgrade.
pub(crate) const LOG_ENDINGS: [&str; 3] = [".LOG1", ".LOG2", ".LOG"];

/// A hive that was loaded with its logs.
pub struct HiveFile {
    /// The hive, ready for reading and edits.
    pub hive: Hive,
    /// What its logs added in memory; `None` for a hive that was clean.
    pub replay: Option<Replay>,
}

impl HiveFile {
    /// Opens a hive of at most [`HIVE_BYTES_MAX`] bytes and, if it is dirty, replays its logs in memory. `read_log`
    /// returns the content of the file whose name is that of the hive and an ending (`.LOG1`, `.LOG2`, `.LOG`), if it
    /// exists; it has to refuse files larger than [`LOG_BYTES_MAX`].
    ///
    /// # Errors
    /// Those of `read_log` and of [`Hive::open_with_logs`].
    pub fn open(bytes: Vec<u8>, mut read_log: impl FnMut(&str) -> Result<Option<Vec<u8>>>) -> Result<Self> {
        let [first, second, single] = LOG_ENDINGS;
        let [log1, log2] = match [read_log(first)?, read_log(second)?] {
            [None, None] => [read_log(single)?, None],
            pair => pair,
        };
        let (hive, replay) = Hive::open_with_logs(bytes, log1.as_deref(), log2.as_deref())?;
        Ok(Self { hive, replay })
    }
}
