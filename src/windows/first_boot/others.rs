//! INFs of other makers below the staging folder: which of them the job may install.
//!
//! What lies there when winject protects the folder gets winject's descriptor, so that its own says nothing afterwards.
//! So it is decided now, and remembered in the manifest: an INF is refused for good if any user of the guest can have
//! written it, that is, unless the folder was winject's before, and the file and all folders above it are owned by the
//! system or administrators and writable by them only.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::ntfs::security::Protected;
use crate::upcase::Fold;
use crate::windows::guest_paths;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::staging::manifest;

/// Most folders that are looked at.
const FOLDERS_MAX: usize = 20_000;
/// Most INFs of others that the job names.
const REFUSED_MAX: usize = 1000;

/// What the job does with INFs of others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OtherInfs {
    /// Those that are never installed, below the staging folder, with `\`.
    pub refused: Vec<String>,
    /// Whether others are installed at all: not if one that is refused cannot be named in a job.
    pub are_installed: bool,
}

/// Finds the INFs below the staging folder that are neither the job's (`own`, with `\`) nor trusted.
///
/// # Errors
/// When the volume is damaged there.
pub(super) fn find(builder: &PlanBuilder<'_>, own: &[String], is_script: bool) -> Result<OtherInfs> {
    let mut out = OtherInfs { refused: Vec::new(), are_installed: true };
    let own: BTreeSet<String> = own.iter().map(|path| path.folded()).collect();
    let earlier = refused_earlier(builder)?;
    let mut pending = vec![(guest_paths::STAGE.to_owned(), is_own_folder(builder)?)];
    let mut count = 0;
    while let Some((folder, is_trusted)) = pending.pop() {
        count += 1;
        if count > FOLDERS_MAX {
            out.are_installed = false;
            break;
        }
        if !builder.is_folder(&folder)? {
            continue;
        }
        for name in builder.folders(&folder)? {
            let path = format!("{folder}/{name}");
            let is_trusted = is_trusted && builder.is_writable_by_administrators_only(&path, Protected::Directory)?;
            pending.push((path, is_trusted));
        }
        for name in builder.file_names(&folder)?.into_iter().filter(|name| name.folded().ends_with(".inf")) {
            let path = format!("{folder}/{name}");
            let shown =
                path.strip_prefix(guest_paths::STAGE).unwrap_or(&path).trim_start_matches('/').replace('/', "\\");
            let is_known = own.contains(&shown.folded());
            let is_trusted = is_trusted && builder.is_writable_by_administrators_only(&path, Protected::File)?;
            if is_known || (is_trusted && !earlier.contains(&shown.folded())) {
                continue;
            }
            out.are_installed &= can_be_named(&shown, is_script) && out.refused.len() < REFUSED_MAX;
            out.refused.push(shown);
        }
    }
    out.refused.truncate(REFUSED_MAX);
    out.refused.sort_unstable();
    Ok(out)
}

/// Whether winject's folders were protected by an earlier run.
fn is_own_folder(builder: &PlanBuilder<'_>) -> Result<bool> {
    let drivers = guest_paths::STAGE.rsplit_once('/').map_or("", |(parent, _)| parent);
    for folder in [guest_paths::STAGE, drivers] {
        if !builder.is_writable_by_administrators_only(folder, Protected::Directory)? {
            return Ok(false);
        }
    }
    builder.is_trusted(guest_paths::TOP)
}

/// Whether the job can name this INF.
fn can_be_named(path: &str, is_script: bool) -> bool {
    let is_plain = !path.contains(['/', ':', '"']) && !path.chars().any(char::is_control);
    is_plain && !path.split('\\').any(|name| name == ".." || name.is_empty()) && (!is_script || path.is_ascii())
}

/// What earlier runs refused, in lower case. These files have winject's descriptor by now, which does not make them trusted.
fn refused_earlier(builder: &PlanBuilder<'_>) -> Result<BTreeSet<String>> {
    let manifest = manifest::read_trusted(builder)?;
    Ok(manifest.into_iter().flat_map(|manifest| manifest.refused_infs).map(|path| path.folded()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_job_cannot_hold_are_known() {
        assert!(can_be_named("a b\\c.inf", true) && can_be_named("\u{e4}\\c.inf", false));
        for (path, is_script) in [("\u{e4}.inf", true), ("a\tb.inf", false), ("a:b.inf", false), ("..\\a.inf", false)] {
            assert!(!can_be_named(path, is_script), "{path:?}");
        }
    }
}
