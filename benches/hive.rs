//! `winject reg import` against `hivexregedit --merge`, whole processes, the same changes: time, growth, memory.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use winject::internals::clock::FileTime;
use winject::internals::hive::{Hive, RegistryData, ValueType};

const ROUNDS: usize = 7;
/// Memory that an import may take in addition to the size of the hive, in bytes.
const MEMORY_BEYOND_HIVE_MAX: u64 = 8 << 20;
const NOW: FileTime = FileTime(0x01DC_0000_0000_0000);

/// 100 keys with 500 values below `Services`, as `.reg` file, and the bytes that their cells need.
fn import() -> (String, u64) {
    let mut text = String::from("Windows Registry Editor Version 5.00\n\n");
    let mut payload = 0;
    let cell = |data: usize| (data + 4).next_multiple_of(8) as u64;
    for i in 0..100 {
        let key = format!("winject{i:03}");
        write!(text, "[\\ControlSet001\\Services\\{key}]\n\"Start\"=dword:00000003\n\"Type\"=dword:00000001\n")
            .unwrap();
        write!(text, "\"Group\"=\"SCSI miniport {i}\"\n\"DisplayName\"=\"Red Hat VirtIO SCSI controller {i}\"\n")
            .unwrap();
        let path = format!("system32\\drivers\\{key}.sys\0");
        let bytes: Vec<u8> = path.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        write!(text, "\"ImagePath\"=hex(2):{}\n\n", hex.join(",")).unwrap();
        payload += cell(76 + key.len()) + cell(20) + 8; // key, value list, its entry in the index
        for (name, data) in [
            (5, 0),
            (4, 0),
            (5, format!("SCSI miniport {i}").len() * 2 + 2),
            (11, format!("Red Hat VirtIO SCSI controller {i}").len() * 2 + 2),
            (9, bytes.len()),
        ] {
            payload += cell(20 + name) + if data > 4 { cell(data) } else { 0 };
        }
    }
    (text, payload)
}

/// A hive of about `size` bytes that looks like a SYSTEM hive.
fn synthetic(size: usize) -> Vec<u8> {
    let mut hive = Hive::create("SYSTEM", NOW);
    hive.create_key(hive.root(), r"ControlSet001\Services", NOW).unwrap();
    let mut i = 0u32;
    while hive.file_size() < size {
        let path = match i % 40 {
            0..8 => format!(r"ControlSet001\Services\service {:05}", i / 40 * 8 + i % 8),
            _ => format!(r"ControlSet001\Enum\BUS{}\VEN_{:04X}&DEV_{:04X}\{}", i % 97, i % 400, i % 7919, i / 40 % 12),
        };
        let key = hive.create_key(hive.root(), &path, NOW).unwrap();
        for (name, data) in [
            ("Start", RegistryData::dword(i)),
            ("ClassGUID", RegistryData::sz("{4d36e97b-e325-11ce-bfc1-08002be10318}")),
            ("Description", RegistryData::sz("A device of some kind, made by a manufacturer of devices")),
            ("Properties", RegistryData { kind: ValueType(0xFFFF_0012), bytes: vec![i as u8; (i % 300) as usize] }),
        ] {
            hive.set_value(key, name, &data, NOW).unwrap();
        }
        i += 1;
    }
    hive.finish(&[]).unwrap()
}

/// The real 15 MB hive of the corpus, marked as clean, or one made here.
fn system() -> (String, Vec<u8>) {
    let shared = std::env::var_os("WINJECT_SHARED").map_or_else(|| PathBuf::from("../shared"), PathBuf::from);
    let Ok(packed) = std::fs::read(shared.join("corpus/hives/win10-1909/SYSTEM.xz")) else {
        return ("made, 15 MB".into(), synthetic(15_000_000));
    };
    let mut bytes = Vec::new();
    lzma_rs::xz_decompress(&mut &packed[..], &mut bytes).unwrap();
    bytes.copy_within(4..8, 8);
    let sum = bytes[..508].chunks_exact(4).fold(0, |sum, w| sum ^ u32::from_le_bytes(w.try_into().unwrap()));
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
    ("Windows 10, 15 MB".into(), bytes)
}

/// Runs a command; how long it took, and its peak memory in bytes.
fn measure(command: &mut Command) -> (Duration, u64) {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = 0;
    loop {
        if let Some(code) = child.try_wait().unwrap() {
            assert!(code.success(), "{command:?}");
            return (start.elapsed(), peak);
        }
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) * 1024);
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn bins(file: &Path) -> u64 {
    let bytes = std::fs::read(file).unwrap();
    u32::from_le_bytes(bytes[40..44].try_into().unwrap()).into()
}

fn compare(name: &str, hive: &[u8], folder: &Path) {
    let (text, payload) = import();
    let (target, reg) = (folder.join("hive"), folder.join("in.reg"));
    std::fs::write(&reg, text).unwrap();
    let peer =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|p| p.join("hivexregedit").is_file());
    let (mut ours, mut theirs, mut memory) = (Duration::MAX, Duration::MAX, 0);
    let (mut our_growth, mut their_growth) = (0, 0);
    let before = u64::from(u32::from_le_bytes(hive[40..44].try_into().unwrap()));
    for _ in 0..ROUNDS {
        std::fs::write(&target, hive).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_winject"));
        let (time, peak) = measure(command.args(["reg", "import"]).arg(&target).arg(&reg));
        (ours, memory) = (ours.min(time), memory.max(peak));
        our_growth = bins(&target) - before;
        if peer {
            std::fs::write(&target, hive).unwrap();
            let (time, _) = measure(Command::new("hivexregedit").arg("--merge").arg(&target).arg(&reg));
            theirs = theirs.min(time);
            their_growth = bins(&target) - before;
        }
    }
    println!("{name} ({} bytes), 100 keys and 500 values ({payload} bytes of cells):", hive.len());
    println!("  time     {:>7.1} ms", ours.as_secs_f64() * 1e3);
    if peer {
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        println!("  hivexregedit {:>3.1} ms, ratio {ratio:.2}", theirs.as_secs_f64() * 1e3);
        println!("  its growth {their_growth} bytes, {:.2} of the payload", their_growth as f64 / payload as f64);
    } else {
        println!("  SKIPPED: hivexregedit is not installed");
    }
    println!("  growth   {our_growth} bytes, {:.2} of the payload", our_growth as f64 / payload as f64);
    let beyond = memory.saturating_sub(hive.len() as u64);
    let verdict = if beyond <= MEMORY_BEYOND_HIVE_MAX { "within" } else { "ABOVE" };
    println!("  memory   the hive and {:.1} MiB, {verdict} the limit of 8 MiB", beyond as f64 / f64::from(1 << 20));
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let (name, hive) = system();
    compare(&name, &hive, folder.path());
    compare("made, 80 MB", &synthetic(80_000_000), folder.path());
}
