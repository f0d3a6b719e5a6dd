//! The answer of the boot check, with its findings.

use std::fmt;

use serde::Serialize;

use super::code::Code;
use super::controller::{Bus, Controller};
use crate::escape::EscapedLines;

/// The link of the boot chain, or the gate, that a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// UEFI or BIOS, as the partition table allows.
    Firmware,
    /// The partition with the boot manager.
    Partition,
    /// The code of the MBR and of the active partition.
    BootCode,
    /// The program that reads the boot configuration: `bootmgfw.efi` or `bootmgr`.
    BootManager,
    /// The boot configuration data: which loader starts from which partition.
    Bcd,
    /// The program that loads the kernel: `winload.efi` or `winload.exe`.
    OsLoader,
    /// The boot loader reads the hive and the kernel.
    Loader,
    /// Plug and play finds a driver for the controller.
    Binding,
    /// The boot loader reads the file of the controller's driver, and its service starts.
    Start,
    /// Windows' own drivers between the loader and the system volume.
    BootDrivers,
    /// Filters on disks, volumes, their controllers and system devices.
    Filters,
    /// The state of the guest.
    State,
}

impl Gate {
    /// Every gate, in the order in which a machine passes them; the state of the guest comes last.
    pub const ALL: [Self; 12] = [
        Self::Firmware,
        Self::Partition,
        Self::BootCode,
        Self::BootManager,
        Self::Bcd,
        Self::OsLoader,
        Self::Loader,
        Self::Binding,
        Self::Start,
        Self::BootDrivers,
        Self::Filters,
        Self::State,
    ];

    /// Its name in texts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Partition => "partition",
            Self::BootCode => "boot code",
            Self::BootManager => "boot manager",
            Self::Bcd => "BCD",
            Self::OsLoader => "loader",
            Self::Loader => "kernel",
            Self::Binding => "binding",
            Self::Start => "driver",
            Self::BootDrivers => "boot drivers",
            Self::Filters => "filters",
            Self::State => "state",
        }
    }
}

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Good,
    /// Worth knowing, without effect on the start.
    Note,
    /// The image does not show it.
    NotJudged,
    /// May keep the guest from working as hoped; it boots all the same.
    Warning,
    /// The guest does not boot.
    Failure,
}

impl Level {
    /// Its mark in texts.
    #[must_use]
    pub fn mark(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::NotJudged => "?",
            Self::Warning => "warning",
            Self::Failure => "NO",
        }
    }

    /// Whether it weighs against the guest.
    #[must_use]
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Warning | Self::Failure)
    }
}

/// What was found at one gate or link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Finding {
    /// The gate or link that it was found at.
    pub gate: Gate,
    /// Whether it keeps the guest from booting.
    pub level: Level,
    /// What it is about, for programs.
    pub code: Code,
    /// The finding as a phrase for people; strings of the guest in it are not escaped.
    pub text: String,
}

impl Finding {
    /// Whether it is about something that an injection does not touch: firmware to kernel, Windows' own drivers, filters.
    #[must_use]
    pub fn is_of_the_guest(&self) -> bool {
        let is_made = matches!(self.gate, Gate::Loader | Gate::Binding | Gate::Start | Gate::State);
        !is_made || self.code == Code::Kernel
    }
}

/// How one form of the controller finds its driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Route {
    /// The form of the controller: `transitional` or `modern`.
    pub controller: String,
    /// The controller's most specific id.
    pub device: String,
    /// The id that matched.
    pub matched: String,
    /// Name of the INF; `None` for a binding by `CriticalDeviceDatabase`.
    pub inf: Option<String>,
    /// Key of the package; `None` for a binding by `CriticalDeviceDatabase`.
    pub package: Option<String>,
    /// The service whose driver serves the controller.
    pub service: String,
}

/// How a machine starts its disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// UEFI: the boot manager comes from an EFI system partition.
    Uefi,
    /// BIOS: the boot code of an MBR starts the active partition.
    Bios,
}

impl Firmware {
    /// Its name in reports: `uefi` or `bios`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uefi => "uefi",
            Self::Bios => "bios",
        }
    }
}

/// The answer of the boot check for one bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct BootCheck {
    /// The bus of the system disk.
    pub bus: Bus,
    /// Whether every gate lets Windows through, on one form of the controller at least.
    pub boots: bool,
    /// Name of the disk that the firmware has to start; left out if it is the one with Windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_disk: Option<String>,
    /// Firmware that the boot chain was followed with; left out if no disk shows which one it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// Product, version and folder of the installation; `None` if none was found.
    pub windows: Option<String>,
    /// How each form of the controller finds its driver.
    pub routes: Vec<Route>,
    /// All findings, failures first.
    pub findings: Vec<Finding>,
    #[serde(skip)]
    pub(super) unbound: Vec<(Controller, Vec<(Code, String)>)>,
}

impl BootCheck {
    pub(crate) fn new(bus: Bus) -> Self {
        Self {
            bus,
            boots: false,
            start_disk: None,
            firmware: None,
            windows: None,
            routes: Vec::new(),
            findings: Vec::new(),
            unbound: Vec::new(),
        }
    }

    fn add(&mut self, gate: Gate, level: Level, code: Code, text: impl Into<String>) {
        let finding = Finding { gate, level, code, text: text.into() };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    pub(super) fn good(&mut self, gate: Gate, code: Code, text: impl Into<String>) {
        self.add(gate, Level::Good, code, text);
    }

    pub(super) fn note(&mut self, gate: Gate, code: Code, text: impl Into<String>) {
        self.add(gate, Level::Note, code, text);
    }

    pub(super) fn not_judged(&mut self, gate: Gate, text: impl Into<String>) {
        self.add(gate, Level::NotJudged, Code::NotJudged, format!("not judged: {}", text.into()));
    }

    pub(super) fn warn(&mut self, gate: Gate, code: Code, text: impl Into<String>) {
        self.add(gate, Level::Warning, code, text);
    }

    pub(super) fn fail(&mut self, gate: Gate, code: Code, text: impl Into<String>) {
        self.add(gate, Level::Failure, code, text);
    }

    pub(super) fn unbound(&mut self, controller: Controller, problems: Vec<(Code, String)>) {
        self.unbound.push((controller, problems));
    }

    /// Turns routes into findings. One bound form of the controller is enough to boot on a machine that shows that form;
    /// without any the guest does not boot.
    pub(super) fn judge_routes(&mut self) {
        for route in self.routes.clone() {
            let package = route.inf.as_ref().map(|inf| format!(" → {inf}")).unwrap_or_default();
            self.good(Gate::Binding, Code::Bound, format!("{}{package} → {}", route.matched, route.service));
        }
        for (controller, problems) in std::mem::take(&mut self.unbound) {
            let level = if self.routes.is_empty() { Level::Failure } else { Level::Warning };
            for (code, text) in problems {
                let code = if level == Level::Warning { Code::OneForm } else { code };
                self.add(Gate::Binding, level, code, format!("{} controller: {text}", controller.name));
            }
        }
    }

    /// Sorts the findings and sets the answer.
    pub(super) fn done(mut self) -> Self {
        self.findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        self.boots = !self.routes.is_empty() && self.failures().next().is_none();
        self
    }

    /// Adds a warning about the volume's state (hibernated, unclean log): it may keep the guest from starting on new hardware.
    pub fn add_state(&mut self, text: impl Into<String>) {
        self.warn(Gate::State, Code::VolumeState, text);
        self.findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    }

    /// Whether the guest starts from an emulated disk (SATA, IDE, NVMe): an in-box controller starts at boot, and nothing
    /// outside of the virtio driver keeps Windows from starting.
    #[must_use]
    pub fn boots_from_emulated_disk(&self) -> bool {
        let is_of_windows = |finding: &Finding| {
            finding.is_of_the_guest() || matches!(finding.code, Code::HiveDamaged | Code::NoWindows)
        };
        self.findings.iter().any(|finding| finding.code == Code::InboxController) && !self.failures().any(is_of_windows)
    }

    /// The findings that keep the guest from booting.
    pub fn failures(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.level == Level::Failure)
    }
}

impl fmt::Display for BootCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        let mut f = EscapedLines::new(f);
        let answer = if self.boots { "yes" } else { "no" };
        let windows = self.windows.as_deref().unwrap_or("no Windows");
        // On a line of its own: what the guest calls itself must not look like part of the answer.
        writeln!(f, "{}: {answer}", self.bus)?;
        writeln!(f, "  {:<8}{windows}", "guest")?;
        for finding in &self.findings {
            write!(f, "  {:<8}{}", finding.level.mark(), finding.text)?;
            if finding.level.is_bad() {
                write!(f, " [{}]", finding.code)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
