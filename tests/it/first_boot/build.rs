//! The checked-in executables are those that the source gives, from whatever folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support;

/// The CPUs that there is a program for.
const CPUS: [&str; 3] = ["amd64", "x86", "arm64"];
/// Largest executable: it is a part of every winject.
const BYTES_MAX: u64 = 96 << 10;

fn source() -> PathBuf {
    support::root().join("guest/firstboot")
}

/// The checked-in executable for a CPU.
pub fn program(cpu: &str) -> PathBuf {
    support::root().join("src/windows/first_boot/program").join(cpu).with_extension("exe")
}

/// Runs `build.sh` in a copy of the source or in the source itself.
fn build(source: &Path, out: &Path) {
    support::run(Command::new("bash").arg(source.join("build.sh")).arg(out));
}

/// Whether the program can be built here; says why not.
fn has_toolchain() -> bool {
    // Outside of CI, nothing is downloaded without being asked for.
    let script = std::fs::read_to_string(source().join("build.sh")).unwrap();
    let version = script.lines().find_map(|line| line.strip_prefix("version=")).unwrap();
    let is_here = support::find_program("rustup").is_some_and(|rustup| {
        let targets = Command::new(rustup).args(["target", "list", "--installed", "--toolchain", version]).output();
        let targets = String::from_utf8(targets.unwrap().stdout).unwrap();
        ["x86_64", "i686", "aarch64"].iter().all(|cpu| targets.contains(&format!("{cpu}-pc-windows-msvc")))
    });
    if !is_here && !support::is_ci() {
        support::skip("the toolchain for the service program is not installed (guest/firstboot/build.sh FOLDER)");
    }
    is_here || support::is_ci()
}

/// The folder with what the source gives, built once.
fn built() -> Option<&'static Path> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    has_toolchain()
        .then(|| {
            BUILT.get_or_init(|| {
                let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("first-boot");
                build(&source(), &out);
                out
            })
        })
        .map(PathBuf::as_path)
}

/// Builds the program that stands in for those of Windows; `None` after saying why it cannot be.
pub fn stand_in() -> Option<PathBuf> {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("stand-in");
    has_toolchain().then(|| {
        support::run(Command::new("bash").arg(source().join("build.sh")).arg(&out).arg("--stand-in"));
        out.join("stand-in.exe")
    })
}

fn the_checked_in_programs_are_what_the_source_gives() {
    let Some(built) = built() else { return };
    for cpu in CPUS {
        let (new, old) = (std::fs::read(built.join(cpu).with_extension("exe")).unwrap(), program(cpu));
        assert!(
            new == std::fs::read(&old).unwrap(),
            "{} is not what the source gives: run guest/firstboot/build.sh src/windows/first_boot/program",
            old.display()
        );
    }
}

fn another_folder_gives_the_same_programs() {
    let Some(built) = built() else { return };
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("a copy/of it");
    std::fs::create_dir_all(&copy).unwrap();
    support::run(Command::new("cp").arg("-r").arg(source()).arg(&copy));
    build(&copy.join("firstboot"), &folder.path().join("out"));
    for cpu in CPUS {
        let [a, b] = [built, &folder.path().join("out")].map(|out| out.join(cpu).with_extension("exe"));
        assert!(std::fs::read(a).unwrap() == std::fs::read(b).unwrap(), "{cpu}: the folder changes the bytes");
    }
}

/// What each program is, read from its headers: the CPU, no traces of the machine that built it, and imports that every
/// Windows since Vista has.
fn the_programs_are_small_for_their_cpu_and_import_only_what_vista_has() {
    for (cpu, machine) in CPUS.iter().zip([0x8664_u16, 0x014c, 0xaa64]) {
        let bytes = std::fs::read(program(cpu)).unwrap();
        assert!(bytes.len() as u64 <= BYTES_MAX, "{cpu}: {} bytes", bytes.len());
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let u16_at = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
        let pe = u32_at(0x3c) as usize;
        assert_eq!(&bytes[pe..pe + 4], b"PE\0\0");
        assert_eq!(u16_at(pe + 4), machine, "{cpu}");
        let optional = pe + 24;
        let (subsystem, flags) = (u16_at(optional + 68), u16_at(optional + 70));
        assert_eq!(subsystem, 3, "a program without windows");
        assert_eq!(flags & 0x140, 0x140, "{cpu}: DYNAMIC_BASE, NX_COMPAT");
        let oldest = if *cpu == "arm64" { (6, 2) } else { (6, 0) };
        assert_eq!((u16_at(optional + 48), u16_at(optional + 50)), oldest, "{cpu}: the oldest Windows that starts it");
        let text = String::from_utf8_lossy(&bytes);
        for trace in ["/root", "/home", "/tmp", env!("CARGO_MANIFEST_DIR"), ".cargo"] {
            assert!(!text.contains(trace), "{cpu}: {trace}");
        }
        let is_name = |text: &str| text.len() > 3 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let is_decorated =
            |word: &str| word.rsplit_once('@').is_some_and(|(name, n)| is_name(name) && n.parse::<u8>().is_ok());
        assert!(!text.split('\0').any(is_decorated), "{cpu}: no library exports a name like _SetEvent@4");
        let lower = text.to_lowercase();
        let mut libraries: Vec<&str> = lower
            .split(|c: char| !(c.is_ascii_alphanumeric() || ".-_".contains(c)))
            .filter(|word| word.ends_with(".dll") && word.len() > 4)
            .collect();
        libraries.sort_unstable();
        libraries.dedup();
        let expected = ["advapi32.dll", "cfgmgr32.dll", "iphlpapi.dll", "kernel32.dll", "ntdll.dll", "setupapi.dll"];
        libraries.retain(|name| !expected.contains(name));
        assert!(libraries.is_empty(), "{cpu}: {libraries:?}");
    }
}

tests![
    the_checked_in_programs_are_what_the_source_gives,
    another_folder_gives_the_same_programs,
    the_programs_are_small_for_their_cpu_and_import_only_what_vista_has,
];
