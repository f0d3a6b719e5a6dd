//! Where the judges and the corpus are, and how a test says that it was skipped.
//!
//! A newcomer's clone has neither: such tests then print `SKIPPED` and pass. Under `WINJECT_CI=1` a missing judge or
//! corpus is a failure.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The package's own folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether a missing judge or corpus is a failure.
pub fn is_ci() -> bool {
    std::env::var_os("WINJECT_CI").is_some_and(|v| v == "1")
}

/// How many rounds a campaign runs: `WINJECT_CAMPAIGN`, else `ci` under CI, else `local`.
pub fn rounds(local: u64, ci: u64) -> u64 {
    match std::env::var("WINJECT_CAMPAIGN").ok().and_then(|v| v.parse().ok()) {
        Some(n) => n,
        None if is_ci() => ci,
        None => local,
    }
}

/// Says loudly that a test did not run; fails under CI.
pub fn skip(why: &str) {
    assert!(!is_ci(), "under WINJECT_CI=1 this test must run, but: {why}");
    eprintln!("SKIPPED: {why}");
}

/// The folder with `corpus/` and `judges/`: `WINJECT_SHARED`, else `../shared`, if it is there.
pub fn shared() -> Option<PathBuf> {
    let path = std::env::var_os("WINJECT_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    path.is_dir().then_some(path)
}

/// A path in the corpus, or `None` after saying so (see [`skip`]).
pub fn corpus(path: &str) -> Option<PathBuf> {
    let found = shared().map(|s| s.join("corpus").join(path)).filter(|p| p.exists());
    if found.is_none() {
        skip(&format!("the corpus has no {path} here"));
    }
    found
}

/// The content of a corpus file, decompressed by its ending (`.xz`, `.gz`).
pub fn corpus_bytes(path: &str) -> Option<Vec<u8>> {
    let file = corpus(path)?;
    let raw = std::fs::read(&file).unwrap();
    Some(match file.extension().and_then(|e| e.to_str()) {
        Some("xz") => {
            let mut out = Vec::new();
            lzma_rs::xz_decompress(&mut &raw[..], &mut out).unwrap();
            out
        }
        Some("gz") => {
            let mut out = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&raw[..]), &mut out).unwrap();
            out
        }
        _ => raw,
    })
}

/// A script or program of the judges' folder, or `None` after saying so.
pub fn judge(name: &str) -> Option<PathBuf> {
    let found = shared().map(|s| s.join("judges").join(name)).filter(|p| p.exists());
    if found.is_none() {
        skip(&format!("the judge {name} is not here"));
    }
    found
}

/// The Python of the judges' virtual environment (dissect, regipy, python-registry), or `None` after saying so.
pub fn judge_python() -> Option<PathBuf> {
    let folder =
        std::env::var_os("WINJECT_JUDGES").map(PathBuf::from).or_else(|| shared().map(|s| s.join("../.judges")));
    let found = folder.map(|f| f.join("venv/bin/python")).filter(|p| p.exists());
    if found.is_none() {
        skip("the judges' Python environment is not installed (set WINJECT_JUDGES)");
    }
    found
}

/// A program on the PATH (`/usr/sbin` included), or `None` after saying so.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|p| p.join(name))
        .find(|p| p.is_file());
    if found.is_none() {
        skip(&format!("the program {name} is not installed"));
    }
    found
}

/// Runs a command and fails the test with its output when it fails.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
