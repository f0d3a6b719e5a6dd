//! Where the judges and the corpus are, and how a test says that it cannot run.
//!
//! A newcomer's clone has no corpus, and no tools for the judges: such tests are then counted as ignored, with the reason. Under `WINJECT_CI=1` a missing judge or
//! corpus is a failure.
#![allow(dead_code)]

pub mod blocks;
pub mod encrypted;
pub mod gpt;
pub mod runner;
pub mod unclean;
pub mod volumes;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub use runner::skip;

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

/// The folder with `corpus/`, which belongs to others: `WINJECT_SHARED`, else `../shared`, if it is there.
pub fn shared() -> Option<PathBuf> {
    let path = std::env::var_os("WINJECT_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    path.is_dir().then_some(path)
}

/// Why a file of the shared folder is missing: all of them, or this one.
fn absent(what: &str) -> String {
    match shared() {
        None => "the corpus is not here (WINJECT_SHARED)".into(),
        Some(_) => format!("{what} is not in the shared folder"),
    }
}

/// A path in the corpus, or `None` after saying so (see [`skip`]).
pub fn corpus(path: &str) -> Option<PathBuf> {
    let found = shared().map(|s| s.join("corpus").join(path)).filter(|p| p.exists());
    if found.is_none() {
        skip(&absent(path));
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

/// A script of `tests/judges`, or `None` after saying what it lacks: Python for `.py`, and for `.sh` all that its
/// `setup.sh` installs.
pub fn judge(name: &str) -> Option<PathBuf> {
    if Path::new(name).extension().is_some_and(|e| e == "sh") {
        judge_python()?;
    } else {
        program("python3")?;
    }
    let path = root().join("tests/judges").join(name);
    assert!(path.is_file(), "{} is a part of the repository", path.display());
    Some(path)
}

/// The Python of the judges' virtual environment (dissect, regipy, python-registry), or `None` after saying so.
pub fn judge_python() -> Option<PathBuf> {
    let folder = std::env::var_os("WINJECT_JUDGES").map_or_else(|| root().join("tests/.judges"), PathBuf::from);
    let found = Some(folder.join("venv/bin/python")).filter(|p| p.exists());
    if found.is_none() {
        skip("the judges' tools are not installed (tests/judges/setup.sh)");
    }
    found
}

/// A program on the PATH (`/usr/sbin` included), or `None` after saying so.
pub fn program(name: &str) -> Option<PathBuf> {
    let found = find_program(name);
    if found.is_none() {
        skip(&format!("the program {name} is not installed"));
    }
    found
}

/// A program on the PATH (`/usr/sbin` included).
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
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
