//! The whole job, from the command line to foreign judges.

pub mod bad_input;
mod containers;
mod kill;
pub mod made;
pub mod matrix;
mod outcome;
mod repeat;
mod report;
pub mod state;

use crate::support;
use crate::support::blocks::hash_blocks;
pub use crate::support::blocks::sha256;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use winject::internals::block::convert::{ConvertOptions, convert};
use winject::internals::block::{self, Format, Stage, StageOptions};
use winject::internals::units::ImageOffset;

/// The program with a fixed clock, so that runs can be compared.
pub fn winject() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("winject"));
    command.env("SOURCE_DATE_EPOCH", "1700000000").env_remove("WINJECT_LOG");
    command
}

/// The small Windows that comes with the package.
pub fn fixture() -> PathBuf {
    support::root().join("test-images/win10.qcow2")
}

/// Drivers for it.
pub fn fixture_drivers() -> PathBuf {
    support::root().join("test-images/drivers")
}

/// A folder for tests that another user may enter.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), mode).unwrap();
    folder
}

/// The fixture as an image that can be edited in place (it is compressed in the package).
pub fn writable_fixture(folder: &Path, format: Format) -> PathBuf {
    let out = folder.join(match format {
        Format::Raw => "win10.raw",
        _ => "win10.qcow2",
    });
    let image = block::open(&fixture(), &block::OpenOptions::default()).unwrap();
    let stage = Stage::new(image, StageOptions::default());
    let options = ConvertOptions { format, ..Default::default() };
    convert(&stage, &out, &options).unwrap();
    out
}

/// A copy that keeps holes.
pub fn copy(from: &Path, to: &Path) {
    support::run(Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to));
}

/// SHA-256 of what the guest sees: every block that is not zero, with its place.
pub fn disk_sha256(path: &Path) -> String {
    let path_policy = block::PathPolicy::anything();
    let image = block::open(path, &block::OpenOptions { path_policy, ..block::OpenOptions::default() }).unwrap();
    let mut hash = Sha256::new();
    let mut buf = vec![0u8; 1 << 20];
    let mut at = 0;
    while at < image.len() {
        let extent = image.extent_at(ImageOffset(at), buf.len() as u64 - at % buf.len() as u64).unwrap();
        let part = &mut buf[..usize::try_from(extent.length).unwrap()];
        if !extent.kind.is_zero() {
            image.read_at(ImageOffset(at), part).unwrap();
            hash_blocks(&mut hash, at, part);
        }
        at += extent.length;
    }
    winject::internals::hex::encode(&hash.finalize())
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs and demands success.
pub fn succeed(command: &mut Command) -> Output {
    support::run(command)
}

/// The outcome of the fixture with its drivers, computed once: SHA-256 of the guest's disk.
pub fn expected_fixture() -> &'static str {
    static EXPECTED: OnceLock<String> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        let folder = folder();
        let out = folder.path().join("out.qcow2");
        succeed(
            winject().arg("inject").arg(fixture()).arg("--drivers").arg(fixture_drivers()).arg("--overlay").arg(&out),
        );
        disk_sha256(&out)
    })
}

tests![in bad_input, containers, kill, matrix, outcome, repeat, report, state;];
