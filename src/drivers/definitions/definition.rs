//! The definition of one driver.

use std::collections::BTreeMap;

use serde::Serialize;

use super::category::Category;
use crate::drivers::inf::{Facts, Guid};

/// One driver of a definition file, or a built-in one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Definition {
    /// What the driver is for.
    pub category: Category,
    /// Name of the driver, for reports and messages.
    pub name: String,
    /// Name of the driver's service; empty if the definition is by INF alone.
    pub service: String,
    /// Path of the driver file on the media; may hold `{bucket}` and `{arch}`.
    pub pattern: Option<String>,
    /// Class of the device; only used for a driver without an INF.
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
    /// Where the user wrote it; `None` for a built-in one.
    pub origin: Option<Origin>,
}

/// Where a user wrote a definition, with the line of each key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// Name of the definition file.
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
    /// A definition with a category alone.
    pub(super) fn new(category: Category) -> Self {
        Self {
            category,
            name: String::new(),
            service: String::new(),
            pattern: None,
            class_guid: None,
            inf_hint: None,
            start: None,
            kind: None,
            error_control: None,
            pci_ids: Vec::new(),
            critical_device_database: None,
            staged_only: false,
            origin: None,
        }
    }

    /// Whether the definition is about the driver of an INF: it names one of its services, a service's file, or the INF.
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
