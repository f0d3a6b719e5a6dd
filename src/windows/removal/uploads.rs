//! Files of the user that an injection put outside of winject's own places, and the folders that it made for them.

use super::ledger::Ledger;
use super::manifest::Listed;
use crate::error::Result;
use crate::upcase::Fold;
use crate::windows::plan_builder::{PlanBuilder, Present};

/// Removes the uploaded files that nothing has changed, then the folders that were made for them as far as they are
/// empty. Returns the paths of the files that are not there afterwards.
///
/// # Errors
/// When the volume is damaged there.
pub(super) fn remove_uploads(
    builder: &mut PlanBuilder<'_>,
    listed: &Listed,
    ledger: &mut Ledger,
) -> Result<Vec<String>> {
    builder.set_reason("files that the user put into the guest with --upload");
    let mut gone = Vec::new();
    for file in &listed.uploads {
        if let Some(link) = link_above(builder, &file.path)? {
            ledger.leave(&file.path, format!("{link} is a link now"));
            continue;
        }
        match builder.compare_file(&file.path, &file.sha256)? {
            Present::AsWritten => {
                builder.remove_file(&file.path)?;
                ledger.remove(format!("the uploaded file {}", file.path));
                gone.push(file.path.clone());
            }
            Present::Absent => gone.push(file.path.clone()),
            Present::Changed => ledger.leave(&file.path, "it is not as it was uploaded"),
            Present::Link => ledger.leave(&file.path, "it is a link, or has other names, too"),
        }
    }
    builder.set_reason("folders that were made for files of the user, and are empty then");
    let mut folders = listed.upload_folders.clone();
    // The innermost first.
    folders.sort_by_key(|path| std::cmp::Reverse((path.matches('/').count(), path.folded())));
    for folder in folders {
        if !builder.is_own_folder(&folder)? || link_above(builder, &folder)?.is_some() {
            continue;
        }
        let mut names = builder.file_names(&folder)?;
        names.extend(builder.folders(&folder)?);
        if names.iter().all(|name| builder.is_deleted(&format!("{folder}/{name}"))) {
            builder.remove_file(&folder)?;
        } else {
            ledger.leave(folder, "it holds files of others");
        }
    }
    Ok(gone)
}

/// The first of the folders above a path that is a link.
fn link_above(builder: &PlanBuilder<'_>, path: &str) -> Result<Option<String>> {
    for (at, _) in path.match_indices('/').skip(1) {
        let Some(folder) = path.get(..at) else { continue };
        if builder.exists(folder)? && !builder.is_own_folder(folder)? {
            return Ok(Some(folder.to_owned()));
        }
    }
    Ok(None)
}
