//! The items of a batch.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::record::{Planned, Skipped};
use crate::error::{Error, Kind, Layer, Result};
use crate::hex;
use crate::host::file_key;
use crate::nbd::export_key;

/// What one worker does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The same in every run, on every machine; no two items of a batch have the same.
    pub id: String,
    /// The disks of the machine as they were given, the first of which stands for all of them.
    pub disks: Vec<PathBuf>,
    /// The worker's arguments after those that all items share.
    pub arguments: Vec<OsString>,
}

impl Item {
    /// The disk that stands for the item.
    #[must_use]
    pub fn image(&self) -> &Path {
        self.disks.first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// Its record before it begins.
    #[must_use]
    pub fn planned(&self) -> Planned {
        Planned { id: self.id.clone(), image: self.image().display().to_string() }
    }

    /// Bytes that its files occupy, and the device that they lie on, in this folder; nothing for files that are not there.
    #[must_use]
    pub fn weight(&self, folder: &Path) -> (u64, u64) {
        let mut found = self.disks.iter().filter_map(|disk| std::fs::metadata(folder.join(disk)).ok());
        let first = found.next();
        let device = first.as_ref().map_or(0, MetadataExt::dev);
        let bytes = |meta: &std::fs::Metadata| meta.blocks().saturating_mul(512);
        (first.iter().map(bytes).chain(found.map(|meta| bytes(&meta))).fold(0, u64::saturating_add), device)
    }
}

/// A number of items, for people.
pub(super) fn items(count: u64) -> String {
    if count == 1 { "1 item".to_owned() } else { format!("{count} items") }
}

/// The id of an item without one of its own: the path as it was given. Bytes that are not UTF-8 are `%XX`.
#[must_use]
pub fn id_of_path(path: &Path) -> String {
    let mut id = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        id.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| id.push_str(&format!("%{byte:02X}")));
    }
    id
}

/// Characters of an id that are shown in the name of its file.
const SHOWN_MAX: usize = 60;

/// A name for files of an item: the end of its id as far as every file system takes it, and a part of its hash, so that no two
/// ids have the same. It has no ending.
#[must_use]
pub fn safe_name(id: &str) -> String {
    let shown: Vec<char> =
        id.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    let shown: String = shown.iter().skip(shown.len().saturating_sub(SHOWN_MAX)).collect();
    let sum = Sha256::digest(id.as_bytes());
    let sum = hex::encode(sum.get(..8).unwrap_or_default());
    format!("{}-{sum}", shown.trim_start_matches('.'))
}

/// Refuses two items of one id.
///
/// # Errors
/// [`Kind::Usage`].
pub fn refuse_equal_ids(items: &[Item]) -> Result<()> {
    let mut seen = BTreeMap::new();
    for item in items {
        if let Some(other) = seen.insert(item.id.as_str(), item) {
            let message = format!(
                "two items have the id {}: {} and {}",
                item.id,
                other.image().display(),
                item.image().display()
            );
            return Err(Error::new(Kind::Usage, Layer::Job, message)
                .hint("give each an id of its own: in a document, `- {id: NAME, image: PATH}` below `images:`"));
        }
    }
    Ok(())
}

/// What tells one image from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageKey {
    /// The file, by whatever name or link.
    File((u64, u64)),
    /// Server and name of an export.
    Export(String, String),
    /// The name of a file that is not there, or of an export that cannot be used.
    Name(PathBuf),
}

impl ImageKey {
    /// The key of the image of this name in `folder`.
    #[must_use]
    pub fn of(image: &Path, folder: &Path) -> Self {
        if let Some((server, name)) = export_key(image) {
            return Self::Export(server, name);
        }
        let path = folder.join(image);
        file_key(&path).map_or_else(|| Self::Name(path.components().collect()), Self::File)
    }

    /// The same for what exists, as far as that is known; `None` for a mere name.
    #[must_use]
    pub fn of_known(image: &Path, folder: &Path) -> Option<Self> {
        Some(Self::of(image, folder)).filter(|key| !matches!(key, Self::Name(_)))
    }
}

/// Leaves one item for each image: a second one of the same first disk, by whatever name or link, is skipped, as is one of the
/// same name where no such file exists. `image` gives that disk.
pub fn remove_equal_files<T>(
    items: &mut Vec<T>,
    image: impl Fn(&T) -> &Path,
    folder: &Path,
    skipped: &mut Vec<Skipped>,
) {
    let mut seen: BTreeMap<ImageKey, String> = BTreeMap::new();
    items.retain(|item| {
        let key = ImageKey::of(image(item), folder);
        if let Some(first) = seen.get(&key) {
            let what = match key {
                ImageKey::File(_) => "file",
                ImageKey::Export(..) => "export",
                ImageKey::Name(_) => "name",
            };
            let reason = format!("the same {what} as {first}");
            skipped.push(Skipped { image: image(item).display().to_string(), reason });
            return false;
        }
        seen.insert(key, image(item).display().to_string());
        true
    });
}

/// Removes the items whose image another item needs: backing files and exports, extents, parents of snapshots, further disks of a machine.
/// `needed` has the files of each item's images, as far as they can be found out.
pub fn remove_needed_files(items: &mut Vec<Item>, folder: &Path, needed: &[Vec<PathBuf>], skipped: &mut Vec<Skipped>) {
    let own: Vec<_> = items.iter().map(|item| ImageKey::of_known(item.image(), folder)).collect();
    // Which item needs the file.
    let mut users: BTreeMap<ImageKey, String> = BTreeMap::new();
    for ((item, own), files) in items.iter().zip(&own).zip(needed) {
        for file in files.iter().chain(item.disks.iter().skip(1)) {
            if let Some(key) = ImageKey::of_known(file, folder).filter(|key| Some(key) != own.as_ref()) {
                users.entry(key).or_insert_with(|| item.image().display().to_string());
            }
        }
    }
    let mut own = own.into_iter();
    items.retain(|item| {
        let Some(key) = own.next().flatten() else { return true };
        let Some(user) = users.get(&key) else { return true };
        let what = if matches!(key, ImageKey::Export(..)) { "an export" } else { "a file" };
        let reason = format!("{what} that {user} needs");
        skipped.push(Skipped { image: item.image().display().to_string(), reason });
        false
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &Path) -> Item {
        Item { id: id_of_path(path), disks: vec![path.to_owned()], arguments: Vec::new() }
    }

    #[test]
    fn names_of_files_are_safe_and_differ() {
        let hostile = "../../etc/\u{1b}[31m\n.qcow2";
        let name = safe_name(hostile);
        assert!(
            name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) && !name.starts_with('.'),
            "{name}"
        );
        assert_ne!(safe_name("a/b"), safe_name("a_b"));
        assert!(safe_name(&"x".repeat(5000)).len() < 100);
    }

    #[test]
    fn a_file_is_one_item_and_not_one_if_another_item_needs_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["base", "a", "b"] {
            std::fs::write(at(name), name).unwrap();
        }
        std::fs::hard_link(at("a"), at("a2")).unwrap();
        let mut items: Vec<Item> = ["base", "a", "a2", "b", "none", "./none"].map(|name| item(&at(name))).into();
        let mut skipped = Vec::new();
        remove_equal_files(&mut items, Item::image, Path::new(""), &mut skipped);
        assert_eq!((items.len(), skipped.len()), (4, 2));
        assert!(skipped[1].reason.starts_with("the same name as"), "{skipped:?}");
        let needed = items.iter().map(|item| match item.image().file_name().unwrap().to_str().unwrap() {
            "a" | "b" => vec![item.image().to_owned(), at("base")],
            _ => vec![item.image().to_owned()],
        });
        let needed: Vec<_> = needed.collect();
        remove_needed_files(&mut items, Path::new(""), &needed, &mut skipped);
        let left: Vec<_> = items.iter().map(|item| item.image().to_owned()).collect();
        assert_eq!(left, [at("a"), at("b"), at("none")]);
        assert!(skipped[2].reason.contains("needs"), "{skipped:?}");
    }

    #[test]
    fn an_export_is_one_item_however_its_uri_is_spelled_and_not_one_if_another_item_needs_it() {
        let names = ["nbd://h/base", "nbd://H:10809/base", "nbd://h/top", "nbd://h:1/base"];
        let mut items: Vec<Item> = names.map(|name| item(Path::new(name))).into();
        let mut skipped = Vec::new();
        remove_equal_files(&mut items, Item::image, Path::new("/x"), &mut skipped);
        assert_eq!(
            skipped.iter().map(|skipped| skipped.reason.as_str()).collect::<Vec<_>>(),
            ["the same export as nbd://h/base"]
        );
        let needed = [vec![], vec![PathBuf::from("nbd://H/base")], vec![]];
        remove_needed_files(&mut items, Path::new("/x"), &needed, &mut skipped);
        assert_eq!(skipped[1].reason, "an export that nbd://h/top needs");
        let left: Vec<_> = items.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(left, ["nbd://h/top", "nbd://h:1/base"]);
    }
}
