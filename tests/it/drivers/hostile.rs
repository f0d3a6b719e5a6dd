//! Broken and hostile INFs: one clear error each, no panic, no hang.

use super::Random;
use crate::support;
use std::fs;
use std::time::{Duration, Instant};
use winject::internals::drivers::inf::{Inf, SIZE_MAX};
use winject::internals::drivers::{Arch, Definitions, GuestTarget, Policy, Sources, select};
use winject::{Error, Kind};

fn w10() -> GuestTarget {
    GuestTarget::of_build(Arch::Amd64, 19045, false)
}

fn read(text: &[u8]) -> Result<(), Error> {
    Inf::parse(text, "x.inf")?.facts(&w10()).map(|_| ())
}

/// The texts in test-images/inf.
fn fixtures() -> Vec<(String, Vec<u8>)> {
    let mut out: Vec<_> = fs::read_dir(support::root().join("test-images/inf"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "inf"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap()))
        .collect();
    out.sort();
    out
}

fn own_fixtures_read() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 3);
    for (name, data) in fixtures {
        let facts = Inf::parse(&data, &name).and_then(|inf| inf.facts(&w10())).unwrap_or_else(|e| panic!("{e}"));
        assert!(facts.warnings.is_empty(), "{name}: {:?}", facts.warnings);
        assert!(!facts.models.is_empty(), "{name}");
    }
}

fn cyclic_strings() {
    let text =
        "[Version]\nSignature=\"$Windows NT$\"\nClass=Net\nProvider=%A%\n[Strings]\nA=\"x%B%\"\nB=\"%C%\"\nC=\"%A%\"\n";
    let error = read(text.as_bytes()).unwrap_err();
    assert_eq!(error.kind(), Kind::Drivers);
    assert!(error.to_string().contains("x.inf:6") && error.to_string().contains("contains itself"), "{error}");
}

fn a_ten_megabyte_inf() {
    let mut text = b"[Version]\nSignature=\"$Windows NT$\"\n".to_vec();
    text.resize(10 << 20, b';');
    let error = read(&text).unwrap_err();
    assert!(error.to_string().contains("10485760 bytes"), "{error}");
}

fn the_largest_inf_that_is_read_is_read_quickly() {
    let start = Instant::now();
    let head = "[Version]\nSignature=\"$Windows NT$\"\nClass=Net\n[Manufacturer]\n%M%=D,NTamd64\n[D.NTamd64]\n";
    for line in [
        "%X% = I, PCI\\VEN_1234&DEV_5678\n",
        "%X%=I%M%,%M%%M%\n",
        "\"a\",\"b\"\n",
        "[s]\n",
        "x=\\\n",
        "%%%%%%%%%%%%%%%\n",
    ] {
        let mut text = head.to_owned();
        while text.len() + line.len() + 40 < SIZE_MAX {
            text.push_str(line);
        }
        text.push_str("\n[I]\n[Strings]\nM=\"m\"\nX=\"x\"\n");
        let _ = read(text.as_bytes());
    }
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
}

fn without_models() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("a.inf"), "[Version]\nSignature=\"$Windows NT$\"\nClass=Net\n").unwrap();
    let sources = Sources::open(&[temp.path()]).unwrap();
    let error = select(&sources, &w10(), &Definitions::builtin(), &Policy::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Drivers);
    assert!(error.to_string().contains("no models section"), "{error}");
}

fn every_error_has_file_and_line() {
    let head = "[Version]\nSignature=\"$Windows NT$\"\nClass=Net\n[Manufacturer]\n%M%=D,NTamd64\n[D.NTamd64]\n%M%=I,PCI\\X\n[I]\n";
    for (rest, line, part) in [
        ("[I.Services]\nAddService=s,2,Gone\n", 10, "[Gone]"),
        ("[I.Services]\nAddService=s,2,S\n[S]\nServiceType=1\nStartType=0\nErrorControl=1\n", 11, "no ServiceBinary"),
        (
            "[I.Services]\nAddService=s,2,S\n[S]\nServiceType=x\nServiceBinary=%12%\\a.sys\n",
            12,
            "ServiceType is not a number",
        ),
        ("[I.Services]\nAddService=s,2,S\n[S]\nServiceType=1\nServiceBinary=%12\\a.sys\n", 13, "ServiceBinary"),
        ("AddReg=R\n[R]\nHKR,,a,0x40000,zzz\n", 11, "unknown type"),
        ("[broken\n", 9, "closing bracket"),
    ] {
        let error = read(format!("{head}{rest}").as_bytes()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("x.inf:{line}:")) && text.contains(part), "{text}");
        assert!(error.hint_text().is_some());
    }
}

fn mutated_infs_never_panic() {
    let fixtures = fixtures();
    let guests =
        [w10(), GuestTarget::of_build(Arch::X86, 2600, false), GuestTarget::of_build(Arch::Arm64, 26100, true)];
    let mut random = Random(3);
    let (mut fine, mut refused) = (0, 0);
    for round in 0..support::rounds(6000, 15_000) {
        let mut data = fixtures[round as usize % fixtures.len()].1.clone();
        random.spoil(&mut data, 0);
        match Inf::parse(&data, "x.inf") {
            Ok(inf) => {
                for guest in &guests {
                    match inf.facts(guest) {
                        Ok(_) => fine += 1,
                        Err(error) => {
                            assert_eq!(error.kind(), Kind::Drivers, "{error}");
                            refused += 1;
                        }
                    }
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::Drivers, "{error}");
                refused += 1;
            }
        }
    }
    println!("mutated INFs: {fine} read, {refused} refused");
    assert!(fine > refused && refused > 0);
}

/// Small files whose sections use each other so often that reading them all would take for ever.
fn sections_that_multiply() {
    let head =
        "[Version]\nSignature=\"$Windows NT$\"\nClass=Net\n[Manufacturer]\n%M%=D,NTamd64\n[D.NTamd64]\n%M%=I,PCI\\X\n";
    let big = "HKR,,a,,b\n".repeat(20_000);
    let names = vec!["R"; 8000].join(",");
    let start = Instant::now();
    for text in [
        format!("{head}[I]\nAddReg={names}\n[R]\n{big}"),
        format!("{head}[I]\nCopyFiles={names}\n[R]\n{}", "a.sys\n".repeat(20_000)),
        format!(
            "{head}[I]\n[I.Services]\n{}[S]\nServiceType=1\nStartType=3\nErrorControl=1\nServiceBinary=%12%\\a.sys\n",
            "AddService=x,2,S\n".repeat(50_000)
        ),
        format!("{head}{}", "%M%=I,PCI\\X\n".repeat(200_000)),
    ] {
        let error = read(text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("far too often"), "{error}");
    }
    let decorations: String = (0..200_000).map(|n| format!(",NTamd64.{}.{}", n / 500, n % 500)).collect();
    let text = head.replace("D,NTamd64", &format!("D{}", &decorations[..40_000]));
    let _ = read(text.as_bytes());
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

tests![
    own_fixtures_read,
    cyclic_strings,
    a_ten_megabyte_inf,
    the_largest_inf_that_is_read_is_read_quickly,
    without_models,
    every_error_has_file_and_line,
    mutated_infs_never_panic,
    sections_that_multiply,
];
