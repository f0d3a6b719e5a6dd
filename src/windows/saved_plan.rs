//! Compares what a saved plan says that it replaces with what the guest holds.

use super::boot_volume::BootVolume;
use super::inspect::installation::Hives;
use super::registry;
use super::replaced::Replaced;
use crate::error::Result;
use crate::hive::{Hive, RegistryData};
use crate::io::VolumeRead;
use crate::ntfs::Volume;
use crate::plan::saved::{FileFact, KnownHives, PlanDocument, SavedEdit, Sha256Sum};
use crate::plan::{Access, value_name};

/// Sizes and hashes of the files of hives that are in memory as they were read.
pub fn known_hives(hives: &Hives) -> KnownHives {
    let known = hives.iter().filter_map(|(file, hive)| {
        let bytes = hive.unchanged_bytes()?;
        Some((*file, (bytes.len() as u64, Sha256Sum::of(bytes))))
    });
    known.collect()
}

/// How the guest differs from what the plan says that its edits replace, each difference in a sentence. Who reviews a
/// plan relies on that, and a plan comes from outside.
///
/// # Errors
/// When the guest is damaged there.
pub fn compare_replaced<D: VolumeRead>(
    document: &PlanDocument,
    volume: &Volume<D>,
    hives: [&Hives; 2],
    boot: Option<&BootVolume>,
) -> Result<Vec<String>> {
    let guest = Replaced { files: volume, hives, boot };
    let mut out = Vec::new();
    if let Some(planned) = document.boot.as_ref().filter(|place| boot.map(|boot| &boot.place) != Some(*place)) {
        out.push(format!("the boot volume is not partition {} with {}", planned.partition, planned.store));
    }
    for step in &document.steps {
        out.extend(guest.compare(&step.edit)?);
    }
    Ok(out)
}

/// Whether the guest holds all that the plan makes, as it does after the plan was applied.
///
/// # Errors
/// When the guest is damaged there.
pub fn holds_result<D: VolumeRead>(
    document: &PlanDocument,
    volume: &Volume<D>,
    hives: [&Hives; 2],
    boot: Option<&BootVolume>,
) -> Result<bool> {
    let guest = Replaced { files: volume, hives, boot };
    for step in &document.steps {
        if !guest.holds(&step.edit)? {
            return Ok(false);
        }
    }
    // A plan without edits leaves no traces.
    Ok(!document.steps.is_empty())
}

impl Replaced<'_> {
    fn compare(&self, edit: &SavedEdit) -> Result<Option<String>> {
        if let SavedEdit::CreateDir { path, access: Access::Inherited }
        | SavedEdit::WriteFile { path, access: Access::Inherited, .. } = edit
            && let Some(place) = self.link_above(path)?
        {
            return Ok(Some(format!("{place} is a link, or not a folder")));
        }
        match edit {
            SavedEdit::CreateDir { path, .. } => self.compare_file(path, None),
            SavedEdit::WriteFile { path, before, .. } => self.compare_file(path, before.as_ref()),
            SavedEdit::DeleteFile { path, before: Some(before) } => self.compare_file(path, Some(before)),
            SavedEdit::DeleteFile { path, before: None } if self.files.is_folder(path)? => Ok(None),
            SavedEdit::DeleteFile { path, before: None } => {
                let what = if self.files.exists(path)? { "is a file, not a folder" } else { "is gone" };
                Ok(Some(format!("{path} {what}")))
            }
            SavedEdit::Protect { path, before } => {
                let found = self.protection(path)?;
                Ok((found != *before).then(|| format!("the permissions of {path} are not as the plan shows them")))
            }
            SavedEdit::CopyBootFile { path, from, size, sha256 } => {
                let fallback = self.boot.and_then(|boot| boot.fallback.as_ref()).filter(|found| found.path == path);
                Ok(match fallback {
                    None => Some(format!("the boot volume has no place for {path}")),
                    Some(found) if found.exists => Some(format!("{path} is there already")),
                    Some(found) if found.boot_manager == Ok((*size, sha256.0)) => None,
                    Some(_) => Some(format!("{from} is not as the plan shows it")),
                })
            }
            _ => self.compare_key(edit),
        }
    }

    /// The first of the folders above a path that leads elsewhere: Windows would follow it, and winject does not.
    fn link_above(&self, path: &str) -> Result<Option<String>> {
        for (at, _) in path.match_indices('/').skip(1) {
            let Some(folder) = path.get(..at) else { continue };
            let Some(found) = self.files.protection(folder)? else { continue };
            if found.is_link || !self.files.is_folder(folder)? {
                return Ok(Some(folder.to_owned()));
            }
        }
        Ok(None)
    }

    /// Whether the guest holds what the edit makes; permissions are not known before they are made.
    fn holds(&self, edit: &SavedEdit) -> Result<bool> {
        match edit {
            SavedEdit::CreateDir { path, .. } => return self.files.is_folder(path),
            SavedEdit::WriteFile { path, sha256, size, .. } => {
                return Ok(self.files.size(path)? == Some(*size) && self.files.sha256(path)? == Some(sha256.0));
            }
            SavedEdit::DeleteFile { path, .. } => return Ok(!self.files.exists(path)?),
            SavedEdit::Protect { .. } => return Ok(false),
            SavedEdit::CopyBootFile { path, .. } => {
                let fallback = self.boot.and_then(|boot| boot.fallback.as_ref());
                return Ok(fallback.is_some_and(|found| found.path == path && found.exists));
            }
            _ => {}
        }
        let Some((file, key)) = edit.key() else { return Ok(false) };
        let Some(hive) = self.hives.iter().find_map(|hives| hives.get(&file)) else { return Ok(false) };
        Ok(match edit {
            SavedEdit::CreateKey { .. } => registry::find_key(hive, key)?.is_some(),
            SavedEdit::DeleteKey { .. } => registry::find_key(hive, key)?.is_none(),
            SavedEdit::SetValue { name, data, .. } => registry::get_value(hive, key, name)?.as_ref() == Some(data),
            SavedEdit::DeleteValue { name, .. } => registry::get_value(hive, key, name)?.is_none(),
            _ => false,
        })
    }

    fn compare_file(&self, path: &str, before: Option<&FileFact>) -> Result<Option<String>> {
        let Some(size) = self.files.size(path)? else {
            return Ok(before.is_some().then(|| format!("{path} is gone")));
        };
        let Some(before) = before else { return Ok(Some(format!("{path} is there already"))) };
        let is_same = before.size == size && self.files.sha256(path)? == Some(before.sha256.0);
        Ok((!is_same).then(|| format!("{path} is not as the plan shows it")))
    }

    fn compare_key(&self, edit: &SavedEdit) -> Result<Option<String>> {
        let Some((file, key)) = edit.key() else { return Ok(None) };
        let Some(hive) = self.hive(file) else {
            return Ok(Some(format!("the guest has no {file} hive")));
        };
        let place = format!("{file}\\{key}");
        match edit {
            SavedEdit::SetValue { name, before, .. } | SavedEdit::DeleteValue { name, before, .. } => {
                compare_value(hive, &place, key, name, before.as_ref())
            }
            SavedEdit::CreateKey { .. } => {
                Ok(registry::find_key(hive, key)?.is_some().then(|| format!("the key {place} is there already")))
            }
            SavedEdit::DeleteKey { before, .. } => {
                let found = Self::subtree(hive, file, key)?;
                Ok((found != *before).then(|| format!("the key {place} is not as the plan shows it")))
            }
            _ => Ok(None),
        }
    }
}

fn compare_value(
    hive: &Hive,
    place: &str,
    key: &str,
    name: &str,
    before: Option<&RegistryData>,
) -> Result<Option<String>> {
    let found = registry::get_value(hive, key, name)?;
    if found.as_ref() == before {
        return Ok(None);
    }
    let show = |data: Option<&RegistryData>| data.map_or_else(|| "not there".to_owned(), ToString::to_string);
    Ok(Some(format!("{place} : {} is {}, not {}", value_name(name), show(found.as_ref()), show(before))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::guest_files::memory::MemoryFiles;

    #[test]
    fn a_folder_that_is_removed_is_no_disguise_for_a_file() {
        let mut files = MemoryFiles::default();
        files.put("/Windows/INF/oem3.inf", b"[Version]");
        let none = Hives::new();
        let guest = Replaced { files: &files, hives: [&none, &none], boot: None };
        let removed =
            |path: &str| guest.compare(&SavedEdit::DeleteFile { path: path.to_owned(), before: None }).unwrap();
        assert_eq!(removed("/Windows/INF"), None);
        assert_eq!(removed("/Windows/INF/oem3.inf").unwrap(), "/Windows/INF/oem3.inf is a file, not a folder");
        assert_eq!(removed("/Windows/INF/oem4.inf").unwrap(), "/Windows/INF/oem4.inf is gone");
    }
}
