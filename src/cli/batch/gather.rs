//! From what was asked for to the items of a batch.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::job::JobKind;
use super::worker_args::Given;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::fleet::item::{ImageKey, id_of_path, refuse_equal_ids, remove_equal_files, remove_needed_files};
use crate::fleet::list::{LIST_BYTES_MAX, expand, parse_list};
use crate::fleet::{Item, Skipped};
use crate::host::{file_key, folder_of, is_nbd_name};
use crate::job::require_folder;

/// What a batch works on, before it is divided.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) items: Vec<Item>,
    pub(super) skipped: Vec<Skipped>,
}

/// An image, or the disks of one machine, with options of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// `None`: the id follows from the path.
    pub(super) id: Option<String>,
    /// Each stands for itself, or for what the pattern matches if there is one only.
    pub(super) disks: Vec<PathBuf>,
    /// Whether the disks may be patterns.
    pub(super) is_pattern: bool,
    /// Whether it has keys of its own in a document: of a file that several entries name, it is the one that is meant.
    pub(super) is_own: bool,
    /// The options of its job, all of them.
    pub(super) options: std::sync::Arc<Vec<Given>>,
}

/// How much an entry means a file in particular; what means it more comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// An entry with keys of its own names it.
    Own,
    /// The pattern of an entry with keys of its own matches it.
    OwnPattern,
    /// The list names or matches it.
    Shared,
}

/// An item, with the files that it writes, each with whether it is an image.
struct Made<'a> {
    rank: Rank,
    item: Item,
    files: Vec<(PathBuf, bool)>,
    options: &'a [Given],
}

/// The entries of images on a command line; `-` stands for a list on standard input.
///
/// # Errors
/// When standard input cannot be read.
pub(super) fn typed(images: impl Iterator<Item = PathBuf>, options: Vec<Given>) -> Result<Vec<Entry>> {
    let options = std::sync::Arc::new(options);
    let mut entries = Vec::new();
    for image in images {
        let entry = |disk, is_pattern| Entry {
            id: None,
            disks: vec![disk],
            is_pattern,
            is_own: false,
            options: options.clone(),
        };
        if image.as_os_str() == "-" {
            entries.extend(read_list()?.into_iter().map(|disk| entry(disk, false)));
        } else {
            entries.push(entry(image, true));
        }
    }
    Ok(entries)
}

fn read_list() -> Result<Vec<PathBuf>> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(LIST_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::io(Layer::Host, "cannot read the list on standard input", error))?;
    let list = parse_list(&bytes);
    if bytes.len() as u64 > LIST_BYTES_MAX {
        return Err(
            usage("the list on standard input is longer than 64 MiB").hint("divide it, and run a batch for each part")
        );
    }
    if list.is_empty() {
        return Err(usage("the list on standard input is empty")
            .hint("write one path on each line, or separate them by NUL (find -print0)"));
    }
    Ok(list)
}

/// The items of all entries; each worker has `threads` threads if its options do not name another number. `check` refuses
/// the command of an item and is asked once for all items of the same options; `files_of` gives the files that the images of items consist of.
///
/// # Errors
/// [`Kind::Usage`] for a pattern without a match, ids or outputs that are not each item's own, and an output that is an image of
/// the batch.
pub(super) fn gather(
    job: JobKind,
    entries: Vec<Entry>,
    threads: usize,
    folder: &Path,
    check: impl Fn(&Item) -> Result<()>,
    files_of: impl FnOnce(&[Item]) -> Result<Vec<Vec<PathBuf>>>,
) -> Result<Gathered> {
    let mut made = Vec::new();
    for entry in &entries {
        for (id, disks) in expanded(entry, folder)? {
            let rank = match (entry.is_own, disks == entry.disks) {
                (false, _) => Rank::Shared,
                (true, true) => Rank::Own,
                (true, false) => Rank::OwnPattern,
            };
            let (arguments, files) = arguments(job, threads, &id, &disks, &entry.options)?;
            made.push(Made { rank, item: Item { id, disks, arguments }, files, options: &entry.options });
        }
    }
    // Stable: else in the order of the list.
    made.sort_by_key(|made| made.rank);
    refuse_contradictions(&made, folder)?;
    let mut skipped = Vec::new();
    remove_equal_files(&mut made, |made| made.item.image(), folder, &mut skipped);
    let mut checked = BTreeSet::new();
    for made in &made {
        if checked.insert(std::ptr::from_ref(made.options)) {
            check(&made.item)?;
        }
    }
    let (mut items, mut outputs) = (Vec::new(), Vec::new());
    for Made { item, files, .. } in made {
        outputs.extend(files.into_iter().map(|(file, is_image)| (file, is_image, item.id.clone())));
        items.push(item);
    }
    remove_outputs(&mut items, &outputs, folder, &mut skipped);
    let needed = files_of(&items)?;
    remove_needed_files(&mut items, folder, &needed, &mut skipped);
    if items.is_empty() {
        return Err(usage("no image is left to work on").hint("name images: winject batch --help shows how"));
    }
    refuse_equal_ids(&items)?;
    let left: BTreeSet<&str> = items.iter().map(|item| item.id.as_str()).collect();
    outputs.retain(|(_, _, id)| left.contains(id.as_str()));
    refuse_equal_outputs(&outputs, folder)?;
    let images = needed.iter().flatten().chain(items.iter().flat_map(|item| &item.disks));
    refuse_images_as_outputs(&outputs, images, folder)?;
    Ok(Gathered { items, skipped })
}

/// Refuses two entries that mean one file equally, with other options: which of them holds cannot be told.
fn refuse_contradictions(made: &[Made<'_>], folder: &Path) -> Result<()> {
    let mut first: BTreeMap<ImageKey, &Made<'_>> = BTreeMap::new();
    for other in made {
        let one = *first.entry(ImageKey::of(other.item.image(), folder)).or_insert(other);
        if one.rank == other.rank && one.options != other.options {
            let image = other.item.image().display().to_string();
            return Err(usage("two entries name this image, with different keys")
                .path(image)
                .hint("write one entry for it: of an entry with its path and one with a pattern, the first holds"));
        }
    }
    Ok(())
}

/// Removes the items whose image is the output of another one: an earlier run made it, and the pattern matches it.
fn remove_outputs(
    items: &mut Vec<Item>,
    outputs: &[(PathBuf, bool, String)],
    folder: &Path,
    skipped: &mut Vec<Skipped>,
) {
    let images = outputs.iter().filter(|(_, is_image, _)| *is_image);
    let made: BTreeMap<(u64, u64), &str> =
        images.filter_map(|(file, _, id)| Some((file_key(&folder.join(file))?, id.as_str()))).collect();
    items.retain(|item| {
        let maker = file_key(&folder.join(item.image())).and_then(|key| made.get(&key));
        let Some(maker) = maker.filter(|maker| **maker != item.id) else { return true };
        let reason = format!("the output of {maker}");
        skipped.push(Skipped { image: item.image().display().to_string(), reason });
        false
    });
}

/// The ids and disks that an entry stands for.
fn expanded(entry: &Entry, folder: &Path) -> Result<Vec<(String, Vec<PathBuf>)>> {
    let found = match entry.disks.as_slice() {
        [pattern] if entry.is_pattern => expand(pattern, folder)?.into_iter().map(|disk| vec![disk]).collect(),
        disks => vec![disks.to_vec()],
    };
    match &entry.id {
        None => Ok(found
            .into_iter()
            .map(|disks| (disks.first().map_or(String::new(), |disk| id_of_path(disk)), disks))
            .collect()),
        Some(id) if found.len() <= 1 => Ok(found.into_iter().map(|disks| (id.clone(), disks)).collect()),
        Some(id) => Err(usage(format!("the id {id} stands for {} images", found.len()))
            .hint("give an id to each image, or to none")),
    }
}

/// The arguments of an item's worker after those of all, and the files that it writes, each with whether it is an image.
type Arguments = (Vec<OsString>, Vec<(PathBuf, bool)>);

fn arguments(job: JobKind, threads: usize, id: &str, disks: &[PathBuf], options: &[Given]) -> Result<Arguments> {
    let image = disks.first().map_or(Path::new(""), PathBuf::as_path);
    let (mut arguments, mut files, mut output) = (Vec::new(), Vec::new(), None);
    for option in options {
        let filled = if option.is_output() { option.filled(id, image)? } else { option.value().map(OsStr::to_owned) };
        if let (true, Some(file)) = (option.is_output(), &filled) {
            files.push((PathBuf::from(file), matches!(option.id.as_str(), "output" | "overlay")));
        }
        if job == JobKind::Convert && option.id == "output" {
            output = filled;
            continue;
        }
        arguments.push(option.argument(filled.as_deref()));
    }
    if job.has_threads() && !options.iter().any(|option| option.id == "threads") {
        arguments.push(format!("--threads={threads}").into());
    }
    if job == JobKind::Convert {
        arguments.extend(disks.iter().skip(1).map(|disk| {
            let mut argument = OsString::from("--other-disk=");
            argument.push(disk);
            argument
        }));
    }
    arguments.push("--".into());
    arguments.extend(
        disks
            .iter()
            .take(if job == JobKind::Convert { 1 } else { usize::MAX })
            .map(|disk| disk.clone().into_os_string()),
    );
    arguments.extend(output);
    Ok((arguments, files))
}

/// Refuses two items that write one file, and an output whose folder does not exist: each item would fail.
fn refuse_equal_outputs(outputs: &[(PathBuf, bool, String)], folder: &Path) -> Result<()> {
    let mut folders: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    let mut seen: BTreeMap<PathBuf, &str> = BTreeMap::new();
    for (file, _, id) in outputs {
        let path = folder.join(file);
        let parent = folder_of(&path);
        let real = match folders.entry(parent.to_owned()) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(new) => {
                if !is_nbd_name(file) {
                    require_folder(&path, "the output")?;
                }
                new.insert(parent.canonicalize().unwrap_or_else(|_| parent.to_owned()))
            }
        };
        let real = real.join(path.file_name().unwrap_or_default());
        if let Some(other) = seen.insert(real, id) {
            let message = format!("two items write the same file: {other} and {id}");
            return Err(usage(message).with_code(ErrorCode::OutputName).path(file.display().to_string()).hint(
                "put {name} (the image's name without its ending) or {id} into the name: -o 'new/{name}.qcow2'",
            ));
        }
    }
    Ok(())
}

/// Refuses an output that is a file of an image of the batch.
fn refuse_images_as_outputs<'a>(
    outputs: &[(PathBuf, bool, String)],
    images: impl Iterator<Item = &'a PathBuf>,
    folder: &Path,
) -> Result<()> {
    if outputs.is_empty() {
        return Ok(());
    }
    let images: BTreeMap<ImageKey, &PathBuf> =
        images.filter_map(|image| Some((ImageKey::of_known(image, folder)?, image))).collect();
    for (file, ..) in outputs {
        if let Some(image) = ImageKey::of_known(file, folder).and_then(|key| images.get(&key)) {
            let message =
                format!("cannot write the output: it is {}, which an image of the batch needs", image.display());
            return Err(usage(message)
                .with_code(ErrorCode::OutputIsInput)
                .path(file.display().to_string())
                .hint("choose another name or folder"));
        }
    }
    Ok(())
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(Kind::Usage, Layer::Cli, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// An entry with keys of its own holds for its image, in whatever order; two of them are a contradiction.
    #[test]
    fn an_entry_of_its_own_wins_over_a_pattern() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a.raw", "b.raw"] {
            std::fs::write(root.path().join(name), name).unwrap();
        }
        let flag = |flag: &str| Arc::new(vec![Given::new(flag, format!("--{flag}"), None)]);
        let entry = |disk: &str, is_own, options: &Arc<Vec<Given>>| Entry {
            id: None,
            disks: vec![disk.into()],
            is_pattern: true,
            is_own,
            options: options.clone(),
        };
        let (all, own) = (flag("in-place"), flag("dry-run"));
        let gathered = |entries| {
            let files_of = |items: &[Item]| Ok(items.iter().map(|_| Vec::new()).collect());
            gather(JobKind::Inject, entries, 1, root.path(), |_| Ok(()), files_of)
        };
        let list = [entry("*.raw", false, &all), entry("a.raw", true, &own)];
        for entries in [list.to_vec(), list.iter().rev().cloned().collect()] {
            let Gathered { items, skipped } = gathered(entries).unwrap();
            let of = |id: &str| items.iter().find(|item| item.id == id).unwrap();
            let has = |item: &Item, flag: &str| item.arguments.iter().any(|argument| argument == flag);
            assert_eq!((items.len(), skipped.len()), (2, 1));
            assert!(has(of("a.raw"), "--dry-run") && !has(of("a.raw"), "--in-place"), "{items:?}");
            assert!(has(of("b.raw"), "--in-place") && !has(of("b.raw"), "--dry-run"), "{items:?}");
        }
        let error = gathered(vec![entry("a.raw", true, &own), entry("a.raw", true, &all)]).unwrap_err();
        assert!(error.kind() == Kind::Usage && error.hint_text().is_some(), "{error}");
    }
}
