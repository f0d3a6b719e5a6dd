//! Opening the files that an image names: an extent, a parent.
//!
//! The readers never open files of the host themselves. They call a [`References`], which applies the path policy, the
//! limit of the chain's depth, and the check for loops.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::block::{Chain, Storage};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};

/// Opens the files that an image names.
pub(crate) trait References {
    /// Opens the file `name`, taken relative to the folder of the referring file.
    fn open(&self, name: &str) -> Result<(Arc<dyn Storage>, PathBuf)>;

    /// Paths that the user allowed (`--allow-path`): a parent may have been moved there.
    fn allowed(&self) -> &[PathBuf] {
        &[]
    }

    /// The references of a parent that was opened through this one. Fails when the chain loops or is too long.
    fn descend(&self, storage: &dyn Storage, path: &Path) -> Result<Box<dyn References + '_>>;
}

/// The references of an image that is part of a [`Chain`].
pub(crate) struct ChainReferences<'a> {
    chain: Chain<'a>,
    image: PathBuf,
}

impl<'a> ChainReferences<'a> {
    /// The references of the image at `image`, the last one of `chain`.
    pub(crate) fn new(chain: &Chain<'a>, image: &Path) -> Self {
        Self { chain: chain.clone(), image: image.to_owned() }
    }
}

impl References for ChainReferences<'_> {
    fn open(&self, name: &str) -> Result<(Arc<dyn Storage>, PathBuf)> {
        self.chain.open_named(&self.image, name)
    }

    fn allowed(&self) -> &[PathBuf] {
        self.chain.allowed()
    }

    fn descend(&self, storage: &dyn Storage, path: &Path) -> Result<Box<dyn References + '_>> {
        Ok(Box::new(ChainReferences { chain: self.chain.push(storage, path)?, image: path.to_owned() }))
    }
}

/// For an image inside an archive, which has no folder: every reference is refused.
pub(crate) struct NoReferences;

impl References for NoReferences {
    fn open(&self, name: &str) -> Result<(Arc<dyn Storage>, PathBuf)> {
        Err(Error::refused(Layer::Block, format!("a disk inside an archive refers to {}", crate::escape::escape(name)))
            .with_code(ErrorCode::OutsideReference)
            .hint("unpack the archive, and give winject the disk image inside"))
    }

    fn descend(&self, _storage: &dyn Storage, _path: &Path) -> Result<Box<dyn References + '_>> {
        Ok(Box::new(Self))
    }
}

/// Opens the first of `names` that can be opened. Hints often are absolute paths of another machine, so that the plain
/// file name in the image's own folder comes later in the list; after it, the same name in the allowed folders.
pub(crate) fn open_first(
    references: &dyn References,
    what: &str,
    names: &[String],
) -> Result<(Arc<dyn Storage>, PathBuf)> {
    let mut first: Option<Error> = None;
    let moved = names.last().map_or("", |name| base_name(name));
    let moved = references.allowed().iter().filter(|_| !moved.is_empty()).filter_map(|path| {
        // An allowed path is a file or a folder.
        let found = if path.file_name().is_some_and(|name| name == moved) { path.clone() } else { path.join(moved) };
        Some(std::path::absolute(found).ok()?.to_str()?.to_owned())
    });
    for name in names.iter().cloned().chain(moved) {
        let name = &name;
        match references.open(name) {
            Ok(found) => return Ok(found),
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    let tried: Vec<String> = names.iter().map(|n| crate::escape::escape(n).into_owned()).collect();
    let message = format!("cannot open {what} (tried {})", tried.join(", "));
    Err(match first {
        Some(error) if error.hint_text().is_some_and(|hint| hint.contains("add --allow-path")) => {
            let hint = error.hint_text().unwrap_or_default().to_owned();
            Error::new(error.kind(), Layer::Block, message).hint(hint).source_error(error)
        }
        // An export has no folder that the file could be put into.
        Some(error) if error.code() == ErrorCode::OutsideReference && error.hint_text().is_some() => {
            let hint = error.hint_text().unwrap_or_default().to_owned();
            Error::new(error.kind(), Layer::Block, message).hint(hint).source_error(error)
        }
        Some(error) => Error::new(error.kind(), Layer::Block, message)
            .hint("put the file into the folder of the image, or allow its folder with --allow-path FOLDER")
            .source_error(error),
        None => Error::new(Kind::Damaged, Layer::Block, format!("the image does not name {what}")),
    })
}

/// The last component of a path written on any system.
pub(crate) fn base_name(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

/// The names under which to look for a file that another machine called `name`: the name itself (with this system's
/// separators) unless it is a drive path, then its last component.
pub(crate) fn candidate_names(name: &str) -> Vec<String> {
    let mut names = Vec::new();
    let plain = name.replace('\\', "/");
    if !plain.contains(':') {
        names.push(plain);
    }
    names.push(base_name(name).to_owned());
    names.dedup();
    names.retain(|n| !n.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_machines_end_in_a_plain_file_name() {
        assert_eq!(candidate_names(r"C:\vms\base.vhdx"), ["base.vhdx"]);
        assert_eq!(candidate_names(r".\base.vhdx"), ["./base.vhdx", "base.vhdx"]);
        assert_eq!(candidate_names("/vmfs/volumes/x/base.vmdk"), ["/vmfs/volumes/x/base.vmdk", "base.vmdk"]);
        assert_eq!(candidate_names("base.vmdk"), ["base.vmdk"]);
    }
}
