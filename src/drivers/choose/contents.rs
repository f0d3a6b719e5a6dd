//! The files of a package: which ones, and their content and digests.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sha2::Digest;

use super::candidates::has_ending;
use crate::drivers::inf::Facts;
use crate::drivers::package::{CACHED_FILE_MAX, PackageFile};
use crate::drivers::source::{Source, SourceFile};
use crate::error::{Error, Kind, Layer, Result};
use crate::ntfs::name::problem_with;

/// Most files of a package.
const FILES_MAX: usize = 4096;
/// Most bytes of larger files that stay loaded until their package is checked, so that they need not be read again.
const LARGE_BYTES_MAX: u64 = 16 << 20;

/// The files of a package with their digests.
#[derive(Default)]
pub(super) struct Contents {
    pub files: Vec<PackageFile>,
    /// Larger files, by their path on the media; dropped with the package's checks.
    large_files: HashMap<String, Arc<Vec<u8>>>,
    large_bytes: u64,
}

impl Contents {
    /// The files that belong to an INF, read from the media.
    ///
    /// # Errors
    /// When the media cannot be read, there are too many files, or the INF needs one whose name Windows does not accept.
    pub(super) fn read(
        source: &Arc<Source>,
        folder: &str,
        inf: &str,
        facts: &Facts,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let mut out = Self::default();
        let listed = listing(source, folder, inf, facts, warnings);
        for (name, path) in without_impossible_names(listed, source, inf, facts, warnings)? {
            if out.files.len() >= FILES_MAX {
                return Err(Error::new(
                    Kind::Drivers,
                    Layer::Drivers,
                    format!("more than {FILES_MAX} files in a package"),
                )
                .path(source.show(folder))
                .hint("give each driver a folder of its own"));
            }
            out.add(source, name, path)?;
        }
        Ok(out)
    }

    /// Some files, each under its own name.
    pub fn of(source: &Arc<Source>, files: &[&SourceFile]) -> Result<Self> {
        let mut out = Self::default();
        for file in files {
            out.add(source, file.name().to_owned(), file.path.clone())?;
        }
        Ok(out)
    }

    fn add(&mut self, source: &Arc<Source>, name: String, path: String) -> Result<()> {
        let listed = source.find(&path).map_or(u64::MAX, |file| file.size);
        let stays_loaded = listed <= CACHED_FILE_MAX && source.reserve_cache(listed);
        let large_bytes = self.large_bytes.saturating_add(listed);
        let mut hash = sha2::Sha256::new();
        let (size, content) = if stays_loaded || large_bytes <= LARGE_BYTES_MAX {
            let data = Arc::new(source.read(&path)?);
            hash.update(&*data);
            if !stays_loaded {
                self.large_bytes = large_bytes;
                self.large_files.insert(path.clone(), Arc::clone(&data));
            }
            (data.len() as u64, stays_loaded.then_some(data))
        } else {
            (source.stream(&path, &mut |chunk| hash.update(chunk))?, None)
        };
        let sha256 = hash.finalize().into();
        self.files.push(PackageFile { name, size, sha256, source: Arc::clone(source), path, content });
        Ok(())
    }

    /// The content of one of the files.
    pub fn data(&self, file: &PackageFile) -> Result<Arc<Vec<u8>>> {
        self.large_files.get(file.media_path()).map_or_else(|| file.read(), |data| Ok(Arc::clone(data)))
    }

    pub fn get(&self, name: &str) -> Option<&PackageFile> {
        self.files.iter().find(|file| file.name.eq_ignore_ascii_case(name))
    }
}

/// Names and media paths of a package's files: the whole folder without debug symbols; in a folder with several INFs
/// the files that this INF lists, and those of its own name with another extension.
fn listing(
    source: &Source,
    folder: &str,
    inf: &str,
    facts: &Facts,
    warnings: &mut Vec<String>,
) -> Vec<(String, String)> {
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let here: Vec<&str> = source
        .files()
        .iter()
        .filter(|f| f.folder() == folder && !has_ending(f.name(), "pdb"))
        .map(|f| f.name())
        .collect();
    let alone = here.iter().filter(|name| has_ending(name, "inf")).count() <= 1 && !folder.is_empty();
    let listed: Vec<&str> = facts.source_files.iter().map(String::as_str).chain(facts.catalog.as_deref()).collect();
    let listed_names: HashSet<String> = listed.iter().map(|name| name.to_lowercase()).collect();
    let stem = inf.rsplit_once('.').map_or(inf, |(stem, _)| stem);
    let is_companion = |name: &str| {
        name.rsplit_once('.')
            .is_some_and(|(s, ending)| s.eq_ignore_ascii_case(stem) && !ending.eq_ignore_ascii_case("inf"))
    };
    let is_ours = |name: &str| {
        alone || name.eq_ignore_ascii_case(inf) || listed_names.contains(&name.to_lowercase()) || is_companion(name)
    };
    let mut out: Vec<(String, String)> =
        here.iter().filter(|name| is_ours(name)).map(|name| ((*name).to_owned(), format!("{prefix}{name}"))).collect();
    let mut taken: HashSet<String> = out.iter().map(|(name, _)| name.to_lowercase()).collect();
    for name in listed {
        if !taken.insert(name.to_lowercase()) {
            continue;
        }
        match source.find(&format!("{prefix}{name}")) {
            // a name with ".." in it would leave the package's folder
            Some(file) if !name.split('/').any(|part| part == "..") => out.push((name.to_owned(), file.path.clone())),
            _ => {
                let last = name.rsplit('/').next().unwrap_or(name);
                // Others are for other CPUs, as in many INFs of real media.
                let is_copied = facts.copied_files().iter().any(|copied| copied.eq_ignore_ascii_case(last));
                let consequence = if is_copied { ": the running Windows will not install the package" } else { "" };
                let shown = source.show(&format!("{prefix}{inf}"));
                warnings.push(format!("{shown}: lists {name}, which is not on the media{consequence}"));
            }
        }
    }
    out
}

/// Leaves out, with a warning each, the files whose names Windows does not accept (`con.dll`, a dot at the end) and those
/// whose names differ from another one in case only.
///
/// # Errors
/// When the INF needs such a file.
fn without_impossible_names(
    files: Vec<(String, String)>,
    source: &Source,
    inf: &str,
    facts: &Facts,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, String)>> {
    let needed: Vec<&str> =
        facts.source_files.iter().map(String::as_str).chain(facts.catalog.as_deref()).chain([inf]).collect();
    let exact: HashSet<&str> =
        files.iter().map(|(name, _)| name.as_str()).filter(|name| needed.contains(name)).collect();
    let spelled: HashSet<String> = exact.iter().map(|name| name.to_lowercase()).collect();
    let exact: HashSet<String> = exact.into_iter().map(str::to_owned).collect();
    let (mut out, mut taken) = (Vec::with_capacity(files.len()), HashSet::new());
    for (name, path) in files {
        let folded = name.to_lowercase();
        if let Some(why) = name.split('/').find_map(|part| problem_with(&part.into())) {
            if needed.iter().any(|needed| needed.eq_ignore_ascii_case(&name)) {
                return Err(Error::new(Kind::Drivers, Layer::Drivers, format!("Windows cannot hold this file: {why}"))
                    .path(source.show(&path))
                    .hint("the INF needs the file under this name; leave the package out of the driver media"));
            }
            warnings.push(format!("{}: left out, as Windows cannot hold it: {why}", source.show(&path)));
        } else if (spelled.contains(&folded) && !exact.contains(&name)) || !taken.insert(folded) {
            let shown = source.show(&path);
            warnings.push(format!("{shown}: left out, as another file has the same name in upper or lower case"));
        } else {
            out.push((name, path));
        }
    }
    Ok(out)
}
