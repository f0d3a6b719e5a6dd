//! The bundle of a saved plan: the files that it takes from driver media, in a folder next to it, named by their hashes.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::folder::require_folder;
use super::saved_plan::bundle_of;
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Layer, Result};
use crate::host::{self, AtomicFile, Target};
use crate::plan::saved::{PlanDocument, SavedFileContent, Sha256Sum};
use crate::plan::{Change, Content, Plan};

/// What a file of a bundle is called in messages.
const FILE: &str = "a file of the bundle";
/// Bytes of a file that are copied at once.
const COPIED_AT_ONCE: usize = 1 << 20;

/// Makes sure that the bundle of a plan that is saved as `path` can be written.
///
/// # Errors
/// [`Kind::Usage`] when the name of its folder is taken by something else.
pub fn check_bundle(path: &Path) -> Result<()> {
    let folder = bundle_of(path);
    require_folder(path, "the bundle")?;
    // A link would lead the files to a folder that the user has not named.
    let is_taken = folder == path || folder.symlink_metadata().is_ok_and(|found| !found.is_dir());
    if !is_taken {
        return Ok(());
    }
    Err(Error::new(Kind::Usage, Layer::Job, "cannot write the bundle: its name is taken by something else")
        .path(folder.display().to_string())
        .hint("choose another name for the plan; its bundle is the folder with the ending .files"))
}

/// Writes the bundle of a plan that is going to be saved as `path`; returns its folder. Files of an
/// earlier bundle are replaced or left.
///
/// # Errors
/// Those of [`check_bundle`]; [`Kind::Io`] when a file cannot be written; [`Kind::Drivers`] when the media have changed
/// since the plan was made; [`Kind::Cancelled`].
pub fn write_bundle(document: &PlanDocument, plan: &Plan, path: &Path, cancel: &Cancel) -> Result<PathBuf> {
    check_bundle(path)?;
    let folder = bundle_of(path);
    host::create_folder(&folder)
        .map_err(|error| Error::io(Layer::Job, "cannot write the bundle", error).path(folder.display().to_string()))?;
    let contents: HashMap<String, &Content> = plan
        .files()
        .filter_map(|step| match &step.change {
            Change::WriteFile { content, .. } => Some((content.sha256(), content)),
            _ => None,
        })
        .collect();
    for file in document.files.iter().filter(|file| matches!(file.content, SavedFileContent::Media(_))) {
        let name = file.sha256.to_string();
        let content = contents.get(&name);
        let content = content.ok_or_else(|| Error::bug(Layer::Job, "a file of the plan is not in the plan"))?;
        write_file(content, file.sha256, &folder.join(name), cancel)?;
    }
    Ok(folder)
}

fn write_file(content: &Content, sha256: Sha256Sum, path: &Path, cancel: &Cancel) -> Result<()> {
    let target = Target::resolve(path, FILE)?;
    target.refuse_stream()?;
    let mut file = AtomicFile::create(target, &[], cancel.hold()?)?;
    let mut write = |bytes: &[u8]| {
        let written = file.write_all(bytes);
        written
            .map_err(|error| Error::io(Layer::Job, "cannot write the bundle", error).path(path.display().to_string()))
    };
    match content.held() {
        Ok(bytes) => write(bytes)?,
        Err(media) => {
            let mut hash = Sha256::new();
            let mut piece = vec![0; COPIED_AT_ONCE];
            let mut offset = 0;
            while offset < media.size {
                cancel.check()?;
                let length = usize::try_from(media.size - offset).unwrap_or(usize::MAX).min(piece.len());
                let part = piece.get_mut(..length).unwrap_or_default();
                media.read_at(offset, part)?;
                hash.update(&*part);
                write(part)?;
                offset += length as u64;
            }
            if hash.finalize().as_slice() != sha256.0 {
                return Err(media.changed());
            }
        }
    }
    file.finish()
}
