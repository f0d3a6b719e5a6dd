//! Runs the rows: shares the states out among them, and makes them on several threads.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::files::restore;
use crate::row::{NotRun, Row, Side, Supply, Worker};
use crate::rows::Rows;
use crate::support::{is_ci, root};
use crate::table::{Line, Tally};

/// At most this part of the states, in per cent, is made by the real program, which takes longer.
const PROCESS_SHARE: u64 = 40;
/// States that a row of the real program gets at least, however few there are in all.
const ROW_MIN: u64 = 8;
/// After so many mixed states a row ends.
const MIXED_MAX: u64 = 5;

/// How many states, and who makes them.
pub struct Campaign<'a> {
    pub seed: u64,
    pub states: u64,
    /// Only the state of this number of each row.
    pub state: Option<u64>,
    pub workers: &'a [Worker],
}

/// The finished rows.
pub struct Lines {
    pub done: Vec<Line>,
    /// Whether a state is mixed, or under CI a row did not run.
    pub has_failed: bool,
}

/// How many states the rows get.
struct Shares {
    /// For all rows of [`Supply::Every`], and how many they have.
    every: (u64, u64),
    /// For all rows of [`Supply::UpTo`], and how many they have.
    up_to: (u64, u64),
    /// For each row of [`Supply::Endless`].
    endless: u64,
}

impl Shares {
    fn of(rows: &Rows, states: u64) -> Self {
        let (mut every, mut up_to, mut endless) = (0, 0, 0);
        // What is left for the rows of which a part will do.
        let mut least = 0;
        for row in rows.0.iter().flatten() {
            match row.supply() {
                Supply::Every(supply) => every += supply,
                Supply::UpTo(supply) => {
                    up_to += supply;
                    least += supply.min(ROW_MIN);
                }
                Supply::Endless => endless += 1,
            }
        }
        let budget = if endless == 0 { states } else { states * PROCESS_SHARE / 100 };
        let first = every.min(budget.saturating_sub(least));
        let second = up_to.min(budget - first);
        let endless = (states - first - second).div_ceil(u64::max(endless, 1));
        Self { every: (first, every), up_to: (second, up_to), endless }
    }
}

impl Campaign<'_> {
    /// Runs all rows.
    pub fn run(&self, rows: Rows) -> Lines {
        let mut lines = Lines { done: Vec::new(), has_failed: false };
        let shares = Shares::of(&rows, self.states);
        for row in rows.0 {
            let line = match row {
                Err(NotRun { target, fault, why, is_excused }) => {
                    lines.has_failed |= is_ci() && !is_excused;
                    Line { target, fault, result: Err(why) }
                }
                Ok(row) => {
                    let numbers = self.state.map_or_else(|| self.numbers(row.supply(), &shares), |number| vec![number]);
                    let tally = self.run_row(&*row, &numbers);
                    lines.has_failed |= tally.mixed > 0;
                    Line { target: row.target(), fault: row.fault(), result: Ok(tally) }
                }
            };
            lines.done.push(line);
        }
        lines
    }

    /// Which states of a row are made: evenly spread over all of them.
    fn numbers(&self, supply: Supply, shares: &Shares) -> Vec<u64> {
        let (supply, (budget, all)) = match supply {
            Supply::Endless => return (0..shares.endless).collect(),
            Supply::Every(supply) => (supply, shares.every),
            Supply::UpTo(supply) => (supply, shares.up_to),
        };
        let count = if all <= budget { supply } else { (supply * budget).div_ceil(all) };
        let count = count.max(supply.min(ROW_MIN));
        let shift = self.seed % supply.div_ceil(count.max(1)).max(1);
        (0..count).map(|index| (index * supply / count + shift) % supply).collect()
    }

    fn run_row(&self, row: &dyn Row, numbers: &[u64]) -> Tally {
        let (next, tally, begin) = (AtomicU64::new(0), Mutex::new(Tally::default()), Instant::now());
        std::thread::scope(|scope| {
            for worker in self.workers {
                let (next, tally) = (&next, &tally);
                scope.spawn(move || {
                    while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                        worker.files.lock().unwrap().clear();
                        let result = row.run(*number, worker);
                        let mut tally = tally.lock().unwrap();
                        match result {
                            Ok(Side::Old) => tally.old += 1,
                            Ok(Side::New) => tally.new += 1,
                            Err(why) => {
                                tally.mixed += 1;
                                self.report(row, *number, &why, worker);
                            }
                        }
                        if tally.mixed >= MIXED_MAX {
                            break;
                        }
                    }
                });
            }
        });
        let tally = tally.into_inner().unwrap();
        let (target, fault) = (row.target(), row.fault());
        let milliseconds = begin.elapsed().as_millis() as u64 / tally.states().max(1);
        eprintln!("{target}: {fault}: {} states, {} mixed, {milliseconds} ms each", tally.states(), tally.mixed);
        tally
    }

    /// Keeps the files of a mixed state, and says how it is made again.
    fn report(&self, row: &dyn Row, number: u64, why: &str, worker: &Worker) {
        let name = format!("{}: {}", row.target(), row.fault());
        let folder: PathBuf = root().join("target/evidence").join(format!("{name} {number}").replace([' ', ','], "-"));
        let _ = std::fs::remove_dir_all(&folder);
        let _ = std::fs::create_dir_all(&folder);
        let files = std::mem::take(&mut *worker.files.lock().unwrap());
        if files.is_empty() {
            restore(&worker.folder, &folder);
        }
        for (path, bytes) in files {
            let _ = std::fs::write(folder.join(path), bytes);
        }
        eprintln!("MIXED: {name}, state {number}: {why}");
        eprintln!("  files: {}", folder.display());
        let seed = self.seed;
        eprintln!("  again: cargo run --release --example evidence -- --only '{name}' --state {number} --seed {seed}");
    }
}
