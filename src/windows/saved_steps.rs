//! The edits of a plan as a document has them: with what they replace in the guest.

use super::inspect::installation::Hives;
use super::registry;
use super::replaced::Replaced;
use crate::error::Result;
use crate::io::VolumeRead;
use crate::ntfs::Volume;
use crate::plan::saved::{SavedEdit, SavedStep, Sha256Sum};
use crate::plan::{Change, Plan};

/// The edits of `plan`, with what they replace on `volume` and in `hives`, which are as they were before the plan.
///
/// # Errors
/// When the guest is damaged there, or lacks a hive that the plan edits.
pub fn saved_steps<D: VolumeRead>(volume: &Volume<D>, hives: [&Hives; 2], plan: &Plan) -> Result<Vec<SavedStep>> {
    let guest = Replaced { files: volume, hives, boot: None };
    let steps = plan.steps.iter().map(|step| {
        let edit = saved_edit(&guest, plan, &step.change)?;
        Ok(SavedStep { reason: step.reason.clone(), edit })
    });
    steps.collect()
}

/// An edit with what it replaces.
fn saved_edit(guest: &Replaced<'_>, plan: &Plan, change: &Change) -> Result<SavedEdit> {
    let hive = |file| guest.hive(file).ok_or_else(|| registry::missing_hive(&plan.hive_path(file)));
    Ok(match change.clone() {
        Change::CreateDir { path, access } => SavedEdit::CreateDir { path, access },
        Change::WriteFile { path, content, access, replaces } => SavedEdit::WriteFile {
            before: if replaces { guest.file(&path)? } else { None },
            sha256: Sha256Sum(content.sha256_bytes()),
            size: content.size(),
            path,
            access,
        },
        Change::Protect { path } => SavedEdit::Protect { before: guest.protection(&path)?, path },
        Change::DeleteFile { path } => SavedEdit::DeleteFile {
            before: if guest.files.is_folder(&path)? { None } else { guest.file(&path)? },
            path,
        },
        Change::CopyBootFile { path, from, size, sha256 } => {
            SavedEdit::CopyBootFile { path, from, size, sha256: Sha256Sum(sha256) }
        }
        Change::CreateKey { hive, key } => SavedEdit::CreateKey { hive, key },
        Change::SetValue { hive, key, name, data, before } => SavedEdit::SetValue { hive, key, name, data, before },
        Change::DeleteValue { hive: file, key, name } => {
            let before = registry::get_value(hive(file)?, &key, &name)?;
            SavedEdit::DeleteValue { hive: file, key, name, before }
        }
        Change::DeleteKey { hive: file, key } => {
            let before = Replaced::subtree(hive(file)?, file, &key)?;
            SavedEdit::DeleteKey { hive: file, key, before }
        }
    })
}
