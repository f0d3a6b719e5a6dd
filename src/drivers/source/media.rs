//! Driver sources as they were opened: their list of files, and reading one of them.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::directory::Directory;
use super::file::{FILE_SIZE_MAX, SourceFile, WARNINGS_MAX};
use super::image::Image;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::host::{self, Unreadable};
use crate::ntfs::name::problem_with;

/// Most bytes of a source's files that stay in memory from the choice until they are used.
const CACHE_BYTES_MAX: u64 = 16 << 20;

/// Bytes that [`Source::stream`] reads at once.
const CHUNK_BYTES: u64 = 1 << 20;

/// Whether Windows accepts a name. A backslash in it, for one, would lead out of the package's folder.
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
    /// Bytes of its files that are held in memory, at most [`CACHE_BYTES_MAX`].
    cached_bytes: AtomicU64,
    /// Largest file that is read, in bytes.
    size_max: u64,
    /// Whether this is one file that the user named.
    is_file: bool,
}

enum Backend {
    Directory(Directory),
    Image(Image),
}

impl Source {
    /// Opens a directory or an ISO image and lists its files; reads none of them.
    ///
    /// # Errors
    /// [`Kind::Drivers`] if the path does not exist, or names neither a file nor a folder; [`Kind::Damaged`] for a broken
    /// ISO.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display().to_string();
        let meta = std::fs::metadata(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(Kind::Drivers, Layer::Drivers, "there is no such driver folder or image")
                    .with_code(ErrorCode::FileNotFound)
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
            // a package without its INF is useless; whether it needs another file is decided with the package
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
        let cached_bytes = AtomicU64::new(0);
        let root = path.to_owned();
        Ok(Self { root, backend, files, by_path, warnings, cached_bytes, size_max: FILE_SIZE_MAX, is_file: false })
    }

    /// One file of the host, of at most `size_max` bytes, as a source of its own; `what` it is for ("the file to upload").
    ///
    /// # Errors
    /// [`Kind::Io`] when it cannot be opened; [`Kind::Usage`] when it is not a regular file, or is longer.
    pub(crate) fn of_file(path: &Path, what: &str, size_max: u64) -> Result<Self> {
        let unreadable = |error: Unreadable| error.into_error(what, path, Layer::Drivers);
        let length = host::open(path, false).and_then(|file| Ok(file.metadata()?.len())).map_err(unreadable)?;
        if length > size_max {
            return Err(unreadable(Unreadable::TooLarge(size_max)));
        }
        let (directory, file) = Directory::of_file(path, length);
        let by_path = HashMap::from([(file.path.to_lowercase(), 0)]);
        Ok(Self {
            root: path.parent().unwrap_or(Path::new("")).to_owned(),
            backend: Backend::Directory(directory),
            files: vec![file],
            by_path,
            warnings: Vec::new(),
            cached_bytes: AtomicU64::new(0),
            size_max,
            is_file: true,
        })
    }

    /// Whether this is one file that the user named, in place of driver media.
    pub(crate) fn is_file(&self) -> bool {
        self.is_file
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

    /// A file by its path below the root: an exact match, else one that differs in case only.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&SourceFile> {
        if let Ok(index) = self.files.binary_search_by(|file| file.path.as_str().cmp(path)) {
            return self.files.get(index);
        }
        self.by_path.get(&path.to_lowercase()).and_then(|&index| self.files.get(index))
    }

    /// Reserves memory for `size` bytes of a file that stays loaded; `false` when the source has used up its budget.
    pub(crate) fn reserve_cache(&self, size: u64) -> bool {
        let before = self.cached_bytes.fetch_add(size, Ordering::Relaxed);
        let fits = before.checked_add(size).is_some_and(|cached| cached <= CACHE_BYTES_MAX);
        if !fits {
            self.cached_bytes.fetch_sub(size, Ordering::Relaxed);
        }
        fits
    }

    /// Like [`find`](Self::find), as an error if the file is missing or larger than [`FILE_SIZE_MAX`].
    fn find_readable(&self, path: &str) -> Result<&SourceFile> {
        let file = self.find(path).ok_or_else(|| {
            Error::new(Kind::Drivers, Layer::Drivers, "file not found on the driver media")
                .path(self.show(path))
                .hint("the driver media changed while it was in use, or is incomplete")
        })?;
        if file.size > self.size_max {
            return Err(Error::new(Kind::Drivers, Layer::Drivers, "the file is too large for a driver's")
                .path(self.show(path))
                .expected_found(format!("at most {} bytes", self.size_max), file.size)
                .hint("take the file out of the driver folder"));
        }
        Ok(file)
    }

    /// Passes the content of a file to `consume`, in chunks. Returns the size.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub(crate) fn stream(&self, path: &str, consume: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let file = self.find_readable(path)?;
        let mut offset = 0;
        while offset < file.size {
            let chunk = self.read_part(file, offset, CHUNK_BYTES)?;
            if chunk.is_empty() {
                break;
            }
            consume(&chunk);
            offset += chunk.len() as u64;
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
            .hint("leave the file alone while winject runs, and start again")
    }

    /// Reads a whole file by its path below the root, without regard to case.
    ///
    /// # Errors
    /// [`Kind::Drivers`] if the file is missing or larger than [`FILE_SIZE_MAX`]; any error of reading the media.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let file = self.find_readable(path)?;
        tracing::debug!(path = %self.show(path), "reading a file of the drivers");
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

    /// Reads `length` bytes from `offset` on; fewer if the file ends before that.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub fn read_part(&self, file: &SourceFile, offset: u64, length: u64) -> Result<Vec<u8>> {
        let length = length.min(file.size.saturating_sub(offset)).min(FILE_SIZE_MAX);
        match &self.backend {
            Backend::Directory(directory) => directory.read_part(file, offset, length),
            Backend::Image(image) => image.read_part(file, offset, length),
        }
        .map_err(|e| e.path(self.show(&file.path)))
    }

    /// A path below the source as a path of the host, for messages and reports.
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
    /// Opens several directories or ISO images; the first of them is preferred.
    ///
    /// # Errors
    /// Those of [`Source::open`].
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
