//! What all rows of the table have in common.

use std::path::PathBuf;
use std::sync::Mutex;

use crate::virtual_host::Files;

/// What a state turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Old,
    New,
}

/// A thread that makes states and judges them.
pub struct Worker {
    pub index: usize,
    /// The state's files are made here.
    pub folder: PathBuf,
    /// For files of the judges.
    pub scratch: PathBuf,
    /// The state's files if they are in memory.
    pub files: Mutex<Files>,
}

impl Worker {
    /// A worker with folders below `root`.
    pub fn new(root: &std::path::Path, index: usize) -> Self {
        let folder = root.join(format!("worker-{index}"));
        let scratch = root.join(format!("scratch-{index}"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::create_dir_all(&scratch).unwrap();
        Self { index, folder, scratch, files: Mutex::default() }
    }
}

/// How many different states a row has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supply {
    /// So many, one for every place where the fault can strike: all are made where the budget allows it.
    Every(u64),
    /// So many, of which a part will do.
    UpTo(u64),
    /// As many as are asked for.
    Endless,
}

/// A target under one kind of fault: a row of the table.
pub trait Row: Send + Sync {
    /// What is changed.
    fn target(&self) -> String;

    /// What happens meanwhile.
    fn fault(&self) -> &'static str;

    /// How many different states there are.
    fn supply(&self) -> Supply;

    /// Makes the state of this number and judges it.
    ///
    /// # Errors
    /// What is wrong with a state that is neither old nor new.
    fn run(&self, number: u64, worker: &Worker) -> Result<Side, String>;
}

/// A row that cannot run here.
pub struct NotRun {
    pub target: String,
    pub fault: &'static str,
    pub why: String,
    /// Whether it is because this is not the system for it (no root, no such device) rather than a missing program.
    pub is_excused: bool,
}

/// A seed made of several numbers.
pub fn seed_of(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0x9E37_79B9_7F4A_7C15, |seed, number| {
        (seed ^ number).wrapping_mul(0xBF58_476D_1CE4_E5B9).rotate_left(29) ^ (seed >> 31)
    })
}
