//! Signatures of drivers and catalogues: made by osslsigncode and openssl, judged by winject.

use super::media;
use crate::support;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use winject::internals::drivers::trust::{Catalogue, Publisher, embedded_signature};
use winject::internals::drivers::{
    Arch, Definitions, GuestTarget, PeFacts, Policy, Selection, SignatureLevel, Sources, select,
};
use winject::{Error, Kind};

const STRICT: Policy = Policy { signature: SignatureLevel::Require };

/// The package's own small media: really signed, by an authority that exists nowhere else.
fn fixture() -> PathBuf {
    support::root().join("test-images/drivers")
}

fn w10() -> GuestTarget {
    GuestTarget::of_build(Arch::Amd64, 19045, false)
}

fn choose(folder: &Path, guest: &GuestTarget, policy: &Policy) -> Result<Selection, Error> {
    select(&Sources::open(&[folder])?, guest, &Definitions::builtin(), policy)
}

fn copy() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let folders = ["viostor/w10/amd64", "vioscsi/w10/amd64", "Balloon/w10/amd64"];
    media::copy_some(&fixture(), &folders, temp.path());
    temp
}

#[track_caller]
fn refused(folder: &Path, guest: &GuestTarget, parts: &[&str]) {
    let error = choose(folder, guest, &STRICT).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), Kind::Drivers, "{text}");
    assert!(error.hint_text().unwrap().contains("--signature-policy warn"), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    let selection = choose(folder, guest, &Policy { signature: SignatureLevel::Warn }).unwrap();
    let warnings = selection.warnings.join("\n");
    assert!(parts.iter().all(|part| warnings.contains(part)), "the warning says the same: {warnings}");
}

fn well_signed_media_satisfy_the_strict_policy() {
    let selection = choose(&fixture(), &w10(), &STRICT).unwrap();
    assert_eq!(selection.packages.len(), 4);
    assert!(selection.warnings.is_empty(), "{:?}", selection.warnings);
    for package in &selection.packages {
        assert!(package.signature.is_good(), "{}: {:?}", package.stage_name, package.signature);
        assert_eq!(package.signature.signer.as_deref(), Some("winject test publisher"));
    }
    for (_, boot) in selection.boot_packages() {
        assert!(boot.signature.is_good(), "{:?}", boot.signature);
        assert_eq!(boot.signature.signer.as_deref(), Some("winject test publisher"));
        assert_eq!(boot.signature.digest.as_deref(), Some("sha256"));
    }
}

fn a_changed_driver_is_refused() {
    let temp = copy();
    let file = temp.path().join("viostor/w10/amd64/viostor.sys");
    let mut data = fs::read(&file).unwrap();
    data[5000] ^= 1;
    fs::write(&file, data).unwrap();
    refused(temp.path(), &w10(), &["viostor.sys", "the digests differ"]);
}

fn an_unsigned_driver_is_refused_at_every_level_but_warn() {
    let temp = copy();
    let file = temp.path().join("viostor/w10/amd64/viostor.sys");
    let mut data = fs::read(&file).unwrap();
    let directory = 0x98 + 112 + 32;
    let at = u32::from_le_bytes(data[directory..directory + 4].try_into().unwrap()) as usize;
    data.truncate(at);
    data[directory..directory + 8].fill(0);
    fs::write(&file, data).unwrap();
    refused(temp.path(), &w10(), &["viostor.sys", "not signed"]);
    assert!(choose(temp.path(), &w10(), &Policy { signature: SignatureLevel::Present }).is_err());
}

fn the_catalogue_of_another_package_is_refused() {
    let temp = copy();
    let (from, to) = ("vioscsi/w10/amd64/vioscsi.cat", "viostor/w10/amd64/viostor.cat");
    fs::copy(temp.path().join(from), temp.path().join(to)).unwrap();
    refused(temp.path(), &w10(), &["viostor.cat does not list viostor.inf, viostor.sys", "of another package"]);
}

fn a_changed_inf_is_not_in_its_catalogue() {
    let temp = copy();
    let file = temp.path().join("viostor/w10/amd64/viostor.inf");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("\r\n", "\n")).unwrap();
    refused(temp.path(), &w10(), &["viostor.cat does not list viostor.inf:"]);
}

fn a_broken_catalogue() {
    let temp = copy();
    let file = temp.path().join("viostor/w10/amd64/viostor.cat");
    let data = fs::read(&file).unwrap();
    fs::write(&file, &data[..data.len() / 2]).unwrap();
    refused(temp.path(), &w10(), &["viostor.cat cannot be read"]);
    // the list was changed after it was signed
    let mut changed = data.clone();
    let at = data.windows(4).position(|w| w == b"F\0i\0" || w == b"\0F\0i").unwrap();
    changed[at + 1] ^= 1;
    fs::write(&file, changed).unwrap();
    refused(temp.path(), &w10(), &["contradicts itself"]);
    // of a package that is only staged, it is a warning nowhere: the report has it
    fs::write(&file, data).unwrap();
    fs::write(temp.path().join("Balloon/w10/amd64/balloon.cat"), "noise").unwrap();
    let selection = choose(temp.path(), &w10(), &STRICT).unwrap();
    let balloon = selection.packages.iter().find(|p| p.stage_name == "balloon").unwrap();
    assert!(balloon.signature.present && !balloon.signature.parsed && balloon.signature.problem.is_some());
}

fn noise_in_place_of_signatures() {
    let Some(tree) = media::tree("0.1.285") else { return };
    refused(&tree, &w10(), &["the embedded signature cannot be read"]);
    assert!(choose(&tree, &w10(), &Policy { signature: SignatureLevel::Present }).is_ok());
}

fn a_whole_tree_signed_anew() {
    let Some(tree) = media::signed_tree("0.1.285") else { return };
    for (build, server) in [(19045, false), (26100, false), (20348, true), (26100, true), (9600, false)] {
        let guest = GuestTarget::of_build(Arch::Amd64, build, server);
        let selection = choose(&tree, &guest, &STRICT).unwrap_or_else(|e| panic!("{guest}: {e}"));
        assert_eq!(selection.boot_packages().filter(|(_, b)| b.signature.is_good()).count(), 2, "{guest}");
        for package in &selection.packages {
            assert!(package.signature.is_good(), "{guest}: {}: {:?}", package.stage_name, package.signature);
        }
    }
}

fn sha2_on_windows_7() {
    let Some(tree) = media::signed_tree("0.1.285") else { return };
    let of = |arch, update| GuestTarget { sha2_update: update, ..GuestTarget::of_build(arch, 7601, false) };
    let amd64 = |update| of(Arch::Amd64, update);
    refused(&tree, &amd64(Some(false)), &["SHA-2 only", "KB4474419"]);
    assert!(choose(&tree, &amd64(Some(true)), &STRICT).unwrap().warnings.iter().all(|w| !w.contains("SHA-2")));
    let unknown = choose(&tree, &amd64(None), &STRICT).unwrap();
    assert!(unknown.warnings.iter().any(|w| w.contains("may lack the update")), "{:?}", unknown.warnings);
    // 32-bit systems do not insist
    let x86 = choose(&tree, &of(Arch::X86, Some(false)), &STRICT).unwrap();
    assert!(x86.warnings.iter().any(|w| w.contains("lacks the update")), "{:?}", x86.warnings);
    // a SHA-1 signature pleases it
    let temp = tempfile::tempdir().unwrap();
    media::copy_some(&tree, &["viostor/w7/amd64"], temp.path());
    media::sign(temp.path(), "sha1");
    let old = choose(temp.path(), &amd64(Some(false)), &STRICT).unwrap();
    assert_eq!(old.boot_packages().next().unwrap().1.signature.digest.as_deref(), Some("sha1"));
}

fn a_publisher_for_the_registry() {
    let path = fixture().join("cert/winject-test-publisher.cer");
    let der = fs::read(&path).unwrap();
    let publisher = Publisher::parse(&der, "x.cer").unwrap();
    assert_eq!(publisher.subject, "winject test publisher");
    assert_eq!(publisher.blob.len(), 12 + 20 + 12 + der.len());
    assert_eq!(publisher.blob[..12], [3, 0, 0, 0, 1, 0, 0, 0, 20, 0, 0, 0]);
    assert_eq!(publisher.blob[12..32], publisher.sha1);
    assert_eq!(publisher.blob[32..40], [32, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(publisher.blob[44..], der);
    assert!(publisher.key_path().ends_with(&format!("TrustedPublisher\\Certificates\\{}", publisher.key_name())));
    for bad in [&b"hello"[..], &der[..100], b"-----BEGIN CERTIFICATE-----\nxx\n"] {
        assert_eq!(Publisher::parse(bad, "x.cer").unwrap_err().kind(), Kind::Usage);
    }
    let Some(openssl) = support::program("openssl") else { return };
    let print = support::run(
        Command::new(&openssl).args(["x509", "-inform", "DER", "-fingerprint", "-sha1", "-noout", "-in"]).arg(&path),
    );
    let text = String::from_utf8(print.stdout).unwrap().replace(':', "");
    assert!(text.trim().ends_with(&publisher.key_name()), "{text}");
    let pem = support::run(Command::new(&openssl).args(["x509", "-inform", "DER", "-in"]).arg(&path)).stdout;
    assert_eq!(Publisher::parse(&pem, "x.pem").unwrap(), publisher);
}

fn mutated_signatures_and_catalogues_never_panic() {
    let folder = fixture().join("viostor/w10/amd64");
    let (driver, catalogue) =
        (fs::read(folder.join("viostor.sys")).unwrap(), fs::read(folder.join("viostor.cat")).unwrap());
    let table = PeFacts::parse(&driver).unwrap().certificates.unwrap().0 as usize;
    let mut random = super::Random(7);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..support::rounds(3000, 8_000) {
        let mut data = catalogue.clone();
        random.spoil(&mut data, 0);
        if let Ok(parsed) = Catalogue::parse(&data) {
            let _ = (parsed.len(), parsed.lists(b"x"));
        }
        let mut data = driver.clone();
        let from = if random.next(2) == 0 { table } else { 0 };
        random.spoil(&mut data, from);
        if let Ok(pe) = PeFacts::parse(&data) {
            match embedded_signature(&data, &pe).is_good() {
                true => good += 1,
                false => bad += 1,
            }
        } else {
            bad += 1;
        }
    }
    println!("mutated drivers: {good} still good, {bad} not");
    assert!(bad > good / 4, "{bad} of {good}");
}

/// A changed byte outside the checksum and the certificates is always seen.
fn every_covered_byte_counts() {
    let driver = fs::read(fixture().join("viostor/w10/amd64/viostor.sys")).unwrap();
    let pe = PeFacts::parse(&driver).unwrap();
    let table = pe.certificates.unwrap().0 as usize;
    for at in (0..table).step_by(97).chain(0x200..0x210) {
        let is_uncovered = (0x98 + 64..0x98 + 68).contains(&at) || (0x98 + 112 + 32..0x98 + 112 + 40).contains(&at);
        let mut data = driver.clone();
        data[at] ^= 0x10;
        let seen = !PeFacts::parse(&data).is_ok_and(|pe| embedded_signature(&data, &pe).is_good());
        assert!(seen || is_uncovered, "a change at {at:#x} is not seen");
    }
}

tests![
    well_signed_media_satisfy_the_strict_policy,
    a_changed_driver_is_refused,
    an_unsigned_driver_is_refused_at_every_level_but_warn,
    the_catalogue_of_another_package_is_refused,
    a_changed_inf_is_not_in_its_catalogue,
    a_broken_catalogue,
    noise_in_place_of_signatures,
    a_whole_tree_signed_anew,
    sha2_on_windows_7,
    a_publisher_for_the_registry,
    mutated_signatures_and_catalogues_never_panic,
    every_covered_byte_counts,
];
