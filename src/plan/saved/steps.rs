//! Judgement of a document's edits: names, order, and that they fit together.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::data::Sha256Sum;
use super::document::PlanDocument;
use super::edit::{SavedEdit, SavedStep};
use super::limits::{
    KEY_DEPTH_MAX, KEY_UNITS_MAX, KEY_VALUES_MAX, PATH_UNITS_MAX, REMOVED_KEY_BYTES_MAX, TEXT_BYTES_MAX,
    VALUE_BYTES_MAX, VALUE_UNITS_MAX, wrong,
};
use super::scope::{Scope, is_script_of_job};
use crate::error::Result;
use crate::hive::RegistryData;
use crate::ntfs::name::problem_with;
use crate::plan::change::GuestHive;
use crate::upcase::Fold;

type Judged = std::result::Result<(), String>;

/// Judges all edits. `sizes` are those of the document's contents, by hash.
pub(super) fn judge_steps(document: &PlanDocument, sizes: &BTreeMap<Sha256Sum, u64>) -> Result<()> {
    let at = |index: usize, step: &SavedStep| {
        let place = match (step.edit.path(), step.edit.key()) {
            (Some(path), _) => path.to_owned(),
            (None, Some((hive, key))) => format!("{hive}\\{key}"),
            (None, None) => String::new(),
        };
        format!("step {}: {place}", index + 1)
    };
    if !document.steps.is_sorted_by_key(|step| step.edit.hive()) {
        return Err(wrong("steps", "files come first, then the hives with SYSTEM last"));
    }
    let scope = Scope::new(&document.windows.folder).with_uploads(&document.uploads);
    let made: HashSet<String> = document.steps.iter().filter_map(|step| made_folder(&step.edit)).collect();
    let mut so_far = HashSet::new();
    let mut places = HashSet::new();
    let mut used = HashSet::new();
    let shown: HashSet<Sha256Sum> =
        document.files.iter().filter(|file| file.is_inline()).map(|file| file.sha256).collect();
    let mut values: HashMap<(GuestHive, String), usize> = HashMap::new();
    for (index, step) in document.steps.iter().enumerate() {
        let judged = judge_step(step, sizes).and_then(|()| scope.judge(&step.edit));
        judged.map_err(|why| wrong(&at(index, step), why))?;
        let parents = step.edit.path().map(Fold::folded);
        let is_early =
            parents.as_deref().is_some_and(|path| ancestors(path).any(|p| made.contains(p) && !so_far.contains(p)));
        if is_early {
            return Err(wrong(&at(index, step), "the edit comes before that of its folder"));
        }
        so_far.extend(made_folder(&step.edit));
        if !places.insert(place(&step.edit)) {
            return Err(wrong(&at(index, step), "two edits of one place"));
        }
        if let SavedEdit::WriteFile { sha256, .. } = &step.edit {
            used.insert(*sha256);
        }
        if let SavedEdit::WriteFile { path, sha256, .. } = &step.edit
            && is_script_of_job(path)
            && !shown.contains(sha256)
        {
            return Err(wrong(
                &at(index, step),
                "a script whose text the plan does not hold, so that no review shows it",
            ));
        }
        if let SavedEdit::SetValue { hive, key, .. } | SavedEdit::DeleteValue { hive, key, .. } = &step.edit {
            let count = values.entry((*hive, key.folded())).or_default();
            *count += 1;
            if *count > KEY_VALUES_MAX {
                return Err(wrong(&at(index, step), format!("more than {KEY_VALUES_MAX} values of one key")));
            }
        }
    }
    match document.files.iter().find(|file| !used.contains(&file.sha256)) {
        Some(file) => Err(wrong(&format!("files: {}", file.sha256), "no edit writes this content")),
        None => Ok(()),
    }
}

/// The folder that an edit makes, folded.
fn made_folder(edit: &SavedEdit) -> Option<String> {
    match edit {
        SavedEdit::CreateDir { path, .. } => Some(path.folded()),
        _ => None,
    }
}

/// The folders above a path, the innermost first, without the root.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    fn above(path: &str) -> Option<&str> {
        path.rsplit_once('/').map(|(folder, _)| folder)
    }
    std::iter::successors(above(path), |path| above(path)).filter(|path| !path.is_empty())
}

/// What an edit changes: two edits of one place would make the outcome depend on their order. Contents and permissions
/// of a file are two places.
fn place(edit: &SavedEdit) -> (u8, String, String) {
    let (kind, name) = match edit {
        SavedEdit::Protect { .. } => (1, String::new()),
        SavedEdit::SetValue { name, .. } | SavedEdit::DeleteValue { name, .. } => (3, name.folded()),
        _ => (0, String::new()),
    };
    match edit.key() {
        Some((hive, key)) => (kind, format!("{hive}\\{}", key.folded()), name),
        None => (kind, edit.path().unwrap_or_default().folded(), name),
    }
}

fn judge_step(step: &SavedStep, sizes: &BTreeMap<Sha256Sum, u64>) -> Judged {
    require(step.reason.len() <= TEXT_BYTES_MAX, "a reason longer than any of winject")?;
    match &step.edit {
        SavedEdit::CreateDir { path, .. } => judge_new_path(path),
        SavedEdit::WriteFile { path, sha256, size, before, .. } => {
            require(sizes.get(sha256) == Some(size), "its content is not among the files")?;
            let same = before.is_some_and(|before| (before.size, before.sha256) == (*size, *sha256));
            require(!same, "the file has this content already")?;
            if before.is_some() { judge_path(path) } else { judge_new_path(path) }
        }
        SavedEdit::Protect { path, .. } | SavedEdit::DeleteFile { path, .. } => judge_path(path),
        SavedEdit::CopyBootFile { path, from, .. } => {
            judge_path(from)?;
            judge_new_path(path)
        }
        SavedEdit::CreateKey { key, .. } => judge_key(key),
        SavedEdit::SetValue { key, name, data, before, .. } => {
            judge_key(key)?;
            judge_value(name, [Some(data), before.as_ref()])?;
            require(before.as_ref() != Some(data), "the value is so already")
        }
        SavedEdit::DeleteValue { key, name, before, .. } => {
            judge_key(key)?;
            judge_value(name, [before.as_ref(), None])
        }
        SavedEdit::DeleteKey { key, before, .. } => {
            judge_key(key)?;
            require(before.len() <= REMOVED_KEY_BYTES_MAX, "more is removed than winject removes")
        }
    }
}

/// Why this is not the path of a file: absolute, without names that lead elsewhere.
pub(crate) fn judge_path(path: &str) -> Judged {
    require(path.encode_utf16().count() <= PATH_UNITS_MAX, "the path is too long")?;
    let names = path.strip_prefix('/').ok_or("the path is not absolute")?;
    let is_name = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains(['\0', ':', '\\']);
    require(names.split('/').all(is_name), "the path has a name that leads elsewhere")?;
    require(!names.starts_with('$'), "files of NTFS itself")
}

/// Why this is not the path of a new file: Windows has to accept every name.
pub(super) fn judge_new_path(path: &str) -> Judged {
    judge_path(path)?;
    match path.split('/').skip(1).find_map(|name| problem_with(&name.into())) {
        Some(problem) => Err(format!("a name of the path: {problem}")),
        None => Ok(()),
    }
}

/// Why this is not the path of a key.
pub(crate) fn judge_key(key: &str) -> Judged {
    let fits = |name: &str| (1..=KEY_UNITS_MAX).contains(&name.encode_utf16().count()) && !name.contains('\0');
    require(key.split('\\').count() <= KEY_DEPTH_MAX && key.split('\\').all(fits), "not the path of a key")
}

/// Why this is not the name of a value, or its data are larger than winject writes.
pub(crate) fn judge_value(name: &str, data: [Option<&RegistryData>; 2]) -> Judged {
    let fits = name.encode_utf16().count() <= VALUE_UNITS_MAX && !name.contains('\0');
    require(fits, "not the name of a value")?;
    let fits = data.into_iter().flatten().all(|data| data.bytes.len() <= VALUE_BYTES_MAX);
    require(fits, "the value is too large")
}

fn require(is_right: bool, why: &str) -> Judged {
    if is_right { Ok(()) } else { Err(why.to_owned()) }
}
