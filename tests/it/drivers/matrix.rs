//! Every row of the release table × every virtio-win generation of the corpus: which folder and which models section the
//! disk controllers come from.

use super::media;
use crate::support;
use std::fmt::Write as _;
use winject::drivers::{Arch, Definitions, GuestTarget, Policy, SignatureLevel, Sources, select};

/// Name for people, CPU, build, server.
const GUESTS: &[(&str, Arch, u32, bool)] = &[
    ("XP", Arch::X86, 2600, false),
    ("XP x64", Arch::Amd64, 3790, false),
    ("2003", Arch::X86, 3790, true),
    ("2003 x64", Arch::Amd64, 3790, true),
    ("Vista", Arch::X86, 6002, false),
    ("Vista x64", Arch::Amd64, 6002, false),
    ("2008", Arch::X86, 6003, true),
    ("2008 x64", Arch::Amd64, 6003, true),
    ("7", Arch::X86, 7601, false),
    ("7 x64", Arch::Amd64, 7601, false),
    ("2008 R2", Arch::Amd64, 7601, true),
    ("8", Arch::X86, 9200, false),
    ("8 x64", Arch::Amd64, 9200, false),
    ("2012", Arch::Amd64, 9200, true),
    ("8.1", Arch::X86, 9600, false),
    ("8.1 x64", Arch::Amd64, 9600, false),
    ("2012 R2", Arch::Amd64, 9600, true),
    ("10 1507", Arch::Amd64, 10240, false),
    ("10 1607", Arch::Amd64, 14393, false),
    ("10 1709", Arch::Amd64, 16299, false),
    ("10 22H2", Arch::Amd64, 19045, false),
    ("10 22H2 x86", Arch::X86, 19045, false),
    ("10 22H2 ARM64", Arch::Arm64, 19045, false),
    ("2016", Arch::Amd64, 14393, true),
    ("2019", Arch::Amd64, 17763, true),
    ("2022", Arch::Amd64, 20348, true),
    ("11 21H2", Arch::Amd64, 22000, false),
    ("11 23H2", Arch::Amd64, 22631, false),
    ("11 24H2", Arch::Amd64, 26100, false),
    ("11 24H2 ARM64", Arch::Arm64, 26100, false),
    ("11 25H2", Arch::Amd64, 26200, false),
    ("2025", Arch::Amd64, 26100, true),
];

fn table(release: &str) -> Option<String> {
    let tree = media::tree(release)?;
    let sources = Sources::open(&[tree]).unwrap();
    let mut out = String::new();
    for &(name, arch, build, server) in GUESTS {
        let guest = GuestTarget::of_build(arch, build, server);
        let _ = write!(out, "{name}:");
        match select(&sources, &guest, &Definitions::builtin(), &Policy { signature: SignatureLevel::Present }) {
            Ok(selection) => {
                for driver in ["viostor", "vioscsi", "netkvm"] {
                    match selection.packages.iter().find(|p| p.stage_name == driver) {
                        Some(package) => {
                            let section = package.inf.models[0].section.split_once('.').map_or("", |(_, d)| d);
                            let _ = write!(out, " {driver}={} [{section}]", package.bucket);
                            // never newer than the guest, and always for its CPU
                            assert!(package.source_path.ends_with(match arch {
                                Arch::X86 => "x86",
                                Arch::Amd64 => "amd64",
                                Arch::Arm64 => "ARM64",
                            }));
                        }
                        None => {
                            let _ = write!(out, " {driver}=none");
                        }
                    }
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), winject::Kind::Drivers);
                let _ = write!(out, " nothing");
            }
        }
        out.push('\n');
    }
    Some(out)
}

/// The tables were read through by a person: same CPU, own release first, never a newer kernel, the INF's lowest system
/// not above the guest's. Where the corpus lacks a release's INF, the media hold that of another one, which the choice
/// must then pass over (2016 with 0.1.285, for one).
#[test]
fn every_release_and_every_generation() {
    for release in ["0.1.217", "0.1.240", "0.1.285"] {
        let Some(found) = table(release) else { return };
        let expected = support::root().join(format!("tests/it/drivers/matrix/{release}.txt"));
        let expected = std::fs::read_to_string(expected).unwrap();
        for (found, expected) in found.lines().zip(expected.lines()) {
            assert_eq!(found, expected, "virtio-win {release}");
        }
        assert_eq!(found.lines().count(), GUESTS.len());
        assert_eq!(expected.lines().count(), GUESTS.len());
    }
}
