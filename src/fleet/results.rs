//! The results folder of a batch: `events.jsonl` and one JSON file an item.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::item::safe_name;
use super::record::{EVENTS_FILE, Event, Finished, ITEM_SCHEMA, ITEMS_FOLDER, ItemResult, VERSION, Versioned};
use crate::cancel::Cancel;
use crate::error::{Error, Layer, Result};
use crate::escape;
use crate::host::{AppendedFile, AtomicFile, Target, create_folder, folder_of};

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
        self.events.append(&event.to_line())
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
    pub fn write_item(&self, finished: Finished, answer: Value, images: &[PathBuf]) -> Result<()> {
        let path = self.folder.join(Self::item_path(&finished.id));
        let value = ItemResult { finished, answer };
        let record = Versioned { schema: ITEM_SCHEMA.to_owned(), version: VERSION, value };
        let text = serde_json::to_string_pretty(&record)
            .map_err(|error| Error::bug(Layer::Job, "cannot write the result as JSON").source_error(error))?;
        let target = Target::of_name(&path, "the result of an item")?;
        let cannot = target.cannot();
        let mut file = AtomicFile::create(target, images, self.cancel.hold_through())?;
        file.write_all(escape::json(text).as_bytes()).map_err(cannot)?;
        file.finish_soon()
    }

    /// Makes the events durable.
    ///
    /// # Errors
    /// [`Kind::Io`](crate::Kind::Io).
    pub fn sync(&self) -> Result<()> {
        self.events.sync()
    }
}

/// How the first line of a run begins.
const BEGUN: &str = "{\"schema\":\"winject/batch-event\",\"version\":1,\"event\":\"begun\"";
