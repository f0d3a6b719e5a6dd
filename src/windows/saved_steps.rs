//! The edits of a plan as a document has them: with what they replace in the guest.

use super::guest_files::GuestFiles;
use super::inspect::installation::Hives;
use super::registry;
use crate::error::Result;
use crate::hive::Hive;
use crate::io::VolumeRead;
use crate::ntfs::Volume;
use crate::plan::saved::{FileFact, SavedEdit, SavedStep, Sha256Sum};
use crate::plan::{Change, GuestHive, Plan};

/// The edits of `plan`, with what they replace on `volume` and in `hives`, which are as they were before the plan.
///
/// # Errors
/// When the guest is damaged there, or lacks a hive that the plan edits.
pub fn saved_steps<D: VolumeRead>(volume: &Volume<D>, hives: [&Hives; 2], plan: &Plan) -> Result<Vec<SavedStep>> {
    let guest = Replaced { files: volume, hives, plan };
    let steps = plan.steps.iter().map(|step| {
        let edit = guest.saved_edit(&step.change)?;
        Ok(SavedStep { reason: step.reason.clone(), edit })
    });
    steps.collect()
}

/// The guest as it is.
struct Replaced<'a> {
    files: &'a dyn GuestFiles,
    hives: [&'a Hives; 2],
    plan: &'a Plan,
}

impl Replaced<'_> {
    fn saved_edit(&self, change: &Change) -> Result<SavedEdit> {
        Ok(match change.clone() {
            Change::CreateDir { path, access } => SavedEdit::CreateDir { path, access },
            Change::WriteFile { path, content, access, replaces } => SavedEdit::WriteFile {
                before: if replaces { self.file(&path)? } else { None },
                sha256: Sha256Sum(content.sha256_bytes()),
                size: content.size(),
                path,
                access,
            },
            Change::Protect { path } => {
                let descriptor = self.files.protection(&path)?.and_then(|found| found.descriptor);
                SavedEdit::Protect { before: descriptor.map(|bytes| Sha256Sum::of(&bytes)), path }
            }
            Change::DeleteFile { path } => SavedEdit::DeleteFile {
                before: if self.files.is_folder(&path)? { None } else { self.file(&path)? },
                path,
            },
            Change::CreateKey { hive, key } => SavedEdit::CreateKey { hive, key },
            Change::SetValue { hive, key, name, data, before } => SavedEdit::SetValue { hive, key, name, data, before },
            Change::DeleteValue { hive, key, name } => {
                let before = registry::get_value(self.hive(hive)?, &key, &name)?;
                SavedEdit::DeleteValue { hive, key, name, before }
            }
            Change::DeleteKey { hive, key } => {
                let before = registry::subtree_text(self.hive(hive)?, hive, &key)?.unwrap_or_default();
                SavedEdit::DeleteKey { hive, key, before }
            }
        })
    }

    fn file(&self, path: &str) -> Result<Option<FileFact>> {
        let facts = self.files.size(path)?.zip(self.files.sha256(path)?);
        Ok(facts.map(|(size, sha256)| FileFact { size, sha256: Sha256Sum(sha256) }))
    }

    fn hive(&self, file: GuestHive) -> Result<&Hive> {
        let found = self.hives.iter().find_map(|hives| hives.get(&file));
        found.ok_or_else(|| registry::missing_hive(&self.plan.hive_path(file)))
    }
}
