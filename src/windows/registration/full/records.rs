//! What Windows writes about a package, as a pure function of its INF.
//!
//! There are two forms. Packages of the classes that plug and play may need before user mode runs (controllers, buses,
//! keyboards: what the SYSTEM hive of an installed Windows holds) are *configured*: the records say for each device id
//! which install section serves it, and hold what that section writes. All other packages are *staged*: the records say
//! which ids the package knows, and Windows installs it from the driver store when such a device shows up.

use std::collections::BTreeSet;

use crate::drivers::inf::{Companions, Install, RegAction, RegRoot, RegValue, ServiceFacts, Text};
use crate::drivers::{Arch, Facts};
use crate::hive::{RegistryData, ValueType};
use crate::windows::registration::driver_database::{ROOT, version_record};

/// `StatusFlags` of an installed package in real hives.
const STATUS_INSTALLED: u32 = 0x12;
/// `SignerScore` of a package signed by its publisher in a real hive.
const SCORE_PUBLISHER: u32 = 0x0F00_0000;
/// `SignerScore` of a package signed by Microsoft's hardware program in real hives.
const SCORE_HARDWARE_PROGRAM: u32 = 0x0D00_0005;
/// The signer of that program.
const HARDWARE_PROGRAM: &str = "Microsoft Windows Hardware Compatibility Publisher";
/// Set in the type of a value that the INF sets only if it is absent, or appends.
const TYPE_CONDITIONAL: u32 = 0x2_0000;
/// First build whose records have a `ConfigScope` and an `ImportDate` (Windows 10; the hive of 8.1 has neither).
const BUILD_SCOPE: u32 = 10240;
/// Last build whose records are known to name no catalogue (Windows 10 1709; 1909 does).
const BUILD_WITHOUT_CATALOGUE: u32 = 16299;

/// Names of one package in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The name under which Windows keeps the INF: `oem7.inf`.
    pub oem: String,
    /// Its folder in the driver store: `viostor.inf_amd64_0123456789abcdef`.
    pub package: String,
}

/// Facts about a package that its INF does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The CPU that it is registered for.
    pub arch: Arch,
    /// The folder that it came from, as the guest sees it.
    pub folder: String,
    /// The signer found in its catalogue, whose list fits the files.
    pub signer: Option<String>,
}

/// How much is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// All that binds a device: SYSTEM.
    Configured,
    /// Only what plug and play needs to find the package: DRIVERS.
    Staged,
}

/// Values below a hive's root: key, name, data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// Values as key, name and data, in the order of writing.
    pub values: Vec<(String, String, RegistryData)>,
    /// Keys that must be there even without values.
    pub keys: Vec<String>,
}

impl Records {
    fn set(&mut self, key: &str, name: &str, data: RegistryData) {
        self.values.push((key.to_owned(), name.to_owned(), data));
    }
}

/// `%Token%` as the records write it, or the text itself; the token is noted for `Strings`.
fn described(text: &Text, tokens: &mut BTreeSet<String>) -> String {
    match text.token() {
        Some(token) => {
            let token = token.to_lowercase();
            tokens.insert(token.clone());
            format!("%{token}%")
        }
        None => text.resolved.clone(),
    }
}

/// The records of a package in `DriverDatabase`, as the Windows of that build writes them.
#[must_use]
pub fn records(facts: &Facts, names: &Names, origin: &Origin, form: Form, build: u32) -> Records {
    let mut out = Records::default();
    let Names { oem, package } = names;

    let files = format!("{ROOT}\\DriverInfFiles\\{oem}");
    out.set(&files, "", RegistryData::multi_sz(&[package]));
    out.set(&files, "Active", RegistryData::sz(package));

    let base = format!("{ROOT}\\DriverPackages\\{package}");
    let version = version_record(origin.arch, facts.class_guid, facts.driver_date, facts.driver_version);
    out.set(&base, "", RegistryData::sz(oem));
    out.set(&base, "Version", RegistryData::binary(version));
    out.set(&base, "Provider", RegistryData::sz(&facts.provider.resolved));
    out.set(&base, "InfName", RegistryData::sz(&facts.file_name));
    out.set(&base, "OemPath", RegistryData::sz(&origin.folder));
    if let Some(catalog) = facts.catalog.as_ref().filter(|_| build > BUILD_WITHOUT_CATALOGUE) {
        out.set(&base, "Catalog", RegistryData::sz(catalog));
    }
    if let Some(signer) = &origin.signer {
        let score = if signer == HARDWARE_PROGRAM { SCORE_HARDWARE_PROGRAM } else { SCORE_PUBLISHER };
        out.set(&base, "SignerName", RegistryData::sz(signer));
        out.set(&base, "SignerScore", RegistryData::dword(score));
    }
    if build >= BUILD_SCOPE {
        // the day of the driver, not of the run: a second run must write the same
        out.set(&base, "ImportDate", RegistryData::binary(facts.driver_date.0.to_le_bytes()));
    }
    out.set(&base, "StatusFlags", RegistryData::dword(STATUS_INSTALLED));
    device_ids(&mut out, facts, names);

    if form == Form::Configured {
        let configurations: Vec<&Install> = facts.installs.iter().filter(|install| serves(facts, install)).collect();
        let sections: Vec<&str> = configurations.iter().map(|install| install.section.as_str()).collect();
        out.set(&files, "Configurations", RegistryData::multi_sz(&sections));
        for install in &configurations {
            configuration(&mut out, facts, &base, install, build);
        }
        descriptors(&mut out, facts, &base);
    }
    out
}

/// Whether some model is installed by this section.
fn serves(facts: &Facts, install: &Install) -> bool {
    facts.models.iter().any(|model| model.install.eq_ignore_ascii_case(&install.name))
}

/// `ConfigScope`: which sections the configuration has. 1 stands for the install section itself.
fn scope(companions: Companions) -> u32 {
    let Companions { hardware, services, interfaces, co_installers } = companions;
    1 | u32::from(hardware) << 1 | u32::from(services) << 2 | u32::from(interfaces) << 3 | u32::from(co_installers) << 8
}

/// The records of one install section, below `Configurations`.
fn configuration(out: &mut Records, facts: &Facts, base: &str, install: &Install, build: u32) {
    let key = format!("{base}\\Configurations\\{}", install.section);
    let service = install.services.iter().find(|service| service.is_function_driver());
    if install.companions.services {
        out.set(&key, "Service", RegistryData::sz(service.map_or("", |service| &service.name)));
    }
    if build >= BUILD_SCOPE {
        out.set(&key, "ConfigScope", RegistryData::dword(scope(install.companions)));
    }
    if !facts.includes.is_empty() {
        out.set(&key, "IncludedInfs", RegistryData::multi_sz(&facts.includes));
    }
    out.set(&key, "ConfigFlags", RegistryData::dword(0));
    for line in &install.hardware {
        // filters of the device are values of the configuration itself
        let is_filter = line.subkey.is_empty()
            && ["UpperFilters", "LowerFilters"].iter().any(|name| line.name.eq_ignore_ascii_case(name));
        if is_filter {
            out.set(&key, &line.name, line.data.clone());
        } else {
            stored(out, &format!("{key}\\Device"), line);
        }
    }
    for line in &install.software {
        stored(out, &format!("{key}\\Driver"), line);
    }
    for service in &install.services {
        for line in &service.registry {
            stored(out, &format!("{key}\\Services\\{}", service.name), line);
        }
    }
}

/// One `AddReg` line as a configuration stores it.
fn stored(out: &mut Records, base: &str, line: &RegValue) {
    if line.root != RegRoot::Relative {
        return;
    }
    let key = if line.subkey.is_empty() { base.to_owned() } else { format!("{base}\\{}", line.subkey) };
    let kind = match line.action {
        RegAction::KeyOnly => {
            out.keys.push(key);
            return;
        }
        RegAction::Delete => return,
        RegAction::Set => line.data.kind,
        RegAction::SetIfAbsent | RegAction::OverwriteOnly | RegAction::Append => {
            ValueType(line.data.kind.0 | TYPE_CONDITIONAL)
        }
    };
    out.set(&key, &line.name, RegistryData { kind, bytes: line.data.bytes.clone() });
}

/// `DeviceIds`: for each id the INF, with the kind of the match (1 hardware id, 2 compatible id), the feature score and
/// the place among the compatible ids; for the class the INF alone.
fn device_ids(out: &mut Records, facts: &Facts, names: &Names) {
    let mut best: Vec<(&str, [u8; 4])> = Vec::new();
    for model in &facts.models {
        let score = facts.install_of(model).map_or(u8::MAX, |install| install.feature_score);
        let compatible = model.compatible_ids.iter().enumerate().map(|(at, id)| {
            let [low, high] = u16::try_from(at).unwrap_or(u16::MAX).to_le_bytes();
            (id.as_str(), [2, score, low, high])
        });
        let hardware = (model.hardware_id.as_str(), [1, score, 0, 0]);
        for (id, rank) in std::iter::once(hardware).chain(compatible).filter(|(id, _)| !id.is_empty()) {
            match best.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(id)) {
                Some((_, known)) => *known = (*known).min(rank),
                None => best.push((id, rank)),
            }
        }
    }
    for (id, rank) in best {
        out.set(&format!("{ROOT}\\DeviceIds\\{id}"), &names.oem, RegistryData::binary(rank));
    }
    let class = facts.class_guid.braced().to_lowercase();
    out.set(&format!("{ROOT}\\DeviceIds\\{class}"), &names.oem, RegistryData::none());
}

/// `Descriptors` and the `Strings` that they name.
fn descriptors(out: &mut Records, facts: &Facts, base: &str) {
    let mut tokens = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for model in &facts.models {
        let section = facts.install_of(model).map_or(&model.install, |install| &install.section);
        let manufacturer = described(&model.manufacturer, &mut tokens);
        let description = described(&model.description, &mut tokens);
        for id in std::iter::once(&model.hardware_id).chain(&model.compatible_ids).filter(|id| !id.is_empty()) {
            if !seen.insert(id.to_uppercase()) {
                continue;
            }
            let key = format!("{base}\\Descriptors\\{id}");
            out.set(&key, "Configuration", RegistryData::sz(section));
            out.set(&key, "Manufacturer", RegistryData::sz(&manufacturer));
            out.set(&key, "Description", RegistryData::sz(&description));
        }
    }
    for token in tokens {
        if let Some(text) = facts.strings.get(&token) {
            out.set(&format!("{base}\\Strings"), &token, RegistryData::sz(text));
        }
    }
}

/// Where a service's program is, as its `ImagePath` says: relative for what the boot loader reads, below `\SystemRoot`
/// for what the kernel loads later.
#[must_use]
pub fn image_path(service: &ServiceFacts, names: &Names) -> String {
    let path = &service.binary.path;
    let below = match service.binary.dirid {
        10 => path.clone(),
        11 => format!("System32\\{path}"),
        12 => format!("System32\\drivers\\{path}"),
        13 => format!("System32\\DriverStore\\FileRepository\\{}\\{path}", names.package),
        _ => return path.clone(),
    };
    let is_driver = service.kind & 0x0B != 0;
    match (is_driver, service.start) {
        (true, 0) => below,
        (true, _) => format!("\\SystemRoot\\{below}"),
        (false, _) => format!("%SystemRoot%\\{below}"),
    }
}

/// A text of the INF as a service's value refers to it.
fn referred(text: &Text, names: &Names) -> RegistryData {
    match text.token() {
        Some(token) => RegistryData::sz(&format!("@{},%{token}%;{}", names.oem, text.resolved)),
        None => RegistryData::sz(&text.resolved),
    }
}

/// The values of a service's own key; what its `AddReg` writes is added separately. `Tag` is not among them: Windows
/// assigns it by what else is in the group.
#[must_use]
pub fn service_values(service: &ServiceFacts, names: &Names) -> Vec<(&'static str, RegistryData)> {
    let mut out = vec![
        ("Type", RegistryData::dword(service.kind)),
        ("Start", RegistryData::dword(service.start)),
        ("ErrorControl", RegistryData::dword(service.error_control)),
        ("ImagePath", RegistryData::expand_sz(&image_path(service, names))),
    ];
    out.extend(service.display_name.as_ref().map(|text| ("DisplayName", referred(text, names))));
    out.extend(service.description.as_ref().map(|text| ("Description", referred(text, names))));
    out.extend(service.group.as_ref().map(|group| ("Group", RegistryData::sz(group))));
    if !service.dependencies.is_empty() {
        out.push(("DependOnService", RegistryData::multi_sz(&service.dependencies)));
    }
    out.extend(service.start_name.as_ref().map(|name| ("ObjectName", RegistryData::sz(name))));
    out.push(("Owners", RegistryData::multi_sz(&[&names.oem])));
    out
}
