//! Reports on the host: by temporary file and rename, JSON or Markdown by the name's ending.

use super::Report;
use crate::error::{Error, Kind, Layer, Result};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Writes the report to `path`: `.json` is JSON, `.md` is Markdown with the JSON beside it (`report.md` gets
/// `report.json`). Returns the files that were written.
///
/// # Errors
/// [`Kind::Usage`] for another ending, [`Kind::Io`] when a file cannot be written.
pub fn write(report: &Report, path: &Path) -> Result<Vec<PathBuf>> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("json") => {
            replace(path, report.to_json()?.as_bytes())?;
            Ok(vec![path.to_owned()])
        }
        Some("md" | "markdown") => {
            let sidecar = path.with_extension("json");
            replace(path, report.to_markdown().as_bytes())?;
            replace(&sidecar, report.to_json()?.as_bytes())?;
            Ok(vec![path.to_owned(), sidecar])
        }
        _ => Err(bad_name(path)),
    }
}

/// Whether [`write()`] will know what to do with this name and find its folder; asked before anything else is done.
///
/// # Errors
/// [`Kind::Usage`] when not.
pub fn check_name(path: &Path) -> Result<()> {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("json" | "md" | "markdown") => {}
        _ => return Err(bad_name(path)),
    }
    let folder = folder_of(path);
    if folder.is_dir() {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, Layer::Job, "the report's folder does not exist")
        .path(folder.display().to_string())
        .hint("create it first"))
}

fn bad_name(path: &Path) -> Error {
    Error::new(Kind::Usage, Layer::Job, "the report's name says neither .md nor .json")
        .path(path.display().to_string())
        .hint("name it report.md (a report.json is written beside it) or report.json")
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A reader of the report sees the old one or the whole new one.
fn replace(path: &Path, data: &[u8]) -> Result<()> {
    let failed = |error| {
        Error::io(Layer::Host, "cannot write the report", error)
            .path(path.display().to_string())
            .hint("the report is written last: what the run was asked for is done, see its other output")
    };
    let mut file = tempfile::NamedTempFile::new_in(folder_of(path)).map_err(failed)?;
    file.write_all(data).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    // A temporary file is private; a report is as readable as the user's other files.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

impl Report {
    /// The JSON form, with a final line break.
    ///
    /// # Errors
    /// Never in practice: the structure has no maps with odd keys.
    pub fn to_json(&self) -> Result<String> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::bug(Layer::Job, "a report that is no JSON").source_error(error))?;
        text.push('\n');
        Ok(text)
    }
}
