//! Recommends a virtual machine that fits the guest.

use super::fields::Recommendation;
use crate::drivers::{Package, Selection};
use crate::partition::{PartitionTable, Scheme};
use crate::windows::{Firmware, Guest};

/// PCI ids of network adapters of virtio, transitional and modern (virtio 1.2, "PCI Device Discovery").
const NETWORK: &[&str] = &["VEN_1AF4&DEV_1000", "VEN_1AF4&DEV_1041"];

/// Devices with a driver on virtio media, by their PCI ids.
const DEVICES: &[(&[&str], &str)] = &[
    (NETWORK, "network virtio"),
    (&["VEN_1AF4&DEV_1002", "VEN_1AF4&DEV_1045"], "virtio-balloon"),
    (&["VEN_1AF4&DEV_1005", "VEN_1AF4&DEV_1044"], "virtio-rng"),
    (&["VEN_1AF4&DEV_1003", "VEN_1AF4&DEV_1043"], "virtio-serial"),
    (&["VEN_1AF4&DEV_1049", "VEN_1AF4&DEV_105A"], "virtio-fs"),
    (&["VEN_1AF4&DEV_1050"], "virtio-gpu"),
    (&["VEN_1B36&DEV_0100"], "qxl"),
    (&["VEN_1AF4&DEV_1052"], "virtio-input"),
];

/// Build of Windows 8, which is as a rule installed on machines with PCI Express and UEFI.
const MODERN_BUILD: u32 = 9200;

/// Whether a hardware id belongs to this PCI device.
fn names_device(id: &str, device: &str) -> bool {
    let id = id.to_ascii_uppercase();
    id.strip_prefix("PCI\\")
        .and_then(|id| id.strip_prefix(device))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('&'))
}

/// Recommends buses and devices for which the guest has a driver now.
pub(crate) fn recommend(guest: &Guest, table: &PartitionTable, selection: &Selection) -> Recommendation {
    let services: Vec<String> = selection.boot_packages().map(|(_, boot)| boot.service.to_ascii_lowercase()).collect();
    let has = |service: &str| services.iter().any(|name| name == service);
    let mut buses = Vec::new();
    if has("viostor") {
        buses.push("virtio-blk");
    }
    if has("vioscsi") {
        buses.push("virtio-scsi");
    }
    let drives = |package: &Package, devices: &[&str]| {
        package.inf.hardware_ids().iter().any(|id| devices.iter().any(|device| names_device(id, device)))
    };
    // Windows refuses a package with a wrong signature
    let offers = |devices: &[&str]| selection.packages.iter().any(|p| is_signed(p) && drives(p, devices));
    let mut notes: Vec<String> = selection
        .packages
        .iter()
        .filter(|p| !is_signed(p) && p.boot.is_none())
        .filter_map(|p| {
            let (_, device) = DEVICES.iter().find(|(devices, _)| drives(p, devices))?;
            Some(format!(
                "{device} only when Windows has taken the package {}, whose signature is not in order",
                p.driver
            ))
        })
        .collect();
    let old = guest.major < 6;
    let logical_block_size = (table.sector != 512).then_some(table.sector);
    if let Some(size) = logical_block_size {
        notes.push(format!(
            "the disk has sectors of {size} bytes: give it logical_block_size={size},physical_block_size={size}; attached \
             with blocks of 512 bytes it will not start"
        ));
    }
    Recommendation {
        bus: buses.first().copied().unwrap_or(if old { "ide" } else { "sata" }),
        buses,
        net_model: match (offers(NETWORK), old) {
            (true, _) => "virtio",
            (false, true) => "rtl8139",
            (false, false) => "e1000e",
        },
        machine: if table.scheme == Scheme::Gpt || guest.build >= MODERN_BUILD { "q35" } else { "pc" },
        // The usual case; the boot check finds out, see `set_firmware`.
        firmware: match table.scheme {
            Scheme::Gpt => "uefi",
            Scheme::Mbr => "bios",
            Scheme::Bare => {
                if guest.build >= MODERN_BUILD {
                    "uefi"
                } else {
                    "bios"
                }
            }
        },
        clock: if guest.clock_is_utc { "utc" } else { "localtime" },
        extra_devices: DEVICES
            .iter()
            .filter(|(devices, _)| *devices != NETWORK && offers(devices))
            .map(|(_, device)| *device)
            .collect(),
        logical_block_size,
        notes,
    }
}

impl Recommendation {
    /// Sets the firmware that the boot chain was followed with; `None`: no disk shows which one it is.
    pub(super) fn set_firmware(&mut self, firmware: Option<Firmware>) {
        match firmware {
            Some(firmware) => {
                self.firmware = firmware.name();
                if firmware == Firmware::Uefi {
                    self.machine = "q35";
                }
            }
            None => self.notes.push(format!(
                "the firmware is a guess ({}): no given disk shows it; take that of the machine that the volume comes from",
                self.firmware
            )),
        }
    }
}

/// Whether the signatures of a package are good: that of the catalogue, and that of a driver that is registered offline.
pub(super) fn is_signed(package: &Package) -> bool {
    let has_good_file = package.boot.as_ref().is_none_or(|boot| boot.signature.is_good());
    // A package without an INF has no catalogue, only the signature of its file.
    has_good_file && (package.inf_name.is_empty() || package.signature.is_good())
}
