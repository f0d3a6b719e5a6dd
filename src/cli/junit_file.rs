//! The answers of `check` and `fsck` as a JUnit file.

use std::path::{Path, PathBuf};

use super::{Ui, signals};
use crate::error::{Error, Kind, Layer, Result};
use crate::host::is_same_file;
use crate::job::Junit;
use crate::job::report;

/// Makes sure that the file may be written, before anything else is done.
///
/// # Errors
/// [`Kind::Usage`] when it is one of the disks, or exists and is not a report of winject.
pub(super) fn check_junit<'p>(path: &Path, mut disks: impl Iterator<Item = &'p PathBuf>) -> Result<()> {
    if disks.any(|disk| is_same_file(disk, path)) {
        let what = "cannot write the report: it is the same file as the input image";
        return Err(Error::new(Kind::Usage, Layer::Cli, what)
            .path(path.display().to_string())
            .hint("choose another name"));
    }
    report::check_junit(path)
}

/// Writes the answer, or why it could not be found. A command that was called in a wrong way, or interrupted, is not reported: it
/// would replace an earlier, good answer.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write_junit<'p>(
    answer: std::result::Result<Junit, &Error>,
    verb: &'static str,
    path: &Path,
    disks: impl Iterator<Item = &'p PathBuf>,
    ui: &Ui,
) -> Result<()> {
    let junit = match answer {
        Ok(junit) => junit,
        Err(error) if matches!(error.kind(), Kind::Usage | Kind::Cancelled) => return Ok(()),
        Err(error) => Junit::of_error(verb, error, &|hint| ui.complete(hint).into_owned()),
    };
    let sources: Vec<PathBuf> = disks.cloned().collect();
    report::write_junit(&junit, path, &sources, &signals::cancel())?;
    ui.note(&format!("report written: {}", path.display()));
    Ok(())
}
