//! The edits of a hive in the notation of `.reg` files.

use super::model::{Line, Mark};
use crate::hive::reg_file::{KeyPath, RegSink as _, Writer};
use crate::hive::{Name, RegistryData};
use crate::plan::change::{Change, GuestHive};
use crate::plan::document::Plan;
use crate::plan::saved::{SavedEdit, SavedStep};

/// The edits of `hive` in a plan that need not be saved. Of what it deletes, the former content is not shown.
pub(crate) fn planned_lines(plan: &Plan, hive: GuestHive) -> Vec<Line> {
    let edit = |change: &Change| {
        Some(match change.clone() {
            Change::CreateKey { hive, key } => SavedEdit::CreateKey { hive, key },
            Change::SetValue { hive, key, name, data, before } => SavedEdit::SetValue { hive, key, name, data, before },
            Change::DeleteValue { hive, key, name } => SavedEdit::DeleteValue { hive, key, name, before: None },
            Change::DeleteKey { hive, key } => SavedEdit::DeleteKey { hive, key, before: String::new() },
            _ => return None,
        })
    };
    let steps = plan.of_hive(hive);
    let steps = steps.filter_map(|step| Some(SavedStep { reason: step.reason.clone(), edit: edit(&step.change)? }));
    lines(&steps.collect::<Vec<_>>(), hive, Notation::Readable)
}

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notation {
    /// As in `.reg` files; a comment says the text of what they write as bytes.
    Exact,
    /// A text that `.reg` files write as bytes is written as text, after its type.
    Readable,
}

/// The edits of `hive`, each key with its values under its reason.
pub(super) fn registry_lines(steps: &[SavedStep], hive: GuestHive) -> Vec<Line> {
    lines(steps, hive, Notation::Exact)
}

fn lines(steps: &[SavedStep], hive: GuestHive, notation: Notation) -> Vec<Line> {
    let mut out = Vec::new();
    let mut reason = None;
    let mut section = None;
    for step in steps {
        let Some((_, key)) = step.edit.key().filter(|(of, _)| *of == hive) else { continue };
        if reason != Some(&step.reason) {
            reason = Some(&step.reason);
            section = None;
            out.push(Line::new(Mark::Heading, &step.reason));
        }
        let full = format!("HKEY_LOCAL_MACHINE\\{hive}\\{key}");
        let is_value = matches!(step.edit, SavedEdit::SetValue { .. } | SavedEdit::DeleteValue { .. });
        if is_value && section != Some(key) {
            out.push(Line::new(Mark::Same, format!("[{full}]")));
        }
        section = is_value.then_some(key);
        match &step.edit {
            SavedEdit::CreateKey { .. } => out.push(Line::new(Mark::Added, format!("[{full}]"))),
            SavedEdit::DeleteKey { before, .. } => {
                out.extend(before.lines().filter(|line| !line.is_empty()).map(|line| Line::new(Mark::Removed, line)));
                out.push(Line::new(Mark::Added, format!("[-{full}]")));
            }
            SavedEdit::SetValue { name, data, before, .. } => {
                out.extend(before.iter().flat_map(|before| value(Mark::Removed, name, Some(before), notation)));
                out.extend(value(Mark::Added, name, Some(data), notation));
            }
            SavedEdit::DeleteValue { name, before, .. } => {
                out.extend(before.iter().flat_map(|before| value(Mark::Removed, name, Some(before), notation)));
                out.extend(value(Mark::Added, name, None, notation));
            }
            _ => {}
        }
    }
    out
}

/// The lines of a value.
fn value(mark: Mark, name: &str, data: Option<&RegistryData>, notation: Notation) -> Vec<Line> {
    let prefix = KeyPath::default();
    let mut units = Vec::new();
    let mut put = |part: &[u16]| {
        units.extend_from_slice(part);
        Ok(())
    };
    let mut writer = Writer::new(&prefix, false, &mut put).shown();
    // Neither a value nor this `put` can fail.
    let _ = writer.value(&Name::from(name), data).and_then(|()| writer.finish());
    let text = String::from_utf16_lossy(&units);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    // What the notation writes as bytes is said in a comment.
    let text = data.filter(|data| body.contains("=hex(") && (data.as_text().is_some() || data.as_texts().is_some()));
    if let (Some(data), Notation::Readable) = (text, notation) {
        return vec![Line::new(mark, format!("\"{name}\"={data}"))];
    }
    let comment = text.map(|data| Line::new(mark, format!("; {}", data.to_readable())));
    comment.into_iter().chain(body.lines().filter(|line| !line.is_empty()).map(|line| Line::new(mark, line))).collect()
}
