//! What drivers a recovery image holds, by its lookup table and its directory tree.

use std::collections::HashSet;

use sha1::{Digest, Sha1};

use super::describe::{Presence, RecoveryDriver};
use crate::drivers::Selection;
use crate::error::{Error, Layer, Result};
use crate::io::VolumeRead;
use crate::wim::{Tree, Wim, WimEntry};

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
    let boot_image = wim.boot_image();
    let mut tree = wim.tree(&lookup, boot_image).map_err(|error| unknown(error, boot_image))?;
    let found: HashSet<[u8; 20]> =
        hashes.into_iter().zip(&lookup.found).filter_map(|(sha1, found)| found.then_some(sha1)).collect();
    let mut drivers = Vec::with_capacity(wanted.len());
    for driver in wanted {
        // What another image of the file holds does not help the one that starts.
        let sha1 = driver.sha1.filter(|sha1| found.contains(sha1));
        let presence = presence(&mut tree, driver, sha1).map_err(|error| unknown(error, boot_image))?;
        drivers.push(RecoveryDriver { service: driver.service.clone(), presence });
    }
    Ok(drivers)
}

/// The error about a tree that cannot be read, with what follows from it.
fn unknown(error: Error, image: u32) -> Error {
    let text = format!("it is not known which drivers image {image} holds, from which it starts");
    Error::new(error.kind(), Layer::Windows, text).source_error(error)
}

/// How an image has a driver: the very file, or its file or its package in the driver store of whatever version.
fn presence<R: VolumeRead>(tree: &mut Tree<'_, R>, driver: &WantedDriver, sha1: Option<[u8; 20]>) -> Result<Presence> {
    let is_same = |entry: &WimEntry| !entry.is_folder && Some(entry.sha1) == sha1;
    let file = tree.find(&format!("{DRIVERS}/{}", driver.file))?.filter(|entry| !entry.is_folder);
    if file.as_ref().is_some_and(is_same) {
        return Ok(Presence::SameFile);
    }
    // A package without an INF has no folder there.
    let prefix = format!("{}_", driver.inf.to_ascii_lowercase());
    let is_package = |entry: &WimEntry| entry.is_folder && entry.name.to_ascii_lowercase().starts_with(&prefix);
    let packages = match tree.find(STORE)?.filter(|_| !driver.inf.is_empty()) {
        Some(store) => tree.children(&store, is_package)?,
        None => Vec::new(),
    };
    for package in &packages {
        if sha1.is_some() && tree.child(package, is_same)?.is_some() {
            return Ok(Presence::SameFile);
        }
    }
    Ok(if file.is_some() || !packages.is_empty() { Presence::ByName } else { Presence::Absent })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::MemoryVolume;

    fn look(boot_index: u32, file: &str, content: &[u8]) -> Result<Presence> {
        let mut bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/test-images/wim/lzx.wim")).unwrap();
        bytes[120..124].copy_from_slice(&boot_index.to_le_bytes());
        let sha1 = Some(Sha1::digest(content).into());
        let wanted = WantedDriver { service: "x".into(), file: file.to_owned(), inf: "none.inf".into(), sha1 };
        drivers_in(MemoryVolume(bytes), &[wanted]).map(|drivers| drivers[0].presence)
    }

    /// The file has one image; what another one had would be in its lookup table like this.
    #[test]
    fn a_content_of_another_file_is_not_the_driver() {
        let driver: String = (1..=2000).map(|n| format!("{n}\n")).collect();
        assert_eq!(look(1, "viostor.sys", driver.as_bytes()).unwrap(), Presence::SameFile);
        assert_eq!(look(1, "viostor.sys", b"driver 7").unwrap(), Presence::ByName);
        assert_eq!(look(1, "vioscsi.sys", driver.as_bytes()).unwrap(), Presence::Absent);
    }

    #[test]
    fn of_a_tree_that_cannot_be_read_nothing_is_claimed() {
        let text = look(2, "viostor.sys", b"driver 7").unwrap_err().to_string();
        assert!(text.contains("not known which drivers image 2 holds"), "{text}");
    }
}
