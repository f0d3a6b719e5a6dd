//! Which packages are chosen for which guest, and what is said when none is.

use super::media;
use std::fs;
use std::path::Path;
use winject::internals::drivers::{
    Arch, Category, Definitions, GuestTarget, Policy, Selection, SignatureLevel, Sources, select,
};
use winject::{Error, Kind};

/// The stand-in media of the judges carry noise for signatures.
const LENIENT: Policy = Policy { signature: SignatureLevel::Present };

fn choose(folder: &Path, guest: &GuestTarget) -> Result<Selection, Error> {
    select(&Sources::open(&[folder])?, guest, &Definitions::builtin(), &LENIENT)
}

fn w10() -> GuestTarget {
    GuestTarget::of_build(Arch::Amd64, 19045, false)
}

#[track_caller]
fn fails(folder: &Path, guest: &GuestTarget, parts: &[&str]) {
    let error = choose(folder, guest).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), Kind::Drivers, "{text}");
    assert!(error.hint_text().is_some(), "no hint: {text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

fn windows_10_gets_its_eight_and_more() {
    let Some(tree) = media::tree("0.1.285") else { return };
    let selection = choose(&tree, &w10()).unwrap();
    let names: Vec<&str> = selection.packages.iter().map(|p| p.stage_name.as_str()).collect();
    assert_eq!(names[..3], ["vioscsi", "viostor", "netkvm"], "storage, then network");
    for name in ["balloon", "viorng", "virtioserial", "vioinput", "viofs", "fwcfg", "pvpanic", "qxldod"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    assert!(selection.packages.iter().all(|p| p.bucket == "w10"), "{names:?}");
    assert!(selection.packages.iter().flat_map(|p| &p.files).all(|f| !f.name.ends_with(".pdb")));
    for (package, boot) in selection.boot_packages() {
        assert_eq!(
            (boot.start, boot.kind, boot.error_control, boot.group.as_deref()),
            (0, 1, 1, Some("SCSI miniport"))
        );
        assert!(boot.critical_device_database);
        assert_eq!(package.category, Category::Storage);
        let expected = if boot.service == "viostor" { 1 } else { 0x0A };
        assert_eq!(package.inf.function_service().unwrap().dword("Parameters", "BusType"), Some(expected));
        let file = package.files.iter().find(|f| f.name == boot.file_name).unwrap();
        assert_eq!(file.read().unwrap(), boot.data);
        assert_eq!((boot.hardware_ids.len(), boot.compatible_ids.len()), (2, 2));
    }
    assert_eq!(selection.boot_packages().count(), 2);
    let skipped: Vec<&str> = selection.skipped.iter().map(|s| s.name.as_str()).collect();
    assert!(skipped.contains(&"vioprot.inf") && skipped.contains(&"qemufwcfg.inf"), "{skipped:?}");
}

fn the_same_twice_is_the_same() {
    let Some(tree) = media::tree("0.1.285") else { return };
    let text = || serde_json::to_string(&choose(&tree, &w10()).unwrap()).unwrap();
    assert_eq!(text(), text());
}

fn folders_of_all_drivers_and_packages_of_distributions() {
    let Some(tree) = media::tree("0.1.285") else { return };
    let temp = tempfile::tempdir().unwrap();
    // the ISO's top level: storage drivers side by side
    media::copy_some(&tree, &["amd64/w10", "amd64/w11"], temp.path());
    let selection = choose(temp.path(), &w10()).unwrap();
    let names: Vec<_> = selection.packages.iter().map(|p| (p.stage_name.as_str(), p.files.len())).collect();
    assert_eq!(names, [("vioscsi", 3), ("viostor", 3)], "each gets its own files only");
    // a package's tree holds everything twice: by driver and by system
    for (from, to) in
        [("amd64/w10", "drivers/by-os/amd64/w10"), ("viostor/w10/amd64", "drivers/by-driver/viostor/w10/amd64")]
    {
        fs::create_dir_all(temp.path().join(to)).unwrap();
        for entry in fs::read_dir(tree.join(from)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), temp.path().join(to).join(entry.file_name())).unwrap();
        }
    }
    let selection = choose(&temp.path().join("drivers"), &w10()).unwrap();
    assert_eq!(selection.packages.len(), 2, "{:?}", selection.packages);
    assert!(selection.packages.iter().any(|p| p.source_path.contains("by-driver/viostor")));
    // an older package: drivers/amd64/Win10
    fs::create_dir_all(temp.path().join("old/drivers/amd64")).unwrap();
    fs::rename(temp.path().join("amd64/w10"), temp.path().join("old/drivers/amd64/Win10")).unwrap();
    assert_eq!(choose(&temp.path().join("old"), &w10()).unwrap().packages.len(), 2);
}

/// One driver in each place where media have it: found, with its three files and what the folders say.
fn every_layout() {
    let own = crate::inject::fixture_drivers().join("viostor/w10/amd64");
    let w11_arm = GuestTarget::of_build(Arch::Arm64, 26100, false);
    let w10_x86 = GuestTarget::of_build(Arch::X86, 19045, false);
    let mut cases = vec![
        (own.clone(), w10(), "viostor/w10/amd64", "w10"),
        (own.clone(), w10(), "VIOSTOR/W10/AMD64", "w10"),
        (own.clone(), w10(), "amd64/w10", "w10"),
        (own.clone(), w10(), "drivers/by-driver/viostor/w10/amd64", "w10"),
        (own.clone(), w10(), "drivers/by-os/amd64/w10", "w10"),
        (own.clone(), w10(), "drivers/amd64/Win10", "w10"),
        (own.clone(), w10(), "usr/share/virtio-win/drivers/by-os/amd64/w10", "w10"),
        (own.clone(), w10(), "Vendor Package 1.0/Storage", ""),
        (own.clone(), w10(), "Vendor/x64", ""),
        (own, w10(), "", ""),
    ];
    if let Some(tree) = media::tree("0.1.285") {
        let (x86, arm) = (tree.join("viostor/w10/x86"), tree.join("viostor/w11/ARM64"));
        cases.extend([
            (x86.clone(), w10_x86, "viostor/w10/x86", "w10"),
            (x86.clone(), w10_x86, "i386/w10", "w10"),
            (x86, w10_x86, "drivers/by-os/i386/w10", "w10"),
            (arm.clone(), w11_arm, "viostor/w11/ARM64", "w11"),
            (arm, w11_arm, "viostor/w11/arm64", "w11"),
        ]);
    }
    for (from, guest, folder, bucket) in cases {
        let temp = tempfile::tempdir().unwrap();
        let to = temp.path().join(folder);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        let selection = choose(temp.path(), &guest).unwrap_or_else(|e| panic!("{folder}: {e}"));
        let [package] = &selection.packages[..] else { panic!("{folder}: {:?}", selection.packages) };
        assert_eq!((package.bucket.as_str(), package.files.len()), (bucket, 3), "{folder}");
        assert_eq!((package.stage_name.as_str(), package.boot.is_some()), ("viostor", true), "{folder}");
    }
}

fn a_folder_is_a_source_at_any_depth() {
    let Some(tree) = media::tree("0.1.285") else { return };
    for folder in ["viostor", "viostor/w10", "viostor/w10/amd64"] {
        let selection = choose(&tree.join(folder), &w10()).unwrap();
        assert_eq!(selection.packages.len(), 1);
        assert_eq!((selection.packages[0].stage_name.as_str(), selection.packages[0].files.len()), ("viostor", 3));
    }
}

fn several_sources_the_first_wins() {
    let (Some(old), Some(new)) = (media::tree("0.1.217"), media::tree("0.1.285")) else { return };
    let sources = Sources::open(&[old.join("viostor"), new]).unwrap();
    let selection = select(&sources, &w10(), &Definitions::builtin(), &LENIENT).unwrap();
    let viostor: Vec<_> = selection.packages.iter().filter(|p| p.inf_name == "viostor.inf").collect();
    assert_eq!(viostor.len(), 1);
    assert_eq!(viostor[0].inf.version_text(), "100.90.104.21700");
    assert!(selection.packages.iter().any(|p| p.stage_name == "vioscsi"));
}

fn missing_folder_and_empty_folder() {
    let temp = tempfile::tempdir().unwrap();
    fails(&temp.path().join("nowhere"), &w10(), &["there is no such driver folder", "nowhere"]);
    fails(temp.path(), &w10(), &["no driver package"]);
    fs::write(temp.path().join("text.txt"), "hello").unwrap();
    fails(&temp.path().join("text.txt"), &w10(), &["neither a folder nor an ISO image"]);
}

fn no_driver_for_this_windows_says_what_is_there() {
    let Some(tree) = media::tree("0.1.285") else { return };
    let temp = tempfile::tempdir().unwrap();
    media::copy_some(&tree, &["viostor/w11/amd64", "vioscsi/2k22/amd64"], temp.path());
    fails(temp.path(), &w10(), &["no driver for Windows 10 (build 19045, amd64)", "viostor", "w11", "2k22"]);
}

fn a_boot_driver_for_a_newer_kernel_is_never_taken() {
    let Some(tree) = media::tree("0.1.285") else { return };
    let temp = tempfile::tempdir().unwrap();
    media::copy_some(&tree, &["viostor/w10/amd64"], temp.path());
    fails(temp.path(), &GuestTarget::of_build(Arch::Amd64, 7601, false), &["Windows 7", "w10"]);
    // also where no folder says it: the INF does
    let vendor = temp.path().join("vendor");
    fs::rename(temp.path().join("viostor/w10/amd64"), &vendor).unwrap();
    fails(&vendor, &GuestTarget::of_build(Arch::Amd64, 7601, false), &["Windows 7", "its INF is for amd64, Windows"]);
}

fn wrong_cpu() {
    let Some(tree) = media::tree("0.1.285") else { return };
    let temp = tempfile::tempdir().unwrap();
    media::copy_some(&tree, &["viostor/w10/x86"], temp.path());
    fails(temp.path(), &w10(), &["another CPU", "amd64", "x86"]);
    // the folder and the INF say amd64, the file is for x86
    let mixed = temp.path().join("mixed");
    media::copy_some(&tree, &["viostor/w10/amd64"], &mixed);
    fs::copy(tree.join("viostor/w10/x86/viostor.sys"), mixed.join("viostor/w10/amd64/viostor.sys")).unwrap();
    fails(&mixed, &w10(), &["another CPU", "expected amd64, found x86", "viostor.sys"]);
}

fn broken_packages() {
    let Some(tree) = media::tree("0.1.285") else { return };
    let spoil = |what: &dyn Fn(&Path)| {
        let temp = tempfile::tempdir().unwrap();
        media::copy_some(&tree, &["viostor/w10/amd64"], temp.path());
        what(&temp.path().join("viostor/w10/amd64"));
        temp
    };
    let temp = spoil(&|folder| {
        let data = fs::read(folder.join("viostor.sys")).unwrap();
        fs::write(folder.join("viostor.sys"), &data[..data.len() / 2]).unwrap();
    });
    fails(temp.path(), &w10(), &["viostor.sys", "truncated"]);
    let temp = spoil(&|folder| fs::write(folder.join("viostor.sys"), "not a program").unwrap());
    fails(temp.path(), &w10(), &["viostor.sys", "not a Windows program"]);
    let temp = spoil(&|folder| fs::remove_file(folder.join("viostor.sys")).unwrap());
    fails(temp.path(), &w10(), &["viostor.sys is missing"]);
    let temp = spoil(&|folder| {
        let text = fs::read_to_string(folder.join("viostor.inf")).unwrap().replace("[Version]", "[Version");
        fs::write(folder.join("viostor.inf"), text).unwrap();
    });
    fails(temp.path(), &w10(), &["viostor.inf:", "closing bracket"]);
    // no security directory: unsigned
    let temp = spoil(&|folder| {
        let mut data = fs::read(folder.join("viostor.sys")).unwrap();
        data[0x98 + 112 + 32..][..8].fill(0);
        fs::write(folder.join("viostor.sys"), data).unwrap();
    });
    fails(temp.path(), &w10(), &["viostor.sys", "no embedded signature"]);
    let sources = Sources::open(&[temp.path()]).unwrap();
    let warn = Policy { signature: SignatureLevel::Warn };
    let selection = select(&sources, &w10(), &Definitions::builtin(), &warn).unwrap();
    assert!(selection.warnings.iter().any(|w| w.contains("no embedded signature")), "{:?}", selection.warnings);
}

tests![
    windows_10_gets_its_eight_and_more,
    the_same_twice_is_the_same,
    folders_of_all_drivers_and_packages_of_distributions,
    every_layout,
    a_folder_is_a_source_at_any_depth,
    several_sources_the_first_wins,
    missing_folder_and_empty_folder,
    no_driver_for_this_windows_says_what_is_there,
    a_boot_driver_for_a_newer_kernel_is_never_taken,
    wrong_cpu,
    broken_packages,
];
