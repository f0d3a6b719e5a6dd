//! What inspection found out about a Windows installation.

use std::fmt;

use serde::Serialize;

use crate::drivers::{Arch, GuestTarget, ProductType};
use crate::windows::first_boot::FirstBootOutcome;
use crate::windows::network::Network;

/// A switched-off Windows installation, as far as winject needs to know it.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Guest {
    /// The Windows folder on its volume: `/Windows` as a rule.
    pub windows_dir: String,
    /// The same as the guest knows it: `C:\Windows`.
    pub system_root: String,
    /// The product by build and kind: "Windows 11", "Windows Server 2025".
    pub product: String,
    /// `ProductName` of the registry, which says "Windows 10" on Windows 11.
    pub product_name: String,
    /// `EditionID` of the registry: `Professional`, `ServerStandard`.
    pub edition: Option<String>,
    /// `InstallationType`: `Client`, `Server`, `Server Core`.
    pub installation_type: Option<String>,
    /// `DisplayVersion`, or `ReleaseId` on older ones: `22H2`.
    pub display_version: Option<String>,
    /// `BuildLabEx` of the registry: build, branch and date of the kernel.
    pub build_lab: Option<String>,
    /// Build number: 7601 is Windows 7 SP1, 19045 is Windows 10 22H2.
    pub build: u32,
    /// Update build revision (`UBR`), which the monthly updates raise.
    pub revision: Option<u32>,
    /// Major version of the kernel: 6 up to Windows 8.1, 10 since.
    pub major: u32,
    /// Minor version of the kernel: 1 is Windows 7, 2 is Windows 8.
    pub minor: u32,
    /// Client, server or domain controller.
    pub product_type: ProductType,
    /// CPU of the kernel.
    pub arch: Arch,
    /// The control sets that this Windows may start from, the current one first.
    pub control_sets: Vec<ControlSet>,
    /// Whether the SYSTEM hive has a `DriverDatabase`, which decides how boot drivers are registered.
    pub has_driver_database: bool,
    /// Whether fast startup is allowed (the default of clients): reported, never refused by itself.
    pub fast_startup: Option<bool>,
    /// Whether hibernation is allowed.
    pub hibernation: Option<bool>,
    /// Whether the guest's hardware clock runs in UTC; the machine definition must match.
    pub clock_is_utc: bool,
    /// The policy for disks that Windows has not seen before (`SanPolicy`): 1 brings all online, 2 leaves shared ones
    /// offline, 3 all, 4 internal ones; `None` where the guest does not say.
    pub san_policy: Option<u32>,
    /// Whether the SHA-2 code-signing update is installed; asked on Windows 7 and Server 2008 R2 only.
    pub sha2_update: Option<bool>,
    /// Whether Windows Setup or the out-of-box experience is under way.
    pub setup_in_progress: bool,
    /// Why Windows wants a restart, if it does.
    pub pending_reboots: Vec<String>,
    /// Foreign filter drivers on disks, volumes and controllers.
    pub disk_filters: Vec<String>,
    /// Services of other makers' antivirus drivers that are not disabled.
    pub antivirus: Vec<String>,
    /// Group policies that may block the installation of devices.
    pub device_policies: Vec<String>,
    /// Network adapters with their settings.
    pub network: Network,
    /// Free space of the volume in bytes.
    pub free_bytes: Option<u64>,
    /// What the first-boot job left, if the guest has run.
    pub first_boot: FirstBootOutcome,
    /// Hives that were dirty and were repaired in memory from their logs.
    pub replayed: Vec<String>,
    /// What may keep the guest from working on the new machine.
    pub warnings: Vec<String>,
}

/// A control set of the SYSTEM hive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct ControlSet {
    /// Its key below the root of the hive: `ControlSet001`.
    pub name: String,
    /// The values of `Select` that point to it.
    pub roles: Vec<String>,
    /// Whether it is the current one.
    pub is_current: bool,
}

impl Guest {
    /// For which Windows drivers are to be chosen.
    #[must_use]
    pub fn target(&self) -> GuestTarget {
        let server = self.is_server();
        let mut target = GuestTarget::new(self.arch, self.major, self.minor, self.build, server);
        target.product_type = self.product_type;
        target.sha2_update = self.sha2_update;
        target
    }

    /// Whether it is a server.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.product_type != ProductType::WinNt
    }

    /// Path of `System32` on the volume.
    #[must_use]
    pub fn system32(&self) -> String {
        format!("{}/System32", self.windows_dir)
    }

    /// Path of the folder with the hives on the volume.
    #[must_use]
    pub fn config_dir(&self) -> String {
        format!("{}/System32/config", self.windows_dir)
    }

    /// Path of the folder with the drivers on the volume.
    #[must_use]
    pub fn drivers_dir(&self) -> String {
        format!("{}/System32/drivers", self.windows_dir)
    }

    /// The keys of the control sets, the current one first.
    #[must_use]
    pub fn control_set_names(&self) -> Vec<String> {
        self.control_sets.iter().map(|set| set.name.clone()).collect()
    }

    /// The key of the current control set.
    #[must_use]
    pub fn current_control_set(&self) -> &str {
        self.control_sets.first().map_or("ControlSet001", |set| &set.name)
    }

    /// The drive of the Windows volume as the guest names it: `C:`, that of the system root.
    #[must_use]
    pub fn drive(&self) -> &str {
        self.system_root.get(..2).filter(|drive| drive.ends_with(':')).unwrap_or("C:")
    }

    /// A path on the volume (`/Windows/System32`) as the guest spells it.
    #[must_use]
    pub fn local_path(&self, path: &str) -> String {
        format!("{}{}", self.drive(), path.replace('/', "\\"))
    }

    /// The path on the volume of an `ImagePath` of a driver service: relative to the Windows folder, or with
    /// `\SystemRoot\`, `%SystemRoot%\` or `\??\C:\` before it. `None` when it lies on another drive.
    #[must_use]
    pub fn image_path(&self, text: &str) -> Option<String> {
        let text = text.trim().trim_matches('"').replace('/', "\\");
        let lower = text.to_ascii_lowercase();
        let below = |prefix: &str| lower.strip_prefix(prefix).map(|rest| text[text.len() - rest.len()..].to_owned());
        let slashes = |path: &str| path.trim_start_matches('\\').replace('\\', "/");
        for prefix in ["\\systemroot\\", "%systemroot%\\", "%windir%\\"] {
            if let Some(rest) = below(prefix) {
                return Some(format!("{}/{}", self.windows_dir, slashes(&rest)));
            }
        }
        let drive = self.system_root.get(..2).unwrap_or("C:").to_ascii_lowercase();
        for prefix in [format!("\\??\\{drive}\\"), format!("{drive}\\")] {
            if let Some(rest) = below(&prefix) {
                return Some(format!("/{}", slashes(&rest)));
            }
        }
        let foreign = lower.starts_with('\\') || lower.starts_with('%') || lower.get(1..2) == Some(":");
        (!foreign && !text.is_empty()).then(|| format!("{}/{}", self.windows_dir, slashes(&text)))
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.product)?;
        if let Some(edition) = &self.edition {
            write!(f, " {edition}")?;
        }
        if let Some(version) = &self.display_version {
            write!(f, " {version}")?;
        }
        write!(f, " (build {}", self.build)?;
        if let Some(revision) = self.revision {
            write!(f, ".{revision}")?;
        }
        write!(f, ", {}) in {}", self.arch, self.windows_dir)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A Windows 10, for tests.
    pub(crate) fn windows_10() -> Guest {
        Guest {
            windows_dir: "/Windows".to_owned(),
            system_root: "C:\\Windows".to_owned(),
            product: "Windows 10".to_owned(),
            product_name: "Windows 10 Pro".to_owned(),
            edition: Some("Professional".to_owned()),
            installation_type: Some("Client".to_owned()),
            display_version: Some("22H2".to_owned()),
            build_lab: None,
            build: 19045,
            revision: Some(1),
            major: 10,
            minor: 0,
            product_type: ProductType::WinNt,
            arch: Arch::Amd64,
            control_sets: vec![ControlSet {
                name: "ControlSet001".to_owned(),
                roles: vec!["Current".to_owned()],
                is_current: true,
            }],
            has_driver_database: true,
            fast_startup: None,
            hibernation: None,
            clock_is_utc: false,
            san_policy: None,
            sha2_update: None,
            setup_in_progress: false,
            pending_reboots: Vec::new(),
            disk_filters: Vec::new(),
            antivirus: Vec::new(),
            device_policies: Vec::new(),
            network: Network::default(),
            free_bytes: None,
            first_boot: FirstBootOutcome::default(),
            replayed: Vec::new(),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn image_paths_in_all_their_spellings() {
        let guest = windows_10();
        let path = |text| guest.image_path(text);
        let expected = Some("/Windows/System32/drivers/x.sys".to_owned());
        assert_eq!(path("\\SystemRoot\\System32\\drivers\\x.sys"), expected);
        assert_eq!(path("%SystemRoot%\\System32\\drivers\\x.sys"), expected);
        assert_eq!(path("System32\\drivers\\x.sys"), expected);
        assert_eq!(path("\\??\\C:\\Windows\\System32\\drivers\\x.sys"), expected);
        assert_eq!(path("c:\\Windows\\System32\\drivers\\x.sys"), expected);
        assert_eq!(path("\\??\\D:\\x.sys"), None);
        assert_eq!(path("%ProgramFiles%\\x.sys"), None);
        assert_eq!(path(""), None);
    }

    #[test]
    fn reads_as_one_line() {
        assert_eq!(windows_10().to_string(), "Windows 10 Professional 22H2 (build 19045.1, amd64) in /Windows");
    }
}
