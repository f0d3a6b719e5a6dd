//! Child processes of the job: their output goes into the log.

use alloc::string::String;
use alloc::vec::Vec;

use crate::job::Command;
use crate::log::Log;
use crate::outcome::{Kind, Outcome, StepResult};
use crate::places::Places;
use crate::state;
use crate::text::{decimal, hexadecimal, join, signed};
use crate::windows::file::{self, File};
use crate::windows::process::{self, Ended};
use crate::windows::stop::{StopEvent, Stopped};
use crate::windows::system;

/// What every step needs.
pub struct Context<'a> {
    pub places: &'a Places,
    pub log: &'a Log,
    pub stop: &'a StopEvent,
    /// The SID of the account that the program runs as.
    pub own_sid: &'a [u8],
}

/// How a child ended, for the result.
pub struct Ran {
    pub outcome: Outcome,
    pub code: i32,
    pub detail: String,
}

impl Ran {
    /// A result without an exit code.
    pub fn without_code(outcome: Outcome, detail: &str) -> Self {
        Self { outcome, code: 0, detail: detail.into() }
    }
}

impl Context<'_> {
    /// Runs a command line with a time limit; `judge` makes the outcome of its exit code.
    ///
    /// # Errors
    /// When the program has to stop; the child is ended then.
    pub fn run(&self, line: &str, seconds: u32, judge: impl Fn(i32) -> Outcome) -> Result<Ran, Stopped> {
        /// `ERROR_FILE_NOT_FOUND` and `ERROR_PATH_NOT_FOUND`
        const ABSENT: [u32; 2] = [2, 3];
        self.stop.check()?;
        self.log.line(&["running ", line]);
        let path = self.places.base_file(state::OUTPUT);
        let ended = match File::create_for_child(&path) {
            Ok(output) => process::run(line, &self.places.base, &output, seconds, self.stop),
            Err(error) => Ended::NotStarted(error),
        };
        self.log.output(&path);
        let _ = file::delete(&path);
        let ran = match ended {
            Ended::Code(code) => Ran { outcome: judge(code), code, detail: String::new() },
            Ended::Timeout => {
                Ran::without_code(Outcome::Timeout, &join(&["ended after ", &decimal(seconds), " seconds"]))
            }
            Ended::NotStarted(error) => {
                let outcome = if ABSENT.contains(&error) { Outcome::Missing } else { Outcome::Failed };
                Ran::without_code(outcome, &join(&["cannot be started: error ", &decimal(error)]))
            }
            Ended::Stopped => return Err(Stopped),
        };
        if ran.detail.is_empty() {
            let hexadecimal = hexadecimal(ran.code.cast_unsigned());
            self.log.line(&["exit code ", &signed(ran.code), " (", &hexadecimal, "): ", ran.outcome.word()]);
        } else {
            self.log.line(&[ran.outcome.word(), ": ", &ran.detail]);
        }
        Ok(ran)
    }

    /// Runs a `run` step, again while its exit code asks for that.
    ///
    /// # Errors
    /// When the program has to stop.
    pub fn run_command(&self, command: &Command) -> Result<StepResult, Stopped> {
        let ran = match system::expand(&command.line) {
            Some(line) => self.run_with_retries(command, &line)?,
            None => Ran::without_code(Outcome::Failed, "the command line is too long"),
        };
        Ok(StepResult {
            kind: Kind::Run,
            name: command.name.clone(),
            required: command.required,
            outcome: ran.outcome,
            code: ran.code,
            detail: ran.detail,
        })
    }

    fn run_with_retries(&self, command: &Command, line: &str) -> Result<Ran, Stopped> {
        let mut left = command.retries;
        loop {
            let ran = self.run(line, command.seconds, |code| Outcome::of_command(code, &command.ok_codes))?;
            let asks = ran.outcome == Outcome::Failed && command.retry_codes.contains(&ran.code);
            if !asks || left == 0 {
                return Ok(ran);
            }
            left -= 1;
            self.log.line(&[&command.name, " is tried again in ", &decimal(command.pause), " seconds"]);
            self.stop.wait(command.pause.saturating_mul(1000))?;
        }
    }
}

/// Restarts of Windows that are pending already; installers may fail for them.
pub fn pending_restarts() -> Vec<&'static str> {
    use crate::windows::registry::{has_key, has_value};
    const CURRENT: &str = "SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\";
    let mut found = Vec::new();
    if has_key(&join(&[CURRENT, "Component Based Servicing\\RebootPending"])) {
        found.push("Component Based Servicing");
    }
    if has_key(&join(&[CURRENT, "WindowsUpdate\\Auto Update\\RebootRequired"])) {
        found.push("Windows Update");
    }
    if has_value("SYSTEM\\CurrentControlSet\\Control\\Session Manager", "PendingFileRenameOperations") {
        found.push("PendingFileRenameOperations");
    }
    found
}
