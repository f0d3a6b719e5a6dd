//! All rows of the table.

use std::path::Path;
use std::sync::Arc;

use crate::crash_case::{Case, cases};
use crate::hold::{Hold, Holder};
use crate::memory::{self, Action, Memory};
use crate::power::{self, Power};
use crate::process::{self, Process};
use crate::row::{NotRun, Row, Worker};
use crate::scene::{Change, Scene};
use crate::scenes;
use crate::short::{self, Short};
use crate::support::find_program;

/// The rows, in the order of the table.
pub struct Rows(pub Vec<Result<Box<dyn Row>, NotRun>>);

/// The target of the rows with two programs at one image.
pub const HELD: &str = "raw and qcow2";

/// The commands of these scenes want the image for themselves.
fn is_for_holders(scene: &str) -> bool {
    matches!(scene, "raw" | "qcow2" | "apply, raw" | "undo, raw" | "undo, qcow2")
}

/// Which rows are wanted, and what they are made with.
struct Builder<'a> {
    rows: Rows,
    seed: u64,
    only: Option<&'a str>,
    worker: &'a Worker,
}

impl Rows {
    /// Makes the rows whose name contains `only`.
    ///
    /// # Errors
    /// When a command fails without any fault.
    pub fn make(root: &Path, winject: &Path, seed: u64, only: Option<&str>, worker: &Worker) -> Result<Self, String> {
        let mut builder = Builder { rows: Self(Vec::new()), seed, only, worker };
        builder.add_memory();
        let mut scenes = Vec::new();
        for made in scenes::all(&root.join("scenes"), winject) {
            let name = made.as_ref().map_or_else(|(name, ..)| *name, |scene| scene.name);
            let made = match (made, find_program("strace")) {
                (Ok(_), None) => Err((name, "strace is not installed".to_owned(), false)),
                (made, _) => made,
            };
            match made {
                Ok(scene) => scenes.extend(builder.add_scene(scene)?),
                Err((target, why, is_excused)) => builder.add_not_run(target, "all", why, is_excused),
            }
        }
        builder.add_holders(&scenes);
        Ok(builder.rows)
    }
}

impl Builder<'_> {
    fn wants(&self, target: &str, fault: &str) -> bool {
        self.only.is_none_or(|text| format!("{target}: {fault}").contains(text))
    }

    fn add(&mut self, row: Box<dyn Row>) {
        if self.wants(&row.target(), row.fault()) {
            self.rows.0.push(Ok(row));
        }
    }

    fn add_not_run(&mut self, target: &str, fault: &'static str, why: String, is_excused: bool) {
        if self.wants(target, fault) {
            self.rows.0.push(Err(NotRun { target: target.to_owned(), fault, why, is_excused }));
        }
    }

    fn add_memory(&mut self) {
        if let Some(missing) = ["qemu-img", "qemu-io"].into_iter().find(|name| find_program(name).is_none()) {
            return self.add_not_run("raw and qcow2, in memory", "all", format!("{missing} is not installed"), false);
        }
        let (raw, qcow2): (Vec<Case>, Vec<Case>) = cases().into_iter().partition(|case| case.name == "raw");
        let kinds = qcow2.len();
        for (target, cases) in [("raw".to_owned(), raw), (format!("qcow2 of {kinds} kinds"), qcow2)] {
            // Without undo records, with one, and with one that replaces an earlier one.
            let kept = cases.iter().map(|case| Case { keep_undo: true, ..case.clone() });
            let all: Vec<Case> = cases.iter().cloned().chain(kept).chain(cases.iter().map(Case::next)).collect();
            for event in memory::Event::ALL {
                let target = format!("{target}, in memory");
                self.add(Box::new(Memory::new(&target, Action::Commit, event, self.seed, &all)));
            }
            for event in memory::Event::ALL {
                let target = format!("undo, {target}, in memory");
                self.add(Box::new(Memory::new(&target, Action::Undo, event, self.seed, &cases)));
            }
        }
    }

    /// Adds the rows of a command of the real program, if one of them is wanted.
    fn add_scene(&mut self, scene: Scene) -> Result<Option<Arc<Scene>>, String> {
        let faults = process::Fault::ALL.map(process::Fault::text);
        let events = [power::Event::PowerCut, power::Event::InRecovery];
        let texts = faults.into_iter().chain(events.map(Power::text)).chain([short::TEXT]);
        let is_wanted = texts.into_iter().any(|text| self.wants(scene.name, text));
        let is_held = is_for_holders(scene.name)
            && Holder::ALL.into_iter().any(|holder| {
                [true, false].map(|first| holder.text(first)).into_iter().any(|text| self.wants(HELD, text))
            });
        if !is_wanted && !is_held {
            return Ok(None);
        }
        let scene = Arc::new(scene.rehearse(self.worker)?);
        for fault in process::Fault::ALL {
            self.add(Box::new(Process::new(&scene, fault)));
        }
        match find_program("prlimit") {
            // Devices have no such limit.
            Some(_) if scene.change == Change::Device => {}
            Some(_) => self.add(Box::new(Short::new(&scene, &self.worker.folder))),
            None => self.add_not_run(scene.name, short::TEXT, "prlimit is not installed".into(), false),
        }
        for event in events {
            if !self.wants(scene.name, Power::text(event)) {
                continue;
            }
            match event {
                power::Event::InRecovery if scene.change != Change::InPlace => {}
                _ if !Power::applies(&scene) => {
                    let why = "a device's journal lies in a folder in memory, as a warning says";
                    self.add_not_run(scene.name, Power::text(event), why.into(), true);
                }
                _ => self.add(Box::new(Power::new(&scene, event, self.seed, self.worker)?)),
            }
        }
        Ok(Some(scene))
    }

    fn add_holders(&mut self, scenes: &[Arc<Scene>]) {
        let scenes: Vec<_> = scenes.iter().filter(|scene| is_for_holders(scene.name)).cloned().collect();
        for (holder, is_first) in Holder::ALL.into_iter().flat_map(|holder| [(holder, true), (holder, false)]) {
            match find_program(holder.program()) {
                Some(_) if scenes.is_empty() => {}
                Some(_) => self.add(Box::new(Hold { holder, is_first, scenes: scenes.clone() })),
                None => {
                    let why = format!("{} is not installed", holder.program());
                    self.add_not_run(HELD, holder.text(is_first), why, false);
                }
            }
        }
    }
}
