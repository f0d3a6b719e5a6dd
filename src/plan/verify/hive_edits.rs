//! A plan's edits of a hive, looked up with the reader that shares no code with the editor.

use super::mismatch::mismatch;
use crate::error::{Error, Result};
use crate::hive::reader::Reader;
use crate::plan::change::{Change, GuestHive};
use crate::plan::document::Plan;

/// Reads the whole hive with the reader that shares no code with the editor, and looks for the plan's edits. Returns
/// their number.
pub(super) fn verify_edits(bytes: &[u8], plan: &Plan, file: GuestHive) -> Result<usize> {
    let unreadable = |e: Error| mismatch("a staged hive cannot be read").source_error(e);
    let hive = Reader::open(bytes).map_err(unreadable)?;
    // every key can be reached, not only ours
    hive.reach_all().map_err(unreadable)?;
    let mut count = 0;
    for step in plan.of_hive(file) {
        verify_edit(&hive, &step.change)?;
        count += 1;
    }
    Ok(count)
}

fn verify_edit(hive: &Reader<'_>, change: &Change) -> Result<()> {
    let (key, right) = match change {
        Change::CreateKey { key, .. } => (key, hive.key(key)?.is_some()),
        Change::DeleteKey { key, .. } => (key, hive.key(key)?.is_none()),
        Change::SetValue { key, name, data, .. } => (key, hive.value(key, name)?.as_ref() == Some(data)),
        Change::DeleteValue { key, name, .. } => (key, hive.value(key, name)?.is_none()),
        Change::CreateDir { .. }
        | Change::WriteFile { .. }
        | Change::Protect { .. }
        | Change::DeleteFile { .. }
        | Change::CopyBootFile { .. } => return Ok(()),
    };
    if right { Ok(()) } else { Err(mismatch(format!("the registry is not as planned: {change}")).path(key)) }
}
