//! The recovery environment of the sample guest, from the command line.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use winject::internals::block::{self, Format, PathPolicy};
use winject::internals::ntfs::CreateOptions;
use winject::internals::units::ImageOffset;

use super::fixture;
use crate::inject::{disk_sha256, fixture_drivers, folder, sha256, stdout, succeed, winject, writable_fixture};
use crate::support;
use crate::windows::guests::Disk;

/// The sample guest's disk.
const DISK: &str = "77696E6A-0000-4000-8000-000000000000";
/// Number of its Windows partition, and of the one that is reserved.
const WINDOWS: u32 = 3;
const RESERVED: u32 = 2;

fn partition_of(image: &Path, number: u32) -> Disk {
    let (offset, length) = support::volumes::place_of(image, number);
    Disk { path: image.to_owned(), offset, length }
}

/// The bytes of a partition.
fn bytes_of(image: &Path, partition: &Disk) -> Vec<u8> {
    let options = block::OpenOptions { path_policy: PathPolicy::anything(), ..Default::default() };
    let disk = block::open(image, &options).unwrap();
    let mut bytes = vec![0; usize::try_from(partition.length).unwrap()];
    disk.read_at(ImageOffset(partition.offset), &mut bytes).unwrap();
    bytes
}

/// Puts files into a volume of the guest.
fn put(disk: &Disk, files: &[(&str, &[u8])]) {
    let mut volume = disk.volume();
    for (path, content) in files {
        let (folder, _) = path.rsplit_once('/').unwrap();
        volume.create_dir_all(folder, &CreateOptions::default()).unwrap();
        volume.replace_file(path, content, &CreateOptions::default()).unwrap();
    }
    volume.flush().unwrap();
}

/// `ReAgent.xml` of an enabled recovery environment on a partition of the sample's disk.
fn configuration(start: u64, disk: &str) -> String {
    format!(
        "\u{feff}<?xml version='1.0' encoding='utf-8'?>\r\n\r\n<WindowsRE version=\"2.0\">\r\n  \
         <WinreLocation path=\"\\Recovery\\WindowsRE\" id=\"0\" offset=\"{start}\" guid=\"{{{disk}}}\"/>\r\n  \
         <InstallState state=\"1\"/>\r\n</WindowsRE>\r\n"
    )
}

/// The sample guest with a second NTFS volume.
fn with_second_volume(folder: &Path) -> (PathBuf, Disk) {
    let image = writable_fixture(folder, Format::Raw);
    let volume = support::volumes::small_volume();
    let second = partition_of(&image, RESERVED);
    assert!(volume.len() as u64 <= second.length);
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &volume, second.offset).unwrap();
    (image, second)
}

fn inspect(image: &Path) -> (Value, String) {
    let json = succeed(winject().arg("inspect").arg(image).arg("--json"));
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    (json["disks"][0]["windows"][0]["recovery"].clone(), stdout(&succeed(winject().arg("inspect").arg(image))))
}

fn inject(image: &Path, out: &Path, report: &Path) -> Value {
    let mut command = winject();
    command.arg("inject").arg(image).arg("--drivers").arg(fixture_drivers()).arg("--overlay").arg(out);
    succeed(command.arg("--report").arg(report));
    serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap()
}

fn an_enabled_recovery_environment_is_found_where_it_is_and_left_as_it_is() {
    let here = folder();
    let (image, second) = with_second_volume(here.path());
    put(&second, &[("/Recovery/WindowsRE/Winre.wim", &fixture("lzx.wim"))]);
    let system = partition_of(&image, WINDOWS);
    let path = "/Windows/System32/Recovery/ReAgent.xml";
    put(&system, &[(path, configuration(second.offset, DISK).as_bytes())]);

    let (found, page) = inspect(&image);
    let size = fixture("lzx.wim").len();
    let expected = |is_configured: bool| {
        json!({
            "partition": RESERVED, "path": "/Recovery/WindowsRE/Winre.wim", "size": size,
            "is_configured": is_configured,
            "drivers": [{"service": "vioscsi", "presence": "by_name"}, {"service": "viostor", "presence": "by_name"}],
        })
    };
    assert_eq!(found, json!({"state": "enabled", "image": expected(true)}));
    let line = format!(
        "recovery environment: enabled, partition 2: /Recovery/WindowsRE/Winre.wim ({size} bytes); drivers for a virtio \
         disk: vioscsi: yes, viostor: yes"
    );
    assert!(page.contains(&line), "{page}");

    let before = (sha256(&image), disk_sha256(&image));
    let out = here.path().join("out.qcow2");
    let report = inject(&image, &out, &here.path().join("r.json"));
    assert_eq!(report["virtio"]["recovery"]["image"], expected(true));
    let warnings = report["virtio"]["warnings"].to_string();
    assert!(!warnings.contains("recovery environment"), "{warnings}");
    assert_eq!((sha256(&image), disk_sha256(&image)), before);
    assert!(bytes_of(&out, &second) == bytes_of(&image, &second), "the recovery partition has changed");

    let check = stdout(&succeed(winject().arg("check").arg(&out)));
    assert!(check.contains(&line), "{check}");

    // Another disk's id: the file is found all the same, and the difference is told.
    put(&system, &[(path, configuration(second.offset, "00000000-1111-2222-3333-444444444444").as_bytes())]);
    let (found, _) = inspect(&image);
    assert_eq!(found["image"], expected(false));
    assert!(found["faults"].to_string().contains("not on this disk"), "{found}");
}

fn a_recovery_image_without_the_driver_is_a_warning_with_the_commands() {
    let here = folder();
    let (image, second) = with_second_volume(here.path());
    let Some(wimlib) = support::program("wimlib-imagex") else { return };
    let wim = here.path().join("winre.wim");
    std::fs::write(&wim, fixture("lzx.wim")).unwrap();
    support::run(
        Command::new(&wimlib)
            .arg("update")
            .arg(&wim)
            .args(["1", "--command"])
            .arg("delete --recursive /Windows/System32/DriverStore/FileRepository/vioscsi.inf_amd64_0123456789abcdef"),
    );
    put(&second, &[("/Recovery/WindowsRE/Winre.wim", &std::fs::read(&wim).unwrap())]);
    let system = partition_of(&image, WINDOWS);
    put(&system, &[("/Windows/System32/Recovery/ReAgent.xml", configuration(second.offset, DISK).as_bytes())]);
    let report = inject(&image, &here.path().join("a.qcow2"), &here.path().join("a.json"));
    let commands = "reagentc /disable && md C:\\winre && Dism /Mount-Wim \
        /WimFile:C:\\Windows\\System32\\Recovery\\Winre.wim /Index:1 /MountDir:C:\\winre && Dism /Image:C:\\winre \
        /Add-Driver /Driver:C:\\hyper2kvm\\drivers\\virtio\\vioscsi && Dism /Unmount-Wim /MountDir:C:\\winre /Commit && \
        reagentc /enable";
    let warned = |report: &Value, words: &str| {
        report["virtio"]["warnings"].as_array().unwrap().iter().any(|text| text.as_str().unwrap().contains(words))
    };
    assert!(warned(&report, "has no driver vioscsi"), "{report:#}");
    assert!(warned(&report, commands), "{report:#}");

    // The very file that the guest gets.
    let driver = fixture_drivers().join("viostor/w10/amd64/viostor.sys");
    let place = "/Windows/System32/drivers/viostor.sys";
    let add = format!("add '{}' {place}", driver.display());
    support::run(Command::new(&wimlib).arg("update").arg(&wim).args(["1", "--command"]).arg(add));
    put(&second, &[("/Recovery/WindowsRE/Winre.wim", &std::fs::read(&wim).unwrap())]);
    let report = inject(&image, &here.path().join("b.qcow2"), &here.path().join("b.json"));
    let drivers =
        json!([{"service": "vioscsi", "presence": "absent"}, {"service": "viostor", "presence": "same_file"}]);
    assert_eq!(report["virtio"]["recovery"]["image"]["drivers"], drivers);
}

fn hostile_files_stop_no_injection() {
    let here = folder();
    let image = writable_fixture(here.path(), Format::Raw);
    let system = partition_of(&image, WINDOWS);
    let mut cut = fixture("lzx.wim");
    cut.truncate(cut.len() / 2);
    let solid = fixture("solid.wim");
    for (number, (wim, words)) in
        [(&cut[..], "reaches beyond its end"), (&solid, "solid"), (b"", "0 bytes")].into_iter().enumerate()
    {
        put(
            &system,
            &[
                (
                    "/Windows/System32/Recovery/ReAgent.xml",
                    b"<InstallState state='1'/><WinreLocation path='x' offset='99",
                ),
                ("/Windows/System32/Recovery/Winre.wim", wim),
            ],
        );
        let out = here.path().join(format!("{number}.qcow2"));
        let report = inject(&image, &out, &here.path().join(format!("{number}.json")));
        assert_eq!(report["virtio"]["injected"], true, "{words}");
        assert_eq!(report["virtio"]["recovery"]["state"], "enabled", "{words}");
        assert!(report["virtio"]["recovery"]["faults"].to_string().contains(words), "{report:#}");
        assert!(report["virtio"]["warnings"].to_string().contains("not known whether the recovery environment"));
    }
}

tests![
    an_enabled_recovery_environment_is_found_where_it_is_and_left_as_it_is,
    a_recovery_image_without_the_driver_is_a_warning_with_the_commands,
    hostile_files_stop_no_injection,
];
