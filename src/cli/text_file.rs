//! Texts that a command writes to files of their own: a plan, a review, the description of a machine.

use std::path::{Path, PathBuf};

use super::signals;
use crate::cancel::Reached;
use crate::error::Result;
use crate::host::{Target, TextOutput};

/// A text, and what messages call it.
pub(super) struct TextFile<'a> {
    pub(super) what: &'static str,
    pub(super) path: &'a Path,
    pub(super) overwrite: bool,
}

impl TextFile<'_> {
    /// Writes the file, which no more users may read than `sources`; `on_named` is called when it has its name.
    ///
    /// # Errors
    /// When the file exists and is not to be overwritten, or cannot be written.
    pub(super) fn write(&self, bytes: &[u8], sources: &[PathBuf], on_named: impl FnOnce()) -> Result<()> {
        let target = Target::resolve(self.path, self.what)?;
        let cancel = signals::cancel();
        // Held until it is noted that the file is there: a signal in between must not be answered with "nothing was changed".
        let _hold = cancel.hold()?;
        let mut file = TextOutput::create(target, sources, self.overwrite, &cancel)?;
        file.write(bytes)?;
        file.finish_with(|| {
            cancel.reach(Reached::CommitPoint);
            on_named();
        })
    }
}
