//! All of it in one go, with what an earlier run put there.

use super::options::ExtrasOptions;
use super::scripts::plan_scripts;
use super::uploads::plan_uploads;
use crate::drivers::Selection;
use crate::error::Result;
use crate::upcase::Fold;
use crate::windows::guest_paths::{FIRSTBOOT_SCRIPTS, GUEST_AGENT};
use crate::windows::plan_builder::{PlanBuilder, Present};
use crate::windows::record::Record;
use crate::windows::removal::manifest::Listed;

/// Plans uploads, the guest agent and scripts. The steps of the latter are added to the first-boot job, which is planned
/// after them.
///
/// # Errors
/// [`Kind::Usage`](crate::Kind::Usage) for a file or place that cannot be used; [`Kind::Refused`](crate::Kind::Refused) when the guest has something else in a place;
/// when the volume is damaged there.
pub fn plan_extras(
    builder: &mut PlanBuilder<'_>,
    selection: &Selection,
    options: &ExtrasOptions,
    earlier: &Listed,
    record: &mut Record,
) -> Result<()> {
    plan_uploads(builder, &options.uploads, earlier, record)?;
    plan_scripts(builder, selection, options, record)?;
    remove_stale(builder, earlier, record)
}

/// Takes scripts of an earlier run out of the guest that this run does not have: no job runs them any more.
fn remove_stale(builder: &mut PlanBuilder<'_>, earlier: &Listed, record: &Record) -> Result<()> {
    let extras = &record.extras;
    let wanted: Vec<String> =
        extras.guest_agent.iter().chain(&extras.scripts).map(|script| script.file.destination.folded()).collect();
    builder.set_reason("a script of an earlier run, which this run does not have");
    for folder in [FIRSTBOOT_SCRIPTS, GUEST_AGENT] {
        for (_, file) in earlier.files_below(folder) {
            let is_stale = !wanted.contains(&file.path.folded());
            if is_stale && builder.compare_file(&file.path, &file.sha256)? == Present::AsWritten {
                builder.remove_file(&file.path)?;
                builder.add_note(format!(
                    "{} of an earlier run is taken out: to run it, give --firstboot or --guest-agent again",
                    file.path
                ));
            }
        }
    }
    Ok(())
}

/// Says that scripts are in place, but no job runs them.
pub fn note_skipped_scripts(builder: &mut PlanBuilder<'_>, record: &Record) {
    let extras = &record.extras;
    if let Some(why) =
        record.firstboot.skipped.as_ref().filter(|_| !extras.scripts.is_empty() || extras.guest_agent.is_some())
    {
        builder.add_warning(format!("the first-boot job does not run, nor do --firstboot and --guest-agent: {why}"));
    }
}
