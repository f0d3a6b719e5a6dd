//! The markers, counters and working files that the job leaves in the guest.

use crate::error::{Error, ErrorCode, Layer, Result};
use crate::windows::guest_paths;
use crate::windows::plan_builder::PlanBuilder;

/// Removes all of them, so that the job begins anew.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) when a folder is in the place of one; when the volume is damaged there.
pub(super) fn remove_all(builder: &mut PlanBuilder<'_>) -> Result<()> {
    guest_paths::JOB_FILES.into_iter().try_for_each(|path| remove(builder, path))
}

/// The marker that says that the job has ended, if the job left it.
///
/// # Errors
/// When the volume is damaged there.
pub(super) fn ended(builder: &PlanBuilder<'_>) -> Result<Option<&'static str>> {
    for path in [guest_paths::DONE, guest_paths::FAILED] {
        if builder.exists(path)? && builder.is_trusted(path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Removes those that the job did not leave itself: any user could create them before the folder was winject's, to keep the
/// drivers from being installed.
///
/// # Errors
/// See [`remove_all`].
pub(super) fn remove_foreign(builder: &mut PlanBuilder<'_>) -> Result<()> {
    builder.set_reason("the first-boot job did not leave this file");
    let purpose = if ended(builder)?.is_none() { ", so that the job runs" } else { "" };
    for path in guest_paths::JOB_FILES {
        if !builder.exists(path)? || builder.is_trusted(path)? {
            continue;
        }
        builder.add_warning(format!(
            "{path} was in the guest, but the first-boot job has not left it; it is removed{purpose}"
        ));
        remove(builder, path)?;
    }
    Ok(())
}

fn remove(builder: &mut PlanBuilder<'_>, path: &str) -> Result<()> {
    let is_filled =
        builder.is_folder(path)? && !(builder.folders(path)?.is_empty() && builder.file_names(path)?.is_empty());
    if is_filled {
        return Err(Error::refused(Layer::Windows, "a folder is in the place of a marker of the first-boot job")
            .with_code(ErrorCode::FirstBootJob)
            .path(path)
            .hint("remove it in the guest: it would keep the first-boot job from running"));
    }
    builder.remove_file(path)
}
