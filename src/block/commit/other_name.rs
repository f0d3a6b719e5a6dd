//! Interrupted edits of exports that have another URI now: `nbdkit -U -` makes a new socket for each start.
//!
//! The journals of other exports are compared with the disk: it is the one of a journal if it is the recorded one but for what
//! the run wrote, and if the run wrote anything. A copy of the disk from before the run is not meant.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compare::{State, examine};
use super::export_mark;
use crate::block::Storage;
use crate::block::journal::{Journal, pending};
use crate::error::Result;
use crate::host::{HostFiles, JOURNAL_ENDING, RealHost};
use crate::nbd::{ExportHost, NbdOptions};

/// Journals that are looked at.
const JOURNALS_MAX: usize = 1000;

/// Where in the folder for journals the interrupted edit of this disk has its journal, under another name than that of `host`;
/// `None` if no journal matches, or the disk holds nothing of the edit.
///
/// # Errors
/// When the disk cannot be read.
pub(super) fn find_place(host: &ExportHost, disk: &Arc<dyn Storage>) -> Result<Option<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(host.folder()) else { return Ok(None) };
    let paths = entries.flatten().map(|entry| entry.path()).take(JOURNALS_MAX);
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(stem) = name.and_then(|name| name.strip_suffix(JOURNAL_ENDING)) else { continue };
        if is_of_disk(&path, disk)? {
            return Ok(Some(path.with_file_name(stem)));
        }
    }
    Ok(None)
}

/// Whether the disk holds something of the run with this journal.
fn is_of_disk(path: &Path, disk: &Arc<dyn Storage>) -> Result<bool> {
    // A journal that does not count is named when its own export is used.
    let opened = RealHost.open_journal(path, None).and_then(Journal::open);
    let Some(journal) = opened.ok().flatten() else { return Ok(false) };
    let files = [Arc::clone(disk)];
    if journal.files.len() != files.len() || !export_mark::is_of(&journal, &files)? {
        return Ok(false);
    }
    let examined = examine(&journal, &files)?;
    Ok(examined.is_half_written || examined.is_complete || examined.state == State::Switched)
}

/// Refuses an export that an edit under another URI left half written, as far as this machine knows. `disk` is the export.
///
/// # Errors
/// [`Kind::Pending`](crate::Kind::Pending); also when the disk cannot be read.
pub(crate) fn refuse_half_written(name: &Path, options: &NbdOptions, disk: &Arc<dyn Storage>) -> Result<()> {
    if options.journals.is_none() {
        return Ok(());
    }
    match find_place(&ExportHost::new(name, options)?, disk)? {
        None => Ok(()),
        Some(_) => Err(pending(name)),
    }
}
