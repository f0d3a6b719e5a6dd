//! Executes a plan on a volume: files first, then the hives with SYSTEM last.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use sha2::{Digest, Sha256};

use super::{Access, Change, Content, GuestHive, Plan};
use crate::clock::FileTime;
use crate::error::{Error, Layer, Result};
use crate::hive::{Edited, Hive};
use crate::io::VolumeWrite;
use crate::ntfs::security::Protected;
use crate::ntfs::{CreateOptions, Security, Volume};

/// The smallest file of the media, in bytes, that is not read whole.
const STREAMED_FROM: u64 = 1 << 20;
/// The security ids for our own folder, as far as they have been asked for.
type Protections = HashMap<Protected, u32>;

/// What [`verify`](super::verify()) wants to know of an application: the hives that it changed, as they were handed to
/// the volume.
#[derive(Default)]
pub struct Applied {
    pub(super) hives: BTreeMap<GuestHive, Edited>,
}

impl Applied {
    /// The bytes of a changed hive; once [`verify`](super::verify()) has passed, the volume holds exactly these.
    #[must_use]
    pub fn hive(&self, file: GuestHive) -> Option<&[u8]> {
        self.hives.get(&file).map(|edited| edited.bytes.as_slice())
    }
}

impl fmt::Debug for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.hives.keys()).finish()
    }
}

/// Applies `plan` to `volume`, which lies on a stage, so that an error leaves the user's file as it was. `hives` were read
/// from this volume when the plan was made. The changed ones are not checked here: [`verify`](super::verify()) does it,
/// with what comes back from the volume.
///
/// # Errors
/// When an edit cannot be made: no space, or something that is not as it was when the plan was made.
pub fn apply<D: VolumeWrite>(
    plan: &Plan,
    volume: &mut Volume<D>,
    mut hives: BTreeMap<GuestHive, Hive>,
    now: FileTime,
) -> Result<Applied> {
    let mut applied = Applied::default();
    let mut protections = Protections::new();
    for step in plan.files() {
        tracing::debug!("{}", step.change);
        apply_file(volume, &step.change, &mut protections).map_err(|e| match step.change.file() {
            Some(path) => e.path(path),
            None => e,
        })?;
    }
    for hive in GuestHive::ALL {
        if plan.of_hive(hive).next().is_some() {
            let path = plan.hive_path(hive);
            let loaded = hives.remove(&hive).ok_or_else(|| gone(&path))?;
            let edited = apply_hive(plan, volume, hive, loaded, now).map_err(|e| e.path(path))?;
            applied.hives.extend(edited.map(|edited| (hive, edited)));
        }
    }
    volume.flush()?;
    Ok(applied)
}

fn apply_file<D: VolumeWrite>(volume: &mut Volume<D>, change: &Change, protections: &mut Protections) -> Result<()> {
    match change {
        Change::CreateDir { path, access } => {
            let what = if path.rfind('/') == Some(0) { Protected::Top } else { Protected::Directory };
            let how = new(volume, access, what, path, protections)?;
            let (parent, name) = split(path)?;
            let parent = volume.find(parent)?.ok_or_else(|| gone(parent))?;
            volume.create_dir(parent, name, &how)?;
        }
        Change::WriteFile { path, content, access, .. } => {
            let how = new(volume, access, Protected::File, path, protections)?;
            write_file(volume, path, content, &how)?;
        }
        Change::Protect { path } => {
            let file = volume.find(path)?.ok_or_else(|| gone(path))?;
            let what = match (volume.stat(file)?.is_dir, path.rfind('/')) {
                (true, Some(0)) => Protected::Top,
                (true, _) => Protected::Directory,
                (false, _) => Protected::File,
            };
            let id = volume.protected_security(what)?;
            volume.set_security(file, id)?;
        }
        Change::DeleteFile { path } => volume.delete(path)?,
        Change::CopyBootFile { .. }
        | Change::CreateKey { .. }
        | Change::SetValue { .. }
        | Change::DeleteValue { .. }
        | Change::DeleteKey { .. } => {}
    }
    Ok(())
}

/// Writes a file; one that is on the media is copied piece by piece, and its hash compared with what was chosen.
fn write_file<D: VolumeWrite>(
    volume: &mut Volume<D>,
    path: &str,
    content: &Content,
    how: &CreateOptions,
) -> Result<()> {
    let file = match content.held() {
        Ok(bytes) => return volume.replace_file(path, bytes, how).map(drop),
        Err(file) => file,
    };
    if file.size < STREAMED_FROM {
        return volume.replace_file(path, &content.read()?, how).map(drop);
    }
    let mut hash = Sha256::new();
    let mut fill = |offset, part: &mut [u8]| {
        file.read_at(offset, part)?;
        hash.update(part);
        Ok(())
    };
    volume.replace_file_from(path, file.size, &mut fill, how)?;
    if content.is_hashed(file.size, hash.finalize().into()) { Ok(()) } else { Err(file.changed()) }
}

/// The folder and the name of a path.
fn split(path: &str) -> Result<(&str, &str)> {
    match path.rsplit_once('/') {
        Some(("", name)) => Ok(("/", name)),
        Some((parent, name)) => Ok((parent, name)),
        None => Err(Error::bug(Layer::Plan, "a path of the plan is not absolute")),
    }
}

fn gone(path: &str) -> Error {
    Error::refused(Layer::Plan, "the image is not the one that this plan was made for")
        .path(path)
        .expected_found("a folder or file", "nothing")
        .hint("make the plan again")
}

/// How a file is created at `path`: protected as `what`, like another file, or as its folder hands it down.
fn new<D: VolumeWrite>(
    volume: &mut Volume<D>,
    access: &Access,
    what: Protected,
    path: &str,
    protections: &mut Protections,
) -> Result<CreateOptions> {
    let security = match access {
        Access::Protected => match protections.get(&what) {
            Some(&id) => Security::Id(id),
            None => {
                let id = volume.protected_security(what)?;
                protections.insert(what, id);
                Security::Id(id)
            }
        },
        Access::Like(sample) => volume.find(sample)?.map_or(Security::LikeParent, Security::Like),
        Access::Inherited => {
            let parent = volume.find(split(path)?.0)?.ok_or_else(|| gone(path))?;
            Security::Id(volume.inherited_security(parent, what != Protected::File)?)
        }
    };
    Ok(CreateOptions { security, ..CreateOptions::default() })
}

fn apply_hive<D: VolumeWrite>(
    plan: &Plan,
    volume: &mut Volume<D>,
    file: GuestHive,
    hive: Hive,
    now: FileTime,
) -> Result<Option<Edited>> {
    let path = plan.hive_path(file);
    let id = volume.find(&path)?.ok_or_else(|| gone(&path))?;
    let edited = edit_hive(plan, file, hive, now)?;
    volume.overwrite(id, &edited.bytes)?;
    Ok(edited.is_changed.then_some(edited))
}

/// Makes a plan's edits of a hive in memory. The outcome is not checked here.
///
/// # Errors
/// When the hive is damaged or full.
pub(crate) fn edit_hive(plan: &Plan, file: GuestHive, mut hive: Hive, now: FileTime) -> Result<Edited> {
    for step in plan.of_hive(file) {
        tracing::debug!("{}", step.change);
        apply_edit(&mut hive, &step.change, now)?;
    }
    hive.finish_unchecked(&[])
}

/// One edit of a hive. An edit that already holds changes nothing.
///
/// # Errors
/// When the hive is damaged or full.
pub fn apply_edit(hive: &mut Hive, change: &Change, now: FileTime) -> Result<()> {
    let root = hive.root();
    match change {
        Change::CreateKey { key, .. } => {
            hive.create_key(root, key, now)?;
        }
        Change::SetValue { key, name, data, .. } => {
            let key = hive.create_key(root, key, now)?;
            hive.set_value(key, name, data, now)?;
        }
        Change::DeleteValue { key, name, .. } => {
            if let Some(key) = hive.find(root, key)? {
                hive.delete_value(key, name, now)?;
            }
        }
        Change::DeleteKey { key, .. } => {
            if let Some(key) = hive.find(root, key)? {
                hive.delete_key(key, now)?;
            }
        }
        Change::CreateDir { .. }
        | Change::WriteFile { .. }
        | Change::Protect { .. }
        | Change::DeleteFile { .. }
        | Change::CopyBootFile { .. } => {}
    }
    Ok(())
}
