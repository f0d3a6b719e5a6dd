//! Version, control sets and CPU of an installation.

use super::guest::{ControlSet, Guest};
use super::program::ProgramFile;
use crate::drivers::{Arch, GuestTarget, ProductType};
use crate::error::{Error, Kind, Layer, Result};
use crate::hive::Hive;
use crate::windows::first_boot::FirstBootOutcome;
use crate::windows::guest_files::GuestFiles;
use crate::windows::network::Network;
use crate::windows::registry;

/// `Microsoft\Windows NT\CurrentVersion` of SOFTWARE.
const CURRENT_VERSION: &str = "Microsoft\\Windows NT\\CurrentVersion";

/// What SOFTWARE says about the version.
pub(super) fn version(software: &Hive, windows_dir: &str) -> Result<Guest> {
    let text = |name: &str| registry::get_string(software, CURRENT_VERSION, name);
    let number = |name: &str| registry::get_u32(software, CURRENT_VERSION, name);
    let build_text = match text("CurrentBuildNumber")? {
        Some(text) => Some(text),
        None => text("CurrentBuild")?,
    };
    let build = build_text.as_deref().and_then(|text| text.trim().parse().ok()).ok_or_else(|| {
        Error::new(Kind::NotWindows, Layer::Windows, "the SOFTWARE hive does not name the build of Windows")
            .path(format!("{windows_dir}/System32/config/SOFTWARE"))
            .expected_found("a number in CurrentBuildNumber", build_text.as_deref().unwrap_or("nothing"))
    })?;
    // CurrentVersion stays at 6.3 from Windows 10 on; the numbers are only there since
    let frozen = text("CurrentVersion")?.unwrap_or_default();
    let mut parts = frozen.split('.').map(|part| part.trim().parse::<u32>().ok());
    let (old_major, old_minor) = (parts.next().flatten(), parts.next().flatten());
    let by_build = GuestTarget::of_build(Arch::Amd64, build, false);
    let (major, minor) = match number("CurrentMajorVersionNumber")? {
        Some(major) => (major, number("CurrentMinorVersionNumber")?.unwrap_or(0)),
        None => (old_major.unwrap_or(by_build.major), old_minor.unwrap_or(by_build.minor)),
    };
    let root = match text("SystemRoot")? {
        Some(root) => Some(root),
        None => text("PathName")?,
    };
    let display_version = match text("DisplayVersion")? {
        Some(text) => Some(text),
        None => text("ReleaseId")?,
    };
    Ok(Guest {
        windows_dir: windows_dir.to_owned(),
        system_root: root.unwrap_or_else(|| format!("C:{}", windows_dir.replace('/', "\\"))),
        product: String::new(),
        product_name: text("ProductName")?.unwrap_or_default(),
        edition: text("EditionID")?,
        installation_type: text("InstallationType")?,
        display_version: display_version.filter(|text| !text.is_empty()),
        build_lab: text("BuildLabEx")?,
        build,
        revision: number("UBR")?,
        major,
        minor,
        product_type: ProductType::WinNt,
        arch: Arch::Amd64,
        control_sets: Vec::new(),
        has_driver_database: false,
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
    })
}

/// The control sets that `Select` names, the current one first. `CurrentControlSet` is not a key of the
/// file: the kernel adds it.
pub(super) fn control_sets(system: &Hive) -> Result<Vec<ControlSet>> {
    let mut out: Vec<ControlSet> = Vec::new();
    for role in ["Current", "Default", "LastKnownGood"] {
        let Some(number) = registry::get_u32(system, "Select", role)? else { continue };
        let name = format!("ControlSet{number:03}");
        if let Some(set) = out.iter_mut().find(|set| set.name == name) {
            set.roles.push(role.to_owned());
        } else if registry::find_key(system, &name)?.is_some() {
            out.push(ControlSet { name, roles: vec![role.to_owned()], is_current: role == "Current" });
        }
    }
    if !out.iter().any(|set| set.is_current) {
        return Err(Error::damaged(Layer::Windows, "the SYSTEM hive has no current control set")
            .path("SYSTEM\\Select")
            .hint("this Windows cannot start as it is; repair it first"));
    }
    Ok(out)
}

pub(super) fn product_type(system: &Hive, current: &str, installation: Option<&str>) -> Result<ProductType> {
    let text = registry::get_string(system, &format!("{current}\\Control\\ProductOptions"), "ProductType")?;
    Ok(match text.as_deref().map(str::to_ascii_lowercase).as_deref() {
        Some("winnt") => ProductType::WinNt,
        Some("servernt") => ProductType::ServerNt,
        Some("lanmannt") => ProductType::LanmanNt,
        // both hives come from one installation; what the other one says is the next best
        _ if installation.is_some_and(|kind| kind.to_ascii_lowercase().contains("server")) => ProductType::ServerNt,
        _ => ProductType::WinNt,
    })
}

/// The CPU that the kernel was built for, checked against the registry.
pub(super) fn architecture(files: &dyn GuestFiles, system: &Hive, current: &str, guest: &mut Guest) -> Result<Arch> {
    let environment = format!("{current}\\Control\\Session Manager\\Environment");
    let declared =
        registry::get_string(system, &environment, "PROCESSOR_ARCHITECTURE")?.and_then(|text| Arch::parse(&text));
    let path = format!("{}/ntoskrnl.exe", guest.system32());
    let from_kernel = match ProgramFile::read(files, &path)? {
        ProgramFile::ForMachine(machine) => Some(Arch::from_pe_machine(machine).ok_or_else(|| {
            Error::unsupported(Layer::Windows, "the kernel is for a CPU that winject does not know")
                .path(&path)
                .expected_found("0x14c, 0x8664 or 0xaa64", format_args!("{machine:#x}"))
        })?),
        ProgramFile::NotAProgram => {
            guest.warnings.push(format!("{path} is not a program"));
            None
        }
        ProgramFile::Missing => {
            guest.warnings.push(format!("{path} is missing: this Windows cannot start"));
            None
        }
    };
    if let (Some(kernel), Some(declared)) = (from_kernel, declared)
        && kernel != declared
    {
        guest.warnings.push(format!("the kernel is for {kernel}, the registry says {declared}; the kernel decides"));
    }
    from_kernel
        .or(declared)
        .ok_or_else(|| Error::damaged(Layer::Windows, "neither the kernel nor the registry tells the CPU").path(path))
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
    fn control_sets_that_matter() {
        let mut hive = Hive::create("SYSTEM", NOW);
        for (name, number) in [("Current", 2), ("Default", 2), ("Failed", 0), ("LastKnownGood", 3)] {
            set(&mut hive, "Select", name, &RegistryData::dword(number));
        }
        assert!(control_sets(&hive).is_err(), "the current set is missing");
        for number in [1, 2, 3] {
            hive.create_key(hive.root(), &format!("ControlSet{number:03}"), NOW).unwrap();
        }
        let sets = control_sets(&hive).unwrap();
        let names: Vec<&str> = sets.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["ControlSet002", "ControlSet003"]);
        assert!(sets[0].is_current && !sets[1].is_current);
        assert_eq!(sets[0].roles, ["Current", "Default"]);
    }

    #[test]
    fn version_of_windows_11_and_7() {
        let mut hive = Hive::create("SOFTWARE", NOW);
        assert_eq!(version(&hive, "/Windows").unwrap_err().kind(), Kind::NotWindows);
        set(&mut hive, CURRENT_VERSION, "CurrentBuildNumber", &RegistryData::sz("7601"));
        set(&mut hive, CURRENT_VERSION, "CurrentVersion", &RegistryData::sz("6.1"));
        let seven = version(&hive, "/Windows").unwrap();
        assert_eq!((seven.build, seven.major, seven.minor), (7601, 6, 1));
        set(&mut hive, CURRENT_VERSION, "CurrentBuildNumber", &RegistryData::sz("26100"));
        set(&mut hive, CURRENT_VERSION, "CurrentVersion", &RegistryData::sz("6.3"));
        set(&mut hive, CURRENT_VERSION, "CurrentMajorVersionNumber", &RegistryData::dword(10));
        let eleven = version(&hive, "/Windows").unwrap();
        assert_eq!((eleven.build, eleven.major, eleven.minor), (26100, 10, 0));
    }
}
