//! What the first-boot job left in a guest that has run: its markers, its result and its log.
//!
//! All of it is input from outside. Markers and the result count only where no user but the guest's administrators can have
//! written them; the log lies in a folder that every user can write to, and is only shown.

use serde::{Deserialize, Serialize};

use crate::error::{Kind, Result};
use crate::hive::Hive;
use crate::windows::guest_files::{GuestFiles, is_trusted};
use crate::windows::{guest_paths, registry};

/// The schema of the result.
const SCHEMA: &str = "winject.firstboot.v1";
/// Largest result that is read, in bytes.
const RESULT_BYTES_MAX: u64 = 1 << 20;
/// Most steps of a result: a job has no more lines.
const STEPS_MAX: usize = 4096;
/// Largest log that is read, in bytes.
const LOG_BYTES_MAX: u64 = 4 << 20;
/// How many lines of the log are shown, the last ones.
const LOG_LINES: usize = 10;
/// Longest line of it that is shown, in characters.
const LOG_LINE_MAX: usize = 400;
/// `Start` of a service that is disabled.
const DISABLED: u32 = 4;

/// Where the first-boot job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FirstBootState {
    /// No service starts it, and no marker says that it has run.
    #[default]
    NotArmed,
    /// The next start of Windows runs it.
    Armed,
    /// A required step failed, and the next start of Windows tries again.
    Retry,
    /// It has run, and no required step failed.
    Done,
    /// It was given up.
    Failed,
}

impl FirstBootState {
    /// As a text for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotArmed => "not armed",
            Self::Armed => "armed: runs at the next start",
            Self::Retry => "failed, runs again at the next start",
            Self::Done => "done",
            Self::Failed => "failed, given up",
        }
    }
}

/// The first-boot job of a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct FirstBootOutcome {
    /// Where it stands.
    pub state: FirstBootState,
    /// The result of the last attempt; left out if it is missing or cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<JobResult>,
    /// Why something that lies there was not used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// The last lines of its log, which any user of the guest can have written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// How the job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum JobEnd {
    /// No required step failed.
    Done,
    /// It was given up.
    Failed,
    /// A required step failed, and an attempt is left.
    Retry,
}

/// Kind of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// A driver package.
    Package,
    /// The settings of an adapter.
    Network,
    /// A command.
    Run,
    /// The invented records of a boot driver.
    Release,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum StepEnd {
    /// Done.
    Ok,
    /// No such device is there, or it has the driver already.
    NoDevice,
    /// Done, and complete after a restart.
    Restart,
    /// It failed; the exit code says why.
    Failed,
    /// It was ended at its time limit.
    Timeout,
    /// What it needs is not there.
    Missing,
    /// The job does not do it.
    Refused,
    /// It was not begun.
    Skipped,
}

impl StepEnd {
    /// Its word in the result.
    #[must_use]
    pub const fn name(self) -> &'static str {
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

/// The result of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct StepResult {
    /// What it is.
    pub kind: StepKind,
    /// Its name: an INF below the staging folder, a MAC address, a name.
    pub name: String,
    /// Whether the job is only done when it succeeds.
    pub required: bool,
    /// How it ended.
    pub result: StepEnd,
    /// Its exit code; 0 if it has none.
    pub code: i64,
    /// More about it, for people.
    pub detail: String,
}

/// The result of the last attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct JobResult {
    /// Name and version of the form.
    pub schema: String,
    /// How it ended.
    pub state: JobEnd,
    /// Number of the attempt; attempts that were interrupted do not count.
    pub attempt: u32,
    /// How many attempts have begun.
    pub begun: u32,
    /// Whether a step asked for a restart.
    pub restart_needed: bool,
    /// How many required steps failed.
    pub failed_required: u32,
    /// How many others failed.
    pub failed_optional: u32,
    /// The steps, in their order.
    pub steps: Vec<StepResult>,
}

impl JobResult {
    /// Reads a result.
    ///
    /// # Errors
    /// Why these bytes are none.
    pub fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        // The script writes names of files in the code page of the guest.
        let text = String::from_utf8_lossy(bytes);
        let result: Self = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if result.schema != SCHEMA {
            return Err("it has another schema".to_owned());
        }
        if result.steps.len() > STEPS_MAX {
            return Err(format!("it has more than {STEPS_MAX} steps"));
        }
        Ok(result)
    }

    /// The required steps that failed.
    pub fn failures(&self) -> impl Iterator<Item = &StepResult> {
        self.steps.iter().filter(|step| step.required && !step.is_success())
    }
}

impl StepResult {
    /// Whether it counts as a success.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self.result, StepEnd::Ok | StepEnd::NoDevice | StepEnd::Restart)
    }
}

/// Reads what the job left. Damage of the volume is part of the answer: it must not hide a Windows.
///
/// # Errors
/// When the SYSTEM hive is damaged; when the image cannot be read.
pub fn read_outcome(
    files: &dyn GuestFiles,
    windows_dir: &str,
    system: &Hive,
    control_set: &str,
) -> Result<FirstBootOutcome> {
    let mut out = FirstBootOutcome::default();
    let is_marked = |path: &str, out: &mut FirstBootOutcome| -> Result<bool> {
        match usable(files, path) {
            Ok(Usable::Yes) => Ok(true),
            Ok(Usable::No) => Ok(false),
            Ok(Usable::Untrusted) => {
                out.faults.push(format!("{path} does not count: any user of the guest can have written it"));
                Ok(false)
            }
            Err(error) if error.kind() == Kind::Damaged => {
                out.faults.push(format!("{path} cannot be read: {error}"));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    };
    let (is_done, is_failed) = (is_marked(guest_paths::DONE, &mut out)?, is_marked(guest_paths::FAILED, &mut out)?);
    if is_marked(guest_paths::RESULT, &mut out)? {
        match files.read(guest_paths::RESULT, RESULT_BYTES_MAX) {
            Ok(bytes) => match JobResult::parse(&bytes.unwrap_or_default()) {
                Ok(result) => out.result = Some(result),
                Err(why) => out.faults.push(format!("{} is not a result of the job: {why}", guest_paths::RESULT)),
            },
            Err(error) if error.kind() != Kind::Io => {
                out.faults.push(format!("{} cannot be read: {error}", guest_paths::RESULT));
            }
            Err(error) => return Err(error),
        }
    }
    let key = format!("{control_set}\\Services\\{}", guest_paths::SERVICE);
    let start = registry::get_u32(system, &key, "Start")?;
    let is_armed = start.is_some_and(|start| start != DISABLED);
    let is_retried = out.result.as_ref().is_some_and(|result| result.state == JobEnd::Retry);
    out.state = match () {
        () if is_done => FirstBootState::Done,
        () if is_failed => FirstBootState::Failed,
        () if is_armed && is_retried => FirstBootState::Retry,
        () if is_armed => FirstBootState::Armed,
        () => FirstBootState::NotArmed,
    };
    let log = format!("{windows_dir}/{}", guest_paths::LOG_BELOW_WINDOWS.replace('\\', "/"));
    out.log = match last_lines(files, &log) {
        Ok(lines) => lines,
        Err(error) if error.kind() == Kind::Io => return Err(error),
        Err(_) => Vec::new(),
    };
    Ok(out)
}

/// Whether a file of the job can be used.
enum Usable {
    Yes,
    No,
    Untrusted,
}

fn usable(files: &dyn GuestFiles, path: &str) -> Result<Usable> {
    if !files.exists(path)? || files.is_folder(path)? {
        return Ok(Usable::No);
    }
    Ok(if is_trusted(files, path)? { Usable::Yes } else { Usable::Untrusted })
}

fn last_lines(files: &dyn GuestFiles, path: &str) -> Result<Vec<String>> {
    let fits = files.size(path)?.is_some_and(|size| size <= LOG_BYTES_MAX) && !files.is_folder(path)?;
    if !fits {
        return Ok(Vec::new());
    }
    let bytes = files.read(path, LOG_BYTES_MAX)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<String> = text
        .lines()
        .rev()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .take(LOG_LINES)
        .map(|line| line.chars().take(LOG_LINE_MAX).collect())
        .collect();
    lines.reverse();
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RESULT: &str = "{\"schema\":\"winject.firstboot.v1\",\"state\":\"retry\",\"attempt\":1,\"begun\":2,\
        \"restart_needed\":true,\"failed_required\":1,\"failed_optional\":0,\"steps\":[\r\n{\"kind\":\"package\",\
        \"name\":\"viostor\\\\viostor.inf\",\"required\":true,\"result\":\"failed\",\"code\":-536870353,\"detail\":\"\"}\r\n,\
        {\"kind\":\"run\",\"name\":\"agent\",\"required\":false,\"result\":\"no-device\",\"code\":0,\"detail\":\"x\"}]}\r\n";

    #[test]
    fn a_result_is_read_and_another_document_is_not() {
        let result = JobResult::parse(RESULT.as_bytes()).unwrap();
        assert_eq!((result.state, result.attempt, result.begun), (JobEnd::Retry, 1, 2));
        assert_eq!(result.failures().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["viostor\\viostor.inf"]);
        for (from, to) in [
            ("firstboot.v1", "firstboot.v2"),
            ("\"begun\":2,", ""),
            ("\"begun\":2,", "\"begun\":2,\"more\":1,"),
            ("\"retry\"", "\"fine\""),
            ("\"attempt\":1", "\"attempt\":-1"),
            ("\"no-device\"", "\"no_device\""),
        ] {
            assert!(RESULT.contains(from), "{from}");
            assert!(JobResult::parse(RESULT.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
        let one = "{\"kind\":\"run\",\"name\":\"\",\"required\":false,\"result\":\"ok\",\"code\":0,\"detail\":\"\"},";
        let many = RESULT.replacen("[\r\n", &format!("[{}", one.repeat(STEPS_MAX)), 1);
        assert!(JobResult::parse(many.as_bytes()).unwrap_err().contains("steps"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..RESULT.len(), byte: u8) {
            let _ = JobResult::parse(&bytes);
            let mut damaged = RESULT.as_bytes().to_vec();
            damaged[at] = byte;
            let _ = JobResult::parse(&damaged);
        }
    }
}
