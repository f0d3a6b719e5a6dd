//! The Markdown form of the report, for people.

use std::fmt::Write as _;

use super::fields::{RemovalRecord, Report};
use crate::escape::markdown as text;
use crate::windows::ScriptRecord;

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
        out.head(self);
        out.windows(self);
        match &self.removal {
            Some(removal) => out.removal(removal),
            // A removal that did not get far.
            None if self.run.is_removal => {}
            None => {
                out.drivers(self);
                out.registry(self);
                out.repairs(self);
                out.firstboot(self);
                out.network(self);
                out.extras(self);
                out.machine(self);
            }
        }
        if let Some(replay) = &self.log_replay {
            out.list("NTFS log", &replay.lines());
        }
        out.list("Warnings", &self.virtio.warnings);
        out.list("Notes", &self.virtio.notes);
        out.changes(self);
        out.0
    }
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn section(&mut self, title: &str) {
        self.line("");
        self.line(&format!("## {title}"));
        self.line("");
    }

    /// One line of facts, the value as text.
    fn fact(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.line(&format!("- {name}: {}", text(value)));
        }
    }

    fn table(&mut self, titles: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        let mut any = false;
        for row in rows {
            if !any {
                self.line(&format!("| {} |", titles.join(" | ")));
                self.line(&format!("|{}", "---|".repeat(titles.len())));
                any = true;
            }
            let cells: Vec<String> = row.iter().map(|cell| text(cell)).collect();
            self.line(&format!("| {} |", cells.join(" | ")));
        }
        if !any {
            self.line("none");
        }
    }

    fn list(&mut self, title: &str, items: &[String]) {
        if items.is_empty() {
            return;
        }
        self.section(title);
        for item in items {
            self.line(&format!("- {}", text(item)));
        }
    }

    fn head(&mut self, report: &Report) {
        let run = &report.run;
        self.section("Run");
        self.fact("Image", &run.image);
        self.fact("Other disks, only read", &run.other_disks.join(", "));
        self.fact("Format", run.image_format.as_deref().unwrap_or_default());
        self.fact("Mode", run.mode);
        self.fact("BitLocker", report.bitlocker.as_ref().map_or("", |start| &start.volume));
        self.fact("Output", run.output.as_deref().unwrap_or_default());
        if let Some(undo) = &run.undo {
            self.fact("Undo", undo);
        }
        self.fact("Drivers from", &report.virtio.virtio_dir.join(", "));
        self.fact("Time", &run.time);
        self.fact("Program", &run.tool);
        self.line(&format!("- `virtio.injected`: {}", report.virtio.injected));
        self.line(&format!("- `virtio.unchanged`: {}", report.virtio.unchanged));
        self.line(&format!("- Dry run: {}", yes(run.dry_run)));
        self.line(&format!("- Changed on the guest's disk: {} bytes", run.bytes_changed));
        self.fact("Volume checked before the edit", run.volume_check.unwrap_or_default());
        if let Some(validation) = &report.validation {
            self.line(&format!("- Verified before writing: {}", yes(validation.success)));
        }
        if let Some(error) = &report.error {
            self.section("Error");
            self.line(&text(&error.message));
            if let Some(hint) = &error.hint {
                self.line("");
                self.line(&format!("Hint: {}", text(hint)));
            }
        }
    }

    fn windows(&mut self, report: &Report) {
        let Some(windows) = &report.virtio.windows else { return };
        self.section("Windows");
        self.fact("Product", &windows.product);
        self.fact("Registry says", &windows.product_name);
        self.fact("Edition", windows.edition.as_deref().unwrap_or_default());
        self.fact("Version", windows.display_version.as_deref().unwrap_or_default());
        self.fact("Build", &windows.build.to_string());
        self.fact("CPU", windows.arch.store_name());
        if let Some(disk) = &report.disk {
            self.fact("Disk", &format!("{} bytes, {}", disk.size, disk.scheme));
            self.fact("Partition", &format!("{} at byte {}", disk.partition.number, disk.partition.start.0));
        }
        if let Some(paths) = &report.virtio.windows_paths {
            self.fact("Folder", &paths.windows_dir);
        }
        if let Some(recovery) = &report.virtio.recovery {
            self.fact("Recovery environment", &recovery.to_string());
        }
    }

    fn removal(&mut self, removal: &RemovalRecord) {
        self.list("Removed", &removal.removed);
        self.section("Left in the guest");
        let rows = removal.left.iter().map(|item| vec![item.what.clone(), item.reason.clone()]);
        self.table(&["what", "why"], rows);
        self.section("Boot");
        self.fact("Boots before from", &removal.boots_before.join(", "));
        self.fact("Boots after from", &removal.boots_after.join(", "));
    }

    fn drivers(&mut self, report: &Report) {
        let virtio = &report.virtio;
        self.section("Drivers found");
        let rows = virtio.drivers_found.iter().map(|driver| {
            vec![
                driver.name.clone(),
                driver.category.clone(),
                driver.service_name.clone().unwrap_or_default(),
                driver.start_type.map(|start| start.to_string()).unwrap_or_default(),
                driver.bucket_used.clone(),
                driver.driver_version.clone().unwrap_or_default(),
                driver.signer.clone().unwrap_or_else(|| yes(driver.signed).to_owned()),
            ]
        });
        self.table(&["driver", "type", "service", "start", "folder", "version", "signed"], rows);
        self.section("Driver files in System32\\\\drivers");
        let rows = virtio.files_copied.iter().map(|copied| {
            let file = &copied.file;
            vec![file.name.clone(), word(&file.action), file.size.to_string(), file.sha256.clone()]
        });
        self.table(&["file", "action", "bytes", "SHA-256"], rows);
        self.section("Packages staged");
        let rows = virtio.packages_staged.iter().map(|package| {
            vec![
                package.service.clone(),
                package.inf.clone(),
                package.guest_dir.clone(),
                word(&package.action),
                package.files.len().to_string(),
            ]
        });
        self.table(&["package", "INF", "folder in the guest", "action", "files"], rows);
    }

    fn registry(&mut self, report: &Report) {
        let changes = &report.virtio.registry_changes;
        let record = &changes.record;
        self.section("Registry");
        self.line(&format!("- `virtio.registry_changes.success`: {}", changes.success));
        self.line(&format!("- Modified: {}", yes(changes.registry_modified)));
        self.fact("Control sets", &record.control_sets.join(", "));
        self.fact("Style", &record.style);
        self.fact("StartOverride removed", &record.startoverride_removed.join(", "));
        self.fact("Repaired from their logs", &changes.replayed.join(", "));
        for error in changes.errors.iter().chain(&changes.verification_errors) {
            self.fact("Error", error);
        }
        self.line("");
        let rows = record.services.iter().map(|service| {
            let (start, image) = (service.start.to_string(), service.image.clone());
            vec![service.service.clone(), service.control_set.clone(), start, image, word(&service.action)]
        });
        self.table(&["service", "control set", "start", "image", "action"], rows);
        let database = record.driver_database.iter().map(|entry| {
            vec![entry.inf.clone(), entry.package.clone(), entry.ids.len().to_string(), word(&entry.action)]
        });
        if !record.driver_database.is_empty() {
            self.line("");
            self.table(&["DriverDatabase", "package", "ids", "action"], database);
        }
    }

    fn repairs(&mut self, report: &Report) {
        let repairs = &report.virtio.repairs;
        if repairs.is_empty() {
            return;
        }
        self.section("Repairs");
        for (what, action) in [("Restart after a stop error", repairs.auto_reboot), ("Data disks", repairs.data_disks)]
        {
            if let Some(action) = action {
                self.fact(what, &word(&action));
            }
        }
        for left in &repairs.left {
            self.fact("Left", left);
        }
        let services = repairs.services.iter().map(|done| {
            vec![done.hypervisor.clone(), done.service.clone(), done.control_set.clone(), word(&done.action)]
        });
        if !repairs.services.is_empty() {
            self.line("");
            self.table(&["hypervisor", "service disabled", "control set", "action"], services);
        }
        let filters =
            repairs.filters.iter().map(|done| vec![done.hypervisor.clone(), done.filter.clone(), done.list.clone()]);
        if !repairs.filters.is_empty() {
            self.line("");
            self.table(&["hypervisor", "filter taken out", "list"], filters);
        }
        let commands = repairs
            .uninstallers
            .iter()
            .map(|done| vec![done.hypervisor.clone(), done.name.clone(), done.command.clone()]);
        if !repairs.uninstallers.is_empty() {
            self.line("");
            self.table(&["hypervisor", "uninstalled at the first boot", "command"], commands);
        }
    }

    fn firstboot(&mut self, report: &Report) {
        let firstboot = &report.virtio.firstboot;
        let record = &firstboot.record;
        self.section("First boot");
        self.line(&format!("- `virtio.firstboot.success`: {}", firstboot.success));
        self.fact("Service", &record.service);
        self.fact("Method", &record.method);
        self.fact("Runs", &record.payload);
        self.fact("SHA-256 of the program", record.program_sha256.as_deref().unwrap_or_default());
        let steps: Vec<String> = record.steps.iter().map(|step| format!("{} {}", step.kind, step.name)).collect();
        self.fact("Steps", &steps.join(", "));
        self.fact("Not installed", &record.refused.join(", "));
        self.fact("Log", &record.log_path);
        self.fact("Marker", &record.marker_path);
        self.fact("Left out", record.skipped.as_deref().unwrap_or_default());
    }

    fn network(&mut self, report: &Report) {
        let network = &report.virtio.network;
        if network.kept.is_empty() {
            return;
        }
        self.section("Network");
        let rows = network.kept.iter().map(|kept| {
            vec![
                kept.connection.clone(),
                kept.mac.clone(),
                kept.netsh.join("; "),
                kept.dns_suffix.clone().unwrap_or_default(),
            ]
        });
        self.table(&["former connection", "MAC address", "netsh at the first boot", "DNS suffix"], rows);
        self.fact("Addresses taken from ghost adapters", &network.released.join(", "));
    }

    fn extras(&mut self, report: &Report) {
        let extras = &report.virtio.extras;
        let scripts: Vec<&ScriptRecord> = extras.guest_agent.iter().chain(&extras.scripts).collect();
        if !scripts.is_empty() {
            self.section("Commands of the first boot");
            let rows = scripts.into_iter().map(|script| {
                let ScriptRecord { file, command, seconds, log } = script;
                let (changed, seconds) = (file.reason.clone().unwrap_or_default(), seconds.to_string());
                vec![file.source.clone(), file.destination.clone(), changed, command.clone(), seconds, log.clone()]
            });
            self.table(&["file", "in the guest", "changed", "command", "seconds", "log"], rows);
        }
        let uploads = &extras.uploads;
        if uploads.is_empty() {
            return;
        }
        self.section("Uploads");
        let rows = uploads.iter().map(|file| {
            let (size, sum) = (file.size.to_string(), file.sha256.clone());
            vec![file.source.clone(), file.destination.clone(), word(&file.action), size, sum]
        });
        self.table(&["file", "in the guest", "action", "bytes", "SHA-256"], rows);
    }

    fn machine(&mut self, report: &Report) {
        let Some(machine) = &report.recommendation else { return };
        self.section("Recommended machine");
        for answer in &report.boot {
            self.fact(&format!("Boots from {}", answer.bus.name()), yes(answer.boots));
        }
        self.fact(
            "Disk bus",
            &if machine.buses.is_empty() { machine.bus.to_owned() } else { machine.buses.join(" or ") },
        );
        self.fact("Network", machine.net_model);
        self.fact("Machine", machine.machine);
        self.fact("Firmware", machine.firmware);
        self.fact("Clock", machine.clock);
        self.fact("More devices", &machine.extra_devices.join(", "));
        for note in &machine.notes {
            self.fact("Note", note);
        }
    }

    fn changes(&mut self, report: &Report) {
        let Some(plan) = &report.changes else { return };
        self.section("Changes");
        let mut reason = "";
        for step in &plan.steps {
            if step.reason != reason {
                reason = &step.reason;
                self.line(&format!("\n### {}\n", text(reason)));
            }
            self.line(&format!("- {}", text(&step.change.to_string())));
        }
        if plan.is_empty() {
            self.line("none");
        }
    }
}

/// The word of the JSON form, so that both forms agree.
fn word(action: &crate::windows::Action) -> String {
    let mut out = String::new();
    match serde_json::to_value(action) {
        Ok(serde_json::Value::String(word)) => out = word,
        _ => {
            let _ = write!(out, "{action:?}");
        }
    }
    out
}
