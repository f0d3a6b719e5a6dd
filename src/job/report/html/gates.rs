//! The way from the firmware to the desktop as a picture, with what was found at each gate.

use crate::escape::html;
use crate::job::report::fields::Report;
use crate::windows::{BootCheck, Finding, Gate, Level};

/// Width of a gate in the picture, in its own units.
const STEP: usize = 96;

/// Writes a picture for each bus, and one list of all findings.
pub(super) fn write(out: &mut String, report: &Report) {
    if report.boot.is_empty() {
        return;
    }
    out.push_str("<h2>Does it boot?</h2>\n");
    let is_shown = |gate: &Gate| report.boot.iter().any(|answer| worst(answer, *gate).is_some());
    let gates: Vec<Gate> = Gate::ALL.into_iter().filter(is_shown).collect();
    for answer in &report.boot {
        let (class, text) = if answer.boots { ("good", "boots") } else { ("bad", "does not boot") };
        let bus = answer.bus.name();
        out.push_str(&format!("<h3>From {bus} <span class=\"badge {class}\">{text}</span></h3>\n"));
        let way: Vec<Gate> = gates.iter().copied().filter(|gate| *gate != Gate::State).collect();
        write_picture(out, answer, &way, &format!("{bus}: {text}"));
    }
    out.push_str("<ol class=\"gates\">\n");
    for gate in gates {
        write_gate(out, &report.boot, gate);
    }
    out.push_str("</ol>\n");
}

/// The worst finding at a gate; `None` if nothing was found there.
fn worst(answer: &BootCheck, gate: Gate) -> Option<Level> {
    answer.findings.iter().filter(|finding| finding.gate == gate).map(|finding| finding.level).max()
}

fn class(level: Option<Level>) -> &'static str {
    match level {
        Some(Level::Good) => "good",
        Some(Level::Note) => "note",
        Some(Level::NotJudged) => "open",
        Some(Level::Warning) => "warn",
        Some(Level::Failure) => "bad",
        None => "open",
    }
}

/// The sign of a level, as lines within a circle around the origin.
fn sign(level: Option<Level>) -> &'static str {
    match level {
        Some(Level::Good) => "<path d=\"M-4.5 .5 L-1.2 3.8 L5 -3.6\"/>",
        Some(Level::Note) => "<path d=\"M0 -4.6 V-4.2 M0 -1.4 V4.6\"/>",
        Some(Level::Warning) => "<path d=\"M0 -5 V1.2 M0 4.4 V4.6\"/>",
        Some(Level::Failure) => "<path d=\"M-4 -4 L4 4 M4 -4 L-4 4\"/>",
        Some(Level::NotJudged) | None => "<path d=\"M-4 0 H4\"/>",
    }
}

/// The gates in a row, each in the colour of its worst finding.
fn write_picture(out: &mut String, answer: &BootCheck, gates: &[Gate], label: &str) {
    let width = STEP * gates.len();
    out.push_str(&format!(
        "<svg class=\"way\" viewBox=\"0 0 {width} 58\" style=\"max-width:{width}px\" role=\"img\" aria-label=\"{}\">\n",
        html(label)
    ));
    let mut is_stopped = false;
    for (index, gate) in gates.iter().enumerate() {
        let level = worst(answer, *gate);
        let x = STEP * index + STEP / 2;
        if index > 0 {
            let class = if is_stopped { "stopped" } else { "passed" };
            out.push_str(&format!(
                "<line class=\"{class}\" x1=\"{}\" y1=\"18\" x2=\"{}\" y2=\"18\"/>\n",
                x + 15 - STEP,
                x - 15
            ));
        }
        is_stopped |= level == Some(Level::Failure);
        out.push_str(&format!(
            "<g class=\"{}\" transform=\"translate({x} 18)\"><circle r=\"12\"/>{}</g><text x=\"{x}\" y=\"50\">{}</text>\n",
            class(level),
            sign(level),
            gate.name()
        ));
    }
    out.push_str("</svg>\n");
}

/// A gate with its findings: those of every bus first, then those of a single one under its name.
fn write_gate(out: &mut String, answers: &[BootCheck], gate: Gate) {
    let level = answers.iter().filter_map(|answer| worst(answer, gate)).max();
    out.push_str(&format!(
        "<li class=\"{}\"><svg viewBox=\"-12 -12 24 24\" aria-hidden=\"true\"><circle r=\"11\"/>{}</svg>\n<b>{}</b>\n<ul>\n",
        class(level),
        sign(level),
        gate.name()
    ));
    let at_gate = |finding: &&Finding| finding.gate == gate;
    let is_common = |finding: &Finding| answers.iter().all(|answer| answer.findings.contains(finding));
    let first = answers.iter().take(1).flat_map(|answer| &answer.findings);
    first.filter(at_gate).filter(|finding| is_common(finding)).for_each(|finding| write_finding(out, "", finding));
    for answer in answers {
        let own = answer.findings.iter().filter(at_gate).filter(|finding| !is_common(finding));
        own.for_each(|finding| write_finding(out, answer.bus.name(), finding));
    }
    out.push_str("</ul></li>\n");
}

fn write_finding(out: &mut String, bus: &str, finding: &Finding) {
    let class = class(Some(finding.level));
    let bus = if bus.is_empty() { String::new() } else { format!("<span class=\"bus\">{bus}</span> ") };
    let badge = match finding.level {
        Level::Good => String::new(),
        level => format!("<span class=\"badge {class}\">{}</span> ", level.mark()),
    };
    let advice = match finding.level {
        Level::Warning | Level::Failure => format!(" → <code>winject explain {}</code>", html(finding.code.name())),
        _ => String::new(),
    };
    out.push_str(&format!("<li>{badge}{bus}{}{advice}</li>\n", html(&finding.text)));
}
