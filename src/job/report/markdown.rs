//! The Markdown form of the report: what a person pastes into a ticket. The page and the JSON form have all of it.

use super::fields::{RemovalRecord, Report};
use super::sections::windows_text;
use crate::escape::markdown as text;
use crate::windows::Level;

/// The first line of an injection's report …
const INJECTION: &str = "# Driver injection report";
/// … and of a removal's.
const REMOVAL: &str = "# Driver removal report";
/// The first lines by which an earlier report is recognised.
pub(super) const TITLES: [&str; 2] = [INJECTION, REMOVAL];

impl Report {
    /// The Markdown form. Text of the guest and of the media is escaped: it cannot add lines or mark-up.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut out = Page::default();
        out.line(if self.run.is_removal { REMOVAL } else { INJECTION });
        out.line("");
        out.line(&text(&self.summary));
        if let Some(hint) = self.error.as_ref().and_then(|error| error.hint.as_ref()) {
            out.line("");
            out.line(&format!("Hint: {}", text(hint)));
        }
        out.line("");
        out.run(self);
        match &self.removal {
            Some(removal) => out.removal(removal),
            // A removal that did not get far.
            None if self.run.is_removal => {}
            None => {
                out.fields(self);
                out.machine(self);
            }
        }
        if let Some(replay) = &self.log_replay {
            out.list("NTFS log", replay.lines().iter().map(String::as_str));
        }
        out.boot(self);
        out.list("Warnings", self.virtio.warnings.iter().map(String::as_str));
        out.list("Notes", self.virtio.notes.iter().map(String::as_str));
        out.0
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// A fact, if it is known.
    fn fact(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.line(&format!("- {name}: {}", text(value)));
        }
    }

    /// A field under its name in the JSON form.
    fn field(&mut self, name: &str, value: &str) {
        self.line(&format!("- `{name}`: {}", text(value)));
    }

    fn list<'t>(&mut self, title: &str, items: impl Iterator<Item = &'t str>) {
        let mut items = items.peekable();
        if items.peek().is_none() {
            return;
        }
        self.line(&format!("\n## {title}\n"));
        items.for_each(|item| self.line(&format!("- {}", text(item))));
    }

    fn run(&mut self, report: &Report) {
        let run = &report.run;
        self.fact("Image", &run.image);
        self.fact("Other disks, only read", &run.other_disks.join(", "));
        self.fact("Windows", &report.virtio.windows.as_ref().map(windows_text).unwrap_or_default());
        self.fact("BitLocker", report.bitlocker.as_ref().map_or("", |start| &start.volume));
        self.fact(
            "Recovery environment",
            &report.virtio.recovery.as_ref().map(ToString::to_string).unwrap_or_default(),
        );
        self.fact("Mode", run.mode);
        self.fact("Output", run.output.as_deref().unwrap_or_default());
        self.fact("Undo", run.undo.as_deref().unwrap_or_default());
        self.fact("Drivers from", &report.virtio.virtio_dir.join(", "));
        self.fact("Time", &run.time);
        self.fact("Program", &run.tool);
    }

    /// The fields that readers look for, under their names in the JSON form.
    fn fields(&mut self, report: &Report) {
        let virtio = &report.virtio;
        self.line("");
        self.field("virtio.injected", &virtio.injected.to_string());
        self.field("virtio.unchanged", &virtio.unchanged.to_string());
        if let Some(reason) = virtio.reason {
            self.field("virtio.reason", reason);
        }
        let found = virtio.drivers_found.iter().map(|driver| match &driver.driver_version {
            Some(version) => format!("{} {version}", driver.name),
            None => driver.name.clone(),
        });
        self.field("virtio.drivers_found", &listed(found));
        self.field("virtio.packages_staged", &listed(virtio.packages_staged.iter().map(|p| p.service.clone())));
        self.field("virtio.registry_changes.success", &virtio.registry_changes.success.to_string());
        self.field("virtio.firstboot.success", &virtio.firstboot.success.to_string());
        if let Some(skipped) = &virtio.firstboot.record.skipped {
            self.field("virtio.firstboot.skipped", skipped);
        }
    }

    fn removal(&mut self, removal: &RemovalRecord) {
        self.list("Removed", removal.removed.iter().map(String::as_str));
        let left: Vec<String> = removal.left.iter().map(|item| format!("{} ({})", item.what, item.reason)).collect();
        self.list("Left in the guest", left.iter().map(String::as_str));
    }

    /// One line for each bus, and what keeps the guest from booting or may do so.
    fn boot(&mut self, report: &Report) {
        let mut lines = Vec::new();
        for answer in &report.boot {
            lines.push(format!("{}: {}", answer.bus.name(), if answer.boots { "yes" } else { "no" }));
            let bad = answer.findings.iter().filter(|finding| finding.level >= Level::Warning);
            for finding in bad {
                let line = format!("{}: {}", finding.level.mark(), finding.text);
                if !lines.contains(&line) {
                    lines.push(line);
                }
            }
        }
        self.list("Boots from", lines.iter().map(String::as_str));
    }

    fn machine(&mut self, report: &Report) {
        let Some(machine) = &report.recommendation else { return };
        let buses = if machine.buses.is_empty() { machine.bus.to_owned() } else { machine.buses.join(" or ") };
        self.fact(
            "Machine",
            &format!(
                "{}, {}, disk on {buses}, network {}, clock {}",
                machine.machine, machine.firmware, machine.net_model, machine.clock
            ),
        );
        machine.notes.iter().for_each(|note| self.fact("Note", note));
    }
}

/// Names in one line, or `none`.
fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
