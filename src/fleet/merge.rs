//! The results of several runs and shards as one: every id once, with its last attempt.
//!
//! Of each item, its id and the place of its record are held, no texts: about 200 bytes an item.

mod faults;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use faults::NAMED_MAX;
pub use faults::{Faults, Ids};
use source::{Line, Source};

use super::outcome::Outcome;
use super::record::{Begun, EVENTS_FILE, Event, Finished, Shard};
use super::tally::Tally;
use crate::error::{Error, Kind, Layer, Result};
use crate::host;

/// What is known of an item.
#[derive(Debug)]
struct Entry {
    /// What became of it; `None` if no attempt has ended.
    outcome: Option<Outcome>,
    source: usize,
    /// Where its record begins in the events.
    offset: u64,
    /// The time of its record.
    time: Box<str>,
    shard: Shard,
    is_double: bool,
    /// The last folder that names it, and how many do so before.
    last_source: usize,
    earlier_sources: u64,
}

/// The runs of one shard, or of a batch without shards.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Items that its last run has.
    items: u64,
    items_in_all: u64,
}

/// Joined results.
#[derive(Debug)]
pub struct Merged {
    sources: Vec<Source>,
    entries: BTreeMap<String, Entry>,
    /// `inspect`, `check`, `inject` or `convert`.
    pub job: String,
    /// Whether the job wrote nothing.
    pub dry_run: bool,
    /// Name and version of the program of the last run that was read.
    pub tool: String,
    /// How many shards there are.
    pub shards: u32,
    /// How many items all shards have together.
    pub expected: u64,
    /// Time of the latest record, ISO 8601; empty without one.
    pub time: String,
    /// What is wrong.
    pub faults: Faults,
    /// Lines that were cut off or are of another kind.
    pub unread: u64,
}

impl Merged {
    /// Reads the results in `folders`. A folder that is named twice counts once.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a folder without results, or results of different jobs; [`Kind::Io`].
    pub fn read(folders: &[PathBuf]) -> Result<Self> {
        let mut merged = Self {
            sources: Vec::new(),
            entries: BTreeMap::new(),
            job: String::new(),
            dry_run: false,
            tool: String::new(),
            shards: 1,
            expected: 0,
            time: String::new(),
            faults: Faults::default(),
            unread: 0,
        };
        let mut runs: BTreeMap<(usize, u32, u32), Seen> = BTreeMap::new();
        let mut keys = Vec::new();
        for folder in folders {
            let path = folder.join(EVENTS_FILE);
            let file = host::open(&path, false).map_err(|error| {
                error
                    .into_error("results", &path, Layer::Job)
                    .hint("name folders that winject batch … --results FOLDER has written")
            })?;
            let key = std::fs::canonicalize(&path).unwrap_or(path);
            if keys.contains(&key) {
                continue;
            }
            keys.push(key);
            merged.sources.push(Source::new(folder, file));
            merged.read_source(merged.sources.len() - 1, &mut runs)?;
        }
        merged.judge(&runs);
        Ok(merged)
    }

    fn read_source(&mut self, source: usize, runs: &mut BTreeMap<(usize, u32, u32), Seen>) -> Result<()> {
        let mut offset = 0;
        let mut shard = None;
        while let Some((start, line)) = self.line(source, &mut offset)? {
            let Some(event) = line.and_then(|line| Event::from_line(&line)) else {
                self.unread = self.unread.saturating_add(1);
                continue;
            };
            match event {
                Event::Begun(begun) => {
                    self.begin(source, &begun)?;
                    shard = Some(begun.shard);
                    // Batches without shards are known by their folders only.
                    let key = if begun.shard.count > 1 { usize::MAX } else { source };
                    let seen = Seen { items: begun.items, items_in_all: begun.items_in_all };
                    runs.insert((key, begun.shard.count, begun.shard.index), seen);
                }
                Event::Planned(planned) => {
                    let entry = Entry {
                        outcome: None,
                        source,
                        offset: start,
                        time: "".into(),
                        shard: shard.unwrap_or_default(),
                        is_double: false,
                        last_source: source,
                        earlier_sources: 0,
                    };
                    self.add(planned.id, entry);
                }
                Event::Finished(finished) => {
                    let entry = Entry {
                        outcome: Some(finished.outcome),
                        source,
                        offset: start,
                        time: finished.time.as_str().into(),
                        shard: finished.shard,
                        is_double: false,
                        last_source: source,
                        earlier_sources: 0,
                    };
                    if finished.time > self.time {
                        self.time = finished.time;
                    }
                    self.add(finished.id, entry);
                }
                Event::Started(_) | Event::Progress(_) | Event::Ended(_) => {}
            }
        }
        if shard.is_none() {
            let path = self.sources.get(source).map(|source| source.folder.display().to_string()).unwrap_or_default();
            return Err(Error::new(
                Kind::Usage,
                Layer::Job,
                format!("no results of winject batch: {EVENTS_FILE} has no run"),
            )
            .path(path)
            .hint("name folders that winject batch … --results FOLDER has written"));
        }
        Ok(())
    }

    /// The line of a source at `offset`, which is moved to the next.
    fn line(&mut self, source: usize, offset: &mut u64) -> Result<Option<Line>> {
        self.sources.get_mut(source).map_or(Ok(None), |source| source.line(offset))
    }

    /// Takes what a run says of itself.
    fn begin(&mut self, source: usize, begun: &Begun) -> Result<()> {
        if self.job.is_empty() {
            self.job.clone_from(&begun.job);
            self.dry_run = begun.dry_run;
        }
        if self.job != begun.job {
            let folder = self.sources.get(source).map(|source| source.folder.display().to_string()).unwrap_or_default();
            let message = format!("cannot merge results of different jobs: {} and {}", self.job, begun.job);
            return Err(Error::new(Kind::Usage, Layer::Job, message)
                .path(folder)
                .hint("merge the folders of each job by themselves"));
        }
        self.dry_run &= begun.dry_run;
        self.tool.clone_from(&begun.tool);
        Ok(())
    }

    fn add(&mut self, id: String, new: Entry) {
        use std::collections::btree_map::Entry::{Occupied, Vacant};
        match self.entries.entry(id) {
            Vacant(place) => drop(place.insert(new)),
            Occupied(mut place) => {
                let old = place.get_mut();
                // A shard may have been run again with another folder. Batches without shards have nothing in common.
                let is_other_run = old.source != new.source && (old.shard.count == 1 || new.shard.count == 1);
                let is_double = old.is_double || old.shard != new.shard || is_other_run;
                let last_source = new.last_source;
                let is_new_source = last_source != old.last_source;
                let earlier_sources = old.earlier_sources.saturating_add(u64::from(is_new_source));
                // An attempt that did not come to the item says nothing of it, nor does a busy image of one that is done.
                let says_more = match (old.outcome, new.outcome) {
                    (_, None) => false,
                    (Some(known), Some(Outcome::NotStarted)) if known != Outcome::NotStarted => false,
                    (Some(Outcome::NotStarted), Some(known)) if known != Outcome::NotStarted => true,
                    (Some(known), Some(Outcome::Busy)) if known.is_done() => false,
                    (Some(Outcome::Busy), Some(known)) if known.is_done() => true,
                    _ => old.source == new.source || new.time >= old.time,
                };
                if says_more {
                    *old = new;
                }
                old.is_double = is_double;
                (old.last_source, old.earlier_sources) = (last_source, earlier_sources);
            }
        }
    }

    /// Finds what is missing, double, or does not belong together.
    fn judge(&mut self, runs: &BTreeMap<(usize, u32, u32), Seen>) {
        let faults = &mut self.faults;
        for (id, entry) in &self.entries {
            if entry.outcome.is_none() {
                faults.missing.add(id);
            }
            if entry.is_double {
                faults.double.add(id);
            }
        }
        let mut counts: Vec<u32> = runs.keys().map(|(_, count, _)| *count).collect();
        counts.sort_unstable();
        counts.dedup();
        self.shards = counts.last().copied().unwrap_or(1);
        if counts.len() > 1 {
            let counts: Vec<String> = counts.iter().map(ToString::to_string).collect();
            faults.disagreements.push(format!("the results are of different numbers of shards: {}", counts.join(", ")));
        }
        let of_shards = |(key, _): &(&(usize, u32, u32), &Seen)| key.1 == self.shards;
        let totals: Vec<u64> = runs.iter().filter(of_shards).map(|(_, seen)| seen.items_in_all).collect();
        if self.shards > 1 {
            let present: Vec<u32> = runs.iter().filter(of_shards).map(|(key, _)| key.2).collect();
            // A count comes from the records: only so many are named as can be looked at.
            let missing = (0..self.shards).filter(|index| present.binary_search(index).is_err());
            faults.missing_shards = missing.take(NAMED_MAX).collect();
            let (least, most) = (totals.iter().min().copied().unwrap_or(0), totals.iter().max().copied().unwrap_or(0));
            if least != most {
                let text = format!("the shards were made from different lists: of {least} and of {most} items");
                faults.disagreements.push(text);
            }
            self.expected = most;
        } else {
            self.expected = totals.iter().fold(0, |all, items| all.saturating_add(*items));
        }
        let named = self.entries.len() as u64;
        let planned: u64 = runs.values().fold(0, |all, seen| all.saturating_add(seen.items));
        // An item of three batches was planned three times.
        let again = self.entries.values().fold(0, |all: u64, entry| all.saturating_add(entry.earlier_sources));
        faults.missing_unnamed = match self.shards {
            1 => planned,
            _ => self.expected,
        }
        .saturating_sub(named.saturating_add(if self.shards == 1 { again } else { 0 }));
    }

    /// Judges the results as those of one shard of so many items, of whose siblings nothing is expected.
    pub fn take_as_shard(&mut self, items: u64) {
        self.expected = items;
        self.faults.missing_shards.clear();
        self.faults.missing_unnamed = items.saturating_sub(self.entries.len() as u64);
    }

    /// Calls `each` for the last record of every item whose outcome is one of `outcomes`, by id, with the folder that it is in.
    ///
    /// # Errors
    /// [`Kind::Io`], those of `each`, and [`Kind::Stale`] when the results were changed meanwhile.
    pub fn for_each(
        &mut self,
        outcomes: &[Outcome],
        each: &mut dyn FnMut(&Finished, &Path) -> Result<()>,
    ) -> Result<()> {
        let places: Vec<(usize, u64)> = self
            .entries
            .values()
            .filter(|entry| entry.outcome.is_some_and(|outcome| outcomes.contains(&outcome)))
            .map(|entry| (entry.source, entry.offset))
            .collect();
        for (source, mut offset) in places {
            let line = self.line(source, &mut offset)?.and_then(|(_, line)| line);
            let Some(Event::Finished(finished)) = line.and_then(|line| Event::from_line(&line)) else {
                return Err(Error::new(Kind::Stale, Layer::Job, "cannot merge results that are being replaced")
                    .hint("run the command again when the batch has ended"));
            };
            if let Some(source) = self.sources.get(source) {
                each(&finished, &source.folder)?;
            }
        }
        Ok(())
    }

    /// Counts over the last records of all items.
    ///
    /// # Errors
    /// Those of [`for_each`](Self::for_each).
    pub fn tally(&mut self) -> Result<Tally> {
        let mut tally = Tally::default();
        self.for_each(&Outcome::ALL, &mut |finished, _| {
            tally.add(finished);
            Ok(())
        })?;
        Ok(tally)
    }
}

#[cfg(test)]
mod tests;
