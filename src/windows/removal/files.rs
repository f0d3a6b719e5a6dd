//! The files in winject's own folder, and the folders that are empty without what is removed.

use std::collections::BTreeSet;

use super::ledger::Ledger;
use super::manifest::Listed;
use crate::error::Result;
use crate::windows::guest_paths::{JOB_FILES, JOB_PROGRAMS, LOG_BELOW_WINDOWS, MANIFEST, TOP};
use crate::windows::plan_builder::{PlanBuilder, Present};

/// Most folders that are looked at to see whether they are empty.
const FOLDERS_MAX: usize = 20_000;
/// Largest file of the first-boot job that is taken for one, in bytes.
const JOB_BYTES_MAX: u64 = 16 << 20;
/// How many of the files that stay in winject's folder are named.
const NAMED_MAX: usize = 5;

/// Removes the listed files of winject's folder that nothing has changed, what the first-boot job left there, and the
/// manifest. The script of a service that stays (`job_left` says why) stays, too.
///
/// # Errors
/// When the volume is damaged there.
pub(super) fn remove_own_files(
    builder: &mut PlanBuilder<'_>,
    listed: &Listed,
    job_left: Option<&str>,
    ledger: &mut Ledger,
) -> Result<()> {
    builder.set_reason("the scripts and the packages that winject staged");
    let mut count = 0usize;
    for (index, file) in listed.own_files() {
        if job_left.is_some() && JOB_PROGRAMS.iter().any(|path| file.path.eq_ignore_ascii_case(path)) {
            // The account of the service says why.
            ledger.file_is_left(index);
            continue;
        }
        let reason = match builder.compare_file(&file.path, &file.sha256)? {
            Present::AsWritten => {
                builder.remove_file(&file.path)?;
                count += 1;
                None
            }
            Present::Absent => None,
            Present::Changed => Some("it is not as winject wrote it"),
            Present::Link => Some("it is a link, or has other names, too"),
        };
        match reason {
            None => ledger.file_is_gone(index),
            Some(reason) => {
                ledger.leave(&file.path, reason);
                ledger.file_is_left(index);
            }
        }
    }
    if count > 0 {
        ledger.remove(format!("{count} files in {TOP}"));
    }
    builder.set_reason("what the first-boot job left");
    // Those of an earlier run are not listed any more.
    let unlisted = JOB_PROGRAMS.into_iter().filter(|path| listed.file(path).is_none());
    for path in JOB_FILES.into_iter().chain(unlisted).filter(|_| job_left.is_none()) {
        let is_file = builder.exists(path)? && !builder.is_folder(path)?;
        if is_file && builder.is_trusted(path)? && builder.file_size(path)?.is_some_and(|size| size <= JOB_BYTES_MAX) {
            builder.remove_file(path)?;
        }
    }
    builder.set_reason("the list of what winject put into the guest");
    builder.remove_file(MANIFEST)?;
    let log = format!("{}/{}", builder.guest.windows_dir, LOG_BELOW_WINDOWS.replace('\\', "/"));
    if builder.exists(&log)? {
        ledger.leave(log, "the log of the first-boot job is for people to read");
    }
    Ok(())
}

/// Removes the folders of winject's that hold nothing else any more: its own, and those of packages in the driver store.
///
/// # Errors
/// When the volume is damaged there.
pub(super) fn remove_empty_folders(
    builder: &mut PlanBuilder<'_>,
    stores: &[String],
    ledger: &mut Ledger,
) -> Result<()> {
    builder.set_reason("folders of winject that are empty then");
    let mut budget = FOLDERS_MAX;
    for top in stores.iter().map(String::as_str).chain([TOP]) {
        if !builder.is_folder(top)? {
            continue;
        }
        let left = remove_folder(builder, top, &mut budget)?;
        if top == TOP && !left.is_empty() {
            let named = left.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
            let more = if left.len() > NAMED_MAX { " and more" } else { "" };
            ledger.leave(TOP, format!("it holds {named}{more}"));
        }
    }
    Ok(())
}

/// Removes a folder and those below it as far as they are empty. Returns the first of the paths that stay in it.
fn remove_folder(builder: &mut PlanBuilder<'_>, top: &str, budget: &mut usize) -> Result<BTreeSet<String>> {
    let mut left = BTreeSet::new();
    let mut found = vec![top.to_owned()];
    let mut next = 0;
    while let Some(folder) = found.get(next).cloned() {
        next += 1;
        *budget = budget.saturating_sub(1);
        if *budget == 0 {
            left.insert(folder);
            break;
        }
        for name in builder.folders(&folder)? {
            found.push(format!("{folder}/{name}"));
        }
    }
    // The innermost first.
    for folder in found.iter().rev() {
        let mut names = builder.file_names(folder)?;
        names.extend(builder.folders(folder)?);
        let staying: Vec<String> =
            names.iter().map(|name| format!("{folder}/{name}")).filter(|path| !builder.is_deleted(path)).collect();
        if staying.is_empty() && builder.is_own_folder(folder)? {
            builder.remove_file(folder)?;
        } else if staying.is_empty() {
            left.insert(folder.clone());
        } else {
            left.extend(staying.into_iter().take(NAMED_MAX + 1));
        }
    }
    // A folder that stays is named by what stays in it.
    let inner = left.clone();
    left.retain(|path| !inner.iter().any(|other| other.starts_with(&format!("{path}/"))));
    Ok(left)
}
