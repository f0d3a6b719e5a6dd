//! An ISO image as a driver source.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::file::{FILE_SIZE_MAX, SourceFile};
use crate::error::{Error, Kind, Layer, Result};
use crate::iso::{HostFile, Iso, IsoFile};

/// An opened image, with the position of each file in the list of [`Iso::files`].
pub(super) struct Image {
    path: PathBuf,
    iso: Iso<HostFile>,
    by_path: HashMap<String, usize>,
}

impl Image {
    pub(super) fn open(path: &Path, warnings: &mut Vec<String>) -> Result<(Self, Vec<SourceFile>)> {
        let iso = Iso::open_path(path).map_err(|error| match error.kind() {
            Kind::Unsupported => {
                let message = "the driver source is neither a folder nor an ISO image";
                Error::new(Kind::Drivers, Layer::Drivers, message)
                    .path(path.display().to_string())
                    .hint("give the folder or the ISO image of the drivers, for instance virtio-win.iso")
                    .source_error(error)
            }
            _ => error,
        })?;
        warnings.extend(iso.warnings().iter().map(|w| format!("{}: {w}", path.display())));
        let files: Vec<SourceFile> =
            iso.files().iter().map(|f| SourceFile { path: f.path.clone(), size: f.size }).collect();
        let by_path = files.iter().enumerate().map(|(index, file)| (file.path.clone(), index)).collect();
        Ok((Self { path: path.to_owned(), iso, by_path }, files))
    }

    pub(super) fn read(&self, file: &SourceFile) -> Result<Vec<u8>> {
        self.iso.read(self.find(file)?, FILE_SIZE_MAX).map_err(|e| e.within(self.path.display()))
    }

    pub(super) fn read_part(&self, file: &SourceFile, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.iso.read_part(self.find(file)?, offset, length).map_err(|e| e.within(self.path.display()))
    }

    fn find(&self, file: &SourceFile) -> Result<&IsoFile> {
        let found = self.by_path.get(&file.path).and_then(|&index| self.iso.files().get(index));
        found.ok_or_else(|| Error::bug(Layer::Drivers, "a listed file is not in the image"))
    }
}
