//! The removal of what winject put into a guest: as if it had never been there, whatever Windows has taken over since,
//! whatever the manifest says.

mod command;
mod hostile;
mod network;
mod real;
mod repairs;
mod taken_over;
mod two_runs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};
use winject::internals::block::{self, Format, Stage, StageOptions};
use winject::internals::hive::reader::Reader;
use winject::internals::hive::{Hive, KeyId, RegistryData};
use winject::internals::io::VolumeWrite;
use winject::internals::ntfs::security::Protected;
use winject::internals::ntfs::{CreateOptions, Namespace, Volume};
use winject::internals::plan::{apply, verify, verify_absent};
use winject::internals::windows::{Guest, Hives, InjectOptions, Removal, plan_removal};

use crate::inject::state::windows_partition;
use crate::inject::{fixture_drivers, folder, writable_fixture};
use crate::support;
use crate::windows::guests::{self, Disk, NOW};

const CONFIG: &str = "/Windows/System32/config";
const MANIFEST: &str = "/hyper2kvm/manifest.json";

/// The Windows volume of a raw image of the fixture.
pub fn disk(path: PathBuf) -> Disk {
    let stage = Stage::new(block::open(&path, &block::OpenOptions::default()).unwrap(), StageOptions::default());
    let partition = windows_partition(&stage);
    Disk { path, offset: partition.start.0, length: partition.length }
}

/// The fixture before and after an injection, made once.
fn injected() -> &'static (Disk, Disk) {
    static MADE: OnceLock<(Disk, Disk)> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = folder().keep();
        let before = disk(writable_fixture(&folder, Format::Raw));
        let after = before.copy("injected");
        guests::inject(&after, &fixture_drivers(), &InjectOptions::default());
        (before, after)
    })
}

/// A copy of a disk that removes itself.
#[derive(Debug)]
struct Copied {
    disk: Disk,
    _folder: tempfile::TempDir,
}

fn copied(from: &Disk) -> Copied {
    let folder = folder();
    let path = folder.path().join("disk.raw");
    crate::inject::copy(&from.path, &path);
    Copied { disk: Disk { path, ..from.clone() }, _folder: folder }
}

/// Plans a removal on the volume as it is.
fn plan(disk: &Disk) -> winject::Result<Removal> {
    let volume = disk.volume();
    let guest = Guest::inspect(&volume)?.unwrap();
    plan_removal(&volume, &guest, &Hives::new(), None)
}

/// Removes straight from the raw file, and verifies.
fn remove(disk: &Disk) -> winject::Result<Removal> {
    let mut removal = plan(disk)?;
    let mut volume = disk.volume();
    // Inspection's hives are not among those of the removal.
    let mut hives = std::mem::take(&mut removal.hives);
    hives.extend(winject::internals::windows::inspect(&volume)?.unwrap().hives);
    let applied = apply(&removal.plan, &mut volume, hives, NOW)?;
    volume.flush()?;
    let device = volume.into_device();
    verify(&device, &removal.plan, &applied, false)?;
    verify_absent(&device, &removal.plan, &removal.absent)?;
    Ok(removal)
}

/// Everything on a volume: paths (folders end with a slash) with the hashes of the contents, and the keys and values of the
/// hives.
pub type Content = BTreeMap<String, String>;

pub fn content(disk: &Disk) -> Content {
    let volume = disk.volume();
    let mut out = Content::new();
    let root = volume.find("/").unwrap().unwrap();
    let mut pending = vec![(root, String::new())];
    while let Some((folder, path)) = pending.pop() {
        for entry in volume.entries(folder).unwrap() {
            let name = entry.name.to_string();
            let is_of_ntfs = path.is_empty() && (name.starts_with('$') || name == ".");
            if entry.namespace == Namespace::Dos || is_of_ntfs {
                continue;
            }
            let path = format!("{path}/{name}");
            if entry.is_dir {
                out.insert(format!("{path}/"), String::new());
                pending.push((entry.file, path));
                continue;
            }
            let hive = path.strip_prefix(CONFIG).map(|rest| rest.trim_start_matches('/'));
            match hive.filter(|name| ["SYSTEM", "SOFTWARE", "DRIVERS"].contains(name)) {
                Some(name) => hive_content(&volume.read(entry.file, 1 << 30).unwrap(), name, &mut out),
                None => drop(out.insert(path, winject::internals::hex::encode(&volume.hash(entry.file).unwrap().1))),
            }
        }
    }
    out
}

fn hive_content(bytes: &[u8], name: &str, out: &mut Content) {
    let reader = Reader::open(bytes).unwrap();
    let visit = &mut |path: &str, node: &winject::internals::hive::reader::Node<'_>| {
        let key = if path.is_empty() { name.to_owned() } else { format!("{name}\\{path}") };
        for value in node.values()? {
            out.insert(format!("{key} : {}", value.name), format!("{:?}", value.data));
        }
        out.insert(key, String::new());
        Ok(())
    };
    reader.walk(visit).unwrap();
}

/// The items that only `left` has, or has with another content.
pub fn only<'a>(left: &'a Content, right: &Content) -> Vec<&'a str> {
    left.iter().filter(|(item, what)| right.get(*item) != Some(what)).map(|(item, _)| item.as_str()).collect()
}

/// Edits a hive of a volume.
pub fn edit_hive<D: VolumeWrite>(volume: &mut Volume<D>, name: &str, change: impl FnOnce(&mut Hive)) {
    let path = format!("{CONFIG}/{name}");
    let file = volume.find(&path).unwrap().unwrap();
    let mut hive = Hive::open(volume.read(file, 1 << 30).unwrap()).unwrap();
    change(&mut hive);
    volume.replace_file(&path, &hive.finish(&[]).unwrap(), &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
}

fn set(hive: &mut Hive, key: &str, name: &str, data: &RegistryData) {
    let root = hive.root();
    let key = hive.create_key(root, key, NOW).unwrap();
    hive.set_value(key, name, data, NOW).unwrap();
}

/// Copies a key with all that is below it.
fn copy_key(hive: &mut Hive, from: &str, to: &str) {
    fn copy(hive: &mut Hive, from: KeyId, to: &str) {
        let root = hive.root();
        let key = hive.create_key(root, to, NOW).unwrap();
        for value in hive.values(from).unwrap() {
            hive.set_value_named(key, &value.name, &value.data, NOW).unwrap();
        }
        for sub in hive.subkeys(from).unwrap() {
            let name = hive.key_name(sub).unwrap();
            copy(hive, sub, &format!("{to}\\{name}"));
        }
    }
    let from = hive.find(hive.root(), from).unwrap().unwrap();
    copy(hive, from, to);
}

/// What foreign readers see of the differences between two raw images.
fn seen_differences(before: &Disk, after: &Path) -> Option<Vec<String>> {
    let python = support::judge_python()?;
    let script = support::root().join("tests/it/remove/differences.py");
    let mut command = Command::new(python);
    let output = support::run(command.arg(script).arg(before.offset.to_string()).arg(&before.path).arg(after));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// The descriptor of winject's own files, but owned by the group of users.
fn of_users(what: Protected) -> Vec<u8> {
    let mut descriptor = what.descriptor();
    let owner = u32::from_le_bytes(descriptor[4..8].try_into().unwrap()) as usize;
    // The last part of S-1-5-32-544 becomes 545.
    descriptor[owner + 12] = 0x21;
    descriptor
}

fn sha256(bytes: &[u8]) -> String {
    winject::internals::hex::encode(&Sha256::digest(bytes))
}

tests![in command, hostile, network, real, repairs, taken_over, two_runs;];
