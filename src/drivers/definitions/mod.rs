//! Driver definitions: which drivers are registered offline, and what a user adds about drivers and releases (YAML).
//!
//! The INF is the truth about a driver. A definition names the drivers whose service is to be written offline (built in:
//! the virtio disk controllers), adds ids, and changes the order in which the media's release folders are tried. A user's
//! definition replaces the built-in one of the same service; the others stay.

use super::guest::GuestTarget;
use super::inf::{Facts, Guid};
use super::package::Category;
use crate::error::{Error, Kind, Layer, Result};
use crate::host;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

mod read;

/// The largest file of definitions that is read, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// One driver of a definition file, or a built-in one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Definition {
    /// What the driver is for.
    pub category: Category,
    /// Name for reports.
    pub name: String,
    /// The service.
    pub service: String,
    /// Path of the driver file on the media; may hold `{bucket}` and `{arch}`.
    pub pattern: Option<String>,
    /// Class; only used where there is no INF.
    pub class_guid: Option<Guid>,
    /// Name of the INF.
    pub inf_hint: Option<String>,
    /// `Start` of the service: 0 boot … 4 disabled.
    pub start: Option<u32>,
    /// `Type` of the service.
    pub kind: Option<u32>,
    /// `ErrorControl` of the service.
    pub error_control: Option<u32>,
    /// Ids in canonical form: `PCI\VEN_1234&DEV_5678`.
    pub pci_ids: Vec<String>,
    /// Whether `CriticalDeviceDatabase` entries are wanted.
    pub critical_device_database: Option<bool>,
    /// Whether the package is only staged, whatever the rest says.
    pub staged_only: bool,
    /// Where it comes from; none for a built-in one.
    pub origin: Option<Origin>,
}

/// Where a user wrote a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The file.
    pub file: String,
    /// Line of its first key.
    pub line: u64,
    /// Lines of the other keys.
    pub keys: BTreeMap<String, u64>,
}

impl Origin {
    /// `custom-drivers.yaml:7`: the place of a key, or of the definition if it does not have that key.
    #[must_use]
    pub fn at(&self, key: &str) -> String {
        format!("{}:{}", self.file, self.keys.get(key).copied().unwrap_or(self.line))
    }
}

impl Definition {
    fn builtin(category: Category, name: &str, service: &str, inf: &str) -> Self {
        Self {
            category,
            name: name.to_owned(),
            service: service.to_owned(),
            pattern: None,
            class_guid: None,
            inf_hint: Some(inf.to_owned()),
            start: None,
            kind: None,
            error_control: None,
            pci_ids: Vec::new(),
            critical_device_database: None,
            staged_only: false,
            origin: None,
        }
    }

    /// Whether the definition is about the driver of an INF: it names its service, or else its INF.
    #[must_use]
    pub fn describes(&self, facts: &Facts) -> bool {
        let services = facts.services();
        let is_file = |name: &str| self.file_name().is_some_and(|file| file.eq_ignore_ascii_case(name));
        services.iter().any(|s| s.name.eq_ignore_ascii_case(&self.service) || is_file(s.binary.file_name()))
            || self.names_inf(&facts.file_name)
    }

    /// The driver file's name: the last part of the pattern.
    #[must_use]
    pub fn file_name(&self) -> Option<&str> {
        self.pattern.as_deref()?.rsplit(['/', '\\']).next()
    }

    /// Whether the definition names an INF by its file name alone.
    #[must_use]
    pub fn names_inf(&self, inf_name: &str) -> bool {
        self.inf_hint.as_deref().is_some_and(|inf| inf.eq_ignore_ascii_case(inf_name))
    }

    /// Whether the driver's service is to be written offline: disk controllers always, others if the user says how they
    /// start, or wants them in `CriticalDeviceDatabase`, whose entries name a service.
    #[must_use]
    pub fn is_registered_offline(&self) -> bool {
        let is_wanted = self.start.is_some() || self.critical_device_database == Some(true);
        !self.staged_only && (self.category == Category::Storage || (self.origin.is_some() && is_wanted))
    }
}

/// The built-in definitions, with a user's merged over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definitions {
    /// The user's definitions first.
    pub drivers: Vec<Definition>,
    /// The user's order of release folders, by folder (`w10`) or release (`windows_10`), keys in lower case.
    pub buckets: BTreeMap<String, Vec<String>>,
    /// Warnings about the user's file, with line numbers.
    pub warnings: Vec<String>,
}

impl Default for Definitions {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Definitions {
    /// The built-in definitions alone.
    #[must_use]
    pub fn builtin() -> Self {
        let drivers = [
            (Category::Storage, "viostor", "viostor", "viostor.inf"),
            (Category::Storage, "vioscsi", "vioscsi", "vioscsi.inf"),
            (Category::Network, "NetKVM", "netkvm", "netkvm.inf"),
            (Category::Balloon, "Balloon", "BALLOON", "balloon.inf"),
            (Category::Serial, "vioserial", "VirtioSerial", "vioser.inf"),
            (Category::Rng, "viorng", "VirtRng", "viorng.inf"),
            (Category::Input, "vioinput", "VirtioInput", "vioinput.inf"),
            (Category::Filesystem, "viofs", "VirtioFsDrv", "viofs.inf"),
            (Category::Gpu, "viogpudo", "VioGpuDod", "viogpudo.inf"),
            (Category::Gpu, "qxldod", "qxldod", "qxldod.inf"),
            (Category::Gpu, "qxl", "qxl", "qxl.inf"),
            (Category::Other("socket".to_owned()), "viosock", "VirtioSocket", "viosock.inf"),
            (Category::Other("memory".to_owned()), "viomem", "viomem", "viomem.inf"),
            (Category::Other("crypto".to_owned()), "viocrypt", "viocrypt", "viocrypt.inf"),
            (Category::Other("system".to_owned()), "pvpanic", "PVPanic", "pvpanic.inf"),
            (Category::Other("system".to_owned()), "fwcfg", "FwCfg", "fwcfg.inf"),
            (Category::Other("system".to_owned()), "qemufwcfg", "", "qemufwcfg.inf"),
            (Category::Other("system".to_owned()), "qemupciserial", "", "qemupciserial.inf"),
            (Category::Other("system".to_owned()), "smbus", "", "smbus.inf"),
        ]
        .map(|(category, name, service, inf)| Definition::builtin(category, name, service, inf));
        Self { drivers: drivers.to_vec(), buckets: BTreeMap::new(), warnings: Vec::new() }
    }

    /// A user's YAML file merged over the built-in definitions.
    ///
    /// # Errors
    /// When the file cannot be read, is no YAML, or says something impossible; with file, line and remedy.
    pub fn load(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let hint = "--definitions takes a YAML file with driver definitions, as UTF-8";
        let bytes = host::read(path, BYTES_MAX)
            .map_err(|e| e.into_error("the driver definitions", path, Layer::Drivers, Kind::Io).hint(hint))?;
        let text = String::from_utf8(bytes).map_err(|e| {
            Error::new(Kind::Usage, Layer::Drivers, "cannot read the driver definitions")
                .path(shown.clone())
                .source_error(e)
                .hint(hint)
        })?;
        Self::parse(&text, &shown)
    }

    /// Like [`load`](Self::load), from a text; `name` is for messages.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let user = read::read(text, name)?;
        let mut out = Self::builtin();
        let is_redefined = |builtin: &Definition| {
            user.drivers.iter().any(|d| !builtin.service.is_empty() && d.service.eq_ignore_ascii_case(&builtin.service))
        };
        out.drivers.retain(|builtin| !is_redefined(builtin));
        out.drivers.splice(0..0, user.drivers);
        out.buckets = user.buckets;
        out.warnings = user.warnings;
        Ok(out)
    }

    /// The same, with nothing registered offline: every package is only staged.
    #[must_use]
    pub fn staged_only(mut self) -> Self {
        self.drivers.iter_mut().for_each(|definition| definition.staged_only = true);
        self
    }

    /// The definition of the driver of an INF, the user's before the built-in ones.
    #[must_use]
    pub fn of(&self, facts: &Facts) -> Option<&Definition> {
        self.drivers.iter().find(|d| d.describes(facts))
    }

    /// The folders of the media to try for a guest, best first: the user's order, then the built-in one.
    #[must_use]
    pub fn buckets_for(&self, guest: &GuestTarget) -> Vec<String> {
        let release = guest.release();
        let own = release.buckets.first().copied().unwrap_or_default();
        // a key of the original program covers the R2 release too
        let keys = [release.key, release.key.trim_end_matches("_r2"), own];
        let user = keys.iter().find_map(|key| self.buckets.get(&key.to_ascii_lowercase()));
        let mut out: Vec<String> = Vec::new();
        for name in user.into_iter().flatten().map(String::as_str).chain(release.buckets.iter().copied()) {
            if !out.iter().any(|b| b.eq_ignore_ascii_case(name)) {
                out.push(name.to_owned());
            }
        }
        out
    }
}
