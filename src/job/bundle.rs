//! The bundle of a saved plan: the files that it takes from driver media, in a folder next to it, named by their hashes.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::folder::require_folder;
use super::plan::SavablePlan;
use super::request::InjectRequest;
use super::saved_plan::bundle_of;
use crate::cancel::{Cancel, Hold};
use crate::error::{Error, Kind, Layer, Result};
use crate::host::{self, AtomicFile, HostFiles as _, RealHost, Target};
use crate::plan::saved::{SavedFileContent, Sha256Sum};
use crate::plan::{Change, Content};

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

/// The bundle of a plan that is being written. Unless it is [kept](Self::keep), what was written of it is removed when it
/// is dropped.
#[derive(Debug)]
pub struct Bundle {
    folder: PathBuf,
    is_new: bool,
    written: Vec<PathBuf>,
    is_kept: bool,
    /// Given up last, when the files have gone.
    hold: Hold,
}

impl Bundle {
    /// The folder with the files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lets the files stay, when the plan that they belong to is there.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let removed = self.written.iter().try_for_each(|path| RealHost.remove(path));
        let removed = removed.and_then(|()| if self.is_new { host::remove_folder(&self.folder) } else { Ok(()) });
        if let Err(error) = removed {
            tracing::warn!(path = %self.folder.display(), %error, "cannot remove an unfinished bundle");
        }
    }
}

/// Writes the bundle of a plan that is going to be saved as `path`, from the media `drivers`; the files are open to no
/// more users than those and `sources`. A file of an earlier bundle that has the right content stays; one with another
/// content is replaced only if `overwrite`.
///
/// # Errors
/// Those of [`check_bundle`]; [`Kind::Usage`] when the name of a file is taken; [`Kind::Io`] when a file cannot be written;
/// [`Kind::Drivers`] when the media have changed since the plan was made; [`Kind::Cancelled`]. Nothing is left then.
pub fn write_bundle(
    planned: &SavablePlan,
    path: &Path,
    request: &InjectRequest,
    sources: &[PathBuf],
) -> Result<Bundle> {
    check_bundle(path)?;
    let SavablePlan { document, plan, .. } = planned;
    let folder = bundle_of(path);
    let contents: HashMap<String, &Content> = plan
        .files()
        .filter_map(|step| match &step.change {
            Change::WriteFile { content, .. } => Some((content.sha256(), content)),
            _ => None,
        })
        .collect();
    let hold = request.cancel.hold()?;
    let sources: Vec<PathBuf> = sources.iter().chain(&request.drivers).cloned().collect();
    let is_new = host::create_folder(&folder, &sources)
        .map_err(|error| Error::io(Layer::Job, "cannot write the bundle", error).path(folder.display().to_string()))?;
    let mut bundle = Bundle { folder, is_new, written: Vec::new(), is_kept: false, hold };
    for file in &document.files {
        let (SavedFileContent::Media(media) | SavedFileContent::Host(media)) = &file.content else { continue };
        let name = file.sha256.to_string();
        let content = contents.get(&name);
        let content = content.ok_or_else(|| Error::bug(Layer::Job, "a file of the plan is not in the plan"))?;
        // In a folder of drivers each file has permissions of its own.
        let named = request.options.extras.host_files().filter(|path| path.ends_with(media)).map(Path::to_owned);
        let origins = request.drivers.iter().map(|folder| folder.join(media)).chain(named).filter(|path| path.exists());
        let sources: Vec<PathBuf> = origins.chain(sources.iter().cloned()).collect();
        let target = Target::of_name(&bundle.folder.join(name), FILE)?;
        if target.is_existing() && is_content(target.path(), file.size, file.sha256)? {
            continue;
        }
        target.refuse_existing(request.overwrite_output)?;
        let path = target.path().to_owned();
        write_file(content, file.sha256, target, &sources, &request.cancel)?;
        bundle.written.push(path);
    }
    bundle.hold.check()?;
    Ok(bundle)
}

/// Whether a file that is there already has this content.
fn is_content(path: &Path, size: u64, sha256: Sha256Sum) -> Result<bool> {
    let cannot = |error| Error::io(Layer::Job, "cannot read the bundle", error).path(path.display().to_string());
    let mut file =
        host::open(path, false).map_err(|error| error.into_error(FILE, path, Layer::Job))?.take(size.saturating_add(1));
    let mut hash = Sha256::new();
    let mut length = 0;
    let mut piece = vec![0; COPIED_AT_ONCE];
    loop {
        let count = file.read(&mut piece).map_err(cannot)?;
        if count == 0 {
            return Ok(length == size && hash.finalize().as_slice() == sha256.0);
        }
        hash.update(piece.get(..count).unwrap_or_default());
        length += count as u64;
    }
}

fn write_file(
    content: &Content,
    sha256: Sha256Sum,
    target: Target,
    sources: &[PathBuf],
    cancel: &Cancel,
) -> Result<()> {
    let cannot = target.cannot();
    let mut file = AtomicFile::create(target, sources, cancel.hold()?)?;
    let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(&cannot);
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
