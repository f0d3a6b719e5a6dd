//! The plan itself.

use std::fmt;

use serde::Serialize;

use super::boot::BootPlace;
use super::change::{Change, GuestHive, Step};
use crate::escape::EscapedLines;

/// All edits of a run, in the order in which they are applied: files first, then SOFTWARE, then SYSTEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Plan {
    /// The folder with the hives, `/Windows/System32/config` as a rule.
    pub config_dir: String,
    /// The boot volume; `None` if no edit concerns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootPlace>,
    /// The edits with their reasons, in the order in which they are applied.
    pub steps: Vec<Step>,
    /// Paths of the user's files among them, sorted. No other edit touches their places.
    #[serde(skip)]
    pub uploads: Vec<String>,
    /// What the user should know about this plan.
    pub notes: Vec<String>,
    /// What may keep the guest from working as hoped.
    pub warnings: Vec<String>,
}

impl Plan {
    /// A plan without edits.
    #[must_use]
    pub fn new(config_dir: impl Into<String>) -> Self {
        Self {
            config_dir: config_dir.into(),
            boot: None,
            steps: Vec::new(),
            uploads: Vec::new(),
            notes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Whether nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// How many edits there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// The edits of files and folders of the Windows volume.
    pub fn files(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.change.file().is_some())
    }

    /// The edits of the boot volume.
    pub fn of_boot_volume(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| step.change.is_of_boot_volume())
    }

    /// The edits of one hive.
    pub fn of_hive(&self, hive: GuestHive) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| step.change.hive() == Some(hive))
    }

    /// The path of a hive on its volume.
    #[must_use]
    pub fn hive_path(&self, hive: GuestHive) -> String {
        if let (GuestHive::Bcd, Some(boot)) = (hive, &self.boot) {
            return boot.store.clone();
        }
        format!("{}/{}", self.config_dir, hive.file_name())
    }

    /// The paths of the hives that this plan edits, in the order of writing.
    pub fn hive_paths(&self) -> impl Iterator<Item = String> {
        GuestHive::ALL.into_iter().filter(|file| self.of_hive(*file).next().is_some()).map(|file| self.hive_path(file))
    }

    /// The bytes of all files to be written.
    #[must_use]
    pub fn bytes_to_write(&self) -> u64 {
        self.steps
            .iter()
            .map(|step| match &step.change {
                Change::WriteFile { content, .. } => content.size(),
                _ => 0,
            })
            .fold(0, u64::saturating_add)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        let mut f = EscapedLines::new(f);
        if self.is_empty() {
            writeln!(f, "nothing to change")?;
        }
        let mut reason = "";
        for step in &self.steps {
            if step.reason != reason {
                reason = &step.reason;
                writeln!(f, "{reason}:")?;
            }
            writeln!(f, "  {}", step.change)?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hive::RegistryData;
    use crate::plan::{Access, Content};

    fn sample() -> Plan {
        let mut plan = Plan::new("/Windows/System32/config");
        let step = |change, reason: &str| Step { change, reason: reason.to_owned() };
        plan.steps = vec![
            step(Change::CreateDir { path: "/hyper2kvm".to_owned(), access: Access::Protected }, "staging"),
            step(
                Change::WriteFile {
                    path: "/hyper2kvm/setup.cmd".to_owned(),
                    content: Content::new(&b"x"[..]),
                    replaces: false,
                    access: Access::Protected,
                },
                "staging",
            ),
            step(
                Change::SetValue {
                    hive: GuestHive::System,
                    key: "K".to_owned(),
                    name: "Start".to_owned(),
                    data: RegistryData::dword(0),
                    before: Some(RegistryData::dword(3)),
                },
                "service",
            ),
        ];
        plan
    }

    #[test]
    fn reads_as_a_list_under_its_reasons() {
        let text = sample().to_string();
        assert!(text.starts_with("staging:\n  create folder /hyper2kvm\n"), "{text}");
        assert!(text.contains("service:\n  set SYSTEM\\K : Start = REG_DWORD 0x0 (was REG_DWORD 0x3)\n"), "{text}");
        assert_eq!(Plan::new("/").to_string(), "nothing to change\n");
    }

    #[test]
    fn knows_its_hives() {
        let plan = sample();
        assert_eq!(plan.of_hive(GuestHive::System).count(), 1);
        assert_eq!(plan.files().count(), 2);
        assert_eq!(plan.hive_path(GuestHive::Software), "/Windows/System32/config/SOFTWARE");
        assert_eq!(plan.bytes_to_write(), 1);
    }
}
