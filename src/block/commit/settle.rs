//! The commit point: the journal of a run goes away, or becomes the undo record.

use std::path::{Path, PathBuf};

use crate::block::journal;
use crate::error::{Error, Kind, Layer, Result};
use crate::host::HostFiles;

/// What became of a journal.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// The undo record, if the journal became one.
    pub record: Option<PathBuf>,
    /// Why the undo record that was to be kept is missing.
    pub no_record: Option<String>,
    /// Why the end of the run may not survive a power cut.
    pub not_durable: Option<String>,
}

/// Makes a run count whose writes are all durable: its journal becomes the undo record in place of an earlier one, or
/// both are removed. An earlier record goes first: it must not be applied over the newer edit. A file in its place that
/// winject did not make stays. The image belongs to the user `owner`.
///
/// # Errors
/// [`Kind::Pending`]: the journal is there still, and the next recovery completes the run.
pub(super) fn settle(
    host: &dyn HostFiles,
    journal: &Path,
    record: &Path,
    is_kept: bool,
    owner: Option<u32>,
) -> Result<Settled> {
    let mut settled = Settled::default();
    let foreign = journal::refuse_foreign_record(host, record, owner).err();
    if let Some(error) = foreign.as_ref().filter(|_| is_kept) {
        settled.no_record = Some(format!("this run cannot be undone: {error}"));
    }
    match (is_kept && foreign.is_none()).then(|| host.rename(journal, record, true)) {
        Some(Err(error)) if host.exists(journal) => {
            settled.no_record = Some(format!("cannot keep the undo record, so this run cannot be undone: {error}"));
        }
        Some(_) => settled.record = Some(record.to_owned()),
        None => {}
    }
    let pending = |what: &str, path: &Path| {
        let error = Error::new(Kind::Pending, Layer::Host, what).path(path.display().to_string());
        move |e: std::io::Error| error.source_error(e)
    };
    if settled.record.is_none() {
        if foreign.is_none() && host.exists(record) {
            journal::remove(host, record).map_err(pending("cannot remove the earlier undo record", record))?;
        }
        let what = "cannot remove the undo journal: everything is written, but does not count yet";
        host.remove(journal).map_err(pending(what, journal))?;
    }
    settled.not_durable = host
        .sync_folder_of(journal)
        .err()
        .map(|e| format!("the journal's removal may not survive a power cut, which would undo this run: {e}"));
    Ok(settled)
}
