//! Loading a hive with its transaction logs, wherever the files are.

use super::editor::Hive;
use super::log::Replay;
use crate::error::Result;

/// Largest hive or log file that is loaded, in bytes: the largest hive that Windows supports.
pub const HIVE_BYTES_MAX: u64 = 1 << 31;

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
    /// Loads a hive and, if it is dirty, replays its logs in memory. `read` returns the content of the file whose name is
    /// that of the hive and an ending: empty for the hive itself, one of `.LOG1`, `.LOG2`, `.LOG` for a log; it has to
    /// refuse files larger than [`HIVE_BYTES_MAX`]. `None`: there is no such hive.
    ///
    /// # Errors
    /// Those of `read` and of [`Hive::open_with_logs`].
    pub fn load(mut read: impl FnMut(&str) -> Result<Option<Vec<u8>>>) -> Result<Option<Self>> {
        let Some(bytes) = read("")? else { return Ok(None) };
        let [first, second, single] = LOG_ENDINGS;
        let [log1, log2] = match [read(first)?, read(second)?] {
            [None, None] => [read(single)?, None],
            pair => pair,
        };
        let (hive, replay) = Hive::open_with_logs(bytes, log1.as_deref(), log2.as_deref())?;
        Ok(Some(Self { hive, replay }))
    }
}
