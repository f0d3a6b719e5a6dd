//! What became of the job: the result file, the line for the serial port, and the counts that decide.

use alloc::string::String;
use alloc::vec::Vec;

use crate::text::{decimal, join, push_json, signed};

/// Exit code of `pnputil`: no device takes the driver, or one that has it already (`ERROR_NO_MORE_ITEMS`).
const NO_DEVICE: i32 = 259;
/// Exit codes that ask for a restart of Windows.
const RESTART: [i32; 2] = [3010, 1641];

/// The kind of a step in the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A driver package.
    Package,
    /// An adapter's settings.
    Network,
    /// A command.
    Run,
    /// Invented records.
    Release,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Succeeded.
    Ok,
    /// Nothing to do: no such device, or the driver is there already.
    NoDevice,
    /// Succeeded; a restart of Windows completes it.
    Restart,
    /// Failed.
    Failed,
    /// Ended by the time limit.
    Timeout,
    /// What it is about is not there.
    Missing,
    /// Not done, because it was not safe.
    Refused,
    /// Not done, because it was not needed or was done before.
    Skipped,
}

impl Outcome {
    /// Of an exit code of `pnputil`.
    #[must_use]
    pub fn of_package(code: i32) -> Self {
        match code {
            0 => Self::Ok,
            NO_DEVICE => Self::NoDevice,
            code if RESTART.contains(&code) => Self::Restart,
            _ => Self::Failed,
        }
    }

    /// Of an exit code of a command with its own list of good ones.
    #[must_use]
    pub fn of_command(code: i32, ok_codes: &[i32]) -> Self {
        match ok_codes.contains(&code) {
            false => Self::Failed,
            true if RESTART.contains(&code) => Self::Restart,
            true => Self::Ok,
        }
    }

    /// Whether it counts as failed.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Timeout | Self::Missing)
    }

    /// The word in the result.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoDevice => "no-device",
            Self::Restart => "restart",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Missing => "missing",
            Self::Refused => "refused",
            Self::Skipped => "skipped",
        }
    }
}

/// One step of the result.
#[derive(Debug, Clone)]
pub struct StepResult {
    /// What kind of step.
    pub kind: Kind,
    /// Its name: path of the INF, hardware address, name of the command.
    pub name: String,
    /// Whether the job is only done when it succeeds.
    pub required: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// The exit code, 0 when nothing ran.
    pub code: i32,
    /// More, for people.
    pub detail: String,
}

/// How the job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All required steps succeeded.
    Done,
    /// Given up.
    Failed,
    /// A required step failed; the next start of Windows tries again.
    Retry,
}

impl State {
    /// The word in the result.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Retry => "retry",
        }
    }
}

/// Everything that the result tells.
#[derive(Debug, Clone)]
pub struct Summary {
    /// How the job stands.
    pub state: State,
    /// Number of this attempt, from 1; only those that ended with a failure were counted before it.
    pub attempt: u32,
    /// How many attempts have begun, this one included.
    pub begun: u32,
    /// The steps in the order of the job.
    pub steps: Vec<StepResult>,
}

impl Summary {
    /// How many steps failed, required ones or optional ones.
    #[must_use]
    pub fn failed(&self, required: bool) -> u32 {
        let failed = self.steps.iter().filter(|step| step.required == required && step.outcome.is_failure());
        u32::try_from(failed.count()).unwrap_or(u32::MAX)
    }

    /// Whether a step asked for a restart of Windows.
    #[must_use]
    pub fn needs_restart(&self) -> bool {
        self.steps.iter().any(|step| step.outcome == Outcome::Restart)
    }

    /// The result file.
    #[must_use]
    pub fn to_json(&self) -> String {
        let restart = if self.needs_restart() { "true" } else { "false" };
        let mut out = join(&[
            "{\"schema\":\"winject.firstboot.v1\",\"state\":\"",
            self.state.word(),
            "\",\"attempt\":",
            &decimal(self.attempt),
            ",\"begun\":",
            &decimal(self.begun),
            ",\"restart_needed\":",
            restart,
            ",\"failed_required\":",
            &decimal(self.failed(true)),
            ",\"failed_optional\":",
            &decimal(self.failed(false)),
            ",\r\n \"steps\":[",
        ]);
        for (index, step) in self.steps.iter().enumerate() {
            out.push_str(if index == 0 { "\r\n  " } else { ",\r\n  " });
            push_step(&mut out, step);
        }
        out.push_str("]}\r\n");
        out
    }

    /// The line for the serial port, with its end.
    #[must_use]
    pub fn to_serial_line(&self) -> String {
        join(&[
            "winject-firstboot: ",
            self.state.word(),
            " attempt=",
            &decimal(self.attempt),
            " failed_required=",
            &decimal(self.failed(true)),
            " failed_optional=",
            &decimal(self.failed(false)),
            " restart=",
            if self.needs_restart() { "1" } else { "0" },
            "\r\n",
        ])
    }
}

fn push_step(out: &mut String, step: &StepResult) {
    let kind = match step.kind {
        Kind::Package => "package",
        Kind::Network => "network",
        Kind::Run => "run",
        Kind::Release => "release",
    };
    out.push_str(&join(&["{\"kind\":\"", kind, "\",\"name\":"]));
    push_json(out, &step.name);
    out.push_str(if step.required { ",\"required\":true" } else { ",\"required\":false" });
    out.push_str(&join(&[",\"result\":\"", step.outcome.word(), "\",\"code\":", &signed(step.code), ",\"detail\":"]));
    push_json(out, &step.detail);
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn step(required: bool, outcome: Outcome) -> StepResult {
        let (name, detail) = ("viostor\\viostor.inf".into(), String::new());
        StepResult { kind: Kind::Package, name, required, outcome, code: -536_870_353, detail }
    }

    #[test]
    fn exit_codes_are_judged_as_microsoft_documents_them() {
        let expected = [(0, Outcome::Ok), (259, Outcome::NoDevice), (3010, Outcome::Restart), (1641, Outcome::Restart)];
        for (code, outcome) in expected {
            assert_eq!(Outcome::of_package(code), outcome);
        }
        for code in [1, 2, 9009, -536_870_353, i32::MIN] {
            assert_eq!(Outcome::of_package(code), Outcome::Failed);
        }
        assert_eq!(Outcome::of_command(3010, &[0]), Outcome::Failed, "only where it is allowed");
        assert_eq!(Outcome::of_command(3010, &[0, 3010]), Outcome::Restart);
        assert_eq!(Outcome::of_command(259, &[0, 259]), Outcome::Ok);
    }

    #[test]
    fn the_result_counts_what_failed_and_nothing_else() {
        let steps = vec![
            step(true, Outcome::Failed),
            step(true, Outcome::NoDevice),
            step(false, Outcome::Timeout),
            step(false, Outcome::Missing),
            step(false, Outcome::Refused),
            step(false, Outcome::Skipped),
            step(true, Outcome::Restart),
        ];
        let summary = Summary { state: State::Retry, attempt: 2, begun: 4, steps };
        assert_eq!((summary.failed(true), summary.failed(false)), (1, 2));
        assert_eq!(
            summary.to_serial_line(),
            "winject-firstboot: retry attempt=2 failed_required=1 failed_optional=2 restart=1\r\n"
        );
        let json = summary.to_json();
        assert!(json.starts_with(
            "{\"schema\":\"winject.firstboot.v1\",\"state\":\"retry\",\"attempt\":2,\"begun\":4,\"restart_needed\":true,\
             \"failed_required\":1,\"failed_optional\":2,\r\n \"steps\":[\r\n  {\"kind\":\"package\",\"name\":\
             \"viostor\\\\viostor.inf\",\"required\":true,\"result\":\"failed\",\"code\":-536870353,\"detail\":\"\"},"
        ));
        assert!(json.ends_with("]}\r\n"));
    }
}
