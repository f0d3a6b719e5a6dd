//! Journals of exports that a recovery is done with. They are kept.
//!
//! A disk behind a URI is known by its content alone: a clone of the same template, or a copy of a half-written disk, passes
//! for the disk of a journal. If a recovery of one removed the journal, the other would stay half written for good. So the
//! journal gets another name, under which it is found again for a disk that is half written as it says.

use std::io;
use std::path::{Path, PathBuf};

use crate::block::HostFiles;
use crate::block::journal::journal_of_real_path;
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::host::next_to;

/// What the name of a kept journal has after that of its export, before a number.
const MARK: &str = "-recovered-";
/// Journals of one URI that are kept.
const KEPT_MAX: u32 = 999;

/// Gives the journal of the export that `place` stands for the name of one that is kept, durably; returns its path.
///
/// # Errors
/// When it cannot be renamed: it is pending still.
pub(super) fn keep(host: &dyn HostFiles, place: &Path) -> Result<PathBuf> {
    let journal = journal_of_real_path(place);
    if is_kept(place) {
        return Ok(journal);
    }
    let cannot = |error| {
        let error = Error::io(Layer::Host, "cannot keep the journal under another name", error);
        error.path(journal.display().to_string())
    };
    for number in 1..=KEPT_MAX {
        let kept = journal_of_real_path(&next_to(place, &format!("{MARK}{number}")));
        match host.rename(&journal, &kept, false) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            renamed => {
                renamed.and_then(|()| host.sync_folder_of(&kept)).map_err(cannot)?;
                return Ok(kept);
            }
        }
    }
    Err(Error::refused(Layer::Host, format!("more than {KEPT_MAX} journals of this export are kept"))
        .with_code(ErrorCode::NbdJournal)
        .path(journal.display().to_string())
        .hint("remove those of which no half-written disk or copy remains"))
}

/// Whether the journal of this place is one that a recovery is done with.
pub(super) fn is_kept(place: &Path) -> bool {
    let name = place.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // The names of exports end with a hash, which is longer.
    name.rsplit_once(MARK).is_some_and(|(_, number)| {
        (1..=3).contains(&number.len()) && number.bytes().all(|digit| digit.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::RealHost;

    #[test]
    fn journals_that_are_kept_do_not_replace_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("nbd-h-10809-0123456789abcdef");
        for number in 1..=3 {
            std::fs::write(journal_of_real_path(&place), [number]).unwrap();
            let kept = keep(&RealHost, &place).unwrap();
            assert_eq!(std::fs::read(&kept).unwrap(), [number]);
            let of = crate::block::journal::file_of_journal(&kept).unwrap();
            assert!(is_kept(&of) && !is_kept(&place));
            assert_eq!(keep(&RealHost, &of).unwrap(), kept);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
        assert!(!is_kept(Path::new("/j/nbd-h-recovered-1234567890123456")));
    }
}
