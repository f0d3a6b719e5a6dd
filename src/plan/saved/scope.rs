//! What a saved plan may touch: the places that winject's own plans touch, and no others.
//!
//! The edits decide what they mean to Windows, and a plan is applied because somebody trusts it. The scope bounds what
//! such trust can cost: no plan replaces the kernel, empties a service or writes to a user's folder.

use super::edit::SavedEdit;
use super::replaceable::{below_control_set, is_replaceable, is_replacement};
use crate::drivers::Arch;
use crate::drivers::trust::STORE_KEY;
use crate::guid::Guid;
use crate::hive::{RegistryData, ValueType};
use crate::plan::boot::{BOOT_MANAGER, fallback_loader};
use crate::plan::change::{Access, GuestHive};

/// winject's own folder in the guest.
const OWN: &str = "/hyper2kvm";
/// The system's catalogue folder, below `System32`.
const CATALOGUES: &str = "catroot/{f750e6c3-38ee-11d1-85e5-00c04fc295ee}";
/// The driver store, below `System32`.
const STORE: &str = "driverstore/filerepository";
/// The key with `DevicePath`, in SOFTWARE.
const CURRENT_VERSION: &str = "microsoft\\windows\\currentversion";
/// Where SYSTEM and DRIVERS keep packages.
const DATABASE: &str = "driverdatabase";

/// Elements of the boot configuration that winject sets or removes: no graphics mode, test signing.
const BOOT_FLAGS: [&str; 2] = ["16000046", "16000049"];
/// Largest flag in bytes; Windows writes 1.
const FLAG_BYTES_MAX: usize = 8;

/// The scope for one guest. Places are compared in lower case, of ASCII only: Windows takes no letter outside of it for one
/// of ours, as other tables do (the Kelvin sign for a `k`).
pub(crate) struct Scope<'a> {
    /// `System32`, in lower case.
    system: String,
    /// `INF`, in lower case.
    inf: String,
    /// Paths of the user's files, as the plan lists and the review shows them.
    uploads: &'a [String],
}

impl<'a> Scope<'a> {
    pub(crate) fn new(windows_folder: &str) -> Self {
        let windows = windows_folder.to_ascii_lowercase();
        Self { system: format!("{windows}/system32"), inf: format!("{windows}/inf"), uploads: &[] }
    }

    /// The same, with files of the user. Each is listed by its path, which was judged.
    pub(super) fn with_uploads(self, uploads: &'a [String]) -> Self {
        Self { uploads, ..self }
    }

    /// Whether winject writes a file of this path.
    pub(crate) fn allows_file(&self, path: &str) -> bool {
        self.has_file(path)
    }

    /// Whether winject writes this value.
    pub(crate) fn allows_value(hive: GuestHive, key: &str, name: &str) -> bool {
        has_value(hive, &key.to_ascii_lowercase(), name)
    }

    /// Whether winject makes this of a value of the guest's own, which `winject remove` brings back.
    pub(crate) fn allows_replaced(
        hive: GuestHive,
        key: &str,
        name: &str,
        data: Option<&RegistryData>,
        before: Option<&RegistryData>,
    ) -> bool {
        is_replaceable(hive, &key.to_ascii_lowercase(), name, data, before)
    }

    /// Whether winject removes this key when it injects.
    pub(crate) fn allows_removed_key(hive: GuestHive, key: &str) -> bool {
        has_removable_key(hive, &key.to_ascii_lowercase())
    }

    /// Why the edit is out of scope.
    pub(super) fn judge(&self, edit: &SavedEdit) -> Result<(), String> {
        let is_inside = match edit {
            SavedEdit::CreateDir { path, access: Access::Inherited } => {
                let below = format!("{path}/");
                self.uploads.iter().any(|upload| upload.starts_with(&below))
            }
            // A file of the user is new: none of the guest's is replaced.
            SavedEdit::WriteFile { path, access: Access::Inherited, before, .. } if !self.is_driver(path) => {
                before.is_none() && self.uploads.contains(path)
            }
            SavedEdit::CreateDir { path, access } => self.has_folder(path) && self.has_access(path, access),
            SavedEdit::WriteFile { path, access, .. } => self.has_file(path) && self.has_access(path, access),
            SavedEdit::Protect { path, .. } => is_own(&path.to_ascii_lowercase()),
            SavedEdit::DeleteFile { path, .. } => self.has_removable(path),
            SavedEdit::CopyBootFile { path, from, .. } => {
                let is_loader = |arch| *path == fallback_loader(arch);
                from == BOOT_MANAGER && [Arch::Amd64, Arch::X86, Arch::Arm64].into_iter().any(is_loader)
            }
            SavedEdit::SetValue { hive: GuestHive::Bcd, key, name, data, before } => {
                let is_flag =
                    |data: &RegistryData| data.kind == ValueType::BINARY && data.bytes.len() <= FLAG_BYTES_MAX;
                has_value(GuestHive::Bcd, &key.to_ascii_lowercase(), name)
                    && is_flag(data)
                    && before.as_ref().is_none_or(is_flag)
            }
            SavedEdit::CreateKey { hive, key } => has_key(*hive, &key.to_ascii_lowercase()),
            SavedEdit::SetValue { hive, key, name, data, before } => {
                let key = key.to_ascii_lowercase();
                has_value(*hive, &key, name) || is_replacement(*hive, &key, name, Some(data), before.as_ref())
            }
            SavedEdit::DeleteValue { hive, key, name, before } => {
                let key = key.to_ascii_lowercase();
                (matches!(hive, GuestHive::Drivers | GuestHive::System) && has_key(*hive, &key))
                    || is_replacement(*hive, &key, name, None, before.as_ref())
            }
            SavedEdit::DeleteKey { hive, key, .. } => has_removable_key(*hive, &key.to_ascii_lowercase()),
        };
        if is_inside { Ok(()) } else { Err("winject makes no such edit in this place".to_owned()) }
    }

    /// The part of a path below a folder of `System32`.
    fn below<'p>(&self, path: &'p str, folder: &str) -> Option<&'p str> {
        path.strip_prefix(self.system.as_str())?.strip_prefix('/')?.strip_prefix(folder)?.strip_prefix('/')
    }

    fn has_folder(&self, path: &str) -> bool {
        let path = path.to_ascii_lowercase();
        let is_above = |folder: &str| {
            let full = format!("{}/{folder}", self.system);
            full == path
                || full
                    .strip_prefix(path.as_str())
                    .is_some_and(|rest| rest.starts_with('/') && path.len() > self.system.len())
        };
        is_own(&path) || is_above(CATALOGUES) || is_above(STORE) || self.below(&path, STORE).is_some()
    }

    fn has_file(&self, path: &str) -> bool {
        let is_driver = self.is_driver(path);
        let path = path.to_ascii_lowercase();
        (is_own(&path) && path != OWN) || is_driver || self.is_package_file(&path)
    }

    /// A file in the folder that the loader takes drivers from.
    fn is_driver(&self, path: &str) -> bool {
        self.below(&path.to_ascii_lowercase(), "drivers").is_some_and(|name| name.ends_with(".sys"))
    }

    /// A file of an installed package, in lower case.
    fn is_package_file(&self, path: &str) -> bool {
        let inf = path.strip_prefix(self.inf.as_str()).and_then(|rest| rest.strip_prefix('/'));
        inf.is_some_and(|name| is_oem(name, ".inf"))
            || self.below(path, CATALOGUES).is_some_and(|name| is_oem(name, ".cat"))
            || self.below(path, STORE).is_some_and(|rest| rest.contains('/'))
    }

    /// Markers of ours, and what an earlier package left; a folder of the driver store with it.
    fn has_removable(&self, path: &str) -> bool {
        let path = path.to_ascii_lowercase();
        (is_own(&path) && path != OWN) || self.is_package_file(&path) || self.below(&path, STORE).is_some()
    }

    /// What is ours is protected, a driver's file gets what Windows hands down in its folder, and the rest is like its
    /// neighbours. So no plan opens a driver's file to other users.
    fn has_access(&self, path: &str, access: &Access) -> bool {
        match access {
            Access::Protected => is_own(&path.to_ascii_lowercase()),
            Access::Inherited => self.is_driver(path),
            Access::Like(sample) => {
                let sample = sample.to_ascii_lowercase();
                let store = format!("{}/{STORE}", self.system);
                let is_neighbour = [&self.system, &self.inf, &store].into_iter().any(|one| *one == sample);
                is_neighbour && !self.is_driver(path) && !is_own(&path.to_ascii_lowercase())
            }
        }
    }
}

/// Whether a path in lower case is winject's own folder or below it.
pub(super) fn is_own(path: &str) -> bool {
    path.strip_prefix(OWN).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether this is a text in winject's own folder that the first-boot job runs or obeys: a reviewer has to see it.
pub(super) fn is_script_of_job(path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    let is_staged = path.strip_prefix(OWN).is_some_and(|rest| rest.starts_with("/drivers/"));
    is_own(&path) && !is_staged && [".cmd", ".bat", ".ps1", ".job"].iter().any(|ending| path.ends_with(ending))
}

/// `oem`, digits and this ending.
fn is_oem(name: &str, ending: &str) -> bool {
    let number = name.strip_prefix("oem").and_then(|rest| rest.strip_suffix(ending));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_in_database(key: &str) -> bool {
    key.strip_prefix(DATABASE).is_some_and(|rest| rest.is_empty() || rest.starts_with('\\'))
}

/// Whether keys are created, and values written, at this key in lower case.
fn has_key(hive: GuestHive, key: &str) -> bool {
    match hive {
        GuestHive::Bcd => is_boot_flag(key),
        GuestHive::Drivers => is_in_database(key),
        GuestHive::System => {
            let in_set = matches!(
                below_control_set(key).as_deref(),
                Some(["services", _, ..] | ["control", "criticaldevicedatabase", _])
            );
            in_set || is_in_database(key)
        }
        GuestHive::Software => {
            let files = format!("{CURRENT_VERSION}\\setup\\pnplockdownfiles\\");
            key.strip_prefix(files.as_str()).is_some_and(|rest| !rest.is_empty())
        }
    }
}

/// Whether a key in lower case is an element of the boot configuration that winject edits: a flag of an object.
fn is_boot_flag(key: &str) -> bool {
    let is_guid = |id: &str| Guid::parse(id).is_some_and(|guid| guid.braced().eq_ignore_ascii_case(id));
    matches!(key.split('\\').collect::<Vec<_>>().as_slice(),
        ["objects", id, "elements", flag] if is_guid(id) && BOOT_FLAGS.contains(flag))
}

fn has_value(hive: GuestHive, key: &str, name: &str) -> bool {
    let is_of_software = |key: &str| {
        let certificate =
            key.strip_prefix(STORE_KEY.to_ascii_lowercase().as_str()).and_then(|rest| rest.strip_prefix('\\'));
        (key == CURRENT_VERSION && name.eq_ignore_ascii_case("DevicePath"))
            || (certificate.is_some_and(|rest| !rest.contains('\\')) && name.eq_ignore_ascii_case("Blob"))
    };
    if hive == GuestHive::Bcd {
        return has_key(hive, key) && name.eq_ignore_ascii_case("Element");
    }
    has_key(hive, key) || (hive == GuestHive::Software && is_of_software(key))
}

/// Keys that winject removes: what keeps a service from starting, and an earlier package. Never a service.
fn has_removable_key(hive: GuestHive, key: &str) -> bool {
    if hive == GuestHive::Bcd {
        return is_boot_flag(key);
    }
    let is_package =
        matches!(key.split('\\').collect::<Vec<_>>().as_slice(), [DATABASE, "driverpackages" | "driverinffiles", _]);
    let is_override = hive == GuestHive::System
        && matches!(below_control_set(key).as_deref(), Some(["services", _, "startoverride"]));
    is_override || (is_package && hive != GuestHive::Software)
}
