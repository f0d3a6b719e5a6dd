//! The virtio disk controllers that QEMU shows, and the ids that plug and play makes of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of virtio disk that the guest is to boot from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Bus {
    /// A controller for each disk (QEMU: `virtio-blk-pci`), driver viostor.
    VirtioBlk,
    /// A SCSI controller (QEMU: `virtio-scsi-pci`), driver vioscsi.
    VirtioScsi,
}

impl Bus {
    /// Every bus that winject prepares a guest for.
    pub const ALL: [Self; 2] = [Self::VirtioBlk, Self::VirtioScsi];

    /// Its name on the command line and in JSON: `virtio-blk`, `virtio-scsi`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::VirtioBlk => "virtio-blk",
            Self::VirtioScsi => "virtio-scsi",
        }
    }

    /// The forms in which QEMU shows the controller: transitional on conventional PCI slots (machine type `pc`),
    /// modern on PCI Express ports (`q35`).
    #[must_use]
    pub fn controllers(self) -> &'static [Controller] {
        match self {
            Self::VirtioBlk => &BLK,
            Self::VirtioScsi => &SCSI,
        }
    }
}

impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a controller's PCI registers say (virtio specification 1.2, 4.1.2; vendor 0x1AF4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Controller {
    /// Name of this form in the virtio specification: `transitional` or `modern`.
    pub name: &'static str,
    /// PCI device id (register 0x02).
    pub device: u16,
    /// Subsystem device id; the subsystem vendor is 0x1AF4.
    pub subsystem: u16,
    /// PCI revision id (register 0x08).
    pub revision: u8,
    /// Class, subclass and programming interface.
    pub class: u32,
}

const BLK: [Controller; 2] = [
    Controller { name: "transitional", device: 0x1001, subsystem: 0x0002, revision: 0, class: 0x01_00_00 },
    Controller { name: "modern", device: 0x1042, subsystem: 0x1100, revision: 1, class: 0x01_00_00 },
];
const SCSI: [Controller; 2] = [
    Controller { name: "transitional", device: 0x1004, subsystem: 0x0008, revision: 0, class: 0x01_00_00 },
    Controller { name: "modern", device: 0x1048, subsystem: 0x1100, revision: 1, class: 0x01_00_00 },
];

impl Controller {
    /// The most specific id.
    #[must_use]
    pub fn id(&self) -> String {
        let Self { device, subsystem, revision, .. } = self;
        format!("PCI\\VEN_1AF4&DEV_{device:04X}&SUBSYS_{subsystem:04X}1AF4&REV_{revision:02X}")
    }

    /// All ids by which plug and play looks for a driver, best first: the hardware ids, then the compatible ids
    /// ("Identifiers for PCI Devices" of Microsoft's driver documentation).
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        let Self { device, subsystem, revision, class, .. } = self;
        let base = format!("PCI\\VEN_1AF4&DEV_{device:04X}");
        let (long, short) = (format!("CC_{class:06X}"), format!("CC_{:04X}", class >> 8));
        vec![
            self.id(),
            format!("{base}&SUBSYS_{subsystem:04X}1AF4"),
            format!("{base}&{long}"),
            format!("{base}&{short}"),
            format!("{base}&REV_{revision:02X}"),
            base,
            format!("PCI\\VEN_1AF4&{long}"),
            format!("PCI\\VEN_1AF4&{short}"),
            "PCI\\VEN_1AF4".to_owned(),
            format!("PCI\\{long}"),
            format!("PCI\\{short}"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_modern_block_device() {
        let ids = Bus::VirtioBlk.controllers()[1].ids();
        assert_eq!(ids[0], "PCI\\VEN_1AF4&DEV_1042&SUBSYS_11001AF4&REV_01");
        assert_eq!(ids[4], "PCI\\VEN_1AF4&DEV_1042&REV_01");
        assert_eq!(ids[5], "PCI\\VEN_1AF4&DEV_1042");
        assert_eq!(ids[10], "PCI\\CC_0100");
    }
}
