//! The state of an installation: power, pending restarts, filters, policies, updates.

use super::guest::Guest;
use crate::error::{Error, Result};
use crate::hive::Hive;
use crate::windows::first_boot::{FirstBootState, JobResult};
use crate::windows::registry;

/// Filter drivers that come with Windows.
const OWN_FILTERS: [&str; 14] = [
    "partmgr",
    "volsnap",
    "fvevol",
    "iorate",
    "rdyboost",
    "ehstorclass",
    "ehstortcgdrv",
    "volmgr",
    "storqosflt",
    "bttflt",
    "ksthunk",
    "wdf01000",
    "vdrvroot",
    "disk",
];

pub(super) fn power(system: &Hive, current: &str, guest: &mut Guest) -> Result<()> {
    let session = format!("{current}\\Control\\Session Manager\\Power");
    guest.fast_startup = registry::get_u32(system, &session, "HiberbootEnabled")?.map(|n| n != 0);
    guest.hibernation =
        registry::get_u32(system, &format!("{current}\\Control\\Power"), "HibernateEnabled")?.map(|n| n != 0);
    let zone = format!("{current}\\Control\\TimeZoneInformation");
    let utc = registry::get_value(system, &zone, "RealTimeIsUniversal")?;
    guest.clock_is_utc = utc.is_some_and(|data| data.bytes.first() == Some(&1));
    guest.san_policy = registry::get_u32(system, &format!("{current}\\Services\\partmgr\\Parameters"), "SanPolicy")?;
    let setup = |name: &str| registry::get_u32(system, "Setup", name);
    guest.setup_in_progress = ["SystemSetupInProgress", "OOBEInProgress", "SetupPhase"]
        .iter()
        .try_fold(false, |is_under_way, name| Ok::<_, Error>(is_under_way || setup(name)?.unwrap_or(0) != 0))?;
    Ok(())
}

pub(super) fn pending(system: &Hive, software: &Hive, current: &str, guest: &mut Guest) -> Result<()> {
    const UPDATE: &str = "Microsoft\\Windows\\CurrentVersion\\WindowsUpdate\\Auto Update\\RebootRequired";
    const SERVICING: &str = "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\RebootPending";
    if registry::find_key(software, UPDATE)?.is_some() {
        guest.pending_reboots.push("Windows Update".to_owned());
    }
    if registry::find_key(software, SERVICING)?.is_some() {
        guest.pending_reboots.push("component based servicing".to_owned());
    }
    let session = format!("{current}\\Control\\Session Manager");
    if !registry::get_strings(system, &session, "PendingFileRenameOperations")?.is_empty() {
        guest.pending_reboots.push("files to be renamed at the next start".to_owned());
    }
    Ok(())
}

/// Foreign drivers that sit between Windows and its disk.
pub(super) fn filters(system: &Hive, current: &str, guest: &mut Guest) -> Result<()> {
    const CLASSES: [(&str, &str); 4] = [
        ("{4d36e967-e325-11ce-bfc1-08002be10318}", "disks"),
        ("{71a27cdd-812a-11d0-bec7-08002be2092f}", "volumes"),
        ("{4d36e97b-e325-11ce-bfc1-08002be10318}", "SCSI controllers"),
        ("{4d36e96a-e325-11ce-bfc1-08002be10318}", "IDE controllers"),
    ];
    for (class, what) in CLASSES {
        for name in ["UpperFilters", "LowerFilters"] {
            for filter in registry::get_strings(system, &format!("{current}\\Control\\Class\\{class}"), name)? {
                if !OWN_FILTERS.contains(&filter.to_ascii_lowercase().as_str()) {
                    guest.disk_filters.push(format!("{filter} ({what}, {name})"));
                }
            }
        }
    }
    let services = format!("{current}\\Services");
    for service in registry::subkey_names(system, &services)? {
        let key = format!("{services}\\{service}");
        let group = registry::get_string(system, &key, "Group")?.unwrap_or_default();
        if group.eq_ignore_ascii_case("FSFilter Anti-Virus")
            && !service.eq_ignore_ascii_case("WdFilter")
            && registry::get_u32(system, &key, "Start")?.is_some_and(|start| start < 4)
        {
            guest.antivirus.push(service);
        }
    }
    Ok(())
}

/// Group policies that forbid the installation of devices.
pub(super) fn policies(software: &Hive) -> Result<Vec<String>> {
    const KEY: &str = "Policies\\Microsoft\\Windows\\DeviceInstall\\Restrictions";
    let mut out = Vec::new();
    for name in ["DenyUnspecified", "DenyDeviceClasses", "DenyDeviceIDs", "DenyInstanceIDs", "DenyRemovableDevices"] {
        if registry::get_u32(software, KEY, name)?.unwrap_or(0) != 0 {
            out.push(name.to_owned());
        }
    }
    Ok(out)
}

/// Whether a Windows 7 or Server 2008 R2 accepts SHA-2 signatures of drivers.
pub(super) fn sha2_update(software: &Hive, guest: &Guest) -> Result<Option<bool>> {
    const PACKAGES: &str = "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\Packages";
    /// `CurrentState`: superseded, installed, permanent.
    const INSTALLED: [u32; 3] = [0x50, 0x70, 0x80];
    if (guest.major, guest.minor) != (6, 1) {
        return Ok(None);
    }
    let packages = registry::subkey_names(software, PACKAGES)?;
    if packages.is_empty() {
        return Ok(None);
    }
    let mut answer = Some(false);
    for name in packages {
        let lower = name.to_ascii_lowercase();
        let state = registry::get_u32(software, &format!("{PACKAGES}\\{name}"), "CurrentState")?;
        if !state.is_none_or(|state| INSTALLED.contains(&state)) {
            continue;
        }
        if lower.starts_with("package_for_kb4474419") {
            return Ok(Some(true));
        }
        if lower.starts_with("package_for_kb3033929") {
            // the first update for SHA-2: whether it is enough depends on the driver
            answer = None;
        }
    }
    Ok(answer)
}

/// Turns facts into warnings.
pub(super) fn consequences(guest: &mut Guest) {
    let mut warn = |text: String| guest.warnings.push(text);
    if !guest.disk_filters.is_empty() {
        warn(format!("filter drivers on the disks may not like new hardware: {}", guest.disk_filters.join(", ")));
    }
    if !guest.antivirus.is_empty() {
        warn(format!("antivirus drivers may not like new hardware: {}", guest.antivirus.join(", ")));
    }
    if !guest.device_policies.is_empty() {
        warn(format!("group policies may block the installation of devices: {}", guest.device_policies.join(", ")));
    }
    if !guest.pending_reboots.is_empty() {
        warn(format!("the guest waits for a restart: {}", guest.pending_reboots.join(", ")));
    }
    if matches!(guest.first_boot.state, FirstBootState::Failed | FirstBootState::Retry) {
        let failures = guest.first_boot.result.iter().flat_map(JobResult::failures);
        let named: Vec<String> = failures.take(5).map(|step| format!("{} ({})", step.name, step.code)).collect();
        let named = if named.is_empty() { String::new() } else { format!(": {}", named.join(", ")) };
        warn(format!("the first-boot job failed in this guest{named}; winject inspect IMAGE shows its result"));
    }
    if guest.setup_in_progress {
        warn("Windows Setup is not finished in this guest".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FileTime;
    use crate::hive::RegistryData;

    const NOW: FileTime = FileTime(0x01D5_0000_0000_0000);

    fn set(hive: &mut Hive, key: &str, name: &str, data: &RegistryData) {
        let key = hive.create_key(hive.root(), key, NOW).unwrap();
        hive.set_value(key, name, data, NOW).unwrap();
    }

    #[test]
    fn filters_of_others_are_named() {
        let mut hive = Hive::create("SYSTEM", NOW);
        let class = "ControlSet001\\Control\\Class\\{4d36e967-e325-11ce-bfc1-08002be10318}";
        set(&mut hive, class, "UpperFilters", &RegistryData::multi_sz(&["partmgr", "prl_strg"]));
        set(&mut hive, "ControlSet001\\Services\\mfehidk", "Group", &RegistryData::sz("FSFilter Anti-Virus"));
        set(&mut hive, "ControlSet001\\Services\\mfehidk", "Start", &RegistryData::dword(0));
        let mut guest = crate::windows::inspect::guest::tests::windows_10();
        filters(&hive, "ControlSet001", &mut guest).unwrap();
        assert_eq!(guest.disk_filters, ["prl_strg (disks, UpperFilters)"]);
        assert_eq!(guest.antivirus, ["mfehidk"]);
    }
}
