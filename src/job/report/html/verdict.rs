//! The verdict in one sentence, and what to do if it is not good.

use crate::escape::html;
use crate::job::report::fields::Report;
use crate::job::report::sections::windows_text;

/// How good a verdict is: the class of its colour, and its sign.
fn tone(report: &Report) -> (&'static str, &'static str) {
    let boots = report.boot.iter().any(|answer| answer.boots);
    match &report.error {
        Some(_) => ("bad", "✕"),
        None if report.removal.is_some() => ("good", "✓"),
        None if !boots => ("warn", "!"),
        None if report.run.dry_run && !report.virtio.unchanged => ("note", "i"),
        None => ("good", "✓"),
    }
}

pub(super) fn write(out: &mut String, report: &Report) {
    let hint = report.error.as_ref().and_then(|error| error.hint.as_deref());
    let output = report.run.output.as_ref().filter(|_| report.error.is_none() && !report.run.dry_run);
    let facts = [
        ("Windows", report.virtio.windows.as_ref().map(windows_text)),
        ("Output", output.cloned()),
        ("Take it back", report.run.undo.clone()),
        (
            "Verified before writing",
            report.validation.as_ref().map(|done| if done.success { "yes" } else { "no" }.to_owned()),
        ),
    ];
    write_box(out, tone(report), &report.summary, hint, &facts);
}

/// Writes a verdict: the class of its colour and its sign, a sentence, what to do, and facts that are known.
pub(crate) fn write_box(
    out: &mut String,
    (tone, sign): (&str, &str),
    sentence: &str,
    hint: Option<&str>,
    facts: &[(&str, Option<String>)],
) {
    out.push_str(&format!(
        "<div class=\"verdict {tone}\">\n<span class=\"sign\" aria-hidden=\"true\">{sign}</span>\n<div>\n"
    ));
    out.push_str(&format!("<p class=\"sentence\">{}</p>\n", html(sentence)));
    if let Some(hint) = hint {
        out.push_str(&format!("<p><b>What to do:</b> {}</p>\n", html(hint)));
    }
    for (name, value) in facts {
        if let Some(value) = value {
            out.push_str(&format!("<p class=\"fact\"><span>{name}</span> {}</p>\n", html(value)));
        }
    }
    out.push_str("</div>\n</div>\n");
}
