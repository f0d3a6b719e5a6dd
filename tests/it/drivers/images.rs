//! ISO images as driver sources: the same choice as from the folder.

use super::media;
use crate::support;
use std::path::Path;
use std::process::Command;
use winject::Kind;
use winject::internals::drivers::{Arch, Definitions, GuestTarget, Policy, SignatureLevel, Sources, select};

const LENIENT: Policy = Policy { signature: SignatureLevel::Present };

/// A choice as comparable text, without the paths of the host.
fn choice(source: &Path, guest: &GuestTarget) -> String {
    let selection = select(&Sources::open(&[source]).unwrap(), guest, &Definitions::builtin(), &LENIENT).unwrap();
    let text = serde_json::to_string_pretty(&selection).unwrap();
    for package in &selection.packages {
        for file in &package.files {
            assert_eq!(file.read().unwrap().len() as u64, file.size, "{}", file.name);
        }
    }
    text.replace(source.to_str().unwrap(), "SOURCE")
}

fn an_image_is_as_good_as_its_folder() {
    let Some(tree) = media::tree("0.1.285") else { return };
    let temp = tempfile::tempdir().unwrap();
    let small = temp.path().join("small");
    let folders: Vec<String> = ["viostor", "vioscsi", "NetKVM", "Balloon"]
        .iter()
        .flat_map(|driver| ["w10/amd64", "w8.1/amd64", "2k12R2/amd64", "w11/ARM64"].map(|os| format!("{driver}/{os}")))
        .filter(|folder| tree.join(folder).is_dir())
        .collect();
    media::copy_some(&tree, &folders.iter().map(String::as_str).collect::<Vec<_>>(), &small);
    let Some(program) = support::program("genisoimage") else { return };
    let kinds: [(&str, &[&str]); 5] = [
        ("published", &["-r", "-iso-level", "4"]),
        ("joliet", &["-J", "-joliet-long"]),
        ("udf", &["-udf"]),
        ("level4", &["-iso-level", "4", "-D"]),
        ("all", &["-r", "-J", "-udf"]),
    ];
    for (name, options) in kinds {
        let image = temp.path().join(format!("{name}.iso"));
        let mut command = Command::new(&program);
        command.args(["-quiet", "-input-charset", "iso8859-1"]).args(options).arg("-o").arg(&image).arg(&small);
        support::run(&mut command);
        for (arch, build, server) in
            [(Arch::Amd64, 19045, false), (Arch::Amd64, 9600, true), (Arch::Arm64, 26100, false)]
        {
            let guest = GuestTarget::of_build(arch, build, server);
            assert_eq!(choice(&image, &guest), choice(&small, &guest), "{name}, {guest}");
        }
    }
}

fn a_plain_image_with_short_names_still_serves() {
    let Some(tree) = media::tree("0.1.217") else { return };
    let temp = tempfile::tempdir().unwrap();
    let small = temp.path().join("small");
    media::copy_some(&tree, &["viostor/w10/amd64", "viostor/w8.1/amd64"], &small);
    let Some(program) = support::program("genisoimage") else { return };
    let image = temp.path().join("plain.iso");
    support::run(Command::new(program).args(["-quiet", "-input-charset", "iso8859-1", "-o"]).arg(&image).arg(&small));
    for build in [19045, 9600] {
        let guest = GuestTarget::of_build(Arch::Amd64, build, false);
        let selection = select(&Sources::open(&[&image]).unwrap(), &guest, &Definitions::builtin(), &LENIENT).unwrap();
        assert_eq!((selection.packages.len(), selection.boot_packages().count()), (1, 1), "{guest}");
        assert_eq!(selection.packages[0].stage_name, "viostor");
    }
}

fn a_truncated_image_is_one_clear_error() {
    let Some(tree) = media::tree("0.1.285") else { return };
    let temp = tempfile::tempdir().unwrap();
    let small = temp.path().join("small");
    media::copy_some(&tree, &["viostor/w10/amd64"], &small);
    let Some(program) = support::program("genisoimage") else { return };
    let image = temp.path().join("v.iso");
    support::run(
        Command::new(program).args(["-quiet", "-r", "-input-charset", "iso8859-1", "-o"]).arg(&image).arg(&small),
    );
    let data = std::fs::read(&image).unwrap();
    std::fs::write(&image, &data[..data.len() / 3]).unwrap();
    let error = Sources::open(&[&image]).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged, "{error}");
    assert!(error.to_string().contains("v.iso") || error.to_string().contains("viostor"), "{error}");
    assert!(error.to_string().contains("cut short") && error.hint_text().is_some(), "{error}");
}

tests![
    an_image_is_as_good_as_its_folder,
    a_plain_image_with_short_names_still_serves,
    a_truncated_image_is_one_clear_error,
];
