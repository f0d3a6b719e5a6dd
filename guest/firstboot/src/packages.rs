//! Driver packages: those of the job, and those that an administrator has put into the staging folder.

use alloc::string::String;
use alloc::vec::Vec;

use crate::commands::{Context, Ran};
use crate::descriptor::{Distrust, check_trusted};
use crate::job::{Dialect, Package};
use crate::outcome::{Kind, Outcome, StepResult};
use crate::text::join;
use crate::windows::file::{self, File};
use crate::windows::stop::Stopped;
use crate::windows::{security, wide};

/// How deep below the staging folder an INF is found, how many of them, and how many entries of one folder are read.
const DEPTH_MAX: u32 = 8;
const INFS_MAX: usize = 1000;
const ENTRIES_MAX: usize = 4096;
/// Seconds that the search for changed hardware may take.
const SCAN_SECONDS: u32 = 120;

impl Context<'_> {
    /// Installs one package.
    ///
    /// # Errors
    /// When the program has to stop.
    pub fn install(&self, dialect: Dialect, package: &Package) -> Result<StepResult, Stopped> {
        let path = join(&[&self.places.stage(), "\\", &package.inf]);
        let ran = if file::exists(&path) {
            let (before, after) = match dialect {
                Dialect::AddDriver => ("/add-driver", " /install"),
                Dialect::Legacy => ("-i -a", ""),
            };
            let program = self.places.system_program("pnputil.exe");
            let line = join(&["\"", &program, "\" ", before, " \"", &path, "\"", after]);
            self.run(&line, package.seconds, Outcome::of_package)?
        } else {
            self.log.line(&["missing: ", &path]);
            Ran::without_code(Outcome::Missing, "the INF is not there")
        };
        Ok(StepResult {
            kind: Kind::Package,
            name: package.inf.clone(),
            required: package.required,
            outcome: ran.outcome,
            code: ran.code,
            detail: ran.detail,
        })
    }

    /// Installs every other package in the staging folder that only administrators can have put there.
    ///
    /// # Errors
    /// When the program has to stop.
    pub fn install_others(&self, dialect: Dialect, seconds: u32, known: &[&str]) -> Result<Vec<StepResult>, Stopped> {
        let mut results = Vec::new();
        for inf in self.staged_infs() {
            if known.iter().any(|name| wide::is_same_name(name, &inf)) {
                continue;
            }
            let package = Package { required: false, seconds, inf };
            results.push(match self.check_origin(&package.inf) {
                Ok(()) => self.install(dialect, &package)?,
                Err(distrust) => self.refuse(&package.inf, distrust),
            });
        }
        Ok(results)
    }

    /// The result for an INF that is not trusted.
    pub fn refuse(&self, inf: &str, distrust: Distrust) -> StepResult {
        self.log.line(&["refused: ", inf, ": ", distrust.reason()]);
        StepResult {
            kind: Kind::Package,
            name: inf.into(),
            required: false,
            outcome: Outcome::Refused,
            code: 0,
            detail: distrust.reason().into(),
        }
    }

    /// Lets Windows look for changed hardware.
    ///
    /// # Errors
    /// When the program has to stop.
    pub fn scan_devices(&self) -> Result<(), Stopped> {
        let line = join(&["\"", &self.places.system_program("pnputil.exe"), "\" /scan-devices"]);
        self.run(&line, SCAN_SECONDS, Outcome::of_package).map(|_| ())
    }

    /// The INFs below the staging folder, by their paths in it, sorted.
    pub fn staged_infs(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        let mut todo = Vec::from([(String::new(), 0)]);
        while let Some((folder, depth)) = todo.pop() {
            for entry in file::list(&join(&[&self.places.stage(), &folder]), ENTRIES_MAX) {
                let path = join(&[&folder, "\\", &entry.name]);
                if entry.is_folder {
                    if depth < DEPTH_MAX {
                        todo.push((path, depth + 1));
                    }
                } else if is_inf(&entry.name) && found.len() < INFS_MAX {
                    let path = String::from(path.trim_start_matches('\\'));
                    // in order from the beginning: the sort of the standard library is larger than all of this file
                    let place = found.partition_point(|other| *other < path);
                    found.insert(place, path);
                }
            }
        }
        found
    }

    /// Whether only trusted accounts can have put an INF there: the file and each folder up to our own.
    fn check_origin(&self, inf: &str) -> Result<(), Distrust> {
        let mut path = join(&[&self.places.stage(), "\\", inf]);
        loop {
            let opened = File::open_for_descriptor(&path).map_err(|_| Distrust::Unreadable)?;
            if opened.is_link() {
                return Err(Distrust::Link);
            }
            let descriptor = security::descriptor(&opened).ok_or(Distrust::Unreadable)?;
            check_trusted(&descriptor, self.own_sid)?;
            if path.len() <= self.places.base.len() {
                return Ok(());
            }
            match path.rfind('\\') {
                Some(end) => path.truncate(end),
                None => return Err(Distrust::Unreadable),
            }
        }
    }
}

fn is_inf(name: &str) -> bool {
    name.len() > 4 && name.to_ascii_lowercase().ends_with(".inf")
}
