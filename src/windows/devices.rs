//! The devices for which a guest has drivers: installed, or staged for its first boot.

use super::guest_files::GuestFiles;
use super::guest_paths;
use super::inspect::guest::Guest;
use super::inspect::installation::Hives;
use super::registry;
use crate::drivers::inf::{Inf, SIZE_MAX};
use crate::error::Result;
use crate::plan::GuestHive;

/// Services of virtio-win's drivers, and a device that each of them serves.
const SERVICES: [(&str, &str); 9] = [
    ("netkvm", "PCI\\VEN_1AF4&DEV_1000"),
    ("balloon", "PCI\\VEN_1AF4&DEV_1002"),
    ("virtrng", "PCI\\VEN_1AF4&DEV_1005"),
    ("virtioserial", "PCI\\VEN_1AF4&DEV_1003"),
    ("virtiofsdrv", "PCI\\VEN_1AF4&DEV_105A"),
    ("viogpudo", "PCI\\VEN_1AF4&DEV_1050"),
    ("qxldod", "PCI\\VEN_1B36&DEV_0100"),
    ("qxl", "PCI\\VEN_1B36&DEV_0100"),
    ("virtioinput", "PCI\\VEN_1AF4&DEV_1052"),
];

/// Most staged packages, and most files of one, that are looked at.
const PACKAGES_MAX: usize = 256;

/// `Start` of a disabled service.
const DISABLED: u32 = 4;

/// Hardware ids of devices for which the guest has a driver, as far as its services and the packages that winject has
/// staged tell.
///
/// # Errors
/// When volume or hive are damaged there.
pub fn driven_devices(files: &dyn GuestFiles, guest: &Guest, hives: &Hives) -> Result<Vec<String>> {
    let mut out = Vec::new();
    if let Some(system) = hives.get(&GuestHive::System) {
        for (service, id) in SERVICES {
            let key = format!("{}\\Services\\{service}", guest.current_control_set());
            if registry::get_u32(system, &key, "Start")?.is_some_and(|start| start != DISABLED) {
                out.push(id.to_owned());
            }
        }
    }
    for folder in files.folders(guest_paths::STAGE)?.into_iter().take(PACKAGES_MAX) {
        let folder = format!("{}/{folder}", guest_paths::STAGE);
        let names = files.file_names(&folder)?;
        for name in names.into_iter().filter(|name| name.to_ascii_lowercase().ends_with(".inf")).take(PACKAGES_MAX) {
            let Some(bytes) = files.read(&format!("{folder}/{name}"), SIZE_MAX as u64)? else { continue };
            // An INF that cannot be read serves no device.
            let facts = Inf::parse(&bytes, &name).and_then(|inf| inf.facts(&guest.target()));
            out.extend(facts.iter().flat_map(|facts| facts.hardware_ids()).map(str::to_owned));
        }
    }
    Ok(out)
}
