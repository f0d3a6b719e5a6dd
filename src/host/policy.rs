//! The policy for files that an image names.
//!
//! Backing files, extents and data files are names inside an image, and an image may come from an attacker: a disk
//! whose backing file is `/etc/shadow` must not be read into the output just because it says so.

use std::path::{Component, Path, PathBuf};

use super::file_storage::FileStorage;
use super::folder::folder_of;
use super::nbd_name::is_nbd_name;
use super::read::open_as_it_is;
use crate::error::{Error, ErrorCode, Layer, Result};
use crate::escape::{escape, shell_path};

/// Which files an image may refer to: an image may come from an attacker, who could name any file of the host. The
/// default allows plain relative names that stay inside the image's own folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathPolicy {
    allowed: Vec<PathBuf>,
    /// NBD exports, by their URIs.
    exports: Vec<PathBuf>,
    anything: bool,
}

impl PathPolicy {
    /// Allows only files below the folder of the image that names them (the default).
    #[must_use]
    pub fn same_folder() -> Self {
        Self::default()
    }

    /// Also allows this file, or every file below this folder; or, for an NBD URI, this export of this server as a backing file.
    #[must_use]
    pub fn allow(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        if is_nbd_name(&path) {
            self.exports.push(path)
        } else {
            self.allowed.push(path)
        }
        self
    }

    /// Allows every file. Only for images of one's own: the image can name any file that the user can read. An NBD export has to
    /// be [allowed](Self::allow) by its URI even then: no image chooses whom winject connects to.
    #[must_use]
    pub fn anything() -> Self {
        Self { anything: true, ..Self::default() }
    }

    /// Finds the file that the image at `image` calls `name`, without opening it.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) when the policy does not allow it, [`Kind::Io`](crate::Kind::Io) when
    /// it is missing.
    pub fn resolve(&self, image: &Path, name: &str) -> Result<PathBuf> {
        let plain = plain_name(image, name)?;
        let folder = folder_of(image);
        let real_folder = folder
            .canonicalize()
            .map_err(|e| Error::io(Layer::Host, "cannot resolve the path", e).path(folder.display().to_string()))?;
        let found = real_folder.join(&plain);
        // An absolute path, or one with `..`, can lead into the image's own folder, too. The file itself is not looked
        // at before that is known.
        let is_plain = plain.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        let is_outside =
            !is_plain && !folder_of(&found).canonicalize().is_ok_and(|parent| parent.starts_with(&real_folder));
        if is_outside && !self.anything && self.allowed.is_empty() {
            return Err(refused(image, name, &found));
        }
        let real = found.canonicalize().map_err(|e| {
            Error::io(Layer::Host, format!("cannot find the file {} that the image needs", escape(name)), e)
                .path(image.display().to_string())
                .hint("put the file where the image expects it, or correct the name with qemu-img rebase -u")
        })?;
        if self.anything || (real.starts_with(&real_folder) && !is_outside) || self.is_allowed(&real) {
            Ok(real)
        } else {
            Err(refused(image, name, &real))
        }
    }

    /// Opens the file that the image at `image` calls `name`, read-only.
    ///
    /// # Errors
    /// Those of [`resolve`](Self::resolve); also when it is not a regular file.
    pub fn open(&self, image: &Path, name: &str) -> Result<(FileStorage, PathBuf)> {
        let path = self.resolve(image, name)?;
        // The path is free of symbolic links now; one that appears in the meantime must not be followed. Not to block
        // on a FIFO, the file is opened without waiting, and its kind is read from the open file.
        let file = open_as_it_is(&path)
            .map_err(|e| Error::io(Layer::Host, "cannot open the file", e).path(path.display().to_string()))?;
        let storage = FileStorage::from_file(file, &path)?;
        if !storage.is_regular() && !self.anything && !self.is_allowed(&path) {
            return Err(Error::refused(Layer::Block, "the image refers to a device")
                .with_code(ErrorCode::OutsideReference)
                .path(path.display().to_string())
                .hint("allow this path explicitly if the image is yours"));
        }
        Ok((storage, path))
    }

    /// Where a file that was moved may be found, in addition to the image's own folder.
    pub(crate) fn allowed(&self) -> &[PathBuf] {
        &self.allowed
    }

    /// URIs of the NBD exports that an image may have as backing files.
    pub(crate) fn allowed_exports(&self) -> &[PathBuf] {
        &self.exports
    }

    /// Whether any file that an image names may be written, see [`allows_writing`](Self::allows_writing).
    pub(crate) fn allows_any(&self) -> bool {
        self.anything || !self.allowed.is_empty()
    }

    /// Whether an edit in place may write to this file, which an image names: only if it is allowed itself. A folder
    /// that is allowed is enough for reading.
    #[must_use]
    pub fn allows_writing(&self, real: &Path) -> bool {
        self.anything || self.allowed.iter().any(|a| a.canonicalize().is_ok_and(|allowed| allowed == real))
    }

    fn is_allowed(&self, real: &Path) -> bool {
        self.allowed.iter().filter_map(|a| a.canonicalize().ok()).any(|allowed| real.starts_with(allowed))
    }
}

/// The refusal of the file `found`, with the option that allows its folder.
fn refused(image: &Path, name: &str, found: &Path) -> Error {
    let folder = folder_of(found);
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let hint = match shell_path(&folder) {
        Some(folder) => format!("if you trust the image, add --allow-path {folder}"),
        None => "if you trust the image, allow the file's folder with --allow-path FOLDER".to_owned(),
    };
    Error::refused(Layer::Block, format!("the image refers to {}, outside its own folder", escape(name)))
        .with_code(ErrorCode::OutsideReference)
        .path(image.display().to_string())
        .hint(hint)
}

/// The file name out of QEMU's `json:` with the plain file driver.
fn json_file_name(json: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(json).ok()?;
    let fields = value.as_object()?;
    let is_known = fields.keys().all(|key| matches!(key.as_str(), "driver" | "filename"));
    let is_file = fields.get("driver").and_then(serde_json::Value::as_str) == Some("file");
    Some(fields.get("filename")?.as_str()?.to_owned()).filter(|_| is_known && is_file)
}

/// The file name without QEMU's `file:` prefix or out of `json:` with the driver `file`; other protocols and pseudo
/// names are refused.
fn plain_name(image: &Path, name: &str) -> Result<PathBuf> {
    let unsupported = |what: &str| {
        Err(Error::refused(Layer::Block, format!("the image refers to {} ({what})", escape(name)))
            .with_code(ErrorCode::OutsideReference)
            .path(image.display().to_string())
            .hint("only plain files are followed; convert the image with qemu-img convert first"))
    };
    if name.is_empty() || name.contains('\0') {
        return unsupported("not a file name");
    }
    if let Some(plain) = name.strip_prefix("file:").filter(|plain| !plain.is_empty()) {
        return Ok(PathBuf::from(plain));
    }
    if let Some(plain) = name.strip_prefix("json:").and_then(json_file_name) {
        return if plain.is_empty() || plain.contains('\0') {
            unsupported("not a file name")
        } else {
            Ok(plain.into())
        };
    }
    // QEMU's rule: text before the first colon is a protocol, unless a slash comes earlier.
    match name.split_once(':') {
        Some((before, _)) if !before.contains('/') => unsupported("a protocol, not a file"),
        _ => Ok(PathBuf::from(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(folder.path().join("outside.img"), b"x").unwrap();
        std::fs::write(inner.join("base.img"), b"x").unwrap();
        std::os::unix::fs::symlink("../outside.img", inner.join("link.img")).unwrap();
        std::os::unix::fs::symlink("base.img", inner.join("good-link.img")).unwrap();
        let image = inner.join("top.qcow2");
        let policy = PathPolicy::default();
        let (absolute, outside) = (inner.join("base.img"), folder.path().join("outside.img"));
        let (absolute, outside) = (absolute.display().to_string(), outside.display().to_string());
        for name in ["../outside.img", "link.img", "/etc/passwd", &outside, "sub/../../outside.img", "../none.img"] {
            let error = policy.resolve(&image, name).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused, "{name}");
            assert!(error.hint_text().unwrap().contains("--allow-path /"), "{error:?}");
        }
        let json = format!("json:{{\"driver\":\"file\",\"filename\":\"{absolute}\"}}");
        for name in [&absolute, &format!("file:{absolute}"), "../inner/base.img", &json] {
            assert!(policy.resolve(&image, name).unwrap().ends_with("inner/base.img"), "{name}");
        }
        let other = "json:{\"driver\":\"file\",\"filename\":\"base.img\",\"x\":1}";
        assert_eq!(policy.resolve(&image, other).unwrap_err().kind(), Kind::Refused);
        for name in ["json:{\"driver\":\"raw\"}", "nbd://host/x", "fat:floppy:/etc", "", "http://x/y"] {
            assert_eq!(policy.resolve(&image, name).unwrap_err().kind(), Kind::Refused, "{name}");
        }
        for name in ["base.img", "./base.img", "good-link.img", "file:base.img"] {
            assert!(policy.resolve(&image, name).unwrap().ends_with("inner/base.img"), "{name}");
        }
        assert_eq!(policy.resolve(&image, "missing.img").unwrap_err().kind(), Kind::Io);
        let allowed = PathPolicy::default().allow(folder.path().join("outside.img"));
        assert!(allowed.resolve(&image, "../outside.img").is_ok());
        assert_eq!(allowed.resolve(&image, "/etc/passwd").unwrap_err().kind(), Kind::Refused);
        assert!(PathPolicy::anything().resolve(&image, "/etc/passwd").is_ok());
    }

    #[test]
    fn a_fifo_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert!(PathPolicy::default().open(&folder.path().join("top"), "pipe").is_err());
    }
}
