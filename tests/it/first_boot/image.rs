//! What an injection puts into a guest, taken out of the image and started under Wine.

use std::path::Path;

use winject::internals::block::Format;
use winject::internals::hive::{Hive, RegistryData, ValueType};
use winject::internals::ntfs::security::Protected;
use winject::internals::ntfs::{CreateOptions, Namespace, Security, Volume};
use winject_firstboot::job::{self, Step};

use super::wine::{Machine, SERVICE, machine};
use crate::inject::{fixture_drivers, folder, stdout, succeed, winject, writable_fixture};
use crate::windows::guests::{Disk, FileVolume, NOW};

/// Copies a folder of the guest with all below it.
fn copy_out(volume: &Volume<FileVolume>, from: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in volume.entries(volume.find(from).unwrap().unwrap()).unwrap() {
        if entry.namespace == Namespace::Dos {
            continue;
        }
        let name = entry.name.to_string();
        let (from, to) = (format!("{from}/{name}"), to.join(&name));
        match entry.is_dir {
            true => copy_out(volume, &from, &to),
            false => std::fs::write(to, volume.read(entry.file, 1 << 30).unwrap()).unwrap(),
        }
    }
}

/// A value as Wine's registry file spells it.
fn to_wine(data: &RegistryData) -> String {
    let text = || data.as_text().unwrap().replace('\\', "\\\\").replace('"', "\\\"");
    match (data.as_u32(), data.kind) {
        (Some(number), _) => format!("dword:{number:08x}"),
        (None, ValueType::EXPAND_SZ) => format!("str(2):\"{}\"", text()),
        (None, _) => format!("\"{}\"", text()),
    }
}

fn what_an_injection_writes_starts_and_finishes_by_itself() {
    let Some(machine) = machine() else { return };
    let Some((port, mut copy)) = machine.link_serial_port() else { return };
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    succeed(winject().arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers()).arg("--in-place"));
    let disk = crate::remove::disk(image);
    let volume = disk.volume();
    copy_out(&volume, "/hyper2kvm", &machine.base(""));
    let system = volume.find("/Windows/System32/config/SYSTEM").unwrap().unwrap();
    let hive = Hive::open(volume.read(system, 1 << 30).unwrap()).unwrap();
    let key = hive.find(hive.root(), "ControlSet001\\Services\\hyper2kvm-firstboot").unwrap().unwrap();
    let mut values: Vec<String> = Vec::new();
    for value in hive.values(key).unwrap() {
        let name = String::from_utf16_lossy(value.name.units());
        values.push(format!("\"{name}\"={}", to_wine(&value.data)));
    }
    // the other tests' service is this one
    for value in values.iter().filter(|value| !value.starts_with("\"Description\"")) {
        assert!(SERVICE.lines().any(|line| line == value), "{value}");
    }
    machine.set_service(&values.join("\n"));
    let job = job::parse(&std::fs::read(machine.base("firstboot.job")).unwrap()).expect("the program reads the job");
    let packages = job.steps.iter().filter_map(|step| match step {
        Step::Package(package) => Some(format!("{} ok 0", package.inf)),
        _ => None,
    });
    let packages: Vec<String> = packages.collect();
    machine.start();
    copy.kill().unwrap();
    copy.wait().unwrap();
    assert_eq!(machine.result()["state"], "done", "{}", machine.log());
    let steps = machine.steps();
    assert!(packages.len() > 1 && steps.starts_with(&packages), "{steps:?} does not begin with {packages:?}");
    assert!(packages[0].starts_with("viostor") || packages[0].starts_with("vioscsi"), "{packages:?}");
    // Wine has no records of drivers: what was invented is in the image's hive, which Wine does not use
    assert!(
        steps[packages.len()..].iter().all(|step| step.starts_with("h2k-") && step.ends_with("skipped 0")),
        "{steps:?}"
    );
    assert!(!machine.has_service() && !machine.base("firstboot.job").exists());
    assert!(std::fs::read_to_string(port).unwrap().starts_with("winject-firstboot: done attempt=1 "));
    put_back(&disk, &machine);
    let inspect = |option: Option<&str>| stdout(&succeed(winject().arg("inspect").arg(&disk.path).args(option)));
    let text = inspect(None);
    assert!(text.contains("first-boot job: done") && text.contains("attempt 1 (1 begun)"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&inspect(Some("--json"))).unwrap();
    let job = &json["disks"][0]["windows"][0]["first_boot"];
    assert_eq!((&job["state"], &job["result"]), (&"done".into(), &machine.result()), "{json:#}");
    for step in machine.result()["steps"].as_array().unwrap() {
        let line =
            format!("{}: {}, code {}", step["name"].as_str().unwrap(), step["result"].as_str().unwrap(), step["code"]);
        assert!(text.contains(&line), "{line}: {text}");
    }
    // A second injection leaves a job alone that has run, and a removal takes out what it left.
    let again = stdout(&succeed(
        winject().arg("inject").arg(&disk.path).arg("--drivers").arg(fixture_drivers()).args(["--in-place", "-v"]),
    ));
    assert!(!again.contains("Services\\hyper2kvm-firstboot"), "{again}");
    succeed(winject().arg("remove").arg(&disk.path).args(["--in-place", "--allow-unbootable"]));
    let volume = disk.volume();
    for left in ["firstboot.done", "firstboot.json", "manifest.json"] {
        assert!(volume.find(&format!("/hyper2kvm/{left}")).unwrap().is_none(), "{left}");
    }
}

/// Gives the guest what the job has made of its folder, its log and its service.
fn put_back(disk: &Disk, machine: &Machine) {
    let mut volume = disk.volume();
    let own = volume.protected_security(Protected::File).unwrap();
    let how = CreateOptions { security: Security::Id(own), ..CreateOptions::default() };
    let before = volume.entries(volume.find("/hyper2kvm").unwrap().unwrap()).unwrap();
    for entry in before.into_iter().filter(|entry| !entry.is_dir && entry.namespace != Namespace::Dos) {
        let name = entry.name.to_string();
        if !machine.base(&name).exists() {
            volume.delete(&format!("/hyper2kvm/{name}")).unwrap();
        }
    }
    for name in machine.files() {
        volume.replace_file(&format!("/hyper2kvm/{name}"), &std::fs::read(machine.base(&name)).unwrap(), &how).unwrap();
    }
    volume.create_dir_all("/Windows/Temp", &CreateOptions::default()).unwrap();
    let log = machine.log().into_bytes();
    volume.replace_file("/Windows/Temp/hyper2kvm-firstboot.log", &log, &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
    crate::remove::edit_hive(&mut volume, "SYSTEM", |hive| {
        let key = hive.find(hive.root(), "ControlSet001\\Services\\hyper2kvm-firstboot").unwrap().unwrap();
        hive.delete_key(key, NOW).unwrap();
    });
}

tests![what_an_injection_writes_starts_and_finishes_by_itself];
