//! The results folder of a batch: `events.jsonl` and one JSON file an item.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::answer::Answer;
use super::item::safe_name;
use super::record::{EVENTS_FILE, Event, Finished, ITEM_SCHEMA, ITEMS_FOLDER, VERSION, Versioned};

use crate::cancel::Cancel;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::escape;
use crate::host::{self, AppendedFile, AtomicFile, Target, create_folder, folder_of, remove_leftovers_in};

/// An open results folder. No other run writes into it meanwhile.
#[derive(Debug)]
pub struct Results {
    folder: PathBuf,
    events: AppendedFile,
    attempt: u32,
    cancel: Cancel,
}

impl Results {
    /// Opens the folder, or makes it; its parent has to be there. Its files are open to no more users than `images`.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind::Usage) when the folder holds files of these names that are not winject's,
    /// [`Kind::Refused`](crate::Kind::Refused) when another run writes into it, [`Kind::Io`](crate::Kind::Io) when it cannot be
    /// written.
    pub fn open(folder: &Path, images: &[PathBuf], cancel: &Cancel) -> Result<Self> {
        for path in [folder.to_owned(), folder.join(ITEMS_FOLDER)] {
            create_folder(&path, images).map_err(|error| {
                Error::io(Layer::Host, "cannot make the results folder", error).path(path.display().to_string()).hint(
                    format!("make its parent first: mkdir -p {}", escape::shell_argument(folder_of(&path), "FOLDER")),
                )
            })?;
        }
        let mut runs = 0u32;
        let is_begun = |line: &str| line.starts_with(BEGUN);
        let events = AppendedFile::open(&folder.join(EVENTS_FILE), images, is_begun, |line| {
            runs = runs.saturating_add(u32::from(is_begun(line)));
        })?;
        // The lock of the events keeps every other run out: what lies there was left by a killed one.
        remove_leftovers_in(&folder.join(ITEMS_FOLDER));
        Ok(Self { folder: folder.to_owned(), events, attempt: runs.saturating_add(1), cancel: cancel.clone() })
    }

    /// Number of this run in the folder, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Appends a line.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn add(&mut self, event: &Event) -> Result<()> {
        self.events.append(&event.to_line()).map_err(name_full_folder)
    }

    /// Refuses the results of these items if one of their files is of something else, before anything begins.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind::Usage) for such a file, [`Kind::Io`](crate::Kind::Io) when one cannot be read.
    pub fn check_items<'a>(&self, ids: impl Iterator<Item = &'a str>) -> Result<()> {
        ids.into_iter().try_for_each(|id| self.item_target(id).map(drop))
    }

    /// The file of an item, which is new, or was made by an earlier attempt.
    fn item_target(&self, id: &str) -> Result<Target> {
        let target = Target::of_name(&self.folder.join(Self::item_path(id)), ITEM_FILE)?;
        if !target.is_existing() {
            return Ok(target);
        }
        let mut head = Vec::new();
        let file =
            host::open(target.path(), false).map_err(|error| error.into_error(ITEM_FILE, target.path(), Layer::Job))?;
        file.take(ITEM_START.len() as u64).read_to_end(&mut head).map_err(target.cannot())?;
        // An empty one is left over from a loss of power.
        if head.is_empty() || head == ITEM_START.as_bytes() {
            return Ok(target);
        }
        Err(Error::new(Kind::Usage, Layer::Job, format!("cannot write {ITEM_FILE}: the file is of something else"))
            .with_code(ErrorCode::OutputName)
            .path(target.path().display().to_string())
            .hint("move it away, or choose another folder with --results"))
    }

    /// Path of an item's file below the folder.
    #[must_use]
    pub fn item_path(id: &str) -> String {
        format!("{ITEMS_FOLDER}/{}.json", safe_name(id))
    }

    /// Writes the result of an item, made from `images`. An earlier one is replaced. It is not waited for until the file is on
    /// stable storage: the next run makes it again.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn write_item(&self, finished: &Finished, answer: Option<&Answer>, images: &[PathBuf]) -> Result<()> {
        let target = self.item_target(&finished.id)?;
        let text = item_text(finished, answer)?;
        let cannot = target.cannot();
        let write = || {
            let mut file = AtomicFile::create_in_cleared(target, images, self.cancel.hold_through())?;
            file.write_all(escape::json(text).as_bytes()).map_err(cannot)?;
            file.finish_soon()
        };
        write().map_err(|error: Error| {
            name_full_folder(error)
                .hint("make space in the results folder, and run the command again: what is done is seen")
        })
    }

    /// Makes the events durable.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn sync(&self) -> Result<()> {
        self.events.sync().map_err(name_full_folder)
    }
}

/// An [`ItemResult`](super::record::ItemResult) as JSON, with the answer as its worker wrote it.
fn item_text(finished: &Finished, answer: Option<&Answer>) -> Result<String> {
    let record = Versioned { schema: ITEM_SCHEMA.to_owned(), version: VERSION, value: finished };
    let text = serde_json::to_string_pretty(&record)
        .map_err(|error| Error::bug(Layer::Job, "cannot write the result as JSON").source_error(error))?;
    let open = text.strip_suffix("\n}").unwrap_or(&text);
    Ok(format!("{open},\n  \"answer\": {}\n}}\n", answer.map_or("null", |answer| answer.text.trim_end())))
}

/// Names the error more exactly if the folder has no space: a further run can succeed.
pub fn name_full_folder(error: Error) -> Error {
    if error.code() == ErrorCode::NoSpace { error.with_code(ErrorCode::ResultsFull) } else { error }
}

/// How the first line of a run begins.
const BEGUN: &str = "{\"schema\":\"winject/batch-event\",\"version\":1,\"event\":\"begun\"";

/// What messages call the file of an item.
const ITEM_FILE: &str = "the result of an item";

/// How the file of an item begins.
const ITEM_START: &str = "{\n  \"schema\": \"winject/batch-item\"";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::Outcome;
    use crate::fleet::record::ItemResult;
    use crate::fleet::testing::finished;

    #[test]
    fn the_text_of_an_item_is_its_record() {
        let answer = Answer::parse("{\n  \"schema\": \"winject/report\"\n}\n".to_owned()).unwrap();
        for answer in [Some(&answer), None] {
            let finished = finished("a", Outcome::Done);
            let text = item_text(&finished, answer).unwrap();
            assert!(text.starts_with(ITEM_START));
            let read: Versioned<ItemResult> = serde_json::from_str(&text).unwrap();
            assert_eq!(read.value.finished, finished);
            assert_eq!(read.value.answer["schema"].as_str(), answer.map(|_| "winject/report"));
        }
    }

    #[test]
    fn only_the_result_of_an_earlier_attempt_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let results = Results::open(&root.path().join("r"), &[], &Cancel::default()).unwrap();
        let write = || results.write_item(&finished("a", Outcome::Done), None, &[]);
        let path = root.path().join("r").join(Results::item_path("a"));
        write().unwrap();
        write().unwrap();
        std::fs::write(&path, "").unwrap();
        write().unwrap();
        std::fs::write(&path, "{\"mine\": 1}").unwrap();
        for refused in [write(), results.check_items(["b", "a"].into_iter())] {
            assert_eq!(refused.unwrap_err().kind(), Kind::Usage);
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"mine\": 1}");
    }
}
