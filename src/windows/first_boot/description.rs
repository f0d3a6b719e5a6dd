//! What the first-boot job does, independent of the form that does it.
//!
//! Areas of the injection add steps (`PlanBuilder::add_job_step`), and
//! [`JobDescription`] puts them into the order in which they run. Two printers make it what the guest runs: `job_file`
//! for the service program, `script` for `cmd.exe`.

/// `ERROR_INSTALL_ALREADY_RUNNING` of Windows Installer.
const INSTALL_ALREADY_RUNNING: i64 = 1618;
/// `ERROR_SUCCESS_REBOOT_REQUIRED`
const RESTART_NEEDED: i64 = 3010;
/// `ERROR_SUCCESS_REBOOT_INITIATED`
const RESTART_BEGUN: i64 = 1641;

/// After how many attempts that ended with a failed required step the job gives up.
pub const ATTEMPTS_MAX: u32 = 3;
/// After how many attempts that began it gives up, however they ended.
pub const BEGUN_MAX: u32 = 10;
/// Pauses in seconds after which required packages that failed are tried again inside the same start.
const REPEAT_PAUSES: [u32; 3] = [60, 180, 600];
/// Time limit for one package, in seconds.
pub const PACKAGE_SECONDS: u32 = 300;
/// Time limit for device installation to become idle after the start, in seconds.
pub const DEVICES_SECONDS: u32 = 180;
/// Longest field of a step, in bytes: longer than any command line of Windows.
const FIELD_BYTES_MAX: usize = 32 << 10;

/// A first-boot job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDescription {
    /// How packages are installed; `None` in a Windows without `pnputil`, which gets no package step.
    pub pnputil: Option<Pnputil>,
    /// Pauses in seconds after which required packages that failed are tried again inside the same start.
    pub repeat: Vec<u32>,
    /// The steps, in the order in which they run.
    pub steps: Vec<Step>,
    /// Whether the guest restarts at the end.
    pub reboot: Reboot,
}

impl JobDescription {
    /// A job of these steps. They run by kind: packages, then those of others, the network, commands, and the invented
    /// records last; steps of one kind in the order given.
    #[must_use]
    pub fn new(pnputil: Option<Pnputil>, mut steps: Vec<Step>, reboot: Reboot) -> Self {
        steps.sort_by_key(Step::phase);
        if pnputil.is_none() {
            steps.retain(|step| step.phase() > Phase::Scan);
        }
        Self { pnputil, repeat: REPEAT_PAUSES.to_vec(), steps, reboot }
    }

    /// Why the job cannot be written down: a field with a tab or a line break, or one that is far too long.
    ///
    /// # Errors
    /// The name of the step, and what is wrong with it.
    pub fn judge(&self) -> Result<(), String> {
        self.steps.iter().try_for_each(Step::judge)
    }
}

/// The form of `pnputil` that a Windows knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pnputil {
    /// `pnputil /add-driver INF /install`: Windows 10 1607, Server 2016, and later.
    AddDriver,
    /// `pnputil -i -a INF`: Windows Vista to 8.1.
    Legacy,
}

impl Pnputil {
    /// What stands before and after the quoted INF on its command line.
    #[must_use]
    pub const fn arguments(self) -> (&'static str, &'static str) {
        match self {
            Self::AddDriver => ("/add-driver", " /install"),
            Self::Legacy => ("-i -a", ""),
        }
    }
}

/// Whether the job restarts the guest at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reboot {
    /// Never.
    #[default]
    Never,
    /// Once, if a step said that a restart is needed.
    IfNeeded,
}

/// One step of the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Waits until device installation is idle, at most so many seconds.
    WaitForDevices {
        /// The limit.
        seconds: u32,
    },
    /// Installs a package of the manifest.
    Package(PackageStep),
    /// An INF of another maker that users could write before winject protected the folder: it is never installed.
    Refused {
        /// Its path below the staging folder, with `\`.
        path: String,
    },
    /// Installs what an administrator put below the staging folder in addition.
    OtherPackages {
        /// Time limit for each.
        seconds: u32,
    },
    /// Makes Windows look for devices again.
    Scan,
    /// Gives an adapter its former settings.
    Network(NetworkStep),
    /// Runs a command.
    Run(RunStep),
    /// Removes invented records of `DriverDatabase`.
    Release(ReleaseStep),
}

/// A package to install.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageStep {
    /// Whether the job is only done when this one is installed.
    pub required: bool,
    /// Time limit.
    pub seconds: u32,
    /// Its INF below the staging folder: `viostor\viostor.inf`.
    pub path: String,
}

/// The settings of one adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkStep {
    /// MAC address as `52:54:00:12:34:56`.
    pub mac: String,
    /// How long the adapter is waited for.
    pub seconds: u32,
    /// The former name of the connection, for the log.
    pub name: String,
    /// Arguments of `netsh.exe`, one call each. `{index}` stands for the IPv4 interface index of the adapter, `{index6}`
    /// for the IPv6 one, `{name}` for its present connection name in quotes.
    pub commands: Vec<String>,
}

/// A command to run. It is a program (`cmd.exe /d /c …` for a batch file) with its arguments; `%VARIABLES%` of the machine
/// are expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStep {
    /// Whether the job is only done when it succeeds.
    pub required: bool,
    /// Its name in log and result.
    pub name: String,
    /// Time limit; its whole process tree is ended then.
    pub seconds: u32,
    /// Exit codes that mean success. 3010 and 1641 ask for a restart then.
    pub ok_codes: Vec<i64>,
    /// Exit codes after which it is tried again.
    pub retry_codes: Vec<i64>,
    /// How often.
    pub retries: u32,
    /// Seconds before each of them.
    pub pause: u32,
    /// The command line.
    pub command: String,
}

impl RunStep {
    /// An optional command that succeeds with exit code 0.
    #[must_use]
    pub fn optional(name: impl Into<String>, seconds: u32, command: impl Into<String>) -> Self {
        Self {
            required: false,
            name: name.into(),
            seconds,
            ok_codes: vec![0],
            retry_codes: Vec::new(),
            retries: 0,
            pause: 0,
            command: command.into(),
        }
    }

    /// An optional command of Windows Installer. It may ask for a restart, and is tried again, ten times a minute apart,
    /// while another installation is under way.
    #[must_use]
    pub fn installer(name: impl Into<String>, seconds: u32, command: impl Into<String>) -> Self {
        Self {
            ok_codes: vec![0, RESTART_NEEDED, RESTART_BEGUN],
            retry_codes: vec![INSTALL_ALREADY_RUNNING],
            retries: 10,
            pause: 60,
            ..Self::optional(name, seconds, command)
        }
    }
}

/// The invented records of a boot driver, which are removed once Windows has installed the real package.
///
/// The rule: a device that `service` drives is bound to a real `oemN.inf` (`InfPath` of its driver key), and the service
/// can start: `Start` 0, no `StartOverride`, its file is there. In doubt the records stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseStep {
    /// The invented INF: `h2k-viostor.inf`.
    pub inf: String,
    /// Its package: `h2k-viostor.inf_amd64_0000000000000000`.
    pub package: String,
    /// The service that it registers.
    pub service: String,
}

/// The order of the kinds of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Wait,
    Package,
    Refused,
    Others,
    Scan,
    Network,
    Run,
    Release,
}

impl Step {
    fn phase(&self) -> Phase {
        match self {
            Self::WaitForDevices { .. } => Phase::Wait,
            Self::Package(_) => Phase::Package,
            Self::Refused { .. } => Phase::Refused,
            Self::OtherPackages { .. } => Phase::Others,
            Self::Scan => Phase::Scan,
            Self::Network(_) => Phase::Network,
            Self::Run(_) => Phase::Run,
            Self::Release(_) => Phase::Release,
        }
    }

    /// The name under which log and result show it; empty for steps that have no result.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::WaitForDevices { .. } | Self::OtherPackages { .. } | Self::Scan => "",
            Self::Package(step) => &step.path,
            Self::Refused { path } => path,
            Self::Network(step) if step.name.is_empty() => &step.mac,
            Self::Network(step) => &step.name,
            Self::Run(step) => &step.name,
            Self::Release(step) => &step.inf,
        }
    }

    /// Its kind in the result.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::WaitForDevices { .. } | Self::OtherPackages { .. } | Self::Scan => "",
            Self::Package(_) | Self::Refused { .. } => "package",
            Self::Network(_) => "network",
            Self::Run(_) => "run",
            Self::Release(_) => "release",
        }
    }

    /// Whether the result shows it.
    #[must_use]
    pub const fn has_result(&self) -> bool {
        !self.kind().is_empty()
    }

    /// Whether the job is only done when this step succeeds.
    #[must_use]
    pub const fn is_required(&self) -> bool {
        match self {
            Self::Package(step) => step.required,
            Self::Run(step) => step.required,
            _ => false,
        }
    }

    /// The fields that are text.
    fn texts(&self) -> Vec<&str> {
        match self {
            Self::WaitForDevices { .. } | Self::OtherPackages { .. } | Self::Scan => Vec::new(),
            Self::Package(step) => vec![&step.path],
            Self::Refused { path } => vec![path],
            Self::Network(step) => {
                [&step.mac, &step.name].into_iter().chain(&step.commands).map(String::as_str).collect()
            }
            Self::Run(step) => vec![&step.name, &step.command],
            Self::Release(step) => vec![&step.inf, &step.package, &step.service],
        }
    }

    fn judge(&self) -> Result<(), String> {
        for text in self.texts() {
            if text.contains(['\t', '\r', '\n', '\0']) {
                return Err(format!("the step {:?} holds a tab, a line break or a zero", self.name()));
            }
            if text.len() > FIELD_BYTES_MAX {
                return Err(format!("the step {:?} holds a text of more than {FIELD_BYTES_MAX} bytes", self.name()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_run_by_kind_and_keep_their_order_within_it() {
        let package = |path: &str| Step::Package(PackageStep { required: true, seconds: 1, path: path.to_owned() });
        let run = |name: &str| Step::Run(RunStep::optional(name, 1, "x.exe"));
        let steps =
            vec![run("b"), Step::Scan, package("b"), run("a"), package("a"), Step::OtherPackages { seconds: 1 }];
        let job = JobDescription::new(Some(Pnputil::AddDriver), steps.clone(), Reboot::Never);
        let names: Vec<&str> = job.steps.iter().map(Step::name).collect();
        assert_eq!(names, ["b", "a", "", "", "b", "a"]);
        let job = JobDescription::new(None, steps, Reboot::Never);
        assert_eq!(job.steps.iter().map(Step::name).collect::<Vec<_>>(), ["b", "a"], "no pnputil, no package");
    }

    #[test]
    fn fields_that_would_break_the_job_file_are_refused() {
        for bad in ["a\tb", "a\nb", "a\rb", "a\0b", &"x".repeat(FIELD_BYTES_MAX + 1)] {
            let steps = vec![Step::Run(RunStep::optional("name", 1, bad))];
            assert!(JobDescription::new(None, steps, Reboot::Never).judge().is_err(), "{bad:?}");
        }
    }
}
