//! `winject drivers list`.

use super::media;
use crate::support;
use assert_cmd::Command;
use serde_json::Value;

fn winject() -> Command {
    Command::cargo_bin("winject").unwrap()
}

fn text(command: &mut Command, code: i32) -> String {
    let output = command.assert().code(code).get_output().clone();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

fn our_own_media() {
    let drivers = support::root().join("test-images/drivers");
    let shown = text(winject().args(["drivers", "list"]).arg(&drivers), 0);
    for part in [
        "viostor (SCSIAdapter)",
        "viostor/w10/amd64/viostor.inf  101.2.3.4 2026-03-01",
        "for amd64, Windows 10 (10.0) and later",
        "driver file signed by winject test publisher (sha256); catalogue signed by winject test publisher (sha256)",
        "4 packages",
    ] {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
}

fn for_an_image() {
    let root = support::root();
    let mut command = winject();
    command.args(["drivers", "list", "--json"]).arg(root.join("test-images/drivers"));
    let shown = text(command.arg("--for").arg(root.join("test-images/win10.qcow2")), 0);
    let listing: Value = serde_json::from_str(&shown).unwrap();
    assert!(listing["guest"].as_str().unwrap().starts_with("Windows 10 (build 19045, amd64"), "{listing}");
    let packages = listing["packages"].as_array().unwrap();
    assert_eq!(packages.len(), 4);
    for package in packages {
        assert_eq!(package["chosen"], true, "{package}");
        assert!(package["reason"].as_str().unwrap().contains("w10 is made for this Windows"));
        assert_eq!(package["driver_file"]["signer"], "winject test publisher");
    }
}

fn why_a_package_is_not_used() {
    let Some(tree) = media::signed_tree("0.1.285") else { return };
    let image = support::root().join("test-images/win10.qcow2");
    let mut command = winject();
    let shown = text(command.args(["drivers", "list", "--json"]).arg(tree).arg("--for").arg(image), 0);
    // warnings follow the document
    let listing: Value = serde_json::Deserializer::from_str(&shown).into_iter().next().unwrap().unwrap();
    let packages = listing["packages"].as_array().unwrap();
    let reason = |path: &str| {
        let package = packages.iter().find(|p| p["path"] == path).unwrap_or_else(|| panic!("{path}"));
        (package["chosen"].as_bool().unwrap(), package["reason"].as_str().unwrap().to_owned())
    };
    assert!(reason("viostor/w10/amd64/viostor.inf").0);
    assert!(reason("amd64/w10/viostor.inf").1.contains("an earlier one"));
    assert!(reason("viostor/w11/amd64/viostor.inf").1.contains("made for a newer Windows (w11)"));
    assert!(reason("viostor/w10/x86/viostor.inf").1.contains("for another CPU (x86)"));
    assert_eq!(packages.iter().filter(|p| p["chosen"] == true && p["class"] == "SCSIAdapter").count(), 2);
    assert!(listing["skipped"].as_array().unwrap().iter().any(|s| s["name"] == "vioprot.inf"));
}

fn errors() {
    let temp = tempfile::tempdir().unwrap();
    let shown = text(winject().args(["drivers", "list"]).arg(temp.path().join("no")), 6);
    assert!(shown.contains("there is no such driver folder") && shown.contains("Hint:"), "{shown}");
    text(winject().args(["drivers", "list"]), 2);
}

tests![our_own_media, for_an_image, why_a_package_is_not_used, errors,];
