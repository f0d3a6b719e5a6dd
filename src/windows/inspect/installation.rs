//! Finds Windows on a volume.

use std::collections::BTreeMap;
use std::fmt;

use super::describe::describe;
use super::guest::Guest;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::hive::Hive;
use crate::io::VolumeRead;
use crate::ntfs::Volume;
use crate::plan::GuestHive;
use crate::windows::guest_files::GuestFiles;
use crate::windows::registry;

/// The hives of a guest with their logs applied, as far as they have been read.
pub type Hives = BTreeMap<GuestHive, Hive>;

/// A Windows installation, and the hives that were read to describe it, so that they need not be read again.
pub struct Inspected {
    /// The description of the installation.
    pub guest: Guest,
    /// SYSTEM and SOFTWARE, with their logs applied.
    pub hives: Hives,
}

impl fmt::Debug for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspected").field("guest", &self.guest).finish_non_exhaustive()
    }
}

impl Guest {
    /// Inspects the Windows installation on an NTFS volume; `None` if the volume holds none.
    ///
    /// # Errors
    /// When there are several, when a hive is dirty without usable logs, or something is damaged.
    pub fn inspect<D: VolumeRead>(volume: &Volume<D>) -> Result<Option<Self>> {
        Ok(inspect(volume)?.map(|inspected| inspected.guest))
    }
}

/// Like [`Guest::inspect`], with the hives that were read for it.
///
/// # Errors
/// See [`Guest::inspect`].
pub fn inspect<D: VolumeRead>(volume: &Volume<D>) -> Result<Option<Inspected>> {
    inspect_files(volume)
}

/// Like [`inspect`], on any source of files.
pub(in super::super) fn inspect_files(files: &dyn GuestFiles) -> Result<Option<Inspected>> {
    let mut found = Vec::new();
    let (folders, mut fault) = candidates(files)?;
    for windows_dir in folders {
        match read(files, &windows_dir) {
            Ok(one) => found.push(one),
            Err(error) => drop(fault.get_or_insert(error)),
        }
    }
    // damage in another folder does not matter if one folder is the system root
    if let Some(error) = fault
        && !found.iter().any(|one: &Inspected| is_its_own_root(&one.guest))
    {
        return Err(error);
    }
    if found.len() > 1 {
        // the folder that calls itself the system root is the one that starts
        let own: Vec<usize> =
            (0..found.len()).filter(|&i| found.get(i).is_some_and(|one| is_its_own_root(&one.guest))).collect();
        if let &[only] = own.as_slice() {
            return Ok(Some(found.swap_remove(only)));
        }
        let names: Vec<&str> = found.iter().map(|one: &Inspected| one.guest.windows_dir.as_str()).collect();
        return Err(Error::refused(
            Layer::Windows,
            format!("the volume holds several Windows installations: {}", names.join(", ")),
        )
        .with_code(ErrorCode::SeveralWindows)
        .hint("move the folders of the others to another volume in the guest, and export the disk again"));
    }
    Ok(found.pop())
}

/// Whether the folder has the name that the installation knows itself by.
fn is_its_own_root(guest: &Guest) -> bool {
    let own = guest.windows_dir.rsplit('/').next().unwrap_or_default();
    let known = guest.system_root.rsplit('\\').next().unwrap_or_default();
    own.eq_ignore_ascii_case(known)
}

/// The Windows folders of a volume, however damaged their hives. A folder that cannot be read hides no other one.
///
/// # Errors
/// When none is found and the volume is damaged.
pub fn windows_folders<D: VolumeRead>(volume: &Volume<D>) -> Result<Vec<String>> {
    match candidates(volume)? {
        (folders, Some(fault)) if folders.is_empty() => Err(fault),
        (folders, _) => Ok(folders),
    }
}

/// Folders in the root with both hives below them, and what is wrong with the first one that cannot be read.
fn candidates(files: &dyn GuestFiles) -> Result<(Vec<String>, Option<Error>)> {
    let (mut out, mut fault) = (Vec::new(), None);
    for name in files.folders("/")? {
        let dir = format!("/{name}");
        let has = |hive: GuestHive| files.exists(&format!("{dir}/System32/config/{}", hive.file_name()));
        match has(GuestHive::System).and_then(|system| Ok(system && has(GuestHive::Software)?)) {
            Ok(true) => out.push(dir),
            Ok(false) => {}
            Err(error) if error.kind() == Kind::Damaged => drop(fault.get_or_insert(error.replace_path(dir))),
            Err(error) => return Err(error),
        }
    }
    Ok((out, fault))
}

fn read(files: &dyn GuestFiles, windows_dir: &str) -> Result<Inspected> {
    let config_dir = format!("{windows_dir}/System32/config");
    let load = |file: GuestHive| {
        let path = format!("{config_dir}/{}", file.file_name());
        registry::load_hive_file(files, &path)?.ok_or_else(|| registry::missing_hive(&path))
    };
    let (system, software) = (load(GuestHive::System)?, load(GuestHive::Software)?);
    let mut replayed = Vec::new();
    for (file, loaded) in [(GuestHive::System, &system), (GuestHive::Software, &software)] {
        if loaded.replay.is_some() {
            replayed.push(format!("{file} was dirty; its logs were applied"));
        }
    }
    let mut guest = describe(files, windows_dir, &system.hive, &software.hive)?;
    guest.replayed = replayed;
    let hives = Hives::from([(GuestHive::System, system.hive), (GuestHive::Software, software.hive)]);
    Ok(Inspected { guest, hives })
}

/// The hives of a guest that inspection has not read, as far as the guest has them.
///
/// # Errors
/// When a hive is damaged, or dirty and its logs cannot repair that.
pub fn load_other_hives(files: &dyn GuestFiles, guest: &Guest, inspected: &Hives) -> Result<Hives> {
    let mut hives = Hives::new();
    for hive in GuestHive::ALL.into_iter().filter(|hive| !inspected.contains_key(hive)) {
        let path = format!("{}/{}", guest.config_dir(), hive.file_name());
        hives.extend(registry::load_hive_file(files, &path)?.map(|loaded| (hive, loaded.hive)));
    }
    Ok(hives)
}
