//! The device ids under which a boot driver is registered.

use crate::drivers::{BootDriver, Facts};

/// An id with how well it matches and what installs the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootId {
    /// The id as plug and play writes it: `PCI\VEN_1AF4&DEV_1001&SUBSYS_00021AF4&REV_00`.
    pub id: String,
    /// Whether it is a hardware id (the first of a model's line), not a compatible id.
    pub is_hardware: bool,
    /// The model's install section: the name of the configuration.
    pub configuration: String,
}

impl BootId {
    /// The 4 bytes of a `DeviceIds` value.
    #[must_use]
    pub fn rank(&self) -> [u8; 4] {
        [if self.is_hardware { 1 } else { 2 }, 0xff, 0, 0]
    }

    /// As a key below `CriticalDeviceDatabase`: one name, so `\` becomes `#`.
    #[must_use]
    pub fn critical_name(&self) -> String {
        self.id.replace('\\', "#")
    }
}

/// `PCI\VEN_v&DEV_d&SUBSYS_s&REV_r` without its subsystem: other makers of the same device put their own vendor there.
#[must_use]
pub fn without_subsystem(id: &str) -> Option<String> {
    let (head, tail) = id.split_once("&SUBSYS_")?;
    let revision = tail.split_once("&REV_")?.1;
    Some(format!("{head}&REV_{revision}"))
}

/// Every id under which `boot` has to be found: those of the INF, those that a definition adds, and each hardware id
/// without its subsystem. Each once; a hardware id wins over a compatible one.
#[must_use]
pub fn boot_ids(facts: &Facts, boot: &BootDriver) -> Vec<BootId> {
    let first = facts.models.first().map_or("h2k_inst", |m| m.install.as_str());
    let of_model = |id: &str| {
        let names = |m: &&crate::drivers::inf::Model| {
            m.hardware_id.eq_ignore_ascii_case(id) || m.compatible_ids.iter().any(|c| c.eq_ignore_ascii_case(id))
        };
        facts.models.iter().find(names).map_or(first, |m| m.install.as_str()).to_owned()
    };
    let mut out: Vec<BootId> = Vec::new();
    let mut add = |id: String, is_hardware, configuration: String| {
        if !out.iter().any(|o| o.id.eq_ignore_ascii_case(&id)) {
            out.push(BootId { id, is_hardware, configuration });
        }
    };
    for id in &boot.hardware_ids {
        add(id.clone(), true, of_model(id));
    }
    for id in &boot.hardware_ids {
        if let Some(short) = without_subsystem(id) {
            add(short, true, of_model(id));
        }
    }
    for id in &boot.compatible_ids {
        add(id.clone(), false, of_model(id));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_without_subsystem() {
        assert_eq!(
            without_subsystem("PCI\\VEN_1AF4&DEV_1001&SUBSYS_00021AF4&REV_00").as_deref(),
            Some("PCI\\VEN_1AF4&DEV_1001&REV_00")
        );
        assert_eq!(without_subsystem("PCI\\VEN_1AF4&DEV_1001"), None);
        assert_eq!(without_subsystem("PCI\\VEN_1AF4&DEV_1001&SUBSYS_00021AF4"), None);
    }

    #[test]
    fn bytes_and_names() {
        let id = BootId { id: "PCI\\VEN_1AF4&DEV_1042".to_owned(), is_hardware: false, configuration: String::new() };
        assert_eq!(id.rank(), [2, 0xff, 0, 0]);
        assert_eq!(id.critical_name(), "PCI#VEN_1AF4&DEV_1042");
    }
}
