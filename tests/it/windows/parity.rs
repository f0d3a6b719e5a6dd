//! The full registration against what Windows itself wrote about third-party packages: every package of four real SYSTEM
//! hives (Windows 8.1, 10 1709, 10 1909, 10 20H2). The INFs below state the facts of those packages in our own words;
//! what follows from an INF must come out with the same keys, value names, types, lengths and bytes. What does not
//! follow from it stands in each package's table of differences, with the reason; a line of the table that is not
//! needed fails the test as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use winject::internals::drivers::inf::{Inf, RegAction, RegRoot};
use winject::internals::drivers::{Arch, Facts, GuestTarget};
use winject::internals::hive::reader::{Node, Reader};
use winject::internals::windows::registration::full::{Form, Names, Origin, records, service_values};

use crate::support;

const EXAMPLES: &str = "registry/driver-database-examples.txt";
const HARDWARE_PROGRAM: &str = "Microsoft Windows Hardware Compatibility Publisher";
const VMWARE: &str = "C:\\Program Files\\Common Files\\VMware\\Drivers\\";
const UPDATE: &str = "C:\\Windows\\SoftwareDistribution\\Download\\Install";

/// A real hive: where its section of the examples begins, the Windows build, and the corpus file, if that hive is there.
#[derive(Debug, Clone, Copy)]
struct Source {
    title: &'static str,
    build: u32,
    hive: Option<&'static str>,
}

const WINDOWS_8_1: Source = Source { title: "hives/dfwinreg/SYSTEM ", build: 9600, hive: None };
const W10_1709: Source =
    Source { title: "hives/regipy/SYSTEM_B ", build: 16299, hive: Some("hives/win10-1709-dirty/SYSTEM.xz") };
const W10_1909: Source =
    Source { title: "hives/regipy/SYSTEM_WIN_10_1709 ", build: 18362, hive: Some("hives/win10-1909/SYSTEM.xz") };
const W10_20H2: Source = Source { title: "hives/dissect.regf/SYSTEM ", build: 19041, hive: None };

/// One package of one hive.
struct Case {
    source: Source,
    package: &'static str,
    oem: &'static str,
    inf_name: &'static str,
    folder: String,
    signer: &'static str,
    inf: String,
    /// The hardware ids whose devices this machine has: Windows writes configurations for those alone, winject (which
    /// does not know the machine to come) for all. Empty: only staged.
    bound: &'static [&'static str],
    services: &'static [&'static str],
    /// Part of a place → why it cannot be the same.
    differs: Vec<(&'static str, &'static str)>,
}

/// The `[Version]` and `[Manufacturer]` sections of a test INF.
fn head(class: &str, provider: &str, version: &str, catalogue: &str) -> String {
    format!(
        "[Version]\nSignature=\"$Windows NT$\"\nClassGuid={class}\nProvider={provider}\nDriverVer={version}\n\
         CatalogFile={catalogue}\n[Manufacturer]\n{provider}=Models,NTamd64\n[Models.NTamd64]\n"
    )
}

const SYSTEM: &str = "{4d36e97d-e325-11ce-bfc1-08002be10318}";
const MOUSE: &str = "{4d36e96f-e325-11ce-bfc1-08002be10318}";

const STATUS: (&str, &str) = ("statusflags", "the state of the package on that machine, not of its INF");
const VERSION_END: (&str, &str) =
    (":version", "the last eight bytes of Version, zero in most packages, tell something that no INF says");
const SPELLING: (&str, &str) = ("imagepath", "the spelling of the folder, which is free: system32\\DRIVERS");
const RECONFIGURE: [(&str, &str); 3] = [
    ("\\configurations\\", "this package waits for its configuration (StatusFlags has bit 2): the records come later"),
    ("\\descriptors\\", "the same"),
    ("\\strings", "the same"),
];

fn vbox(version: &str) -> String {
    head(SYSTEM, "\"Oracle Corporation\"", version, "VBoxGuest.cat")
        + "%VBoxGuest_devdesc%=VBoxGuest_Install,PCI\\VEN_80ee&DEV_cafe\n[VBoxGuest_Install]\n\
           [VBoxGuest_Install.Services]\nAddService=VBoxGuest,2,service\n[service]\n\
           DisplayName=%VBoxGuest_svcdesc%\nServiceType=1\nStartType=0\nErrorControl=1\nLoadOrderGroup=Base\n\
           ServiceBinary=%12%\\VBoxGuest.sys\n[Strings]\nVBoxGuest_devdesc=\"VirtualBox Device\"\n\
           VBoxGuest_svcdesc=\"VirtualBox Guest Driver\"\n"
}

fn iwdbus() -> String {
    head(SYSTEM, "\"Intel Corporation\"", "06/08/2015,4.5.61.0", "iwdbus.cat")
        .replace("\"Intel Corporation\"=M", "%StdMfg%=M")
        + "%iwdbus.DeviceDesc%=IWDBus_Device,Root\\iwdbus\n[IWDBus_Device.NT]\n[IWDBus_Device.NT.HW]\n\
           [IWDBus_Device.NT.CoInstallers]\n[IWDBus_Device.NT.Services]\nAddService=iwdbus,2,service\n[service]\n\
           DisplayName=%iwdbus.SVCDESC%\nServiceType=1\nStartType=3\nErrorControl=1\nLoadOrderGroup=Extended Base\n\
           ServiceBinary=%12%\\iwdbus.sys\n[Strings]\nStdMfg=\"(Standard system devices)\"\n\
           iwdbus.DeviceDesc=\"IWD Bus Enumerator\"\niwdbus.SVCDESC=\"IWD Bus Enumerator\"\n"
}

fn st_accel() -> String {
    let mut out = head(SYSTEM, "STMicroelectronics", "10/07/2016,2.2.3.13", "st_accel.cat");
    for id in ["8800", "8810", "8820", "8830", "8840", "8850", "8860"] {
        let _ = writeln!(out, "%d%=ST_Accel,ACPI\\SMO{id}");
    }
    out + "[ST_Accel.NT]\n[ST_Accel.NT.HW]\n[ST_Accel.NT.Services]\nAddService=ST_Accel,2,service\n[service]\n\
           DisplayName=%ST_Accel.SVCDESC%\nServiceType=1\nStartType=3\nErrorControl=1\n\
           ServiceBinary=%12%\\ST_Accel.sys\n[Strings]\nd=\"Accelerometer\"\n\
           ST_Accel.SVCDESC=\"STMicroelectronics Accelerometer Service\"\n"
}

fn dellrbtn() -> String {
    head("{745a17a0-74d3-11d0-b6fe-00a0c90f57da}", "\"Dell Inc\"", "10/26/2016,17.38.40.165", "dellrbtn.cat")
        .replace("\"Dell Inc\"=M", "%Vendor%=M")
        + "%DellRbtn%=DellRbtn.Inst.win8,ACPI\\DELLABCE\n%DellRbtn%=DellRbtn.Inst.win8,ACPI\\DELRBTN\n\
           %CustomCollection%=customCollection.Inst,HID\\VEN_DELL&DEV_ABCE\n\
           [DellRbtn.Inst.win8.NT]\n[DellRbtn.Inst.win8.NT.HW]\nAddReg=filter\n[filter]\n\
           HKR,,UpperFilters,0x00010000,mshidkmdf\n[DellRbtn.Inst.win8.NT.Services]\n\
           AddService=DellRbtn,2,service\n[service]\nDisplayName=%DellRbtn%\nServiceType=1\nStartType=3\n\
           ErrorControl=0\nServiceBinary=%12%\\DellRbtn.sys\n\
           [customCollection.Inst.NT]\n[customCollection.Inst.NT.HW]\nAddReg=suspend\n[suspend]\n\
           HKR,,SelectiveSuspendEnabled,0x00000001,1\n[customCollection.Inst.NT.Services]\nAddService=,2\n\
           [Strings]\nVendor=\"Dell Inc\"\nDellRbtn=\"Airplane Mode Switch\"\n\
           CustomCollection=\"Airplane Mode Switch Collection\"\n"
}

fn apfiltr() -> String {
    let mut out = head(MOUSE, "Alps", "06/23/2015,10.1207.101.103", "apfiltr.cat");
    let ids = "AUI0000 DLL0532 DLL0533 DLL0534 DLL0535 DLL053C DLL053D DLL053E DLL053F DLL0549 DLL054A DLL057D DLL0584 \
               DLL05BC DLL05BD DLL05BE DLL05CA DLL05CB DLL05CC DLL05CD DLL05DC DLL05DD DLL05DE DLL05E0 DLL061F DLL062A \
               DLL062B DLL062C DLL062D DLL062E DLL062F DLL0644 DLL0645 DLL0646 DLL0648 DLL0649 DLL0684 DLL06D9 DLL06DA \
               DLL06DB DLL06DC DLL06DD DLL06DE DLL06DF DLL06E0 DLL070C DLL071B";
    for id in ids.split_whitespace() {
        let _ = writeln!(out, "%d%=MouFilter_Inst_W10_Dell_E4_01,ACPI\\{id}");
    }
    out + "[MouFilter_Inst_W10_Dell_E4_01.nt]\n[MouFilter_Inst_W10_Dell_E4_01.nt.Services]\n\
           AddService=ApfiltrService,,service\nAddService=ApHidMonitorService,,monitor\n[service]\n\
           DisplayName=%Filter.SvcDesc%\nServiceType=1\nStartType=3\nErrorControl=0\nLoadOrderGroup=Pointer Port\n\
           ServiceBinary=%12%\\Apfiltr.sys\n[monitor]\nDisplayName=%HidMonitor.SvcDisp%\n\
           Description=%HidMonitor.SvcDesc%\nServiceType=0x10\nStartType=2\nErrorControl=1\nStartName=LocalSystem\n\
           ServiceBinary=%16422%\\DellTPad\\HidMonitorSvc.exe\n[Strings]\nd=\"Pad\"\n\
           Filter.SvcDesc=\"Alps Touch Pad Filter Driver for Windows x64\"\n\
           HidMonitor.SvcDisp=\"Alps HID Monitor Service\"\nHidMonitor.SvcDesc=\"Monitor HID device for Alps\"\n"
}

fn nvstusb() -> String {
    let mut out = head("{36fc9e60-c465-11cf-8056-444553540000}", "NVIDIA", "12/29/2016,6.14.13.6904", "nvstusb.cat");
    for id in ["0007", "7001", "7002", "7003", "7004", "7008", "7009", "700A", "700C", "700D&MI_00", "700E&MI_00"] {
        let _ = writeln!(out, "%d%=Install,USB\\VID_0955&PID_{id}");
    }
    out + "[Install]\n[Strings]\nd=\"Stereo\"\n"
}

fn heci() -> String {
    let mut out = head(SYSTEM, "Intel", "03/28/2016,11.0.5.1189", "heci.cat").replace("Intel=M", "%MfgName%=M");
    for id in ["1C3A", "1CBA", "1D3A", "1DBA", "1E3A", "8C3A", "8CBA", "8D3A", "9C3A", "9CBA", "9D3A", "A13A"] {
        let _ = writeln!(out, "%TEE_DeviceDesc%=TEE_DDI_W10_x64,PCI\\VEN_8086&DEV_{id}");
    }
    out + "[TEE_DDI_W10_x64]\n[TEE_DDI_W10_x64.HW]\nAddReg=msi\n[msi]\n\
           HKR,\"Interrupt Management\\MessageSignaledInterruptProperties\",MSISupported,0x00010001,1\n\
           [TEE_DDI_W10_x64.Services]\nAddService=MEIx64,2,service\n[service]\nDisplayName=%TEE_SvcDesc%\n\
           ServiceType=1\nStartType=3\nErrorControl=1\nLoadOrderGroup=Extended Base\n\
           ServiceBinary=%12%\\TeeDriverW8x64.sys\nAddReg=parameters\n[parameters]\n\
           HKR,Parameters,WdTimerTic,0x00010001,120\n\
           HKR,Parameters,BusClients,0x00010000,\"{27B961DB-3057-49BB-BD0D-ACA9FD8FF697}\"\n[Strings]\n\
           MfgName=\"Intel\"\nTEE_DeviceDesc=\"Intel(R) Management Engine Interface \"\n\
           TEE_SvcDesc=\"Intel(R) Management Engine Interface \"\n"
}

fn vmci() -> String {
    head(SYSTEM, "%loc.VMwareManufacturer%", "07/11/2019,9.8.16.0", "vmci.cat")
        + "%loc.VMwareBusDeviceDesc%=vmci.install.x64,PCI\\VEN_15AD&DEV_0740&SUBSYS_074015AD,PCI\\VEN_15AD&DEV_0740\n\
           %loc.VMwareHostDeviceDesc%=vmci.install.x64,ROOT\\VMWVMCIHOSTDEV\n\
           [vmci.install.x64.NT]\n[vmci.install.x64.NT.HW]\nAddReg=hardware\n[hardware]\n\
           HKR,Interrupt Management,0x00000010\n\
           HKR,Interrupt Management\\MessageSignaledInterruptProperties,0x00000010\n\
           HKR,Interrupt Management\\MessageSignaledInterruptProperties,MSISupported,0x00010001,1\n\
           HKR,Interrupt Management\\MessageSignaledInterruptProperties,MessageNumberLimit,0x00010001,2\n\
           [vmci.install.x64.NT.Services]\nAddService=vmci,2,service\n[service]\n\
           DisplayName=%loc.vmciServiceDisplayName%\nServiceType=1\nStartType=0\nErrorControl=0\n\
           ServiceBinary=%12%\\vmci.sys\nLoadOrderGroup=System Bus Extender\nAddReg=installers\n[installers]\n\
           HKR,,vwdk.installers,0x00010008,\"Windows\"\n[Strings]\nloc.VMwareManufacturer=\"VMware, Inc.\"\n\
           loc.VMwareBusDeviceDesc=\"VMware VMCI Bus Device\"\nloc.VMwareHostDeviceDesc=\"VMware VMCI Host Device\"\n\
           loc.vmciServiceDisplayName=\"VMware VMCI Bus Driver\"\n"
}

fn vmusbmouse() -> String {
    let zero = |section: &str, path: &str, names: &str| {
        let lines = names.split_whitespace().map(|name| format!("HKR,{path},{name},0x00010001,0\n"));
        format!("[{section}]\n{}", lines.collect::<String>())
    };
    head(MOUSE, "%VMUsbMouse.Mfg%", "07/11/2019,12.5.10.0", "vmusbmouse.cat")
        + "%VMUsbMouse.SvcDesc%=VMUsbMouse,HID\\VID_0E0F&PID_0003&MI_00\n\
           %VMUsbMouse.SvcDesc%=VMUsbMouse,HID\\VID_0E0F&PID_0003&MI_01\n\
           [VMUsbMouse]\nInclude=msmouse.inf\n[VMUsbMouse.HW]\nAddReg=filter,wheel\n[filter]\n\
           HKR,,UpperFilters,0x00010000,VMUsbMouse\n[VMUsbMouse.Services]\nAddService=mouhid,2,mouhid\n\
           AddService=VMUsbMouse,,service\n[mouhid]\nServiceType=1\nStartType=3\nErrorControl=0\n\
           ServiceBinary=%12%\\mouhid.sys\nAddReg=mice\n[service]\nDisplayName=%VMUsbMouse.SvcDesc%\nServiceType=1\n\
           StartType=3\nErrorControl=0\nLoadOrderGroup=Pointer Port\nServiceBinary=%12%\\vmusbmouse.sys\n[Strings]\n\
           VMUsbMouse.Mfg=\"VMware, Inc.\"\nVMUsbMouse.SvcDesc=\"VMware USB Pointing Device\"\n"
        + &zero(
            "wheel",
            "",
            "FlipFlopWheel ForceAbsolute HScrollPageOverride HScrollUsageOverride HScrollHighResolutionDisable \
             VScrollPageOverride VScrollUsageOverride VScrollHighResolutionDisable FlipFlopHScroll",
        )
        + &zero("mice", "Parameters", "UseOnlyMice TreatAbsoluteAsRelative TreatAbsolutePointerAsAbsolute")
}

fn vmmouse() -> String {
    head(MOUSE, "%VMMouse.Mfg%", "07/11/2019,12.5.10.0", "vmmouse.cat")
        + "%VMMouse.SvcDesc%=VMMouse,*VMW0003,*PNP0F03\n%VMMouse.SvcDesc%=VMMouse,*VMW0003,*PNP0F13\n\
           [VMMouse]\nInclude=msmouse.inf,keyboard.inf\nFeatureScore=FE\nAddReg=location\n[location]\n\
           HKR,,LocationInformationOverride,,\"plugged into PS/2 mouse port\"\n[VMMouse.HW]\nAddReg=filter,wheel\n\
           [filter]\nHKR,,UpperFilters,0x00010000,VMMouse\n[wheel]\nHKR,,EnableWheelDetection,0x00010003,2\n\
           HKR,,MouseDataQueueSize,0x00010003,0x64\nHKR,,MouseResolution,0x00010003,3\n\
           HKR,,MouseSynchIn100ns,0x00010003,20000000\nHKR,,SampleRate,0x00010003,0x64\n\
           HKR,,WheelDetectionTimeout,0x00010003,1500\nHKR,,MouseInitializePolled,0x00010003,0\n\
           [VMMouse.Services]\nAddService=i8042prt,2,port\nAddService=vmmouse,,service\n[port]\nServiceType=1\n\
           StartType=3\nErrorControl=1\nServiceBinary=%12%\\i8042prt.sys\nAddReg=retries\n[retries]\n\
           HKR,,PnpFlags,0x00010001,2\nHKR,Parameters,PollingIterations,0x00010003,12000\n\
           HKR,Parameters,PollingIterationsMaximum,0x00010003,12000\nHKR,Parameters,ResendIterations,0x00010003,3\n\
           [service]\nDisplayName=%VMMouse.SvcDesc%\nServiceType=1\nStartType=3\nErrorControl=0\n\
           LoadOrderGroup=Pointer Port\nServiceBinary=%12%\\vmmouse.sys\n[Strings]\nVMMouse.Mfg=\"VMware, Inc.\"\n\
           VMMouse.SvcDesc=\"VMware Pointing Device\"\n"
}

fn pvscsi(version: &str) -> String {
    head("{4d36e97b-e325-11ce-bfc1-08002be10318}", "\"VMware, Inc.\"", version, "pvscsi.cat")
        + "%d%=Install,PCI\\VEN_15AD&DEV_07C0\n[Install]\n[Strings]\nd=\"Controller\"\n"
}

fn efifw() -> String {
    head("{f2e7dd72-6468-4e36-b6f1-6488f42c1b52}", "\"VMware, Inc.\"", "04/24/2017,1.0.0.0", "efifw.cat")
        + "%d%=Install,UEFI\\RES_{C9CF6ED5-7195-4824-B60B-7ACDC14B6C82}\n[Install]\n[Strings]\nd=\"Firmware\"\n"
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    let case = |source, package, oem, inf_name, inf| Case {
        source,
        package,
        oem,
        inf_name,
        folder: UPDATE.to_owned(),
        signer: HARDWARE_PROGRAM,
        inf,
        bound: &[],
        services: &[],
        differs: Vec::new(),
    };
    let owners = ("owners", "an older version of the package, since removed, is a former owner");
    let mut out = vec![
        Case {
            folder: "C:\\Program Files\\Oracle\\VirtualBox Guest Additions".to_owned(),
            signer: "Oracle Corporation",
            bound: &["PCI\\VEN_80ee&DEV_cafe"],
            services: &["VBoxGuest"],
            differs: [&[STATUS, VERSION_END, SPELLING], &RECONFIGURE[..]].concat(),
            ..case(
                WINDOWS_8_1,
                "vboxguest.inf_amd64_015c006906a48641",
                "oem1.inf",
                "VBoxGuest.inf",
                vbox("07/18/2016,5.0.26.0"),
            )
        },
        Case {
            folder: "c:\\windows\\temp\\sefbc20.tmp".to_owned(),
            bound: &["Root\\iwdbus"],
            services: &["iwdbus"],
            ..case(W10_1709, "iwdbus.inf_amd64_2174cb4f0f69d5e4", "oem11.inf", "iwdbus.inf", iwdbus())
        },
        Case {
            bound: &["ACPI\\SMO8810"],
            services: &["ST_Accel"],
            differs: [&[STATUS, VERSION_END, SPELLING], &RECONFIGURE[..]].concat(),
            ..case(W10_1709, "st_accel.inf_amd64_f254a99a0a74721d", "oem12.inf", "ST_Accel.inf", st_accel())
        },
        Case {
            bound: &["ACPI\\DELLABCE", "HID\\VEN_DELL&DEV_ABCE"],
            services: &["DellRbtn"],
            ..case(W10_1709, "dellrbtn.inf_amd64_f97e65ab5ad63c31", "oem2.inf", "DellRbtn.inf", dellrbtn())
        },
        Case {
            bound: &["ACPI\\DLL0532"],
            services: &["ApfiltrService", "ApHidMonitorService"],
            differs: [
                &[STATUS, VERSION_END, SPELLING, ("needsreconfig", "the same state")],
                &RECONFIGURE[..],
                &[("aphidmonitorservice:imagepath", "a program: installed by the running Windows, not by winject")],
            ]
            .concat(),
            ..case(W10_1709, "apfiltr.inf_amd64_2d4012c4b3408b59", "oem3.inf", "Apfiltr.inf", apfiltr())
        },
        Case {
            folder: "C:\\Program Files\\NVIDIA Corporation\\Installer2\\Display.NVIRUSB.{58FDFC3F-02F0-4A15-B8BE-\
                     827C38C071D5}"
                .to_owned(),
            differs: vec![STATUS, VERSION_END],
            ..case(W10_1709, "nvstusb.inf_amd64_f9c4b7a768bcba99", "oem5.inf", "nvstusb.inf", nvstusb())
        },
        Case {
            bound: &["PCI\\VEN_8086&DEV_1E3A"],
            services: &["MEIx64"],
            ..case(W10_1709, "heci.inf_amd64_b029e08ef3dd5b21", "oem7.inf", "heci.inf", heci())
        },
    ];
    for (source, [usb, efi, scsi, mouse], scsi_package, scsi_version, more) in [
        (
            W10_1909,
            ["oem0.inf", "oem11.inf", "oem4.inf", "oem6.inf"],
            "pvscsi.inf_amd64_b0d59727d712523f",
            "08/02/2019,1.3.15.0",
            vec![owners],
        ),
        (
            W10_20H2,
            ["oem6.inf", "oem3.inf", "oem5.inf", "oem7.inf"],
            "pvscsi.inf_amd64_9e7bfe6e33172952",
            "04/26/2021,1.3.17.0",
            vec![],
        ),
    ] {
        let installers = ("vwdk.installers", "VMware's installer wrote another word there later");
        let absent = ("vwdk.installers", "VMware's installer added this value");
        out.push(Case {
            folder: format!("{VMWARE}vmci\\device\\Win8"),
            bound: &["PCI\\VEN_15AD&DEV_0740&SUBSYS_074015AD", "ROOT\\VMWVMCIHOSTDEV"],
            services: &["vmci"],
            differs: [vec![installers], more.clone()].concat(),
            ..case(source, "vmci.inf_amd64_5e38a278d114b813", "oem2.inf", "vmci.inf", vmci())
        });
        out.push(Case {
            folder: format!("{VMWARE}mouse\\Win8"),
            bound: &["HID\\VID_0E0F&PID_0003&MI_00"],
            services: &["vmusbmouse"],
            differs: [vec![STATUS, absent], more.clone()].concat(),
            ..case(source, "vmusbmouse.inf_amd64_64ac7a0aab2a032c", usb, "vmusbmouse.inf", vmusbmouse())
        });
        out.push(Case {
            folder: format!("{VMWARE}mouse\\Win8"),
            bound: &["*VMW0003"],
            services: &["vmmouse"],
            differs: [vec![STATUS, absent], more].concat(),
            ..case(source, "vmmouse.inf_amd64_916101d3748847e7", mouse, "vmmouse.inf", vmmouse())
        });
        out.push(Case {
            folder: format!("{VMWARE}efifw\\Win8"),
            ..case(source, "efifw.inf_amd64_69a2acd666b70e2c", efi, "efifw.inf", efifw())
        });
        out.push(Case {
            folder: format!("{VMWARE}pvscsi\\Win8"),
            differs: vec![STATUS],
            ..case(source, scsi_package, scsi, "pvscsi.inf", pvscsi(scsi_version))
        });
    }
    out
}

/// `path:name` in lower case → type and bytes.
type Values = BTreeMap<String, (u32, Vec<u8>)>;

fn place(path: &str, name: &str) -> String {
    format!("{path}:{name}").to_lowercase()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// A quoted text at the start, and the rest.
fn quoted(text: &str) -> (String, &str) {
    let quote = text.chars().next().unwrap();
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.push(chars.next().unwrap().1),
            c if c == quote => return (out, &text[at + 1..]),
            c => out.push(c),
        }
    }
    panic!("no end of {text}");
}

/// What the examples say of one hive.
fn examples(text: &str, title: &str) -> Values {
    let section = text.split("#################### ").find(|part| part.starts_with(title)).unwrap();
    let mut key = "";
    let mut out = Values::new();
    for line in section.lines().skip(1) {
        if let Some(name) = line.strip_prefix('[') {
            key = name.strip_suffix(']').unwrap();
            continue;
        }
        let (name, rest) = quoted(line.trim_start());
        let name = if name == "(Default)" { String::new() } else { name };
        let (kind, data) = rest.trim_start().strip_prefix("type=").unwrap().split_once(' ').unwrap();
        let kind = match kind.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).unwrap(),
            None => kind.parse().unwrap(),
        };
        let bytes = if let Some(hex) = data.strip_prefix("hex:") {
            winject::internals::hex::decode(hex).unwrap()
        } else if let Some(mut list) = data.strip_prefix('[') {
            let mut bytes = Vec::new();
            while !list.starts_with(']') {
                let (text, rest) = quoted(list);
                bytes.extend(utf16(&text));
                list = rest.trim_start_matches([',', ' ']);
            }
            bytes.extend([0, 0]);
            bytes
        } else if data.starts_with(['\'', '"']) {
            utf16(&quoted(data).0)
        } else {
            let number: u64 = data.parse().unwrap();
            number.to_le_bytes()[..if kind == 11 { 8 } else { 4 }].to_vec()
        };
        out.insert(place(key, &name), (kind, bytes));
    }
    out
}

fn collect(node: &Node<'_>, path: &str, out: &mut Values) {
    for value in node.values().unwrap() {
        out.insert(place(path, &value.name.to_string()), (value.data.kind.0, value.data.bytes));
    }
    for sub in node.subkeys().unwrap() {
        collect(&sub, &format!("{path}\\{}", sub.name().unwrap()), out);
    }
}

/// A hive whose sequence numbers say "dirty", as Windows would take it without its logs.
fn equalised(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.copy_within(4..8, 8);
    let sum = bytes[..508].chunks_exact(4).fold(0u32, |sum, w| sum ^ u32::from_le_bytes(w.try_into().unwrap()));
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// What a real hive says about a package and its services.
fn of_case(all: &Values, case: &Case) -> Values {
    let mine = |place: &str| {
        let (path, name) = place.rsplit_once(':').unwrap();
        let below = |prefix: &str| path == prefix || path.strip_prefix(prefix).is_some_and(|r| r.starts_with('\\'));
        let package = format!("driverdatabase\\driverpackages\\{}", case.package);
        let is_service = case.services.iter().any(|service| {
            // `Wdf` and what stands below the parameters of running drivers are written by the drivers
            path == format!("controlset001\\services\\{}", service.to_lowercase()) && name != "tag"
        });
        (below(&package) && !path.contains("\\properties"))
            || path == format!("driverdatabase\\driverinffiles\\{}", case.oem)
            || (path.starts_with("driverdatabase\\deviceids\\") && name == case.oem)
            || is_service
    };
    all.iter().filter(|(place, _)| mine(place)).map(|(place, value)| (place.clone(), value.clone())).collect()
}

fn facts(case: &Case) -> Facts {
    let inf = Inf::parse(case.inf.as_bytes(), case.inf_name).unwrap();
    let (major, minor) = if case.source.build < 10240 { (6, 3) } else { (10, 0) };
    inf.facts(&GuestTarget::new(Arch::Amd64, major, minor, case.source.build, false)).unwrap()
}

/// What winject writes for the same package.
fn ours(case: &Case) -> Values {
    let facts = facts(case);
    let names = Names { oem: case.oem.to_owned(), package: case.package.to_owned() };
    let origin = Origin { arch: Arch::Amd64, folder: case.folder.clone(), signer: Some(case.signer.to_owned()) };
    let staged = records(&facts, &names, &origin, Form::Staged, case.source.build);
    let mut values = staged.values;
    if !case.bound.is_empty() {
        let mut bound = facts.clone();
        bound.models.retain(|m| case.bound.iter().any(|id| m.hardware_id.eq_ignore_ascii_case(id)));
        values.extend(records(&bound, &names, &origin, Form::Configured, case.source.build).values);
    }
    for service in facts.services() {
        if !case.services.iter().any(|name| name.eq_ignore_ascii_case(&service.name)) {
            continue;
        }
        let key = format!("ControlSet001\\Services\\{}", service.name);
        for (name, data) in service_values(service, &names) {
            values.push((key.clone(), name.to_owned(), data));
        }
        for line in service.registry.iter().filter(|l| l.root == RegRoot::Relative && l.action != RegAction::Delete) {
            if line.subkey.is_empty() {
                let data = line.data.clone();
                values.push((key.clone(), line.name.clone(), data));
            }
        }
    }
    values.into_iter().map(|(key, name, data)| (place(&key, &name), (data.kind.0, data.bytes))).collect()
}

/// All differences that the table does not explain, and lines of the table that explain nothing.
fn compare(case: &Case, real: &Values, ours: &Values) -> Vec<String> {
    let mut unexplained = Vec::new();
    let mut used = BTreeSet::new();
    let mut explained = |place: &str| {
        let fitting = case.differs.iter().filter(|(part, _)| place.contains(part));
        let parts: Vec<&str> = fitting.map(|(part, _)| *part).collect();
        used.extend(parts.iter().copied());
        !parts.is_empty()
    };
    for place in real.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
        let (theirs, own) = (real.get(place), ours.get(place));
        if let (true, Some(theirs), Some(own)) = (place.ends_with(":version"), theirs, own) {
            assert_eq!((theirs.1.len(), &theirs.1[..40]), (48, &own.1[..40]), "{place}");
        }
        let is_same = match (theirs, own) {
            // when it was imported: the same type and length, another time
            (Some(a), Some(b)) if place.ends_with(":importdate") => (a.0, a.1.len()) == (b.0, b.1.len()),
            (a, b) => a == b,
        };
        if !is_same && !explained(place) {
            unexplained.push(format!("{place}: Windows {theirs:?}, winject {own:?}"));
        }
    }
    let needless = case.differs.iter().filter(|(part, _)| !used.contains(part));
    unexplained.extend(needless.map(|(part, _)| format!("the difference {part} is not there")));
    unexplained
}

fn every_package_of_four_real_hives() {
    let Some(text) = support::corpus_bytes(EXAMPLES) else { return };
    let text = String::from_utf8(text).unwrap();
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    let mut hives: BTreeMap<&str, Values> = BTreeMap::new();
    for case in cases() {
        let from_text = of_case(&examples(&text, case.source.title), &case);
        let real = match case.source.hive {
            Some(path) => {
                let Some(bytes) = support::corpus_bytes(path) else { return };
                let all = hives.entry(path).or_insert_with(|| {
                    let bytes = equalised(bytes);
                    let mut all = Values::new();
                    let hive = Reader::open(&bytes).unwrap();
                    for key in ["DriverDatabase", "ControlSet001\\Services"] {
                        collect(&hive.key(key).unwrap().unwrap(), key, &mut all);
                    }
                    all
                });
                let raw = of_case(all, &case);
                // VMware's installer ends this list with one zero too many, which the examples do not show
                let plain = |values: &Values| {
                    let mut values = values.clone();
                    values.retain(|place, _| !place.ends_with("vwdk.installers"));
                    values
                };
                assert_eq!(plain(&raw), plain(&from_text), "{}: the examples are the hive's", case.package);
                raw
            }
            None => from_text,
        };
        assert!(real.len() >= 10, "{}", case.package);
        seen.insert((case.source.title, case.oem));
        faults.extend(compare(&case, &real, &ours(&case)).into_iter().map(|f| format!("{}: {f}", case.package)));
    }
    // no package of the examples is left out
    for source in [WINDOWS_8_1, W10_1709, W10_1909, W10_20H2] {
        for place in examples(&text, source.title).keys() {
            if let Some(oem) = place.strip_prefix("driverdatabase\\driverinffiles\\").and_then(|r| r.split(':').next())
            {
                assert!(seen.iter().any(|(title, known)| *title == source.title && *known == oem), "{oem}");
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The corpus has another Windows 8.1 with an older version of the same driver.
fn windows_8_1_hive() {
    let Some(bytes) = support::corpus_bytes("hives/win8.1/SYSTEM.xz") else { return };
    let bytes = equalised(bytes);
    let mut all = Values::new();
    let hive = Reader::open(&bytes).unwrap();
    for key in ["DriverDatabase", "ControlSet001\\Services"] {
        collect(&hive.key(key).unwrap().unwrap(), key, &mut all);
    }
    let case = Case {
        package: "vboxguest.inf_amd64_7c8d1446c2599c22",
        inf: vbox("11/10/2015,5.0.10.0"),
        ..cases().swap_remove(0)
    };
    let faults = compare(&case, &of_case(&all, &case), &ours(&case));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What decides between SYSTEM and DRIVERS: the class. Third-party packages that do not start at boot are in SYSTEM
/// when their class is, and no network or display package is there.
fn real_hives_keep_packages_by_class() {
    let guid = |text: &str| winject::internals::drivers::inf::Guid::parse(text).unwrap().0.to_vec();
    let (net, display) =
        (guid("{4d36e972-e325-11ce-bfc1-08002be10318}"), guid("{4d36e968-e325-11ce-bfc1-08002be10318}"));
    for path in ["hives/win8.1/SYSTEM.xz", "hives/win10-1709-dirty/SYSTEM.xz", "hives/win10-1909/SYSTEM.xz"] {
        let Some(bytes) = support::corpus_bytes(path) else { return };
        let bytes = equalised(bytes);
        let hive = Reader::open(&bytes).unwrap();
        let mut classes: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for package in hive.key("DriverDatabase\\DriverPackages").unwrap().unwrap().subkeys().unwrap() {
            let version = package.value("Version").unwrap().unwrap().bytes;
            *classes.entry(version[8..24].to_vec()).or_default() += 1;
        }
        assert!(classes[&guid(SYSTEM)] > 50, "{path}");
        assert!(classes[&guid("{4d36e97b-e325-11ce-bfc1-08002be10318}")] > 20, "{path}");
        assert!(classes[&guid("{745a17a0-74d3-11d0-b6fe-00a0c90f57da}")] > 10, "{path}");
        assert!(!classes.contains_key(&net) && !classes.contains_key(&display), "{path}");
    }
}

tests![every_package_of_four_real_hives, windows_8_1_hive, real_hives_keep_packages_by_class,];
