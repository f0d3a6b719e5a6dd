//! Interrupted edits of exports that have another URI now: `nbdkit -U -` makes a new socket for each start.
//!
//! The journals of other exports are compared with the disk: it is the one of a journal if it is the recorded one but for what
//! the run wrote, and if the run wrote anything. A copy of the disk from before the run is not meant, and a disk that something
//! else has written to since cannot be told from a clone with an edit of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compare::{State, examine};
use super::meter::Meter;
use super::{export_mark, kept};
use crate::block::Storage;
use crate::block::journal::{Journal, pending};
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::host::{HostFiles, JOURNAL_ENDING, RealHost};
use crate::nbd::{ExportHost, NbdOptions};

/// Journals that are looked at.
const JOURNALS_MAX: usize = 1000;

/// Where in the folder for journals the interrupted edit of this disk has its journal, under another name than that of `host`;
/// `None` if no journal matches, or the disk holds nothing of the edit.
///
/// # Errors
/// When the disk cannot be read; [`Kind::Refused`](crate::Kind::Refused) when there are more journals than are looked at.
pub(super) fn find_place(host: &ExportHost, disk: &Arc<dyn Storage>) -> Result<Option<PathBuf>> {
    let Ok(entries) = std::fs::read_dir(host.folder()) else { return Ok(None) };
    let place_of = |path: PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let stem = name.and_then(|name| name.strip_suffix(JOURNAL_ENDING)).map(str::to_owned);
        stem.map(|stem| (path.with_file_name(stem), path))
    };
    let places = entries.flatten().filter_map(|entry| place_of(entry.path()));
    for (number, (place, journal)) in places.enumerate() {
        if number >= JOURNALS_MAX {
            return Err(too_many(host.folder()));
        }
        if is_of_disk(&place, &journal, disk)? {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

fn too_many(folder: &Path) -> Error {
    let what = format!("more than {JOURNALS_MAX} journals: cannot tell whether an edit of this disk was interrupted");
    Error::refused(Layer::Block, what)
        .with_code(ErrorCode::NbdJournal)
        .path(folder.display().to_string())
        .hint("remove those of recovered edits (*-recovered-*) of which no half-written disk or copy remains")
}

/// Whether the disk holds something of the run with this journal.
fn is_of_disk(place: &Path, journal: &Path, disk: &Arc<dyn Storage>) -> Result<bool> {
    let Ok(length) = disk.len() else { return Ok(false) };
    // A journal that does not count is named when its own export is used.
    let opened = RealHost.open_journal(journal, None).and_then(|journal| {
        Journal::open_if(
            journal,
            |files| matches!(files, [file] if file.old_length == length && file.identity.is_none()),
        )
    });
    let Some(journal) = opened.ok().flatten() else { return Ok(false) };
    let files = [Arc::clone(disk)];
    if !export_mark::is_of(&journal, &files)? {
        return Ok(false);
    }
    let examined = examine(&journal, &files, &Meter::new(None, 0))?;
    if examined.changed.is_some() {
        return Ok(false);
    }
    if kept::is_kept(place) {
        // The disk that was recovered is old or new as a whole; a switched one stays as it is.
        return Ok(examined.is_half_written && examined.state == State::Ours);
    }
    Ok(examined.has_new)
}

/// Refuses an export that an edit under another URI left half written, as far as this machine knows. `disk` is the export.
///
/// # Errors
/// [`Kind::Pending`](crate::Kind::Pending); also when the disk cannot be read.
pub(crate) fn refuse_half_written(name: &Path, options: &NbdOptions, disk: &Arc<dyn Storage>) -> Result<()> {
    if options.journals.is_none() {
        return Ok(());
    }
    let host = ExportHost::new(name, options)?;
    match find_place(&host, disk)? {
        None => Ok(()),
        Some(_) => Err(pending(&host, name)),
    }
}
