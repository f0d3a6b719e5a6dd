//! `DevicePath`: the folders in which Windows looks for drivers of new devices.

use crate::error::Result;
use crate::hive::{RegistryData, ValueType};
use crate::plan::GuestHive;
use crate::windows::guest_paths;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::{Action, DevicePathRecord};
use crate::windows::registry;

/// The key in SOFTWARE.
pub const KEY: &str = "Microsoft\\Windows\\CurrentVersion";
/// The value with the list of folders, separated by semicolons.
pub const NAME: &str = "DevicePath";
/// What Windows has by default; device installation breaks without it.
const DEFAULT: &str = "%SystemRoot%\\inf";

/// `current` with `folders` appended, each once. Folders are compared without case and without trailing backslashes.
#[must_use]
pub fn append_folders(current: &str, folders: &[String]) -> String {
    let plain = |text: &str| text.trim().trim_end_matches('\\').to_lowercase();
    let current = if current.trim_matches([';', ' ']).is_empty() { DEFAULT } else { current };
    let has = |folder: &&String| current.split(';').any(|part| plain(part) == plain(folder));
    let missing: Vec<&str> = folders.iter().filter(|folder| !has(folder)).map(String::as_str).collect();
    if missing.is_empty() {
        return current.to_owned();
    }
    format!("{};{}", current.trim_end_matches(';'), missing.join(";"))
}

/// `current` without the folders `tops` and those below them; the rest is as it was.
#[must_use]
pub fn remove_folders(current: &str, tops: &[String]) -> String {
    let is_own = |part: &str| {
        let part = part.trim().trim_end_matches('\\').to_lowercase();
        tops.iter()
            .map(|top| top.to_lowercase())
            .any(|top| part.strip_prefix(top.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('\\')))
    };
    current.split(';').filter(|part| !is_own(part)).collect::<Vec<_>>().join(";")
}

/// Appends the staging folder and those of the packages, as no document says that sub-folders are searched.
///
/// # Errors
/// When the hive is damaged.
pub fn extend_device_path(builder: &mut PlanBuilder<'_>, stage_names: &[String]) -> Result<DevicePathRecord> {
    let software = GuestHive::Software;
    let present = registry::get_value(builder.hive(software)?, KEY, NAME)?;
    let original = present.as_ref().and_then(RegistryData::as_text);
    if present.is_some() && original.is_none() {
        builder.add_note("DevicePath is not a string in this guest; it is left as it is");
        return Ok(DevicePathRecord::default());
    }
    // a plain string is not expanded by Windows, so it gets plain text
    let is_plain = present.as_ref().is_some_and(|data| data.kind == ValueType::SZ);
    let stage = if is_plain {
        let drive = builder.guest.system_root.get(..2).unwrap_or("C:");
        guest_paths::STAGE_IN_SCRIPT.replace("%SystemDrive%", drive)
    } else {
        guest_paths::STAGE_IN_SCRIPT.to_owned()
    };
    let mut folders = vec![stage.clone()];
    folders.extend(stage_names.iter().map(|name| format!("{stage}\\{name}")));
    let known = original.as_deref().filter(|text| !text.trim_matches([';', ' ']).is_empty());
    let default = if is_plain { format!("{}\\inf", builder.guest.system_root) } else { DEFAULT.to_owned() };
    let new = append_folders(known.unwrap_or(&default), &folders);
    builder.set_reason("DevicePath: where Windows looks for drivers of new devices");
    let kind = if is_plain { ValueType::SZ } else { ValueType::EXPAND_SZ };
    let action = builder.set_value(software, KEY, NAME, RegistryData::text(kind, &new))?;
    Ok(DevicePathRecord { modified: action != Action::Unchanged, original, new })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_once_and_keeps_what_is_there() {
        let stage = vec!["%SystemDrive%\\hyper2kvm\\drivers\\virtio".to_owned()];
        let once = append_folders("%SystemRoot%\\inf", &stage);
        assert_eq!(once, "%SystemRoot%\\inf;%SystemDrive%\\hyper2kvm\\drivers\\virtio");
        assert_eq!(append_folders(&once, &stage), once);
        let odd = "%SystemRoot%\\inf;%systemdrive%\\HYPER2KVM\\drivers\\virtio\\;";
        assert_eq!(append_folders(odd, &stage), odd);
        assert_eq!(append_folders("", &[]), "%SystemRoot%\\inf");
        assert_eq!(remove_folders(&once, &stage), "%SystemRoot%\\inf");
        let between =
            "%systemdrive%\\HYPER2KVM\\drivers\\virtio\\viostor; D:\\a ;;%SystemDrive%\\hyper2kvm\\drivers\\virtio2;";
        assert_eq!(remove_folders(between, &stage), " D:\\a ;;%SystemDrive%\\hyper2kvm\\drivers\\virtio2;");
    }
}
