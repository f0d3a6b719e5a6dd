//! Warnings about an INF, and the limit of what reading it may cost.

use super::error::error_at;
use crate::error::Result;

/// Most warnings about one INF.
const WARNINGS_MAX: usize = 100;
/// Most lines that are read for the facts of an INF; a section counts as often as it is used. The largest known INFs need
/// about a third.
const COST_MAX: usize = 600_000;

/// Warnings and cost while the facts of an INF are read. The cost is limited, as a small file whose sections use each other
/// a thousand times would take hours.
#[derive(Default)]
pub(super) struct Notes {
    pub warnings: Vec<String>,
    /// Lines read so far, at most [`COST_MAX`].
    cost: usize,
}

impl Notes {
    /// Notes a warning, unless there are too many already.
    pub(super) fn warn(&mut self, warning: String) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(warning);
        }
    }

    /// Counts lines that are about to be read at a line of the INF.
    ///
    /// # Errors
    /// When that exceeds the limit.
    pub(super) fn spend(&mut self, lines: usize, file: &str, at: usize) -> Result<()> {
        self.cost = self.cost.saturating_add(lines);
        if self.cost > COST_MAX {
            return Err(error_at(file, at, "the sections of the INF use each other far too often"));
        }
        Ok(())
    }
}
