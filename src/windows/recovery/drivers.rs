//! What drivers a recovery image holds, by its lookup table and its directory tree.

use sha1::{Digest, Sha1};

use super::describe::{Presence, RecoveryDriver};
use crate::drivers::Selection;
use crate::error::Result;
use crate::io::VolumeRead;
use crate::wim::{Tree, Wim};

/// Where Windows keeps the packages of drivers.
const STORE: &str = "Windows/System32/DriverStore/FileRepository";
/// Where the loader takes drivers from.
const DRIVERS: &str = "Windows/System32/drivers";
/// Drivers for a virtio disk, if none is chosen for the guest.
const KNOWN: [&str; 2] = ["vioscsi", "viostor"];

/// A driver that a recovery image should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedDriver {
    /// Name of its service: `viostor`.
    pub service: String,
    /// Name of its file: `viostor.sys`.
    pub file: String,
    /// Name of its INF: `viostor.inf`.
    pub inf: String,
    /// SHA-1 of the file that the guest gets; `None` if it gets none.
    pub sha1: Option<[u8; 20]>,
}

impl WantedDriver {
    /// The drivers for a virtio disk by their usual names.
    #[must_use]
    pub fn known() -> Vec<Self> {
        let named = |name: &str| Self {
            service: name.to_owned(),
            file: format!("{name}.sys"),
            inf: format!("{name}.inf"),
            sha1: None,
        };
        KNOWN.into_iter().map(named).collect()
    }

    /// The drivers for the boot disk that are chosen for a guest, by name.
    #[must_use]
    pub fn chosen(selection: &Selection) -> Vec<Self> {
        let wanted = selection.boot_packages().map(|(package, boot)| Self {
            service: boot.service.clone(),
            file: boot.file_name.clone(),
            inf: package.inf_name.clone(),
            sha1: Some(Sha1::digest(&*boot.data).into()),
        });
        let mut wanted: Vec<Self> = wanted.collect();
        wanted.sort_by(|a, b| a.service.cmp(&b.service));
        wanted
    }
}

/// Says which drivers an image holds.
///
/// # Errors
/// When the file is damaged or of a kind that is not read, and what reading gives.
pub(super) fn drivers_in<R: VolumeRead>(source: R, wanted: &[WantedDriver]) -> Result<Vec<RecoveryDriver>> {
    let wim = Wim::open(source)?;
    let hashes: Vec<[u8; 20]> = wanted.iter().filter_map(|driver| driver.sha1).collect();
    let lookup = wim.look_up(&hashes)?;
    let mut tree = None;
    let mut found = lookup.found.iter();
    let mut drivers = Vec::with_capacity(wanted.len());
    for driver in wanted {
        let has_file = driver.sha1.and_then(|_| found.next()).copied();
        let presence = if has_file == Some(true) {
            Presence::SameFile
        } else {
            let tree = match &mut tree {
                Some(tree) => tree,
                none => none.insert(wim.tree(&lookup, wim.boot_image())?),
            };
            if is_named(tree, driver)? { Presence::ByName } else { Presence::Absent }
        };
        drivers.push(RecoveryDriver { service: driver.service.clone(), presence });
    }
    Ok(drivers)
}

/// Whether the image has a driver of this name, of whatever version: its file, or its package in the driver store.
fn is_named<R: VolumeRead>(tree: &mut Tree<'_, R>, driver: &WantedDriver) -> Result<bool> {
    if tree.find(&format!("{DRIVERS}/{}", driver.file))?.is_some_and(|entry| !entry.is_folder) {
        return Ok(true);
    }
    // A package without an INF has no folder there.
    let prefix = format!("{}_", driver.inf.to_ascii_lowercase());
    let Some(store) = tree.find(STORE)?.filter(|_| !driver.inf.is_empty()) else { return Ok(false) };
    let is_package = tree.child(&store, |entry| entry.name.to_ascii_lowercase().starts_with(&prefix))?;
    Ok(is_package.is_some_and(|entry| entry.is_folder))
}
