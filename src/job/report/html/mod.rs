//! The report as a page: one HTML file that needs no other, without scripts.

mod gates;
pub(crate) mod phases;
pub(crate) mod verdict;

use super::fields::Report;
use super::sections;
use crate::escape::html;
use crate::job::machine::{Machine, MachineKind};
use crate::plan::review::{Item, Line, Section, page, page_start, write_html};

/// What the page is to programs.
const MARK: &str = "winject report";

/// The look of verdicts, findings and bars, which the page of a fleet has, too.
pub(crate) const STYLE: &str = include_str!("report.css");

/// Lines of a difference that are shown at once; a longer one is folded up.
const OPEN_LINES_MAX: usize = 40;

/// Whether a text begins like the page of a report.
pub(super) fn is_page(text: &str) -> bool {
    text.starts_with(&page_start(MARK))
}

impl Report {
    /// The page. Text of the guest, of the media and of the host is escaped: it cannot add lines or mark-up.
    #[must_use]
    pub fn to_html(&self) -> String {
        let image = self.run.image.rsplit('/').next().unwrap_or_default();
        let what = if self.run.is_removal { "Driver removal" } else { "Driver injection" };
        let mut body = format!("<p class=\"kind\">{what}</p>\n<h1>{}</h1>\n", html(image));
        verdict::write(&mut body, self);
        write_list(&mut body, "Warnings", "warnings", &self.virtio.warnings);
        gates::write(&mut body, self);
        write_section(&mut body, sections::removal(self));
        write_section(&mut body, sections::drivers(self));
        write_section(&mut body, sections::files(self));
        self.write_edits(&mut body);
        for section in [sections::first_boot, sections::network, sections::repairs, sections::uploads] {
            write_section(&mut body, section(self));
        }
        if let Some(replay) = &self.log_replay {
            write_list(&mut body, "NTFS log", "", &replay.lines());
        }
        self.write_machine(&mut body);
        write_section(&mut body, sections::run(self));
        phases::write(&mut body, &self.phases);
        write_list(&mut body, "Notes", "", &self.virtio.notes);
        page(MARK, &format!("{what}: {image}"), STYLE, &body)
    }

    /// The edits themselves, the registry as old and new.
    fn write_edits(&self, out: &mut String) {
        let Some(plan) = self.changes.as_ref().filter(|plan| !plan.is_empty()) else { return };
        let done = if self.run.dry_run { "What would be changed" } else { "What was changed" };
        out.push_str(&format!("<h2>{}</h2>\n", if self.error.is_some() { "What was planned" } else { done }));
        for (hive, lines) in sections::registry_edits(plan) {
            write_difference(out, &format!("Registry, {hive}"), "lines", lines);
        }
        write_difference(out, "Files and folders", "lines", sections::file_edits(plan));
    }

    fn write_machine(&self, out: &mut String) {
        let (Some(facts), Some(machine)) = (sections::machine(self), &self.recommendation) else { return };
        out.push_str("<h2>The machine to create</h2>\n");
        write_html(out, &facts);
        if !machine.notes.is_empty() {
            write_html(out, &Item::List(machine.notes.clone()));
        }
        // A machine is created from a run that succeeded only.
        let Some(described) = Machine::of_report(self).ok().filter(|_| self.error.is_none()) else { return };
        for kind in MachineKind::ALL {
            let content = Item::Content(format!("For {}", kind.title()), described.describe(kind));
            write_html(out, &content);
        }
    }
}

fn write_section(out: &mut String, section: Option<Section>) {
    let Some(section) = section else { return };
    out.push_str(&format!("<h2>{}</h2>\n", html(&section.title)));
    section.items.iter().for_each(|item| write_html(out, item));
}

fn write_list(out: &mut String, title: &str, class: &str, list: &[String]) {
    if list.is_empty() {
        return;
    }
    out.push_str(&format!("<section class=\"{class}\">\n<h2>{}</h2>\n", html(title)));
    write_html(out, &Item::List(list.to_vec()));
    out.push_str("</section>\n");
}

/// A difference under a line that folds it up.
fn write_difference(out: &mut String, title: &str, unit: &str, lines: Vec<Line>) {
    if lines.is_empty() {
        return;
    }
    let open = if lines.len() <= OPEN_LINES_MAX { " open" } else { "" };
    out.push_str(&format!("<details{open}><summary>{}: {} {unit}</summary>\n", html(title), lines.len()));
    write_html(out, &Item::Difference(lines));
    out.push_str("</details>\n");
}
