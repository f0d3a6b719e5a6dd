//! One start of the program: from the lock to the last line of the log.

use alloc::string::String;
use alloc::vec::Vec;

use crate::commands::{Context, pending_restarts};
use crate::descriptor::Distrust;
use crate::job::{self, Dialect, Job, Package, Release, Step};
use crate::log::Log;
use crate::outcome::{Kind, Outcome, State, StepResult, Summary};
use crate::places::Places;
use crate::progress::Progress;
use crate::release::{self, Kept, Records};
use crate::state::{self, StateFiles};
use crate::text::{decimal, hash, join};
use crate::windows::file::{self, File};
use crate::windows::registry::SystemHive;
use crate::windows::stop::{StopEvent, Stopped};
use crate::windows::{pnp, security, serial, service, system};

/// The service's name.
pub const SERVICE: &str = "hyper2kvm-firstboot";
/// Exit codes of the program beyond the number of failed steps.
const EXIT_NO_WINDOWS: u32 = 1000;
const EXIT_NO_LOCK: u32 = 1001;
const EXIT_REFUSED: u32 = 1002;
const EXIT_GIVEN_UP: u32 = 1003;
/// Seconds before Windows restarts, for people who are logged on.
const RESTART_SECONDS: u32 = 30;
/// `ERROR_SHARING_VIOLATION`
const SHARING_VIOLATION: u32 = 32;

/// Does what the job file says, unless that is done, given up or going on already. Returns 0 or a code that tells why
/// the job is not done.
pub fn run(stop: &StopEvent) -> u32 {
    let Some(places) = Places::find() else { return EXIT_NO_WINDOWS };
    let own_sid = security::own_sid();
    let log = Log::open(&places.log, &own_sid);
    let lock = File::lock(&places.base_file(state::LOCK));
    if let Err(error) = lock {
        let reason = if error == SHARING_VIOLATION { "it is running already" } else { "the lock cannot be taken" };
        log.line(&["not begun: ", reason, " (error ", &decimal(error), ")"]);
        return if error == SHARING_VIOLATION { 0 } else { EXIT_NO_LOCK };
    }
    let context = Context { places: &places, log: &log, stop, own_sid: &own_sid };
    let session = Session { files: StateFiles { places: &places, log: &log }, context };
    session.start().unwrap_or_else(|Stopped| {
        log.line(&["stopped from outside; this attempt does not count"]);
        0
    })
}

struct Session<'a> {
    context: Context<'a>,
    files: StateFiles<'a>,
}

impl Session<'_> {
    fn log(&self, parts: &[&str]) {
        self.context.log.line(parts);
    }

    fn start(&self) -> Result<u32, Stopped> {
        for marker in [state::DONE, state::FAILED] {
            if self.files.is_marked(marker) {
                self.log(&[marker, " is there: nothing to do"]);
                self.delete_service();
                return Ok(0);
            }
        }
        let data = file::read(&self.context.places.base_file(state::JOB), job::BYTES_MAX + 1);
        let parsed = match &data {
            Ok(data) => {
                job::parse(data).map_err(|refused| join(&[refused.reason, " (line ", &decimal(refused.line), ")"]))
            }
            Err(error) => Err(join(&["cannot be read: error ", &decimal(*error)])),
        };
        let begun = self.files.count(state::BEGUN).saturating_add(1);
        let attempt = self.files.count(state::ATTEMPTS).saturating_add(1);
        let mut summary = Summary { state: State::Failed, attempt, begun, steps: Vec::new() };
        let job = match parsed {
            Ok(job) => job,
            Err(reason) => {
                self.log(&[state::JOB, " is refused, nothing was run: ", &reason]);
                self.give_up(&summary, None);
                return Ok(EXIT_REFUSED);
            }
        };
        if begun > job.begun_max || attempt > job.attempts_max {
            self.log(&["no attempt is left: ", &decimal(attempt - 1), " failed, ", &decimal(begun - 1), " begun"]);
            self.give_up(&summary, Some(&job));
            return Ok(EXIT_GIVEN_UP);
        }
        self.files.set_count(state::BEGUN, begun);
        let pending = self.log_header(&job, attempt, begun);
        let mut attempt = Attempt {
            session: self,
            progress: self.files.progress(hash(&data.unwrap_or_default())),
            job: &job,
            results: Vec::new(),
        };
        attempt.run_all()?;
        let mut progress = attempt.progress;
        summary.steps = attempt.results.into_iter().map(|(_, result)| result).collect();
        Ok(self.finish(&job, summary, &mut progress, pending))
    }

    /// Logs where the job begins; whether a restart of Windows is pending.
    fn log_header(&self, job: &Job, attempt: u32, begun: u32) -> bool {
        let (attempts_max, begun) = (decimal(job.attempts_max), decimal(begun));
        self.log(&["attempt ", &decimal(attempt), " of ", &attempts_max, ", begun ", &begun, " times"]);
        let cpu = if cfg!(target_arch = "x86_64") {
            "amd64"
        } else if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "x86"
        };
        self.log(&["Windows ", &system::version(), ", program ", env!("CARGO_PKG_VERSION"), " for ", cpu]);
        let pending = pending_restarts();
        for source in &pending {
            self.log(&["a restart of Windows is pending: ", source]);
        }
        for inf in self.context.staged_infs() {
            self.log(&["staged: ", &inf]);
        }
        !pending.is_empty()
    }

    fn finish(&self, job: &Job, mut summary: Summary, progress: &mut Progress, pending: bool) -> u32 {
        let failed = summary.failed(true);
        let counts = [decimal(failed), decimal(summary.failed(false))];
        self.log(&[&counts[0], " required and ", &counts[1], " optional steps failed"]);
        if failed == 0 {
            summary.state = State::Done;
            self.files.write(state::RESULT, &summary.to_json());
            self.files.write(state::DONE, "done\r\n");
            self.files.remove(&[state::ATTEMPTS, state::BEGUN, state::PROGRESS, state::JOB]);
            self.delete_service();
        } else if summary.attempt >= job.attempts_max {
            self.give_up(&summary, None);
        } else {
            summary.state = State::Retry;
            self.files.set_count(state::ATTEMPTS, summary.attempt);
            self.files.write(state::RESULT, &summary.to_json());
        }
        self.tell_host(job, &summary);
        self.log(&match summary.state {
            State::Done => ["done"],
            State::Retry => ["the next start of Windows tries again"],
            State::Failed => ["given up"],
        });
        let asked = summary.needs_restart() || (summary.state == State::Retry && pending);
        if asked && job.may_restart && !progress.restarted {
            progress.restarted = true;
            if summary.state == State::Retry {
                self.files.write(state::PROGRESS, &progress.to_text());
            }
            self.restart();
        } else if asked {
            self.log(&["a restart of Windows completes the installation"]);
        }
        failed
    }

    /// Ends the job for good without success.
    fn give_up(&self, summary: &Summary, job: Option<&Job>) {
        self.files.write(state::RESULT, &summary.to_json());
        self.files.write(state::FAILED, "failed\r\n");
        self.files.remove(&[state::ATTEMPTS, state::BEGUN, state::PROGRESS]);
        self.delete_service();
        self.log(&["run ", &self.context.places.base_file("setup.cmd"), " as administrator to install the packages"]);
        if let Some(job) = job {
            self.tell_host(job, summary);
        }
    }

    fn tell_host(&self, job: &Job, summary: &Summary) {
        let Some(port) = &job.serial else { return };
        if let Err(error) = serial::write_line(port, &summary.to_serial_line()) {
            self.log(&["nothing written to ", port, ": error ", &decimal(error)]);
        }
    }

    fn delete_service(&self) {
        if let Err(error) = service::delete(SERVICE) {
            self.log(&["cannot remove the service ", SERVICE, ": error ", &decimal(error)]);
        }
    }

    fn restart(&self) {
        self.log(&["Windows is restarted in ", &decimal(RESTART_SECONDS), " seconds"]);
        let message = "The new drivers need a restart of Windows.";
        if let Err(error) = system::restart(RESTART_SECONDS, message) {
            self.log(&["cannot restart Windows: error ", &decimal(error)]);
        }
    }

    /// Removes invented records, if the next start does not need them.
    fn release(&self, release: &Release) -> StepResult {
        let records = Records {
            control_set: "CurrentControlSet",
            inf: &release.inf,
            package: &release.package,
            service: &release.service,
        };
        let has_file = |path: &str| file::exists(&join(&[&self.context.places.windows, "\\", path]));
        let mut hive = SystemHive;
        let (outcome, detail) = match release::release(&mut hive, &records, &has_file) {
            Ok(()) => (Outcome::Ok, String::new()),
            Err(Kept::Absent) => (Outcome::Skipped, String::from("the records are not there")),
            Err(Kept::Needed(reason)) => (Outcome::Skipped, reason),
            Err(Kept::Failed(reason)) => (Outcome::Failed, reason),
        };
        hive.flush();
        self.log(&["records of ", &release.inf, ": ", outcome.word(), " ", &detail]);
        StepResult { kind: Kind::Release, name: release.inf.clone(), required: false, outcome, code: 0, detail }
    }
}

/// The steps of one attempt and what became of them.
struct Attempt<'a> {
    session: &'a Session<'a>,
    job: &'a Job,
    progress: Progress,
    /// The number of the step, and its result.
    results: Vec<(usize, StepResult)>,
}

impl Attempt<'_> {
    fn run_all(&mut self) -> Result<(), Stopped> {
        let job = self.job;
        for (number, step) in job.steps.iter().enumerate() {
            self.run_step(number, step)?;
        }
        for &pause in &job.repeat {
            if !self.results.iter().any(|(_, result)| is_worth_repeating(result)) {
                break;
            }
            self.session.log(&["required packages that failed are tried again in ", &decimal(pause), " seconds"]);
            self.session.context.stop.wait(pause.saturating_mul(1000))?;
            self.repeat_failed()?;
        }
        Ok(())
    }

    fn run_step(&mut self, number: usize, step: &Step) -> Result<(), Stopped> {
        let context = &self.session.context;
        match step {
            Step::WaitPnp(seconds) => match pnp::wait_until_idle(*seconds, context.stop)? {
                Some(true) => context.log.line(&["no device installation is pending"]),
                Some(false) => context.log.line(&["device installations are still pending; going on"]),
                None => context.log.line(&["this Windows does not tell whether device installations are pending"]),
            },
            Step::Scan => context.scan_devices()?,
            Step::Package(package) => {
                if let Some(dialect) = self.job.pnputil {
                    let result = context.install(dialect, package)?;
                    self.results.push((number, result));
                }
            }
            Step::Others(seconds) => {
                if let Some(dialect) = self.job.pnputil {
                    let results = self.install_others(dialect, *seconds)?;
                    self.results.extend(results.into_iter().map(|result| (number, result)));
                }
            }
            Step::Refused(inf) => {
                let result = context.refuse(inf, Distrust::Earlier);
                self.results.push((number, result));
            }
            Step::Release(release) => self.results.push((number, self.session.release(release))),
            Step::Network(network) => {
                let (name, kind) = (network.title(), Kind::Network);
                self.run_once(number, kind, name, false, |session| session.context.configure(network))?;
            }
            Step::Run(command) => {
                let (name, kind) = (&command.name, Kind::Run);
                self.run_once(number, kind, name, command.required, |session| session.context.run_command(command))?;
            }
        }
        Ok(())
    }

    fn install_others(&self, dialect: Dialect, seconds: u32) -> Result<Vec<StepResult>, Stopped> {
        let packages = self.job.steps.iter().filter_map(|step| match step {
            Step::Package(Package { inf, .. }) | Step::Refused(inf) => Some(inf.as_str()),
            _ => None,
        });
        let known: Vec<&str> = packages.collect();
        self.session.context.install_others(dialect, seconds, &known)
    }

    /// Runs a step that must not be done again once it has succeeded.
    fn run_once(
        &mut self,
        number: usize,
        kind: Kind,
        name: &str,
        required: bool,
        run: impl Fn(&Session<'_>) -> Result<StepResult, Stopped>,
    ) -> Result<(), Stopped> {
        let id = u32::try_from(number).unwrap_or(u32::MAX);
        let result = if self.progress.is_finished(id) {
            self.session.log(&[name, " was finished by an earlier attempt"]);
            let detail = String::from("finished by an earlier attempt");
            StepResult { kind, name: name.into(), required, outcome: Outcome::Skipped, code: 0, detail }
        } else {
            let result = run(self.session)?;
            if !result.outcome.is_failure() {
                self.progress.finish(id);
                self.session.files.write(state::PROGRESS, &self.progress.to_text());
            }
            result
        };
        self.results.retain(|(earlier, _)| *earlier != number);
        let place = self.results.partition_point(|(earlier, _)| *earlier < number);
        self.results.insert(place, (number, result));
        Ok(())
    }

    /// Tries required packages that failed once more, and then the adapters that were not there.
    fn repeat_failed(&mut self) -> Result<(), Stopped> {
        let job = self.job;
        let mut installed = false;
        for (number, result) in &mut self.results {
            let (Some(Step::Package(package)), Some(dialect)) = (job.steps.get(*number), job.pnputil) else { continue };
            if is_worth_repeating(result) {
                *result = self.session.context.install(dialect, package)?;
                installed |= !result.outcome.is_failure();
            }
        }
        if !installed {
            return Ok(());
        }
        for (number, step) in job.steps.iter().enumerate() {
            let is_missing = |(at, result): &(usize, StepResult)| *at == number && result.outcome == Outcome::Missing;
            let repeat = match step {
                Step::Scan => true,
                Step::Network(_) => self.results.iter().any(is_missing),
                _ => false,
            };
            if repeat {
                self.run_step(number, step)?;
            }
        }
        Ok(())
    }
}

/// A required package that failed may succeed a little later. One that hung waits for an answer that never comes, and a
/// missing one does not appear.
fn is_worth_repeating(result: &StepResult) -> bool {
    result.kind == Kind::Package && result.required && result.outcome == Outcome::Failed
}
