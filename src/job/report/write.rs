//! Writes reports as files of the host: JSON, a page or Markdown by the file name's ending. They replace only reports.

use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use super::fields::Report;
use super::html::is_page;
use super::markdown::TITLES;
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Layer, Result};
use crate::host::{self, AtomicFile, REPORT, Target};
use crate::job::folder::require_folder;
use crate::job::junit::{JUNIT_START, Junit};

/// How the name of the JSON form begins: today, and before it had a version of its own.
const NAMES: [&str; 2] = ["\"winject/report\"", "\"winject.report."];
/// Bytes at the start of a file that are read to recognise a report.
const HEAD: u64 = 64 << 10;

/// Writes the report to `path`: `.html` is a page that needs no other file, `.json` is JSON, `.md` is Markdown and writes
/// the JSON form, too (`report.md` and `report.json`). Returns the files that were written; their permissions allow no more users than those of the image.
/// They are finished even if `cancel` is requested: a report describes what was done.
///
/// # Errors
/// [`Kind::Usage`] for another ending, or when the file exists and is not a report of winject; [`Kind::Io`] when a
/// file cannot be written.
pub fn write(report: &Report, path: &Path, cancel: &Cancel) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (path, target) in targets(path)? {
        refuse_other_files(&target)?;
        let text = match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => report.to_json()?,
            Some("html" | "htm") => report.to_html(),
            _ => report.to_markdown(),
        };
        let mut new = AtomicFile::create(target, &report.image_files, cancel.hold_through()).map_err(explain_late)?;
        new.write_all(text.as_bytes()).map_err(|error| {
            explain_late(Error::io(Layer::Host, "cannot write the report", error).path(path.display().to_string()))
        })?;
        files.push((path, new));
    }
    files
        .into_iter()
        .map(|(path, new)| {
            new.finish().map_err(explain_late)?;
            Ok(path)
        })
        .collect()
}

/// Writes an answer as JUnit XML to `path`, under the same rules as a report: it replaces only a report of winject, and its
/// permissions allow no more users than those of `sources`.
///
/// # Errors
/// [`Kind::Usage`] when the file exists and is not a report of winject; [`Kind::Io`] when it cannot be written.
pub fn write_junit(junit: &Junit, path: &Path, sources: &[PathBuf], cancel: &Cancel) -> Result<()> {
    let target = junit_target(path)?;
    let mut new = AtomicFile::create(target, sources, cancel.hold_through())?;
    let cannot = |error| Error::io(Layer::Host, "cannot write the report", error).path(path.display().to_string());
    new.write_all(junit.to_xml().as_bytes()).map_err(cannot)?;
    new.finish()
}

/// What a JUnit file of this name resolves to, if it may be written.
///
/// # Errors
/// [`Kind::Usage`] as for [`write_junit`], and for a folder that does not exist.
pub fn check_junit(path: &Path) -> Result<()> {
    junit_target(path).map(drop)
}

fn junit_target(path: &Path) -> Result<Target> {
    require_folder(path, REPORT)?;
    let target = Target::resolve(path, REPORT)?;
    target.refuse_stream()?;
    refuse_other_files(&target)?;
    Ok(target)
}

/// Adds the hint that the run itself is done.
fn explain_late(error: Error) -> Error {
    error.hint("the report is written last: what the run was asked for is done, see its other output")
}

/// The files of a report with this name, and what their names resolve to.
///
/// # Errors
/// [`Kind::Usage`] for a name of another kind, or in a folder that does not exist.
pub(crate) fn targets(path: &Path) -> Result<Vec<(PathBuf, Target)>> {
    let names = match path.extension().and_then(|ending| ending.to_str()) {
        Some("html" | "htm" | "json") => vec![path.to_owned()],
        Some("md" | "markdown") => vec![path.to_owned(), path.with_extension("json")],
        _ => {
            return Err(Error::new(
                Kind::Usage,
                Layer::Job,
                "cannot write the report: its name ends neither in .html nor in .md or .json",
            )
            .path(path.display().to_string())
            .hint("name it report.html, report.md (report.json is written, too) or report.json"));
        }
    };
    require_folder(path, REPORT)?;
    names
        .into_iter()
        .map(|name| {
            let target = Target::resolve(&name, REPORT)?;
            target.refuse_stream()?;
            Ok((name, target))
        })
        .collect()
}

/// Refuses a target that exists and is not a report of winject.
///
/// # Errors
/// [`Kind::Usage`].
pub(crate) fn refuse_other_files(target: &Target) -> Result<()> {
    if !target.is_existing() || is_report(target.path()) {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, Layer::Job, "cannot write the report: the file exists and is not a report of winject")
        .path(target.path().display().to_string())
        .hint("choose another name for the report, or move the file away"))
}

/// Whether a file begins like a report of any version.
fn is_report(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = host::open(path, false).map(|file| file.take(HEAD).read_to_end(&mut head));
    if !matches!(read, Ok(Ok(_))) {
        return false;
    }
    let text = String::from_utf8_lossy(&head);
    let name = strip_token(&text, "{")
        .and_then(|rest| strip_token(rest, "\"schema\""))
        .and_then(|rest| strip_token(rest, ":"));
    let is_json = name.is_some_and(|name| NAMES.iter().any(|known| strip_token(name, known).is_some()));
    let is_titled = TITLES.iter().any(|title| text.starts_with(&format!("{title}\n")));
    is_json || is_page(&text) || text.starts_with(JUNIT_START) || (is_titled && text.contains("\n- Program: winject "))
}

/// What follows a token of JSON, if the text begins with it.
fn strip_token<'a>(text: &'a str, token: &str) -> Option<&'a str> {
    text.trim_start().strip_prefix(token)
}

impl Report {
    /// The JSON form, with a final line break.
    ///
    /// # Errors
    /// [`Kind::Bug`] only: every field has a JSON form.
    pub fn to_json(&self) -> Result<String> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::bug(Layer::Job, "cannot write the report as JSON").source_error(error))?;
        text.push('\n');
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_known_by_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let is = |text: &str| {
            std::fs::write(&path, text).unwrap();
            is_report(&path)
        };
        let mut report = Report { schema: crate::job::report::SCHEMA, summary: "Done: x.".into(), ..Report::default() };
        report.run.tool = "winject 9.9".into();
        assert!(is(&report.to_json().unwrap()) && is(&report.to_markdown()) && is(&report.to_html()));
        report.run.is_removal = true;
        assert!(report.to_markdown().starts_with("# Driver removal report\n") && is(&report.to_markdown()));
        assert!(is("{\"schema\":\"winject.report.v7\"") && is("{ \"schema\" : \"winject/report\", \"version\": 9"));
        for other in [
            "",
            "{}",
            "{\"schema\": \"other\"}",
            "{\"schema\": \"winject/reports\"}",
            "# Driver injection report\nmine",
            "# Driver removal report\nmine",
            "# my notes",
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>mine</title>",
            "{\"a\": {\"schema\": \"winject.report.v1\"}}",
        ] {
            assert!(!is(other), "{other}");
        }
        assert!(!is_report(folder.path()) && !is_report(Path::new("/dev/zero")));
    }
}
