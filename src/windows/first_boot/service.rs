//! The service that starts the job.

use crate::drivers::Arch;
use crate::error::Result;
use crate::hive::RegistryData;
use crate::plan::GuestHive;
use crate::windows::guest_paths;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::registry;

/// What the service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Starter {
    /// winject's own program for this CPU.
    Program(Arch),
    /// `cmd.exe` with the script.
    Script,
}

impl Starter {
    /// Its name in options and reports.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Program(_) => "service",
            Self::Script => "script",
        }
    }

    /// Path of what it runs, on the Windows volume.
    pub(super) const fn payload(self) -> &'static str {
        match self {
            Self::Program(_) => guest_paths::PROGRAM,
            Self::Script => guest_paths::FIRSTBOOT,
        }
    }

    const fn command(self) -> &'static str {
        match self {
            Self::Program(_) => "\"%SystemDrive%\\hyper2kvm\\hyper2kvm-firstboot.exe\"",
            Self::Script => "\"%SystemRoot%\\System32\\cmd.exe\" /d /c \"%SystemDrive%\\hyper2kvm\\firstboot.cmd\"",
        }
    }

    /// `ErrorControl`. A script cannot report to the service manager, so that the service shows as failed: that must not
    /// count as an error of the start.
    const fn error_control(self) -> u32 {
        match self {
            Self::Program(_) => 1,
            Self::Script => 0,
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::Program(_) => {
                "Installs the driver packages below C:\\hyper2kvm\\drivers\\virtio once, then removes itself. Its job is \
                 C:\\hyper2kvm\\firstboot.job."
            }
            Self::Script => {
                "Installs the driver packages below C:\\hyper2kvm\\drivers\\virtio once, then removes itself. Its script \
                 is C:\\hyper2kvm\\firstboot.cmd."
            }
        }
    }
}

/// The service's keys in the control sets that the guest starts from.
fn keys(builder: &PlanBuilder<'_>) -> Vec<String> {
    let sets = builder.guest.control_sets.iter();
    sets.filter(|set| set.is_current || set.roles.iter().any(|role| role == "Default"))
        .map(|set| format!("{}\\Services\\{}", set.name, guest_paths::SERVICE))
        .collect()
}

/// Whether the guest has the service.
///
/// # Errors
/// When the hive is damaged.
pub(super) fn is_registered(builder: &PlanBuilder<'_>) -> Result<bool> {
    let hive = builder.hive(GuestHive::System)?;
    keys(builder).iter().try_fold(false, |found, key| Ok(found || registry::find_key(hive, key)?.is_some()))
}

/// Plans the service in the control sets that the guest starts from.
///
/// # Errors
/// When the hive is damaged.
pub(super) fn register(builder: &mut PlanBuilder<'_>, starter: Starter) -> Result<()> {
    builder.set_reason("the service that starts the first-boot job");
    for key in keys(builder) {
        let values = [
            ("Type", RegistryData::dword(0x10)),
            ("Start", RegistryData::dword(2)),
            ("ErrorControl", RegistryData::dword(starter.error_control())),
            ("ImagePath", RegistryData::expand_sz(starter.command())),
            ("ObjectName", RegistryData::sz("LocalSystem")),
            ("DisplayName", RegistryData::sz("hyper2kvm First Boot Driver Installer")),
            ("Description", RegistryData::sz(starter.description())),
            ("DelayedAutoStart", RegistryData::dword(0)),
        ];
        for (name, data) in values {
            builder.set_value(GuestHive::System, &key, name, data)?;
        }
    }
    Ok(())
}
