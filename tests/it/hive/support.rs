//! What the hive tests share: real hives, foreign judges.

use std::path::{Path, PathBuf};
use std::process::Command;

use winject::internals::clock::FileTime;

use crate::support;

/// The one time of these tests.
pub const NOW: FileTime = FileTime(0x01DC_0000_0000_0000);

/// Every undamaged hive of the corpus.
pub const HIVES: [&str; 9] = [
    "hives/misc/BCD.xz",
    "hives/misc/SAM.xz",
    "hives/misc/SECURITY.xz",
    "hives/misc/NTUSER.DAT.xz",
    "hives/amcache-win10-dirty/Amcache.hve.xz",
    "hives/usrclass-dirty/UsrClass.dat.xz",
    "hives/win7/SYSTEM.xz",
    "hives/win8.1/SYSTEM.xz",
    "hives/win10-1909/SYSTEM.xz",
];

/// A little-endian word of a file.
pub fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Recomputes the checksum of a base block.
pub fn seal(bytes: &mut [u8]) {
    let sum = bytes[..508].chunks_exact(4).fold(0, |sum, w| sum ^ u32::from_le_bytes(w.try_into().unwrap()));
    let sum = match sum {
        0 => 1,
        u32::MAX => u32::MAX - 1,
        sum => sum,
    };
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
}

/// A hive of the corpus whose logs are lost, marked as clean: otherwise it is sound.
pub fn clean_hive(path: &str) -> Option<Vec<u8>> {
    let mut bytes = support::corpus_bytes(path)?;
    let primary: [u8; 4] = bytes[4..8].try_into().unwrap();
    bytes[8..12].copy_from_slice(&primary);
    seal(&mut bytes);
    Some(bytes)
}

/// The dirty sets of the corpus: folder, and name of the hive.
pub const DIRTY: [(&str, &str); 5] = [
    ("win10-1709-dirty", "SYSTEM"),
    ("usrclass-dirty", "UsrClass.dat"),
    ("ntuser-dirty", "NTUSER.DAT"),
    ("amcache-win10-dirty", "Amcache.hve"),
    ("amcache-server2022-dirty", "Amcache.hve"),
];

/// Every hive of the corpus that can be opened: the undamaged ones, and what becomes of the dirty ones by replay.
pub fn real_hives() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for path in HIVES {
        let Some(bytes) = clean_hive(path) else { return Vec::new() };
        all.push((path.to_owned(), bytes));
    }
    for (folder, file) in DIRTY {
        let get = |name: String| support::corpus_bytes(&format!("hives/{folder}/{name}.xz"));
        let files = [file.to_owned(), format!("{file}.LOG1"), format!("{file}.LOG2")].map(get);
        let [Some(hive), Some(log1), Some(log2)] = files else { return Vec::new() };
        let (hive, replay) = winject::internals::hive::Hive::open_with_logs(hive, Some(&log1), Some(&log2)).unwrap();
        assert!(replay.is_some());
        all.push((format!("hives/{folder}/{file}, replayed"), hive.finish(&[]).unwrap()));
    }
    all
}

/// A temporary folder with these files in it.
pub fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// What the strict foreign checker says about a hive: `None` without it, else its codes (empty when clean).
pub fn hivecheck(hive: &Path, baseline: Option<&Path>) -> Option<Vec<String>> {
    let judge = support::judge("hivecheck.py")?;
    let python = support::program("python3")?;
    let mut command = Command::new(python);
    command.arg(judge).args(["--strict", "--json"]).arg(hive);
    if let Some(old) = baseline {
        command.arg("--baseline").arg(old);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let report: serde_json::Value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let findings = report["findings"].as_array().unwrap();
    let bad = findings.iter().filter(|f| f[0] != "I");
    Some(bad.map(|f| format!("{} {}: {}", f[1], f[2], f[3]).replace('"', "")).collect())
}

/// Asserts that the foreign checker finds nothing in these bytes (that is not in `baseline`).
pub fn assert_clean(bytes: &[u8], baseline: Option<&[u8]>) {
    let folder = folder(&[("new", bytes), ("old", baseline.unwrap_or_default())]);
    let old = baseline.map(|_| folder.path().join("old"));
    if let Some(found) = hivecheck(&folder.path().join("new"), old.as_deref()) {
        assert_eq!(found, [""; 0], "the foreign checker finds faults");
    }
}

/// The result of the foreign replay program; `Some(None)` when it refuses.
pub fn hivereplay(primary: &[u8], logs: [Option<&[u8]>; 2]) -> Option<Option<Vec<u8>>> {
    let (judge, python) = (support::judge("hivereplay.py")?, support::program("python3")?);
    let folder = folder(&[("hive", primary), ("1", logs[0].unwrap_or_default()), ("2", logs[1].unwrap_or_default())]);
    let path = |name| folder.path().join(name);
    let output = std::process::Command::new(python)
        .args([&judge, &path("hive"), &path("1"), &path("2")])
        .arg("-o")
        .arg(path("out"))
        .output()
        .unwrap();
    Some(output.status.success().then(|| std::fs::read(path("out")).unwrap()))
}

/// The path of one of our scripts beside these tests.
pub fn script(name: &str) -> PathBuf {
    support::root().join("tests/it/hive").join(name)
}
