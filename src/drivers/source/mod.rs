//! Where driver files come from: a directory or an ISO image, read file by file.
//!
//! Opening lists names and sizes only. Contents are read when somebody asks for them, so that an ISO of several hundred
//! megabytes costs what its few needed files cost.

mod directory;
mod image;

use crate::error::{Error, Kind, Layer, Result};
use crate::ntfs::name::problem_with;
use directory::Directory;
use image::Image;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Largest file that is read from driver media. The largest drivers known have some 60 MB.
pub const FILE_SIZE_MAX: u64 = 256 << 20;

/// Most bytes of a source's files that stay in memory from the choice until they are used.
const KEPT_BYTES_MAX: u64 = 16 << 20;

/// Bytes of a file that are read at once.
const PIECE: u64 = 1 << 20;

/// Most warnings about a source.
const WARNINGS_MAX: usize = 100;

/// Whether a name can be one of Windows: a backslash in it, for one, would lead out of the package's folder.
fn is_windows_name(name: &str) -> bool {
    !name.ends_with(['.', ' ']) && !name.chars().any(|c| c.is_control() || "\\:*?\"<>|".contains(c))
}

/// One directory or ISO image with drivers.
pub struct Source {
    root: PathBuf,
    backend: Backend,
    files: Vec<SourceFile>,
    by_path: HashMap<String, usize>,
    warnings: Vec<String>,
    /// Bytes of its files that are kept in memory.
    kept: AtomicU64,
}

enum Backend {
    Directory(Directory),
    Image(Image),
}

/// A file of a [`Source`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Path below the source's root, with `/`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
}

impl SourceFile {
    /// The folder, without a trailing slash; empty for the root.
    #[must_use]
    pub fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// The last component.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

impl Source {
    /// Opens a directory or an ISO image and lists its files; reads none of them.
    ///
    /// # Errors
    /// [`Kind::Drivers`] when there is no such file or folder, or it is neither; [`Kind::Damaged`] for a broken ISO.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let meta = std::fs::metadata(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(Kind::Drivers, Layer::Drivers, "there is no such driver folder or image")
                    .path(shown.clone())
                    .hint("give the folder or the ISO image of the drivers, for instance virtio-win.iso")
            }
            _ => Error::io(Layer::Drivers, "cannot open the driver source", e).path(shown.clone()),
        })?;
        let mut warnings = Vec::new();
        let (backend, mut files) = if meta.is_dir() {
            let (directory, files) = Directory::open(path, &mut warnings)?;
            (Backend::Directory(directory), files)
        } else {
            let (image, files) = Image::open(path, &mut warnings)?;
            (Backend::Image(image), files)
        };
        files.retain(|file| {
            // a package whose INF cannot be held is none; for its other files, the package decides
            let is_inf = file.path.rsplit_once('.').is_some_and(|(_, ending)| ending.eq_ignore_ascii_case("inf"));
            let fits =
                file.path.split('/').all(is_windows_name) && !(is_inf && problem_with(&file.name().into()).is_some());
            if !fits && warnings.len() < WARNINGS_MAX {
                warnings
                    .push(format!("{}: left out, Windows cannot have such a name", path.join(&file.path).display()));
            }
            fits
        });
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut by_path = HashMap::with_capacity(files.len());
        for (index, file) in files.iter().enumerate() {
            by_path.entry(file.path.to_lowercase()).or_insert(index);
        }
        Ok(Self { root: path.to_owned(), backend, files, by_path, warnings, kept: AtomicU64::new(0) })
    }

    /// The path that was opened.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All files, sorted by path.
    #[must_use]
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// What was left out of the listing, and why.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A file by its path below the root: as written, else without regard to case.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&SourceFile> {
        if let Ok(index) = self.files.binary_search_by(|file| file.path.as_str().cmp(path)) {
            return self.files.get(index);
        }
        self.by_path.get(&path.to_lowercase()).and_then(|&index| self.files.get(index))
    }

    /// Whether `size` more bytes of files may stay in memory; if so, they count.
    pub(super) fn may_keep(&self, size: u64) -> bool {
        let add = |kept: u64| kept.checked_add(size).filter(|&kept| kept <= KEPT_BYTES_MAX);
        self.kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    /// A file that is small enough for a driver's.
    fn find_readable(&self, path: &str) -> Result<&SourceFile> {
        let file = self.find(path).ok_or_else(|| {
            Error::new(Kind::Drivers, Layer::Drivers, "there is no such file on the driver media")
                .path(self.show(path))
                .hint("the driver media changed while it was in use, or is incomplete")
        })?;
        if file.size > FILE_SIZE_MAX {
            return Err(Error::new(Kind::Drivers, Layer::Drivers, "the file is too large for a driver's")
                .path(self.show(path))
                .expected_found(format!("at most {FILE_SIZE_MAX} bytes"), file.size)
                .hint("take the file out of the driver folder"));
        }
        Ok(file)
    }

    /// Gives the content of a file to `put`, piece by piece. Returns the size.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) fn stream(&self, path: &str, put: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let file = self.find_readable(path)?;
        let mut offset = 0;
        while offset < file.size {
            let piece = self.read_part(file, offset, PIECE)?;
            if piece.is_empty() {
                break;
            }
            put(&piece);
            offset += piece.len() as u64;
        }
        let length = match &self.backend {
            Backend::Directory(directory) => directory.length(file).map_err(|e| e.path(self.show(path)))?,
            Backend::Image(_) => offset,
        };
        if offset == file.size && length == offset { Ok(offset) } else { Err(self.changed(file, length)) }
    }

    fn changed(&self, file: &SourceFile, found: u64) -> Error {
        Error::new(Kind::Drivers, Layer::Drivers, "the file changed while it was read")
            .path(self.show(&file.path))
            .expected_found(file.size, found)
            .hint("leave the driver folder alone while winject runs")
    }

    /// Reads a whole file by its path below the root, without regard to case.
    ///
    /// # Errors
    /// [`Kind::Drivers`] when there is no such file or it is far too large, else when the media cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let file = self.find_readable(path)?;
        let data = match &self.backend {
            Backend::Directory(directory) => directory.read(file),
            Backend::Image(image) => image.read(file),
        }
        .map_err(|e| e.path(self.show(path)))?;
        if data.len() as u64 != file.size {
            return Err(self.changed(file, data.len() as u64));
        }
        Ok(data)
    }

    /// Reads a part of a file; shorter if the file ends before it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_part(&self, file: &SourceFile, offset: u64, length: u64) -> Result<Vec<u8>> {
        let length = length.min(file.size.saturating_sub(offset)).min(FILE_SIZE_MAX);
        match &self.backend {
            Backend::Directory(directory) => directory.read_part(file, offset, length),
            Backend::Image(image) => image.read_part(file, offset, length),
        }
        .map_err(|e| e.path(self.show(&file.path)))
    }

    /// A path of the media with the media's own path before it, for messages and reports.
    #[must_use]
    pub fn show(&self, path: &str) -> String {
        self.root.join(path).display().to_string()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({}, {} files)", self.root.display(), self.files.len())
    }
}

/// Several sources, the first one preferred.
#[derive(Debug, Clone, Default)]
pub struct Sources(Vec<Arc<Source>>);

impl Sources {
    /// Opens every path.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self> {
        paths.iter().map(|p| Source::open(p.as_ref()).map(Arc::new)).collect::<Result<_>>().map(Self)
    }

    /// The sources in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.0.iter()
    }

    /// The paths of the sources, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        self.0.iter().map(|s| s.root().display().to_string()).collect::<Vec<_>>().join(", ")
    }
}
