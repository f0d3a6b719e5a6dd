//! Short writes: under a limit on the size of files (`prlimit --fsize`) the kernel stores a part of a write, and nothing
//! behind the limit. Then SIGXFSZ kills the process, or, ignored, EFBIG is reported.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::row::{Row, Side, Supply, Worker};
use crate::scene::{Scene, Stage, words};

pub const TEXT: &str = "limit on file size inside a write";

/// A short write at every write of a command.
pub struct Short {
    scene: Arc<Scene>,
    limits: Vec<u64>,
}

impl Short {
    /// Limits inside each write that the command made when it was rehearsed in `folder`.
    pub fn new(scene: &Arc<Scene>, folder: &Path) -> Self {
        let inside = |(offset, length): (u64, u64)| [offset + length / 2 + 1, offset + 1];
        let limits: BTreeSet<u64> =
            scene.calls.iter().filter_map(|call| call.written(folder)).flat_map(inside).collect();
        Self { scene: Arc::clone(scene), limits: limits.into_iter().collect() }
    }
}

impl Row for Short {
    fn target(&self) -> String {
        self.scene.name.to_owned()
    }

    fn fault(&self) -> &'static str {
        TEXT
    }

    fn supply(&self) -> Supply {
        Supply::Every(self.limits.len() as u64 * 2)
    }

    fn run(&self, number: u64, worker: &Worker) -> Result<Side, String> {
        let limit = format!("--fsize={}", self.limits[(number / 2) as usize]);
        let ignoring = ["env", "--ignore-signal=XFSZ", "prlimit", &limit];
        let around = words(if number.is_multiple_of(2) { &ignoring[2..] } else { &ignoring[..] });
        let stage = Stage::set(&self.scene, worker)?;
        stage.prepare()?;
        let end = stage.run(&around, &self.scene.arguments);
        stage.judge(end, number.is_multiple_of(4)).map_err(|error| format!("{around:?}: {error}"))
    }
}
