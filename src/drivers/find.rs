//! Finds files of driver media by their content, for a plan that was made elsewhere.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::package::{CACHED_FILE_MAX, PackageFile};
use super::source::{Source, SourceFile, Sources};
use crate::error::{Error, Layer, Result};

/// An index of media by the sizes of their files. A file is hashed at most once, and only if one of its size is wanted.
pub struct ContentIndex<'a> {
    files: Vec<Indexed<'a>>,
    by_size: HashMap<u64, Vec<usize>>,
}

struct Indexed<'a> {
    source: &'a Arc<Source>,
    file: &'a SourceFile,
    sha256: Option<[u8; 32]>,
}

impl Indexed<'_> {
    /// The hash of the file; with its content, if it is small and was read just now.
    fn hash(&mut self) -> Result<([u8; 32], Option<Vec<u8>>)> {
        if let Some(known) = self.sha256 {
            return Ok((known, None));
        }
        let mut hash = Sha256::new();
        let content = if self.file.size <= CACHED_FILE_MAX {
            let content = self.source.read(&self.file.path)?;
            hash.update(&content);
            Some(content)
        } else {
            self.source.stream(&self.file.path, &mut |chunk| hash.update(chunk))?;
            None
        };
        Ok((*self.sha256.insert(hash.finalize().into()), content))
    }

    /// `content` stays in memory as long as there is room.
    fn to_package_file(&self, sha256: [u8; 32], content: Option<Vec<u8>>) -> PackageFile {
        PackageFile {
            name: self.file.name().to_owned(),
            size: self.file.size,
            sha256,
            source: Arc::clone(self.source),
            path: self.file.path.clone(),
            content: content.filter(|_| self.source.reserve_cache(self.file.size)).map(Arc::new),
        }
    }
}

impl<'a> ContentIndex<'a> {
    /// Lists the files of the media; reads none of them.
    #[must_use]
    pub fn new(sources: &'a Sources) -> Self {
        let files: Vec<Indexed<'a>> = sources
            .iter()
            .flat_map(|source| source.files().iter().map(move |file| Indexed { source, file, sha256: None }))
            .collect();
        let mut by_size: HashMap<u64, Vec<usize>> = HashMap::new();
        for (index, indexed) in files.iter().enumerate() {
            by_size.entry(indexed.file.size).or_default().push(index);
        }
        Self { files, by_size }
    }

    /// A file of this size and hash: the one at path `hint` if it is, else any other.
    ///
    /// # Errors
    /// When a file that could be it cannot be read.
    pub fn find(&mut self, size: u64, sha256: [u8; 32], hint: &str) -> Result<Option<PackageFile>> {
        let mut candidates = self.by_size.get(&size).cloned().unwrap_or_default();
        candidates.sort_by_key(|&index| !self.is_at(index, hint));
        for index in candidates {
            let Some(candidate) = self.files.get_mut(index) else { continue };
            let (found, content) = candidate.hash()?;
            if found == sha256 {
                return Ok(Some(candidate.to_package_file(sha256, content)));
            }
        }
        Ok(None)
    }

    /// The path on the host of a file at `hint`, whatever its content.
    #[must_use]
    pub fn show_at(&self, hint: &str) -> Option<String> {
        let index = (0..self.files.len()).find(|&index| self.is_at(index, hint))?;
        self.files.get(index).map(|indexed| indexed.source.show(&indexed.file.path))
    }

    fn is_at(&self, index: usize, hint: &str) -> bool {
        self.files.get(index).is_some_and(|indexed| indexed.file.path.eq_ignore_ascii_case(hint))
    }
}

impl PackageFile {
    /// A file of the host that the user named, of at most `size_max` bytes; `what` it is for ("the file to upload"). A
    /// large one is not kept in memory: it is read again when it is written.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::Kind::Usage) when it cannot be opened, is not a regular file, or is longer; when it cannot
    /// be read.
    pub(crate) fn of_host(path: &Path, what: &str, size_max: u64) -> Result<Self> {
        let source = Arc::new(Source::of_file(path, what, size_max)?);
        Self::of_only_file(&source)
    }

    fn of_only_file(source: &Arc<Source>) -> Result<Self> {
        let file = source.files().first().ok_or_else(|| Error::bug(Layer::Drivers, "a source without its file"))?;
        Self::of_source(source, file)
    }

    /// A file of a source, hashed as it is now.
    pub(crate) fn of_source(source: &Arc<Source>, file: &SourceFile) -> Result<Self> {
        let mut indexed = Indexed { source, file, sha256: None };
        let (sha256, content) = indexed.hash()?;
        Ok(indexed.to_package_file(sha256, content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn files_are_found_by_path_then_by_content() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        for (media, path, content) in [
            (&first, "viostor/w10/amd64/viostor.sys", "the driver"),
            (&first, "old/viostor.sys", "a driver.."),
            (&second, "copy/renamed.bin", "the driver"),
            (&second, "vioscsi/vioscsi.sys", "moved"),
        ] {
            std::fs::create_dir_all(media.join(path).parent().unwrap()).unwrap();
            std::fs::write(media.join(path), content).unwrap();
        }
        let sources = Sources::open(&[&first, &second]).unwrap();
        let mut index = ContentIndex::new(&sources);
        let mut find = |content: &str, hint: &str| {
            let found = index.find(content.len() as u64, Sha256::digest(content).into(), hint).unwrap();
            found.map(|file| (file.media_path().to_owned(), file.read().unwrap().to_vec()))
        };
        let is = |path: &str, content: &str| Some((path.to_owned(), content.as_bytes().to_vec()));
        assert_eq!(find("the driver", "COPY/renamed.bin"), is("copy/renamed.bin", "the driver"));
        assert_eq!(find("the driver", "gone.sys"), is("viostor/w10/amd64/viostor.sys", "the driver"));
        assert_eq!(find("moved", "old/viostor.sys"), is("vioscsi/vioscsi.sys", "moved"));
        assert_eq!(find("THE DRIVER", "viostor/w10/amd64/viostor.sys"), None, "same size, other bytes");
        assert!(index.show_at("old/viostor.sys").unwrap().ends_with("first/old/viostor.sys"));
        assert_eq!(index.show_at("gone.sys"), None);

        // What is exchanged after the look-up is noticed when it is read, or does not matter: it was read before.
        let large = vec![7; CACHED_FILE_MAX as usize + 1];
        std::fs::write(second.join("large"), &large).unwrap();
        let sources = Sources::open(&[&first, &second]).unwrap();
        let mut index = ContentIndex::new(&sources);
        let mut find = |content: &[u8]| index.find(content.len() as u64, Sha256::digest(content).into(), "").unwrap();
        let (small, large) = (find(b"moved").unwrap(), find(&large).unwrap());
        std::fs::write(second.join("vioscsi/vioscsi.sys"), "wrong").unwrap();
        std::fs::write(second.join("large"), vec![8; CACHED_FILE_MAX as usize + 1]).unwrap();
        assert_eq!(small.read().unwrap().as_slice(), b"moved");
        assert_eq!(large.read().unwrap_err().kind(), Kind::Drivers);
    }
}
