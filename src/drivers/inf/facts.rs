//! The facts of an INF for one guest: the values that registry and staging need.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::clock::FileTime;
pub use crate::guid::Guid;
use crate::hive::RegistryData;

/// Setup classes that have a meaning here.
impl Guid {
    /// SCSIAdapter, `{4D36E97B-E325-11CE-BFC1-08002BE10318}`.
    pub const SCSI_ADAPTER: Self =
        Self([0x7b, 0xe9, 0x36, 0x4d, 0x25, 0xe3, 0xce, 0x11, 0xbf, 0xc1, 0x08, 0x00, 0x2b, 0xe1, 0x03, 0x18]);
    /// DiskDrive, `{4D36E967-E325-11CE-BFC1-08002BE10318}`.
    pub const DISK_DRIVE: Self =
        Self([0x67, 0xe9, 0x36, 0x4d, 0x25, 0xe3, 0xce, 0x11, 0xbf, 0xc1, 0x08, 0x00, 0x2b, 0xe1, 0x03, 0x18]);
}

/// A text of the INF, as written (`%VENDOR%`) and with its `%strings%` put in (`Red Hat, Inc.`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Text {
    /// As written, without quotes.
    pub raw: String,
    /// With all strings put in.
    pub resolved: String,
}

impl Text {
    /// The name of the one string that the text is (`VENDOR` of `%VENDOR%`), if it is exactly that.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        let inner = self.raw.strip_prefix('%')?.strip_suffix('%')?;
        (!inner.is_empty() && !inner.contains('%')).then_some(inner)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resolved)
    }
}

/// Everything that an INF says to one guest, returned by [`Inf::facts`](super::Inf::facts).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// File name on the media: `viostor.inf`.
    pub file_name: String,
    /// `Class`; empty if the INF gives the GUID alone.
    pub class: String,
    /// `ClassGuid`; where the INF leaves it out, the GUID of its well-known class.
    pub class_guid: Guid,
    /// `Provider` of `[Version]`: who publishes the package.
    pub provider: Text,
    /// Date of `DriverVer`, midnight UTC; zero without one.
    #[serde(skip)]
    pub driver_date: FileTime,
    /// Date of `DriverVer` as ISO 8601 text; empty without one.
    pub driver_date_text: String,
    /// Version of `DriverVer`; zeros without one.
    pub driver_version: [u16; 4],
    /// `CatalogFile` for this guest (decorated forms are preferred where they fit).
    pub catalog: Option<String>,
    /// `PnpLockdown=1`: Windows protects the driver's files against other programs.
    pub pnp_lockdown: bool,
    /// The models of the section that this guest would use, in the INF's order. Empty: the INF is not for this guest.
    pub models: Vec<Model>,
    /// The install sections that the models name, each once, in order of first use.
    pub installs: Vec<Install>,
    /// Files that the media must hold in the INF's folder (`SourceDisksFiles`, with their sub-folders), for this guest's CPU.
    pub source_files: Vec<String>,
    /// All strings for the guest (language-neutral section first, US English over it), by lower-case name.
    pub strings: BTreeMap<String, String>,
    /// Other INFs that `Include` names; their sections (`Needs`) come with Windows.
    pub includes: Vec<String>,
    /// Warnings about oddities in the INF, with line numbers.
    pub warnings: Vec<String>,
}

impl Facts {
    /// All hardware ids of all models, each once, in the INF's order: `PCI\VEN_1AF4&DEV_1001&…`.
    #[must_use]
    pub fn hardware_ids(&self) -> Vec<&str> {
        unique(self.models.iter().map(|m| m.hardware_id.as_str()))
    }

    /// All compatible ids of all models, each once, in the INF's order.
    #[must_use]
    pub fn compatible_ids(&self) -> Vec<&str> {
        unique(self.models.iter().flat_map(|m| m.compatible_ids.iter().map(String::as_str)))
    }

    /// The install section of a model.
    #[must_use]
    pub fn install_of(&self, model: &Model) -> Option<&Install> {
        self.installs.iter().find(|i| i.name.eq_ignore_ascii_case(&model.install))
    }

    /// All services, each once by name, those that a device binds to (`SPSVCINST_ASSOCSERVICE`) first.
    #[must_use]
    pub fn services(&self) -> Vec<&ServiceFacts> {
        let mut out: Vec<&ServiceFacts> = Vec::new();
        for associated in [true, false] {
            for service in self.installs.iter().flat_map(|i| &i.services) {
                if service.is_function_driver() == associated
                    && !out.iter().any(|s| s.name.eq_ignore_ascii_case(&service.name))
                {
                    out.push(service);
                }
            }
        }
        out
    }

    /// The service that the devices of this INF bind to: the first one.
    #[must_use]
    pub fn function_service(&self) -> Option<&ServiceFacts> {
        self.services().into_iter().find(|s| s.is_function_driver())
    }

    /// Names of the media's files that an installation in this guest copies, each once.
    #[must_use]
    pub fn copied_files(&self) -> Vec<&str> {
        let files = self.installs.iter().flat_map(|install| &install.copy_files);
        unique(files.map(CopyFile::source_name).map(|name| name.rsplit(['\\', '/']).next().unwrap_or(name)))
    }

    /// `DriverVer`'s version as text: `100.101.104.28500`.
    #[must_use]
    pub fn version_text(&self) -> String {
        let [a, b, c, d] = self.driver_version;
        format!("{a}.{b}.{c}.{d}")
    }
}

fn unique<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = std::collections::HashSet::new();
    texts.filter(|text| seen.insert(text.to_ascii_uppercase())).collect()
}

/// One line of a models section: a device and how to install it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Model {
    /// Left side of the line of `[Manufacturer]`.
    pub manufacturer: Text,
    /// Left side of the model's line: the device's name.
    pub description: Text,
    /// The install section as the model names it (`scsi_inst`): the name of the configuration.
    pub install: String,
    /// First id of the line.
    pub hardware_id: String,
    /// The other ids of the line.
    pub compatible_ids: Vec<String>,
    /// The models section with its decoration: `VirtioScsi.NTamd64.10.0...16299`.
    pub section: String,
    /// Line in the INF.
    pub line: u32,
}

/// One `DDInstall` section with the sections that it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Install {
    /// As models name it: `VirtioSerial_Device`.
    pub name: String,
    /// The section that Windows takes for this CPU: `VirtioSerial_Device.NT`.
    pub section: String,
    /// Files that are copied, with their destinations.
    pub copy_files: Vec<CopyFile>,
    /// `AddReg` of the section itself: the device's software key.
    pub software: Vec<RegValue>,
    /// `AddReg` of `.HW`: the device's hardware key.
    pub hardware: Vec<RegValue>,
    /// `AddService` directives, in order.
    pub services: Vec<ServiceFacts>,
    /// Which companion sections it has.
    pub companions: Companions,
    /// `FeatureScore`: how good the driver is among those that match equally well, 0 the best; 255 without one.
    pub feature_score: u8,
    /// Names of services that `AddService =` lines with nothing to install bind (`AddService = ,2`): a null driver.
    pub null_service: bool,
    /// `Include`/`Needs` of the section and of its companions, as written: `machine.inf: NO_DRV.Services`.
    pub needs: Vec<String>,
}

/// The companion sections of an install section: `<section>.HW` and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Companions {
    /// `.HW`: values of the device's hardware key.
    pub hardware: bool,
    /// `.Services`: the services that the device needs.
    pub services: bool,
    /// `.Interfaces`: device interfaces, which winject does not register.
    pub interfaces: bool,
    /// `.CoInstallers`: libraries that only the running Windows can call.
    pub co_installers: bool,
}

/// A file that an install section copies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyFile {
    /// Name at the destination.
    pub name: String,
    /// Name on the media, if another.
    pub source: String,
    /// Folder of the guest that the file is copied to.
    pub destination: DirPath,
    /// `COPYFLG_*` bits of the line; 0 without any.
    pub flags: u32,
}

impl CopyFile {
    /// Its name on the media.
    #[must_use]
    pub fn source_name(&self) -> &str {
        if self.source.is_empty() { &self.name } else { &self.source }
    }
}

/// A folder (or file) by directory id: `%12%\viostor.sys` is id 12 and the path `viostor.sys`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct DirPath {
    /// 10 = Windows, 11 = System32, 12 = System32\drivers, 13 = driver store; 0 = the path is absolute.
    pub dirid: u32,
    /// Path below it, with backslashes; may be empty.
    pub path: String,
}

impl DirPath {
    /// The name without its folders: `viostor.sys`.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.path.rsplit(['\\', '/']).next().unwrap_or_default()
    }
}

/// One `AddService` directive and its service-install section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceFacts {
    /// Name of the service, as written: `VirtioSerial`.
    pub name: String,
    /// `SPSVCINST_*`; bit 1 (`2`): the function driver of the devices.
    pub flags: u32,
    /// `ServiceType`: 1 kernel driver, 2 file system driver, 0x10 own process …
    pub kind: u32,
    /// `StartType`: 0 boot, 1 system, 2 automatic, 3 demand, 4 disabled.
    pub start: u32,
    /// `ErrorControl`: 0 ignore, 1 normal, 2 severe, 3 critical.
    pub error_control: u32,
    /// `LoadOrderGroup`: `SCSI miniport` for disk controllers.
    pub group: Option<String>,
    /// `ServiceBinary`: the service's file, without its arguments.
    pub binary: DirPath,
    /// Arguments of a service program, which follow the path in `ServiceBinary`.
    pub arguments: String,
    /// `DisplayName`: what the services console shows.
    pub display_name: Option<Text>,
    /// `Description` of the service, for the services console.
    pub description: Option<Text>,
    /// `Dependencies`: services and groups (`+NDIS`) that start before.
    pub dependencies: Vec<String>,
    /// `StartName`: the account that a service program runs in.
    pub start_name: Option<String>,
    /// `AddReg` of the service section: values of the key `Services\<name>`.
    pub registry: Vec<RegValue>,
    /// The event-log section of the directive.
    pub event_log: Option<EventLogFacts>,
    /// Line of the `AddService` directive.
    pub line: u32,
}

impl ServiceFacts {
    /// Whether the devices bind to this service (`SPSVCINST_ASSOCSERVICE`).
    #[must_use]
    pub fn is_function_driver(&self) -> bool {
        self.flags & 2 != 0
    }

    /// A DWORD of the service's `AddReg`, for instance `dword("Parameters", "BusType")`.
    #[must_use]
    pub fn dword(&self, subkey: &str, name: &str) -> Option<u32> {
        let value = self
            .registry
            .iter()
            .rev()
            .find(|v| v.subkey.eq_ignore_ascii_case(subkey) && v.name.eq_ignore_ascii_case(name))?;
        Some(u32::from_le_bytes(value.data.bytes.as_slice().try_into().ok()?))
    }
}

/// The event-log part of `AddService`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventLogFacts {
    /// `System` unless the directive names another log.
    pub log: String,
    /// The service's name unless the directive names another source.
    pub source: String,
    /// Values of the key `Services\EventLog\<log>\<source>`.
    pub registry: Vec<RegValue>,
}

/// Where the subkey of an `AddReg` line starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum RegRoot {
    /// `HKCR`: `HKEY_CLASSES_ROOT`, file types and COM classes.
    ClassesRoot,
    /// `HKCU`: `HKEY_CURRENT_USER`, the user who installs.
    CurrentUser,
    /// `HKLM`: `HKEY_LOCAL_MACHINE`, SYSTEM and SOFTWARE among others.
    LocalMachine,
    /// `HKU`: `HKEY_USERS`, all loaded users.
    Users,
    /// `HKR`: relative to the key that the section is for (service, device, driver, event source).
    Relative,
}

/// How an `AddReg` line changes the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum RegAction {
    /// Sets the value, whatever was there.
    Set,
    /// Sets it only if there is none (`FLG_ADDREG_NOCLOBBER`).
    SetIfAbsent,
    /// Sets it only if it exists (`FLG_ADDREG_OVERWRITEONLY`).
    OverwriteOnly,
    /// Appends to a `REG_MULTI_SZ` (`FLG_ADDREG_APPEND`).
    Append,
    /// Creates the key alone (`FLG_ADDREG_KEYONLY`); `name` and `data` are empty.
    KeyOnly,
    /// Deletes the value (`FLG_ADDREG_DELVAL`), or the key without a name.
    Delete,
}

/// One line of an `AddReg` section, ready for a hive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegValue {
    /// The key that `subkey` is relative to.
    pub root: RegRoot,
    /// Key below the root, with backslashes; may be empty.
    pub subkey: String,
    /// Name of the value; empty: the default value.
    pub name: String,
    /// How the value is written or deleted.
    pub action: RegAction,
    /// What the value is set to.
    pub data: RegistryData,
    /// Line in the INF.
    pub line: u32,
}
