//! Finds Windows on a volume and reads from its hives what it is.

use super::guest::{ControlSet, Guest};
use crate::drivers::{Arch, GuestTarget, ProductType};
use crate::error::{Error, Kind, Layer, Result};
use crate::hive::Hive;
use crate::io::VolumeRead;
use crate::ntfs::Volume;
use crate::plan::HiveFile;
use crate::windows::guest_files::GuestFiles;
use crate::windows::registry;
use std::collections::BTreeMap;
use std::fmt;

/// `Microsoft\Windows NT\CurrentVersion` of SOFTWARE.
const CURRENT_VERSION: &str = "Microsoft\\Windows NT\\CurrentVersion";
/// The largest kernel that is read whole (when it is stored compressed).
const KERNEL_BYTES_MAX: u64 = 64 << 20;

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

/// The hives of a guest with their logs applied, as far as they have been read.
pub type Hives = BTreeMap<HiveFile, Hive>;

/// A Windows installation, and the hives that told so: what follows need not read them again.
pub struct Inspected {
    /// What was found.
    pub guest: Guest,
    /// SYSTEM and SOFTWARE.
    pub hives: Hives,
}

impl fmt::Debug for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspected").field("guest", &self.guest).finish_non_exhaustive()
    }
}

impl Guest {
    /// Looks for a Windows installation on an NTFS volume. `None`: there is none.
    ///
    /// # Errors
    /// When there are several, when a hive is dirty without usable logs, or something is damaged.
    pub fn inspect<D: VolumeRead>(volume: &Volume<D>) -> Result<Option<Self>> {
        Ok(inspect(volume)?.map(|inspected| inspected.guest))
    }
}

/// As [`Guest::inspect`], with the hives that were read for it.
///
/// # Errors
/// As [`Guest::inspect`].
pub fn inspect<D: VolumeRead>(volume: &Volume<D>) -> Result<Option<Inspected>> {
    inspect_files(volume)
}

/// The same over anything that has files.
pub(in super::super) fn inspect_files(files: &dyn GuestFiles) -> Result<Option<Inspected>> {
    let mut found = Vec::new();
    let (folders, mut fault) = candidates(files)?;
    for windows_dir in folders {
        match read(files, &windows_dir) {
            Ok(one) => found.push(one),
            Err(error) => drop(fault.get_or_insert(error)),
        }
    }
    // a copy in another folder may be as damaged as it likes
    if let Some(error) = fault
        && !found.iter().any(|one: &Inspected| is_its_own_root(&one.guest))
    {
        return Err(error);
    }
    if found.len() > 1 {
        // the folder that calls itself the system root is the one that starts
        let own: Vec<usize> =
            (0..found.len()).filter(|&i| found.get(i).is_some_and(|one| is_its_own_root(&one.guest))).collect();
        if let &[only] = own.as_slice() {
            return Ok(Some(found.swap_remove(only)));
        }
        let names: Vec<&str> = found.iter().map(|one: &Inspected| one.guest.windows_dir.as_str()).collect();
        return Err(Error::refused(Layer::Windows, format!("several Windows installations: {}", names.join(", ")))
            .hint("a volume with one installation is needed: move the other ones away in the guest"));
    }
    Ok(found.pop())
}

/// Whether the folder has the name that the installation knows itself by.
fn is_its_own_root(guest: &Guest) -> bool {
    let own = guest.windows_dir.rsplit('/').next().unwrap_or_default();
    let known = guest.system_root.rsplit('\\').next().unwrap_or_default();
    own.eq_ignore_ascii_case(known)
}

/// Whether there is a Windows installation on this volume, however damaged its hives.
///
/// # Errors
/// When the volume is damaged.
pub fn is_windows_volume<D: VolumeRead>(volume: &Volume<D>) -> Result<bool> {
    Ok(!windows_folders(volume)?.is_empty())
}

/// The Windows folders of a volume, however damaged their hives. A folder that cannot be read hides no other one.
///
/// # Errors
/// When none is found and the volume is damaged.
pub fn windows_folders<D: VolumeRead>(volume: &Volume<D>) -> Result<Vec<String>> {
    match candidates(volume)? {
        (folders, Some(fault)) if folders.is_empty() => Err(fault),
        (folders, _) => Ok(folders),
    }
}

/// Folders in the root with both hives below them, and what is wrong with the first one that cannot be read.
fn candidates(files: &dyn GuestFiles) -> Result<(Vec<String>, Option<Error>)> {
    let (mut out, mut fault) = (Vec::new(), None);
    for name in files.folders("/")? {
        let dir = format!("/{name}");
        let has = |hive: HiveFile| files.exists(&format!("{dir}/System32/config/{}", hive.file_name()));
        match has(HiveFile::System).and_then(|system| Ok(system && has(HiveFile::Software)?)) {
            Ok(true) => out.push(dir),
            Ok(false) => {}
            Err(error) if error.kind() == Kind::Damaged => drop(fault.get_or_insert(error.replace_path(dir))),
            Err(error) => return Err(error),
        }
    }
    Ok((out, fault))
}

fn read(files: &dyn GuestFiles, windows_dir: &str) -> Result<Inspected> {
    let config_dir = format!("{windows_dir}/System32/config");
    let load = |file| registry::load(files, &config_dir, file)?.ok_or_else(|| registry::missing(&config_dir, file));
    let (system, software) = (load(HiveFile::System)?, load(HiveFile::Software)?);
    let mut replayed = Vec::new();
    for (file, loaded) in [(HiveFile::System, &system), (HiveFile::Software, &software)] {
        if loaded.replay.is_some() {
            replayed.push(format!("{file} was dirty; its logs were applied"));
        }
    }
    let mut guest = describe(files, windows_dir, &system.hive, &software.hive)?;
    guest.replayed = replayed;
    let hives = Hives::from([(HiveFile::System, system.hive), (HiveFile::Software, software.hive)]);
    Ok(Inspected { guest, hives })
}

fn describe(files: &dyn GuestFiles, windows_dir: &str, system: &Hive, software: &Hive) -> Result<Guest> {
    let control_sets = control_sets(system)?;
    let current = control_sets.first().map_or_else(String::new, |set| set.name.clone());

    let mut guest = version(software, windows_dir)?;
    guest.product_type = product_type(system, &current, guest.installation_type.as_deref())?;
    guest.arch = architecture(files, system, &current, &mut guest)?;
    let target = GuestTarget::new(guest.arch, guest.major, guest.minor, guest.build, guest.is_server());
    target.release().name.clone_into(&mut guest.product);
    guest.control_sets = control_sets;
    guest.has_driver_database = registry::find(system, "DriverDatabase")?.is_some();
    power(system, &current, &mut guest)?;
    pending(system, software, &current, &mut guest)?;
    match files.exists(&format!("{windows_dir}/WinSxS/pending.xml")) {
        Ok(true) => guest.pending_reboots.push("servicing operations (WinSxS\\pending.xml)".to_owned()),
        Ok(false) => {}
        // a damaged folder beside what is needed hides no Windows
        Err(error) if error.kind() == Kind::Damaged => {
            guest.warnings.push(format!("servicing operations may be pending, the folder cannot be read: {error}"));
        }
        Err(error) => return Err(error),
    }
    filters(system, &current, &mut guest)?;
    guest.device_policies = policies(software)?;
    guest.sha2_update = sha2_update(software, &guest)?;
    guest.free_bytes = files.free_space();
    consequences(&mut guest);
    Ok(guest)
}

/// What SOFTWARE says about the version.
fn version(software: &Hive, windows_dir: &str) -> Result<Guest> {
    let text = |name: &str| registry::text(software, CURRENT_VERSION, name);
    let number = |name: &str| registry::number(software, CURRENT_VERSION, name);
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
        sha2_update: None,
        setup_in_progress: false,
        pending_reboots: Vec::new(),
        disk_filters: Vec::new(),
        antivirus: Vec::new(),
        device_policies: Vec::new(),
        free_bytes: None,
        replayed: Vec::new(),
        warnings: Vec::new(),
    })
}

/// The control sets that `Select` names, the current one first. `CurrentControlSet` is no key of the file.
fn control_sets(system: &Hive) -> Result<Vec<ControlSet>> {
    let mut out: Vec<ControlSet> = Vec::new();
    for role in ["Current", "Default", "LastKnownGood"] {
        let Some(number) = registry::number(system, "Select", role)? else { continue };
        let name = format!("ControlSet{number:03}");
        if let Some(set) = out.iter_mut().find(|set| set.name == name) {
            set.roles.push(role.to_owned());
        } else if registry::find(system, &name)?.is_some() {
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

fn product_type(system: &Hive, current: &str, installation: Option<&str>) -> Result<ProductType> {
    let text = registry::text(system, &format!("{current}\\Control\\ProductOptions"), "ProductType")?;
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
fn architecture(files: &dyn GuestFiles, system: &Hive, current: &str, guest: &mut Guest) -> Result<Arch> {
    let environment = format!("{current}\\Control\\Session Manager\\Environment");
    let declared = registry::text(system, &environment, "PROCESSOR_ARCHITECTURE")?.and_then(|text| Arch::parse(&text));
    let path = format!("{}/ntoskrnl.exe", guest.system32());
    let kernel = pe_machine(files, &path)?;
    let from_kernel = match kernel {
        Some(Some(machine)) => Some(Arch::from_pe_machine(machine).ok_or_else(|| {
            Error::unsupported(Layer::Windows, "the kernel is for a CPU that winject does not know")
                .path(&path)
                .expected_found("0x14c, 0x8664 or 0xaa64", format_args!("{machine:#x}"))
        })?),
        Some(None) => {
            guest.warnings.push(format!("{path} is no program"));
            None
        }
        None => {
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

/// `IMAGE_FILE_HEADER.Machine` of a program: `None` when there is no file, `Some(None)` when it is no program.
pub(in super::super) fn pe_machine(files: &dyn GuestFiles, path: &str) -> Result<Option<Option<u16>>> {
    let Some(mut head) = files.head(path, 4096)? else { return Ok(None) };
    if !head.starts_with(b"MZ") {
        // stored compressed (CompactOS): the plain stream is empty
        head = files.read(path, KERNEL_BYTES_MAX)?.unwrap_or_default();
    }
    Ok(Some(machine_of(&head)))
}

/// The machine number of a PE image's first bytes.
pub(in super::super) fn machine_of(image: &[u8]) -> Option<u16> {
    let bytes = |at: usize, n: usize| image.get(at..at.checked_add(n)?);
    if bytes(0, 2)? != b"MZ" {
        return None;
    }
    let at = usize::try_from(u32::from_le_bytes(bytes(0x3c, 4)?.try_into().ok()?)).ok()?;
    if bytes(at, 4)? != b"PE\0\0" {
        return None;
    }
    Some(u16::from_le_bytes(bytes(at.checked_add(4)?, 2)?.try_into().ok()?))
}

fn power(system: &Hive, current: &str, guest: &mut Guest) -> Result<()> {
    let session = format!("{current}\\Control\\Session Manager\\Power");
    guest.fast_startup = registry::number(system, &session, "HiberbootEnabled")?.map(|n| n != 0);
    guest.hibernation =
        registry::number(system, &format!("{current}\\Control\\Power"), "HibernateEnabled")?.map(|n| n != 0);
    let zone = format!("{current}\\Control\\TimeZoneInformation");
    let utc = registry::get(system, &zone, "RealTimeIsUniversal")?;
    guest.clock_is_utc = utc.is_some_and(|data| data.bytes.first() == Some(&1));
    let setup = |name: &str| registry::number(system, "Setup", name);
    guest.setup_in_progress = ["SystemSetupInProgress", "OOBEInProgress", "SetupPhase"]
        .iter()
        .try_fold(false, |is_under_way, name| Ok::<_, Error>(is_under_way || setup(name)?.unwrap_or(0) != 0))?;
    Ok(())
}

fn pending(system: &Hive, software: &Hive, current: &str, guest: &mut Guest) -> Result<()> {
    const UPDATE: &str = "Microsoft\\Windows\\CurrentVersion\\WindowsUpdate\\Auto Update\\RebootRequired";
    const SERVICING: &str = "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\RebootPending";
    if registry::find(software, UPDATE)?.is_some() {
        guest.pending_reboots.push("Windows Update".to_owned());
    }
    if registry::find(software, SERVICING)?.is_some() {
        guest.pending_reboots.push("component based servicing".to_owned());
    }
    let session = format!("{current}\\Control\\Session Manager");
    if !registry::texts(system, &session, "PendingFileRenameOperations")?.is_empty() {
        guest.pending_reboots.push("files to be renamed at the next start".to_owned());
    }
    Ok(())
}

/// Foreign drivers that sit between Windows and its disk.
fn filters(system: &Hive, current: &str, guest: &mut Guest) -> Result<()> {
    const CLASSES: [(&str, &str); 4] = [
        ("{4d36e967-e325-11ce-bfc1-08002be10318}", "disks"),
        ("{71a27cdd-812a-11d0-bec7-08002be2092f}", "volumes"),
        ("{4d36e97b-e325-11ce-bfc1-08002be10318}", "SCSI controllers"),
        ("{4d36e96a-e325-11ce-bfc1-08002be10318}", "IDE controllers"),
    ];
    for (class, what) in CLASSES {
        for name in ["UpperFilters", "LowerFilters"] {
            for filter in registry::texts(system, &format!("{current}\\Control\\Class\\{class}"), name)? {
                if !OWN_FILTERS.contains(&filter.to_ascii_lowercase().as_str()) {
                    guest.disk_filters.push(format!("{filter} ({what}, {name})"));
                }
            }
        }
    }
    let services = format!("{current}\\Services");
    for service in registry::subkeys(system, &services)? {
        let key = format!("{services}\\{service}");
        let group = registry::text(system, &key, "Group")?.unwrap_or_default();
        if group.eq_ignore_ascii_case("FSFilter Anti-Virus")
            && !service.eq_ignore_ascii_case("WdFilter")
            && registry::number(system, &key, "Start")?.is_some_and(|start| start < 4)
        {
            guest.antivirus.push(service);
        }
    }
    Ok(())
}

/// Group policies that forbid the installation of devices.
fn policies(software: &Hive) -> Result<Vec<String>> {
    const KEY: &str = "Policies\\Microsoft\\Windows\\DeviceInstall\\Restrictions";
    let mut out = Vec::new();
    for name in ["DenyUnspecified", "DenyDeviceClasses", "DenyDeviceIDs", "DenyInstanceIDs", "DenyRemovableDevices"] {
        if registry::number(software, KEY, name)?.unwrap_or(0) != 0 {
            out.push(name.to_owned());
        }
    }
    Ok(out)
}

/// Whether a Windows 7 or Server 2008 R2 accepts SHA-2 signatures of drivers.
fn sha2_update(software: &Hive, guest: &Guest) -> Result<Option<bool>> {
    const PACKAGES: &str = "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing\\Packages";
    /// `CurrentState`: superseded, installed, permanent.
    const INSTALLED: [u32; 3] = [0x50, 0x70, 0x80];
    if (guest.major, guest.minor) != (6, 1) {
        return Ok(None);
    }
    let packages = registry::subkeys(software, PACKAGES)?;
    if packages.is_empty() {
        return Ok(None);
    }
    let mut answer = Some(false);
    for name in packages {
        let lower = name.to_ascii_lowercase();
        let state = registry::number(software, &format!("{PACKAGES}\\{name}"), "CurrentState")?;
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
fn consequences(guest: &mut Guest) {
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
    if guest.setup_in_progress {
        warn("Windows Setup is not finished in this guest".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FileTime;
    use crate::hive::Data;

    const NOW: FileTime = FileTime(0x01D5_0000_0000_0000);

    fn set(hive: &mut Hive, key: &str, name: &str, data: &Data) {
        let key = hive.create_key(hive.root(), key, NOW).unwrap();
        hive.set_value(key, name, data.kind, &data.bytes, NOW).unwrap();
    }

    #[test]
    fn control_sets_that_matter() {
        let mut hive = Hive::create("SYSTEM", NOW);
        for (name, number) in [("Current", 2), ("Default", 2), ("Failed", 0), ("LastKnownGood", 3)] {
            set(&mut hive, "Select", name, &Data::dword(number));
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
        set(&mut hive, CURRENT_VERSION, "CurrentBuildNumber", &Data::sz("7601"));
        set(&mut hive, CURRENT_VERSION, "CurrentVersion", &Data::sz("6.1"));
        let seven = version(&hive, "/Windows").unwrap();
        assert_eq!((seven.build, seven.major, seven.minor), (7601, 6, 1));
        set(&mut hive, CURRENT_VERSION, "CurrentBuildNumber", &Data::sz("26100"));
        set(&mut hive, CURRENT_VERSION, "CurrentVersion", &Data::sz("6.3"));
        set(&mut hive, CURRENT_VERSION, "CurrentMajorVersionNumber", &Data::dword(10));
        let eleven = version(&hive, "/Windows").unwrap();
        assert_eq!((eleven.build, eleven.major, eleven.minor), (26100, 10, 0));
    }

    #[test]
    fn filters_of_others_are_named() {
        let mut hive = Hive::create("SYSTEM", NOW);
        let class = "ControlSet001\\Control\\Class\\{4d36e967-e325-11ce-bfc1-08002be10318}";
        set(&mut hive, class, "UpperFilters", &Data::multi_sz(&["partmgr", "prl_strg"]));
        set(&mut hive, "ControlSet001\\Services\\mfehidk", "Group", &Data::sz("FSFilter Anti-Virus"));
        set(&mut hive, "ControlSet001\\Services\\mfehidk", "Start", &Data::dword(0));
        let mut guest = super::super::guest::tests::windows_10();
        filters(&hive, "ControlSet001", &mut guest).unwrap();
        assert_eq!(guest.disk_filters, ["prl_strg (disks, UpperFilters)"]);
        assert_eq!(guest.antivirus, ["mfehidk"]);
    }

    #[test]
    fn machine_of_broken_programs() {
        assert_eq!(machine_of(b"MZ"), None);
        let mut image = vec![0; 0x100];
        image[..2].copy_from_slice(b"MZ");
        image[0x3c] = 0x80;
        image[0x80..0x84].copy_from_slice(b"PE\0\0");
        image[0x84..0x86].copy_from_slice(&0x8664u16.to_le_bytes());
        assert_eq!(machine_of(&image), Some(0x8664));
        image[0x3c..0x40].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(machine_of(&image), None);
    }
}
