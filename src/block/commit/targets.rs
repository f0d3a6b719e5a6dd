//! The files that a commit in place writes: which ones may be, opened and locked.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::data_file::refuse_foreign_data_file;
use super::options::CommitOptions;
use crate::block::formats::qcow2::{self, Target};
use crate::block::journal::{self, journal_of_real_path, record_of_real_path};
use crate::block::{FileStorage, Format, HostFiles, ImageParts, PathPolicy, RealHost, Stage, Storage};
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::host::{folder_of, several_names};

/// The hint of a refusal is the caller's, who knows the command that writes elsewhere.
pub(super) fn editable_format(stage: &Stage, path: &Path) -> Result<Format> {
    if stage.image().parts().is_none() && matches!(stage.image().format(), Format::Raw | Format::Qcow2) {
        return Err(Error::unsupported(Layer::Block, "cannot change a disk inside an archive in place")
            .with_code(ErrorCode::NotEditableInPlace)
            .path(path.display().to_string()));
    }
    match stage.image().format() {
        format @ (Format::Raw | Format::Qcow2) => Ok(format),
        format => Err(Error::unsupported(Layer::Block, format!("cannot change a {format} image in place"))
            .with_code(ErrorCode::NotEditableInPlace)
            .path(path.display().to_string())),
    }
}

/// Checks the files for [`super::check_in_place`].
pub(super) fn check(stage: &Stage, path: &Path, policy: &PathPolicy) -> Result<()> {
    let format = editable_format(stage, path)?;
    if let Some((storage, data_path)) = stage.image().parts().and_then(|parts| parts.data_file) {
        refuse_foreign_data_file(policy, path, data_path)?;
        refuse_other_names(&**storage, data_path)?;
        journal::clear(&RealHost, data_path, owner_of(&**storage))?;
    }
    let real_path = RealHost.real_path(path);
    let image = FileStorage::open(&real_path, true)?;
    refuse_other_names(&image, path)?;
    journal::refuse_foreign_record(&RealHost, &record_of_real_path(&real_path), owner_of(&image))?;
    // A name that is too long for a journal is found before the work.
    let journal = journal_of_real_path(&real_path);
    if let Err(error) = journal.symlink_metadata()
        && error.kind() == io::ErrorKind::InvalidFilename
    {
        let hint = journal::creation_hint(&error, "the image");
        return Err(Error::io(Layer::Host, "cannot create the undo journal", error)
            .path(journal.display().to_string())
            .hint(hint));
    }
    let folder = folder_of(&real_path);
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).map_err(|e| {
        Error::io(Layer::Host, "cannot create the undo journal in the image's folder", e.into())
            .path(folder.display().to_string())
    })?;
    if format == Format::Qcow2 {
        qcow2::refuse_corrupt(Arc::new(image), path)?;
    }
    Ok(())
}

/// Refuses a file with several names: if the run were interrupted, its journal would be found under one of them only.
pub(super) fn refuse_other_names(file: &dyn Storage, path: &Path) -> Result<()> {
    if file.has_other_names() {
        return Err(several_names(path, "an interrupted run would not be seen under the others"));
    }
    Ok(())
}

pub(super) fn owner_of(storage: &dyn Storage) -> Option<u32> {
    storage.identity().map(|identity| identity.owner)
}

/// A file that is open for writing.
pub(super) struct OpenTarget {
    pub storage: Arc<dyn Storage>,
    pub path: PathBuf,
}

pub(super) struct Targets {
    pub image: OpenTarget,
    pub data_file: Option<OpenTarget>,
}

impl Targets {
    pub fn get(&self, target: Target) -> Result<&dyn Storage> {
        match (target, &self.data_file) {
            (Target::Image, _) => Ok(&*self.image.storage),
            (Target::DataFile, Some(file)) => Ok(&*file.storage),
            (Target::DataFile, None) => Err(Error::bug(Layer::Block, "a write to a data file that is not there")),
        }
    }

    pub fn all(&self) -> impl Iterator<Item = (Target, &OpenTarget)> {
        let data = self.data_file.iter().map(|file| (Target::DataFile, file));
        std::iter::once((Target::Image, &self.image)).chain(data)
    }
}

/// Opens the image (and its data file) for writing, locked, and makes sure that it is what the stage was made from.
pub(super) fn open_targets(
    host: &dyn HostFiles,
    stage: &Stage,
    path: &Path,
    options: &CommitOptions,
) -> Result<Targets> {
    let ImageParts { file, data_file } = stage.image().parts().ok_or_else(|| {
        Error::unsupported(Layer::Block, "cannot change this image in place: not a file of its own")
            .with_code(ErrorCode::NotEditableInPlace)
            .path(path.display().to_string())
            .hint("write a new image instead of changing this one")
    })?;
    let image = open_target(host, file, path, options)?;
    let data_file = data_file
        .map(|(storage, data_path)| {
            refuse_foreign_data_file(&options.path_policy, path, data_path)?;
            let target = open_target(host, storage, data_path, options)?;
            journal::clear(host, data_path, owner_of(&*target.storage))?;
            Ok::<_, Error>(target)
        })
        .transpose()?;
    Ok(Targets { image, data_file })
}

fn open_target(
    host: &dyn HostFiles,
    read: &Arc<dyn Storage>,
    path: &Path,
    options: &CommitOptions,
) -> Result<OpenTarget> {
    // Our own reader's locks would exclude the writer. The fingerprint check below detects a racing writer.
    read.unlock();
    let storage = host.open(path, options.locking)?;
    if storage.fingerprint() != read.fingerprint() {
        return Err(Error::refused(Layer::Block, "the path leads to another file now")
            .with_code(ErrorCode::FileChanged)
            .path(path.display().to_string()));
    }
    if read.opened_as() != storage.fingerprint() {
        return Err(Error::refused(Layer::Block, "the file changed while winject worked on it")
            .with_code(ErrorCode::FileChanged)
            .path(path.display().to_string())
            .hint("make sure that nothing else uses the image, and run winject again"));
    }
    refuse_other_names(&*storage, path)?;
    Ok(OpenTarget { storage, path: path.to_owned() })
}
