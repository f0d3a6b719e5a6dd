//! The full registration against what Windows itself wrote about a third-party boot driver: the records of VMware's
//! `vmci.inf` in a real SYSTEM hive. The INF below states the facts of that driver in our own words; what follows from
//! them must come out with the same keys, value names, types and bytes.

use std::collections::BTreeMap;

use winject::drivers::inf::Inf;
use winject::drivers::{Arch, GuestTarget};
use winject::hive::reader::{Node, Reader};
use winject::windows::full::{Names, Origin, records};

use crate::support;

const VMCI: &str = r#"
[Version]
Signature = "$Windows NT$"
Class = System
ClassGuid = {4d36e97d-e325-11ce-bfc1-08002be10318}
Provider = %loc.VMwareManufacturer%
DriverVer = 07/11/2019,9.8.16.0
CatalogFile = vmci.cat

[Manufacturer]
%loc.VMwareManufacturer% = Models,NTamd64

[Models.NTamd64]
%loc.VMwareBusDeviceDesc% = vmci.install.x64,PCI\VEN_15AD&DEV_0740&SUBSYS_074015AD,PCI\VEN_15AD&DEV_0740
%loc.VMwareHostDeviceDesc% = vmci.install.x64,ROOT\VMWVMCIHOSTDEV

[vmci.install.x64.NT]
CopyFiles = copy

[copy]
vmci.sys

[DestinationDirs]
copy = 12

[vmci.install.x64.NT.Services]
AddService = vmci,2,service

[vmci.install.x64.NT.HW]
AddReg = hardware

[hardware]
HKR,Interrupt Management,0x00000010
HKR,Interrupt Management\MessageSignaledInterruptProperties,0x00000010
HKR,Interrupt Management\MessageSignaledInterruptProperties,MSISupported,0x00010001,1
HKR,Interrupt Management\MessageSignaledInterruptProperties,MessageNumberLimit,0x00010001,2

[service]
DisplayName = %loc.vmciServiceDisplayName%
ServiceType = 1
StartType = 0
ErrorControl = 0
ServiceBinary = %12%\vmci.sys
LoadOrderGroup = System Bus Extender
AddReg = installers

[installers]
HKR,,vwdk.installers,0x00010008,"Windows"

[Strings]
loc.VMwareManufacturer = "VMware, Inc."
loc.VMwareBusDeviceDesc = "VMware VMCI Bus Device"
loc.VMwareHostDeviceDesc = "VMware VMCI Host Device"
loc.vmciServiceDisplayName = "VMware VMCI Bus Driver"
"#;

/// Path and name in lower case → type and bytes.
type Values = BTreeMap<(String, String), (u32, Vec<u8>)>;

fn collect(node: &Node<'_>, path: &str, out: &mut Values) {
    for value in node.values().unwrap() {
        out.insert((path.to_lowercase(), value.name.to_string().to_lowercase()), (value.kind.0, value.data));
    }
    for sub in node.subkeys().unwrap() {
        let name = sub.name().unwrap().to_string();
        if name != "Properties" {
            collect(&sub, &format!("{path}\\{name}"), out);
        }
    }
}

/// A hive whose sequence numbers say "dirty" and that has no logs, as Windows would take it.
fn equalised(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.copy_within(4..8, 8);
    let sum = bytes[..508].chunks_exact(4).fold(0u32, |sum, w| sum ^ u32::from_le_bytes(w.try_into().unwrap()));
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn full_registration_equals_what_windows_wrote() {
    let Some(bytes) = support::corpus_bytes("hives/win10-1909/SYSTEM.xz") else { return };
    let bytes = equalised(bytes);
    let hive = Reader::open(&bytes).unwrap();
    let package = "vmci.inf_amd64_5e38a278d114b813";
    let mut real = Values::new();
    for key in [
        "DriverDatabase\\DriverInfFiles\\oem2.inf".to_string(),
        format!("DriverDatabase\\DriverPackages\\{package}"),
        "DriverDatabase\\DeviceIds\\PCI\\VEN_15AD&DEV_0740".to_owned(),
        "DriverDatabase\\DeviceIds\\PCI\\VEN_15AD&DEV_0740&SUBSYS_074015AD".to_owned(),
        "DriverDatabase\\DeviceIds\\Root\\VMWVMCIHOSTDEV".to_owned(),
    ] {
        collect(&hive.key(&key).unwrap().unwrap(), &key, &mut real);
    }
    let class = "DriverDatabase\\DeviceIds\\{4d36e97d-e325-11ce-bfc1-08002be10318}";
    let value = hive.key(class).unwrap().unwrap().value("oem2.inf").unwrap().unwrap();
    real.insert((class.to_lowercase(), "oem2.inf".to_owned()), (value.kind.0, value.data));

    let inf = Inf::parse(VMCI.as_bytes(), "vmci.inf").unwrap();
    let facts = inf.facts(&GuestTarget::new(Arch::Amd64, 10, 0, 18362, false)).unwrap();
    let names = Names { oem: "oem2.inf".to_owned(), package: package.to_owned() };
    let origin = Origin {
        folder: "C:\\Program Files\\Common Files\\VMware\\Drivers\\vmci\\device\\Win8".to_owned(),
        signer: Some("Microsoft Windows Hardware Compatibility Publisher".to_owned()),
    };
    let made = records(&facts, &names, &origin);
    let ours: Values = made
        .values
        .into_iter()
        .map(|(key, name, data)| ((key.to_lowercase(), name.to_lowercase()), (data.kind, data.bytes)))
        .collect();

    let ours_keys: Vec<_> = ours.keys().collect();
    let real_keys: Vec<_> = real.keys().collect();
    assert_eq!(ours_keys, real_keys, "the same keys and value names");
    // when it was imported, and by whom it was judged: not in the INF
    let of_the_run = ["importdate", "signerscore"];
    for (place, (kind, data)) in &real {
        let (our_kind, our_data) = &ours[place];
        assert_eq!((our_kind, our_data.len()), (kind, data.len()), "{place:?}");
        if !of_the_run.contains(&place.1.as_str()) {
            assert_eq!(our_data, data, "{place:?}");
        }
    }
}
