//! What is said of the recovery environment.

use std::fmt;

use serde::Serialize;

use crate::windows::boot_check::Bus;
use crate::windows::inspect::guest::Guest;
use crate::windows::record::PackageRecord;

/// The recovery environment (WinRE) of a Windows, which winject looks at and never edits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct RecoveryEnvironment {
    /// Whether Windows starts it when it cannot start itself.
    pub state: RecoveryState,
    /// Its image; left out if none was found on the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<RecoveryImage>,
    /// What of it could not be found or read, each in a sentence; left out when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
}

/// Whether Windows starts its recovery environment, by `ReAgent.xml`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RecoveryState {
    /// It does.
    Enabled,
    /// It does not (`reagentc /disable`).
    Disabled,
    /// The file is missing, or does not say it.
    #[default]
    Unknown,
}

/// The image that the recovery environment starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct RecoveryImage {
    /// Number of its partition, as Linux counts.
    pub partition: u32,
    /// Its path there.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// Whether `ReAgent.xml` names this place; if not, it was found in one of the usual places.
    pub is_configured: bool,
    /// Which drivers for a virtio disk it holds; empty where that cannot be told.
    pub drivers: Vec<RecoveryDriver>,
}

/// A driver that a recovery image holds or does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct RecoveryDriver {
    /// Name of the driver's service: `viostor`.
    pub service: String,
    /// Whether the image holds it.
    pub presence: Presence,
}

/// Whether an image holds a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It holds the very file that the run puts into the guest.
    SameFile,
    /// It holds a file or package of that name, of whatever version.
    ByName,
    /// It does not.
    Absent,
}

impl Presence {
    fn text(self) -> &'static str {
        match self {
            Self::SameFile => "the same file",
            Self::ByName => "yes",
            Self::Absent => "no",
        }
    }
}

impl fmt::Display for RecoveryEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            RecoveryState::Enabled => "enabled",
            RecoveryState::Disabled => "disabled",
            RecoveryState::Unknown => "not known whether enabled",
        })?;
        let Some(image) = &self.image else { return f.write_str(", no image found on this disk") };
        write!(f, ", {} ({} bytes)", image.place(), image.size)?;
        let drivers: Vec<String> =
            image.drivers.iter().map(|driver| format!("{}: {}", driver.service, driver.presence.text())).collect();
        match drivers.as_slice() {
            [] => f.write_str("; drivers not known"),
            drivers => write!(f, "; drivers for a virtio disk: {}", drivers.join(", ")),
        }
    }
}

impl RecoveryImage {
    fn place(&self) -> String {
        let partition = if self.partition == 0 { String::new() } else { format!("partition {}: ", self.partition) };
        format!("{partition}{}", self.path)
    }
}

/// The kinds of disk that need these drivers.
fn buses(services: &[&str]) -> String {
    let bus = |service: &&str| match *service {
        "viostor" => Some(Bus::VirtioBlk),
        "vioscsi" => Some(Bus::VirtioScsi),
        _ => None,
    };
    let buses: Option<Vec<&str>> = services.iter().map(|service| bus(service).map(Bus::name)).collect();
    buses.map_or_else(|| "virtio".to_owned(), |buses| buses.join(" or "))
}

impl RecoveryEnvironment {
    /// Names of the drivers that the image does not hold.
    #[must_use]
    pub fn missing_drivers(&self) -> Vec<&str> {
        let drivers = self.image.iter().flat_map(|image| &image.drivers);
        drivers.filter(|driver| driver.presence == Presence::Absent).map(|driver| driver.service.as_str()).collect()
    }

    /// The warning for a migration; `None` if the recovery environment will work, or Windows has none.
    /// `packages` are staged in the guest, from where Windows can add them.
    #[must_use]
    pub fn warning(&self, guest: &Guest, packages: &[PackageRecord]) -> Option<String> {
        let image = self.image.as_ref()?;
        let missing = self.missing_drivers();
        if missing.is_empty() {
            let is_unknown = image.drivers.is_empty() && self.state == RecoveryState::Enabled;
            return is_unknown.then(|| {
                format!(
                    "it is not known whether the recovery environment ({}) will see a virtio disk: {}",
                    image.place(),
                    self.faults.join("; ")
                )
            });
        }
        let what = format!(
            "the recovery environment ({}) has no driver {}: on a {} disk it will not find Windows",
            image.place(),
            missing.join(", "),
            buses(&missing)
        );
        Some(match self.commands(guest, packages) {
            Some(commands) => format!("{what}. Once the guest has started, run in it as administrator: {commands}"),
            None => what,
        })
    }

    /// The command line that adds the missing drivers, for `cmd.exe` in the running guest. `reagentc /disable` brings the
    /// image of an enabled recovery environment to `System32\Recovery`, where a disabled one has it.
    fn commands(&self, guest: &Guest, packages: &[PackageRecord]) -> Option<String> {
        let folder = format!("{}/Recovery", guest.system32());
        let is_there = self.image.as_ref().is_some_and(|image| image.path == format!("{folder}/Winre.wim"));
        let is_enabled = self.state == RecoveryState::Enabled;
        let missing = self.missing_drivers();
        let staged = |service: &&str| packages.iter().find(|package| package.service == **service);
        let folders: Vec<String> =
            missing.iter().filter_map(staged).map(|package| guest.local_path(&package.guest_dir)).collect();
        if !(is_enabled || is_there) || folders.len() != missing.len() {
            return None;
        }
        let mut commands = Vec::new();
        if is_enabled {
            commands.push("reagentc /disable".to_owned());
        }
        let mount = guest.local_path("/winre");
        commands.push(format!("md {mount}"));
        let file = guest.local_path(&format!("{folder}/Winre.wim"));
        commands.push(format!("Dism /Mount-Wim /WimFile:{file} /Index:1 /MountDir:{mount}"));
        commands.extend(folders.iter().map(|folder| format!("Dism /Image:{mount} /Add-Driver /Driver:{folder}")));
        commands.push(format!("Dism /Unmount-Wim /MountDir:{mount} /Commit"));
        if is_enabled {
            commands.push("reagentc /enable".to_owned());
        }
        Some(commands.join(" && "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_driver_is_missing_for_its_bus() {
        for (missing, expected) in [
            (&["vioscsi"][..], "virtio-scsi"),
            (&["viostor"], "virtio-blk"),
            (&["vioscsi", "viostor"], "virtio-scsi or virtio-blk"),
            (&["other", "viostor"], "virtio"),
        ] {
            assert_eq!(buses(missing), expected);
        }
    }
}
