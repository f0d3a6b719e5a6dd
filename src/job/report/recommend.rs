//! Recommends a virtual machine that fits the guest.

use super::fields::Recommendation;
use crate::drivers::{Package, ProductType, Selection};
use crate::partition::{PartitionTable, Scheme};
use crate::windows::{AdapterKind, BootCheck, Firmware, Guest};

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

/// Build of the first Windows 11, which asks for a TPM.
const TPM_BUILD: u32 = 22000;

/// How the signers are called whose drivers start with Secure Boot on.
const MICROSOFT: &str = "Microsoft Windows";

/// Whether a hardware id belongs to this PCI device.
fn names_device(id: &str, device: &str) -> bool {
    let id = id.to_ascii_uppercase();
    id.strip_prefix("PCI\\")
        .and_then(|id| id.strip_prefix(device))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('&'))
}

fn drives(ids: &[&str], devices: &[&str]) -> bool {
    ids.iter().any(|id| devices.iter().any(|device| names_device(id, device)))
}

/// Recommends buses and devices for which the guest has a driver now.
pub(crate) fn recommend(guest: &Guest, table: &PartitionTable, selection: &Selection) -> Recommendation {
    let services: Vec<String> = selection.boot_packages().map(|(_, boot)| boot.service.to_ascii_lowercase()).collect();
    let has = |service: &str| services.iter().any(|name| name == service);
    let buses = [("viostor", "virtio-blk"), ("vioscsi", "virtio-scsi")];
    let buses = buses.into_iter().filter(|(service, _)| has(service)).map(|(_, bus)| bus).collect();
    let package_drives = |package: &Package, devices: &[&str]| drives(&package.inf.hardware_ids(), devices);
    // Windows refuses a package with a wrong signature
    let offers = |devices: &[&str]| selection.packages.iter().any(|p| is_signed(p) && package_drives(p, devices));
    let unsigned = selection.packages.iter().filter(|p| !is_signed(p) && p.boot.is_none());
    let notes = unsigned.filter_map(|p| {
        let (_, device) = DEVICES.iter().find(|(devices, _)| package_drives(p, devices))?;
        Some(format!("{device} only when Windows has taken the package {}, whose signature is not in order", p.driver))
    });
    let is_of_microsoft = |package: &&Package| {
        let signature = package.boot.as_ref().map(|boot| &boot.signature);
        let signer = signature.filter(|signature| signature.is_good()).and_then(|signature| signature.signer.as_ref());
        signer.is_some_and(|signer| signer.starts_with(MICROSOFT))
    };
    let mut boot = selection.packages.iter().filter(|package| package.boot.is_some()).peekable();
    let secure = boot.peek().is_some() && boot.all(|package| is_of_microsoft(&package));
    let notes = notes.collect();
    Facts { guest, table, buses, secure, notes }.recommend(&offers)
}

/// Recommends a machine for a guest as it is: the buses from which it boots, and the devices of these hardware ids.
pub(crate) fn recommend_for(
    guest: &Guest,
    table: &PartitionTable,
    ids: &[String],
    answers: &[BootCheck],
) -> Recommendation {
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let buses = answers.iter().filter(|answer| answer.boots).map(|answer| answer.bus.name()).collect();
    let notes = Vec::new();
    let mut machine = Facts { guest, table, buses, secure: false, notes }.recommend(&|devices| drives(&ids, devices));
    if machine.firmware == "uefi" {
        machine.notes.push("Secure Boot is off: who has signed the guest's boot drivers was not looked at".to_owned());
    }
    machine
}

/// What a recommendation follows from.
struct Facts<'a> {
    guest: &'a Guest,
    table: &'a PartitionTable,
    /// The virtio buses with a driver, best first.
    buses: Vec<&'static str>,
    /// Whether every boot driver starts with Secure Boot on.
    secure: bool,
    notes: Vec<String>,
}

impl Facts<'_> {
    /// `offers` tells whether there is a driver for one of these PCI devices.
    fn recommend(self, offers: &dyn Fn(&[&str]) -> bool) -> Recommendation {
        let Self { guest, table, buses, secure, mut notes } = self;
        let old = guest.major < 6;
        let logical_block_size = (table.sector != 512).then_some(table.sector);
        if let Some(size) = logical_block_size {
            notes.push(format!(
                "the disk has sectors of {size} bytes: give it logical_block_size={size},physical_block_size={size}; attached \
                 with blocks of 512 bytes it will not start"
            ));
        }
        let hardware = guest.network.adapters.iter().filter(|a| a.ghost.is_none() && a.kind == AdapterKind::Hardware);
        let macs = hardware.filter_map(|adapter| adapter.mac.map(|mac| mac.address.to_string()));
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
            secure_boot: secure && table.scheme == Scheme::Gpt && guest.build >= MODERN_BUILD,
            tpm: guest.build >= TPM_BUILD && guest.product_type == ProductType::WinNt && table.scheme == Scheme::Gpt,
            mac_addresses: macs.collect(),
            logical_block_size,
            notes,
        }
    }
}

impl Recommendation {
    /// Sets the firmware that the boot chain was followed with; `None`: no disk shows which one it is.
    pub(super) fn set_firmware(&mut self, firmware: Option<Firmware>) {
        match firmware {
            Some(firmware) => {
                self.firmware = firmware.name();
                match firmware {
                    Firmware::Uefi => self.machine = "q35",
                    Firmware::Bios => (self.secure_boot, self.tpm) = (false, false),
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
