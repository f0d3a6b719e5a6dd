//! All that a guest holds, as a user of it could tell, and which edits of a plan account for a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use winject::internals::block::{self, Stage, StageOptions};
use winject::internals::hive::RegistryData;
use winject::internals::hive::reader::Reader;
use winject::internals::ntfs::{FileId, Namespace, OpenOptions, Volume};
use winject::internals::partition::{Partition, PartitionView};
use winject::internals::plan::GuestHive;
use winject::internals::plan::saved::{FileFact, PlanDocument, SavedEdit, Sha256Sum};
use winject::internals::upcase::upcase;

use crate::inject::state::windows_partition;
use crate::support::blocks::{for_each_piece, hash_blocks};

/// Blocks of this size lie in a partition or outside of it.
const BLOCK: u64 = 4096;

/// A file or folder, but for its times.
#[derive(Debug, PartialEq, Eq)]
struct FileState {
    is_dir: bool,
    /// Size and hash of the content of each stream, by its name.
    streams: BTreeMap<String, FileFact>,
    descriptor: Option<Vec<u8>>,
    attributes: u32,
    reparse_tag: Option<u32>,
}

type GuestVolume<'a> = Volume<PartitionView<&'a Stage>>;
type Values = BTreeMap<String, RegistryData>;

/// What a guest holds. Names are in upper case by the table of Windows, which is how it compares them.
#[derive(Debug)]
pub struct GuestState {
    files: BTreeMap<String, FileState>,
    /// Security descriptor and values of each key.
    keys: BTreeMap<(GuestHive, String), (Vec<u8>, Values)>,
    /// Hash of the disk outside of the Windows partition.
    outside: [u8; 32],
}

/// A name in upper case, as Windows compares it.
pub fn folded(text: &str) -> String {
    String::from_utf16_lossy(&text.encode_utf16().map(upcase).collect::<Vec<_>>())
}

/// The Windows partition of a raw image.
pub fn partition_of(image: &Path) -> Partition {
    windows_partition(&open(image))
}

fn open(image: &Path) -> Stage {
    Stage::new(block::open(image, &block::OpenOptions::default()).unwrap(), StageOptions::default())
}

impl GuestState {
    /// Reads the guest of a raw image.
    pub fn read(image: &Path) -> Self {
        let stage = open(image);
        let partition = windows_partition(&stage);
        let volume = Volume::open(PartitionView::new(&stage, &partition).unwrap(), &OpenOptions::read_only()).unwrap();
        let mut state = Self { files: BTreeMap::new(), keys: BTreeMap::new(), outside: outside(image, &partition) };
        let mut pending = vec![(String::new(), FileId::ROOT)];
        while let Some((folder, id)) = pending.pop() {
            for entry in volume.entries(id).unwrap() {
                let name = entry.name.to_string();
                let is_of_ntfs = id == FileId::ROOT && (name.starts_with('$') || name == ".");
                if entry.namespace == Namespace::Dos || is_of_ntfs {
                    continue;
                }
                let path = format!("{folder}/{name}");
                state.files.insert(folded(&path), file_state(&volume, entry.file));
                if entry.is_dir {
                    pending.push((path, entry.file));
                }
            }
        }
        for hive in GuestHive::ALL {
            let Some(bytes) = hive_bytes(&volume, hive) else { continue };
            Reader::open(&bytes)
                .unwrap()
                .walk(&mut |key, node| {
                    let values = node.values()?.into_iter().map(|value| (folded(&value.name.to_string()), value.data));
                    state.keys.insert((hive, folded(key)), (node.security()?.to_vec(), values.collect()));
                    Ok(())
                })
                .unwrap();
            // Its content is the keys.
            state.files.get_mut(&folded(&hive_path(hive))).unwrap().streams.clear();
        }
        state
    }

    /// The file of this path.
    pub fn file(&self, path: &str) -> Option<FileFact> {
        self.files.get(&folded(path))?.streams.get("").copied()
    }

    /// The value of this name.
    pub fn value(&self, hive: GuestHive, key: &str, name: &str) -> Option<&RegistryData> {
        self.keys.get(&(hive, folded(key)))?.1.get(&folded(name))
    }

    /// Whether a key is there.
    pub fn has_key(&self, hive: GuestHive, key: &str) -> bool {
        self.keys.contains_key(&(hive, folded(key)))
    }

    /// The differences that no edit of the plan accounts for, or that lie where no plan may edit.
    pub fn unexplained(&self, new: &Self, plan: &PlanDocument) -> Vec<String> {
        let edits = Edits::of(plan);
        let mut out = Vec::new();
        if self.outside != new.outside {
            out.push("the disk outside of the Windows partition".to_owned());
        }
        let paths: BTreeSet<_> = self.files.keys().chain(new.files.keys()).collect();
        let changed = paths.into_iter().filter(|path| self.files.get(*path) != new.files.get(*path));
        let is_upload = |path: &str| edits.uploads.contains(path) && !self.files.contains_key(path);
        out.extend(changed.filter(|path| !edits.explain_file(path) && !is_upload(path)).cloned());
        let places: BTreeSet<_> = self.keys.keys().chain(new.keys.keys()).collect();
        for place in places {
            let (before, after) = (self.keys.get(place), new.keys.get(place));
            let (hive, key) = (place.0, place.1.as_str());
            if before.map(|key| &key.0) != after.map(|key| &key.0) && !edits.explain_key(hive, key) {
                out.push(format!("{hive}\\{key}"));
            }
            let none = Values::new();
            let [before, after] = [before, after].map(|key| key.map_or(&none, |key| &key.1));
            let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
            let changed = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
            let changed = changed.filter(|name| !edits.explain_value(hive, key, name));
            out.extend(changed.map(|name| format!("{hive}\\{key} : {name}")));
        }
        out
    }
}

/// The bytes of a hive.
pub fn read_hive(image: &Path, hive: GuestHive) -> Vec<u8> {
    let stage = open(image);
    let partition = windows_partition(&stage);
    let volume = Volume::open(PartitionView::new(&stage, &partition).unwrap(), &OpenOptions::read_only()).unwrap();
    hive_bytes(&volume, hive).unwrap()
}

fn hive_bytes(volume: &GuestVolume<'_>, hive: GuestHive) -> Option<Vec<u8>> {
    let file = volume.find(&hive_path(hive)).unwrap()?;
    Some(volume.read(file, 1 << 30).unwrap())
}

fn hive_path(hive: GuestHive) -> String {
    format!("/Windows/System32/config/{hive}")
}

fn file_state(volume: &GuestVolume<'_>, file: FileId) -> FileState {
    let stat = volume.stat(file).unwrap();
    let mut streams = BTreeMap::new();
    if !stat.is_dir {
        let (size, sha256) = volume.hash(file).unwrap();
        streams.insert(String::new(), FileFact { size, sha256: Sha256Sum(sha256) });
    }
    for name in stat.streams.iter().map(ToString::to_string) {
        let mut bytes = vec![0; 1 << 20];
        let length = volume.read_at(file, &name, 0, &mut bytes).unwrap();
        streams.insert(name, FileFact { size: length as u64, sha256: Sha256Sum::of(&bytes[..length]) });
    }
    let descriptor = stat.security.and_then(|id| volume.security_descriptor(id).unwrap());
    FileState { is_dir: stat.is_dir, streams, descriptor, attributes: stat.attributes, reparse_tag: stat.reparse_tag }
}

/// Hash of all blocks of the disk that do not lie in the partition.
fn outside(image: &Path, partition: &Partition) -> [u8; 32] {
    let inside = partition.start.0..partition.start.0 + partition.length;
    let mut hash = Sha256::new();
    for_each_piece(image, |at, piece| {
        for (index, block) in piece.chunks(BLOCK as usize).enumerate() {
            let at = at + index as u64 * BLOCK;
            if !inside.contains(&at) {
                hash_blocks(&mut hash, at, block);
            }
        }
    });
    hash.finalize().into()
}

/// The places that the edits of a plan name, as far as a plan may edit there.
struct Edits {
    files: BTreeSet<String>,
    /// Files of the user that the plan lists, and the folders above them: they may be new.
    uploads: BTreeSet<String>,
    /// Keys that are made, or whose values are edited.
    keys: Vec<(GuestHive, String)>,
    removed_keys: Vec<(GuestHive, String)>,
    values: BTreeSet<(GuestHive, String, String)>,
}

impl Edits {
    fn of(plan: &PlanDocument) -> Self {
        let mut edits = Self {
            files: BTreeSet::new(),
            uploads: uploads(plan),
            keys: Vec::new(),
            removed_keys: Vec::new(),
            values: BTreeSet::new(),
        };
        for step in &plan.steps {
            let key = step.edit.key().map(|(hive, key)| (hive, folded(key)));
            match (&step.edit, key) {
                (SavedEdit::SetValue { name, .. } | SavedEdit::DeleteValue { name, .. }, Some((hive, key))) => {
                    let name = folded(name);
                    if may_set(hive, &key, &name) {
                        edits.values.insert((hive, key.clone(), name));
                        edits.keys.push((hive, key));
                    }
                }
                (SavedEdit::DeleteKey { .. }, Some((hive, key))) if may_edit(hive, &key) => {
                    edits.removed_keys.push((hive, key));
                }
                (_, Some((hive, key))) if may_edit(hive, &key) => edits.keys.push((hive, key)),
                (_, Some(_)) => {}
                (edit, None) => edits.files.extend(edit.path().map(folded).filter(|path| may_write(path))),
            }
        }
        edits
    }

    fn explain_file(&self, path: &str) -> bool {
        self.files.contains(path)
    }

    /// A key is made with those above it, and removed with those below it.
    fn explain_key(&self, hive: GuestHive, key: &str) -> bool {
        self.keys.iter().any(|(made, name)| *made == hive && is_at_or_below(name, key)) || self.is_removed(hive, key)
    }

    fn explain_value(&self, hive: GuestHive, key: &str, name: &str) -> bool {
        self.values.contains(&(hive, key.to_owned(), name.to_owned())) || self.is_removed(hive, key)
    }

    fn is_removed(&self, hive: GuestHive, key: &str) -> bool {
        self.removed_keys.iter().any(|(removed, name)| *removed == hive && is_at_or_below(key, name))
    }
}

fn is_at_or_below(key: &str, above: &str) -> bool {
    key.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('\\'))
}

/// Whether a file of the user may be made here.
fn may_write_anew(path: &str) -> bool {
    !["/WINDOWS", "/HYPER2KVM"].iter().any(|top| path == *top || path.starts_with(&format!("{top}/")))
}

/// The user's files of a plan with their folders.
fn uploads(plan: &PlanDocument) -> BTreeSet<String> {
    let listed = plan.uploads.iter().map(|path| folded(path)).filter(|path| may_write_anew(path));
    let with_folders = listed.flat_map(|path| {
        let folders: Vec<String> = path.match_indices('/').skip(1).map(|(at, _)| path[..at].to_owned()).collect();
        folders.into_iter().chain([path])
    });
    with_folders.collect()
}

/// Whether plans of winject write here: our own folder, drivers, installed packages, the folders that hold these.
fn may_write(path: &str) -> bool {
    let in_system = path.strip_prefix("/WINDOWS/SYSTEM32/").unwrap_or("-");
    let is_numbered = |name: &str| {
        let number = name.strip_prefix("OEM").and_then(|rest| rest.split_once('.')).map(|(number, _)| number);
        number.is_some_and(|number| number.parse::<u128>().is_ok() && !number.starts_with('+'))
    };
    let catalogues = "CATROOT/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}";
    let store = "DRIVERSTORE/FILEREPOSITORY";
    path == "/HYPER2KVM"
        || path.starts_with("/HYPER2KVM/")
        || (in_system.starts_with("DRIVERS/") && in_system.ends_with(".SYS"))
        || path.strip_prefix("/WINDOWS/INF/").is_some_and(|name| is_numbered(name) && name.ends_with(".INF"))
        || in_system.strip_prefix(catalogues).is_some_and(|rest| rest.is_empty() || is_numbered(&rest[1..]))
        || ["CATROOT", "DRIVERSTORE", store].contains(&in_system)
        || in_system.strip_prefix(store).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether plans of winject edit this key: services, the database of critical devices, driver packages, and in SOFTWARE
/// the folder of the media, locked files, and trusted publishers.
fn may_edit(hive: GuestHive, key: &str) -> bool {
    let names: Vec<&str> = key.split('\\').collect();
    let is_set = |name: &str| {
        name.strip_prefix("CONTROLSET").is_some_and(|number| number.len() == 3 && number.parse::<u16>().is_ok())
    };
    let version = ["MICROSOFT", "WINDOWS", "CURRENTVERSION"];
    match (hive, names.as_slice()) {
        (GuestHive::System, [set, "SERVICES", _, ..] | [set, "CONTROL", "CRITICALDEVICEDATABASE", _]) => is_set(set),
        (GuestHive::System | GuestHive::Drivers, ["DRIVERDATABASE", ..]) => true,
        (GuestHive::Software, [first, second, third]) => [*first, *second, *third] == version,
        (GuestHive::Software, [first, second, third, "SETUP", "PNPLOCKDOWNFILES", _, ..]) => {
            [*first, *second, *third] == version
        }
        (GuestHive::Software, ["MICROSOFT", "SYSTEMCERTIFICATES", "TRUSTEDPUBLISHER", "CERTIFICATES", _]) => true,
        _ => false,
    }
}

/// The same for a value: of SOFTWARE, few are edited.
fn may_set(hive: GuestHive, key: &str, name: &str) -> bool {
    let is_free = hive != GuestHive::Software || key.contains("\\PNPLOCKDOWNFILES\\");
    may_edit(hive, key) && (is_free || name == if key.contains("\\CERTIFICATES\\") { "BLOB" } else { "DEVICEPATH" })
}
