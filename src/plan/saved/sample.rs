//! A document for tests.

use super::*;
use crate::drivers::{Arch, SignatureLevel};
use crate::hive::RegistryData;
use crate::partition::Scheme;
use crate::plan::boot::BootPlace;
use crate::plan::{Access, GuestHive};

/// A document with every kind of edit, as a plan of winject could have them.
pub(crate) fn document() -> PlanDocument {
    let sys = b"\x00\xffMZ".to_vec();
    let script = "echo \u{202e}off\r\n";
    let mut files = vec![
        saved_file(script.as_bytes(), SavedFileContent::Text(script.to_owned())),
        saved_file(&sys, SavedFileContent::Media("viostor/w10/amd64/viostor.sys".to_owned())),
    ];
    files.sort_by_key(|file| file.sha256);
    PlanDocument {
        schema: PlanDocument::schema(),
        version: PlanDocument::version(),
        tool: "winject 0.1.0".to_owned(),
        image: Some("win.qcow2".to_owned()),
        disk: DiskFacts {
            size: 1 << 30,
            scheme: Scheme::Gpt,
            sector: 512,
            id: Some("{C12A7328-F81F-11D2-BA4B-00A0C93EC93B}".to_owned()),
        },
        others: vec![OtherDiskFacts {
            name: Some("boot.raw".to_owned()),
            disk: DiskFacts { size: 1 << 28, scheme: Scheme::Mbr, sector: 512, id: Some("0x1234abcd".to_owned()) },
            reads: ReadSet {
                bytes: 0x1000,
                sha256: Sha256Sum::of(b"other reads"),
                ranges: vec![ReadRange { start: 0, length: 0x1000 }],
            },
        }],
        partition: PartitionFacts { number: 2, start: 1 << 20, length: 1 << 29, id: None },
        boot: Some(BootPlace {
            partition: 1,
            start: 1 << 19,
            length: 1 << 19,
            store: "/EFI/Microsoft/Boot/BCD".to_owned(),
        }),
        volume: VolumeFacts {
            serial: Hex64(0x1234_5678_9abc_def0),
            log_position: Some(Hex64(77)),
            log_sha256: Sha256Sum::of(b"log"),
        },
        windows: WindowsFacts {
            folder: "/Windows".to_owned(),
            config: "/Windows/System32/config".to_owned(),
            build: 19045,
            arch: Arch::Amd64,
            text: "Windows 10 Pro 22H2".to_owned(),
        },
        hives: vec![HiveFacts {
            hive: GuestHive::System,
            size: 4096,
            sha256: Sha256Sum::of(b"hive"),
            logs: vec![LogFile { name: ".LOG1".to_owned(), size: 512, sha256: Sha256Sum::of(b"log1") }],
        }],
        reads: ReadSet {
            bytes: 0x3000,
            sha256: Sha256Sum::of(b"reads"),
            ranges: vec![ReadRange { start: 0, length: 0x1000 }, ReadRange { start: 0x3000, length: 0x2000 }],
        },
        state: StateFacts::default(),
        log_replay: None,
        expects: Expects {
            boots_from: vec!["virtio-blk".to_owned(), "virtio-scsi".to_owned()],
            boots_from_any: true,
            signature_policy: SignatureLevel::Require,
        },
        verdict: Verdict { before: bus_verdicts(false), after: bus_verdicts(true) },
        drivers: vec![DriverFact {
            name: "viostor".to_owned(),
            inf: "viostor.inf".to_owned(),
            version: Some("100.101.104.28500".to_owned()),
            signed: true,
            signer: Some("Red Hat".to_owned()),
            sha256: Some(Sha256Sum::of(&sys)),
        }],
        uploads: Vec::new(),
        files,
        steps: steps(&sys, script),
        notes: vec!["a note".to_owned()],
        warnings: Vec::new(),
    }
}

fn saved_file(bytes: &[u8], content: SavedFileContent) -> SavedFile {
    SavedFile { sha256: Sha256Sum::of(bytes), size: bytes.len() as u64, content }
}

fn bus_verdicts(boots: bool) -> Vec<BusVerdict> {
    ["virtio-blk", "virtio-scsi"].into_iter().map(|bus| bus_verdict(bus, boots)).collect()
}

fn bus_verdict(bus: &str, boots: bool) -> BusVerdict {
    let (level, code) = if boots { (FindingLevel::Good, "bound") } else { (FindingLevel::Failure, "no-device-id") };
    let text = "modern controller: <b>what was found</b>".to_owned();
    let finding = FindingFact { gate: "binding".to_owned(), level, code: code.to_owned(), text };
    BusVerdict { bus: bus.to_owned(), boots, findings: vec![finding] }
}

fn steps(sys: &[u8], script: &str) -> Vec<SavedStep> {
    let key = "ControlSet001\\Services\\viostor".to_owned();
    let hive = GuestHive::System;
    let before = Some(FileFact { size: 3, sha256: Sha256Sum::of(b"old") });
    let edits = [
        SavedEdit::CreateDir { path: "/hyper2kvm".to_owned(), access: Access::Protected },
        SavedEdit::WriteFile {
            path: "/hyper2kvm/setup.cmd".to_owned(),
            sha256: Sha256Sum::of(script.as_bytes()),
            size: script.len() as u64,
            access: Access::Protected,
            before: None,
        },
        SavedEdit::Protect { path: "/hyper2kvm/other".to_owned(), before: Some(Sha256Sum::of(b"descriptor")) },
        SavedEdit::DeleteFile { path: "/hyper2kvm/done.marker".to_owned(), before },
        SavedEdit::WriteFile {
            path: "/Windows/System32/drivers/viostor.sys".to_owned(),
            sha256: Sha256Sum::of(sys),
            size: sys.len() as u64,
            access: Access::Inherited,
            before,
        },
        SavedEdit::CopyBootFile {
            path: "/EFI/Boot/bootx64.efi".to_owned(),
            from: "/EFI/Microsoft/Boot/bootmgfw.efi".to_owned(),
            size: 7,
            sha256: Sha256Sum::of(b"manager"),
        },
        SavedEdit::SetValue {
            hive: GuestHive::Bcd,
            key: "Objects\\{c12a7328-f81f-11d2-ba4b-00a0c93ec93b}\\Elements\\16000049".to_owned(),
            name: "Element".to_owned(),
            data: RegistryData::binary(vec![1]),
            before: None,
        },
        SavedEdit::CreateKey { hive, key: format!("{key}\\Parameters") },
        SavedEdit::SetValue {
            hive,
            key: key.clone(),
            name: "Start".to_owned(),
            data: RegistryData::dword(0),
            before: Some(RegistryData::dword(3)),
        },
        SavedEdit::DeleteValue { hive, key: key.clone(), name: "Old".to_owned(), before: Some(RegistryData::sz("x")) },
        SavedEdit::DeleteKey {
            hive,
            key: format!("{key}\\StartOverride"),
            before: "[HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Services\\viostor\\StartOverride]\r\n\"0\"=dword:00000003\r\n"
                .to_owned(),
        },
    ];
    edits.into_iter().map(|edit| SavedStep { reason: "the driver".to_owned(), edit }).collect()
}
