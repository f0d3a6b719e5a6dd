//! The files that are made from results: every item once, a page, JUnit, metrics.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::merge::Merged;
use super::outcome::Outcome;
use super::record::{EVENTS_FILE, Event};
use super::tally::Tally;
use super::{junit, metrics, page};
use crate::cancel::Cancel;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::host::{self, AtomicFile, Target, create_folder, refuse_missing_folder};
use crate::job::junit::JUNIT_START;
use crate::plan::review::page_start;

/// The page for people.
pub const PAGE_FILE: &str = "fleet.html";
/// The last record of each item, by id.
pub const LINES_FILE: &str = "items.jsonl";
/// The tests for pipelines.
pub const JUNIT_FILE: &str = "junit.xml";
/// The figures for Prometheus.
pub const METRICS_FILE: &str = "winject.prom";

/// How lines of records begin.
const LINES_START: &str = "{\"schema\":\"winject/batch-event\"";

/// What messages call the files.
const WHAT: &str = "the results of a batch";

/// Writes all files into `folder`, which is made if need be, and returns their paths. They replace earlier ones of their kind
/// only, and are open to no more users than the results that they are made from. `folders`: those of the results.
///
/// # Errors
/// [`Kind::Usage`] for a file of another kind, [`Kind::Io`], and those of reading the results.
pub fn write(
    merged: &mut Merged,
    tally: &Tally,
    folder: &Path,
    folders: &[PathBuf],
    cancel: &Cancel,
) -> Result<Vec<PathBuf>> {
    require_place(folder)?;
    let sources: Vec<PathBuf> = folders.iter().map(|folder| folder.join(EVENTS_FILE)).collect();
    create_folder(folder, &sources).map_err(|error| {
        Error::io(Layer::Host, "cannot make the results folder", error)
            .path(folder.display().to_string())
            .hint("make its parent first, or choose another folder")
    })?;
    let mut files =
        targets(folder)?.into_iter().map(|target| AtomicFile::create(target, &sources, cancel.hold_through()));
    let mut begin = || files.next().unwrap_or_else(|| Err(Error::bug(Layer::Job, "a file of the results has no name")));
    let (mut lines, mut html, mut tests, mut figures) = (begin()?, begin()?, begin()?, begin()?);
    merged.for_each(&Outcome::ALL, &mut |finished, _| {
        let line = Event::Finished(finished.clone()).to_line();
        append(&mut lines, &format!("{line}\n"))
    })?;
    page::write(merged, tally, folder, &mut |text| append(&mut html, text))?;
    junit::write(merged, tally, &mut |text| append(&mut tests, text))?;
    append(&mut figures, &metrics::metrics(merged, tally))?;
    [lines, html, tests, figures]
        .into_iter()
        .map(|file| {
            let path = file.target().path().to_owned();
            file.finish().map(|()| path)
        })
        .collect()
}

/// Refuses a folder in which one of the files cannot be written, and writes nothing.
///
/// # Errors
/// Those of [`write`] that can be told before.
pub fn check(folder: &Path) -> Result<()> {
    require_place(folder)?;
    targets(folder).map(drop)
}

/// Refuses a results folder that is a file, or whose own folder does not exist.
fn require_place(folder: &Path) -> Result<()> {
    if folder.metadata().is_ok_and(|meta| !meta.is_dir()) {
        return Err(Error::new(Kind::Usage, Layer::Host, format!("cannot write {WHAT}: the name is that of a file"))
            .with_code(ErrorCode::OutputName)
            .path(folder.display().to_string())
            .hint("name a folder, or a name that is free"));
    }
    refuse_missing_folder(folder, WHAT)
}

/// The files, in the order in which they are written.
fn targets(folder: &Path) -> Result<Vec<Target>> {
    let page = page_start(page::MARK);
    [(LINES_FILE, LINES_START), (PAGE_FILE, &page), (JUNIT_FILE, JUNIT_START), (METRICS_FILE, metrics::START)]
        .into_iter()
        .map(|(name, start)| {
            let target = Target::of_name(&folder.join(name), WHAT)?;
            refuse_other_file(&target, start)?;
            Ok(target)
        })
        .collect()
}

fn append(file: &mut AtomicFile<'static>, text: &str) -> Result<()> {
    let cannot = file.target().cannot();
    file.write_all(text.as_bytes()).map_err(cannot)
}

/// Refuses a file that exists and does not begin with `start`. An empty one is left over from nothing.
fn refuse_other_file(target: &Target, start: &str) -> Result<()> {
    if !target.is_existing() {
        return Ok(());
    }
    let path = target.path();
    let mut head = Vec::new();
    let file = host::open(path, false).map_err(|error| error.into_error(WHAT, path, Layer::Job))?;
    file.take(start.len() as u64).read_to_end(&mut head).map_err(target.cannot())?;
    if head == start.as_bytes() {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, Layer::Job, format!("cannot write {WHAT}: the file is of something else"))
        .with_code(ErrorCode::OutputName)
        .path(path.display().to_string())
        .hint("remove it, or choose another folder with -o"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::record::{Begun, Finished, Shard};
    use crate::fleet::testing::finished;

    /// Results with hostile texts give files that name no other item, line or tag.
    #[test]
    fn hostile_texts_stay_texts() {
        let root = tempfile::tempdir().unwrap();
        let hostile = "a\"'<b>&\u{202e}\n\u{1b}[2J";
        let begun = Begun {
            tool: hostile.into(),
            time: hostile.into(),
            job: hostile.into(),
            dry_run: true,
            attempt: 1,
            shard: Shard::default(),
            items: 3,
            items_in_all: 3,
            skipped: Vec::new(),
            jobs: 1,
        };
        let item = Finished {
            image: hostile.into(),
            job: hostile.into(),
            time: hostile.into(),
            message: hostile.into(),
            reason: Some(hostile.into()),
            hint: Some(hostile.into()),
            warnings: vec![hostile.into()],
            report: Some(hostile.into()),
            ..finished(hostile, Outcome::Refused)
        };
        let text = format!("{}\n{}\n", Event::Begun(begun).to_line(), Event::Finished(item).to_line());
        std::fs::write(root.path().join(EVENTS_FILE), text).unwrap();
        let folders = [root.path().to_owned()];
        let mut merged = Merged::read(&folders).unwrap();
        assert_eq!(merged.faults.missing_items(), 2);
        let tally = merged.tally().unwrap();
        let out = root.path().join("out");
        for _ in 0..2 {
            let files = write(&mut merged, &tally, &out, &folders, &Cancel::default()).unwrap();
            assert_eq!(files.len(), 4);
            for file in &files {
                let text = std::fs::read_to_string(file).unwrap();
                let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
                assert!(!text.contains(steers), "{file:?}: {text}");
                let is_lines = file.ends_with(LINES_FILE) || file.ends_with(METRICS_FILE);
                assert!(is_lines || !text.contains("<b>&"), "{file:?}: {text}");
            }
        }
        std::fs::write(out.join(METRICS_FILE), "mine").unwrap();
        let error = write(&mut merged, &tally, &out, &folders, &Cancel::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert_eq!(std::fs::read_to_string(out.join(METRICS_FILE)).unwrap(), "mine");
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 4, "no temporary file is left");
    }
}
