//! What a report says, in sections that each printer writes in its own way.

use super::fields::Report;
use crate::hex;
use crate::plan::review::{Item, Line, Mark, Section, planned_lines};
use crate::plan::{Change, GuestHive, Plan};
use crate::units::size_text;
use crate::windows::{Action, ScriptRecord};

/// Characters of a hash that are enough to recognise a file; the JSON form has all of it.
const HASH_SHOWN: usize = 16;

/// Which driver came from where.
pub(super) fn drivers(report: &Report) -> Option<Section> {
    let rows = report.virtio.drivers_found.iter().map(|driver| {
        let start = driver.start_type.map(start_text).unwrap_or_default();
        let service = driver.service_name.clone().unwrap_or_default();
        let signer = driver.signer.clone();
        vec![
            driver.name.clone(),
            driver.category.clone(),
            driver.driver_version.clone().unwrap_or_default(),
            driver.driver_date.clone().unwrap_or_default(),
            signer.unwrap_or_else(|| if driver.signed { "signed" } else { "not signed" }.to_owned()),
            if service.is_empty() { String::new() } else { format!("{service}, {start}") },
            if driver.package_dir.is_empty() { driver.inf_path.clone() } else { driver.package_dir.clone() },
            driver.reason.clone(),
        ]
    });
    let titles = ["driver", "for", "version", "date", "signer", "service", "from", "why"];
    table_section("Drivers", &titles, rows.collect())
}

/// `Start` of a service in words.
fn start_text(start: u32) -> String {
    match start {
        0 => "starts with the boot loader".to_owned(),
        1 => "starts with the system".to_owned(),
        2 => "starts automatically".to_owned(),
        3 => "starts on demand".to_owned(),
        4 => "disabled".to_owned(),
        other => format!("Start {other}"),
    }
}

/// Driver files and staged packages.
pub(super) fn files(report: &Report) -> Option<Section> {
    let mut items = Vec::new();
    let rows: Vec<_> = report
        .virtio
        .files_copied
        .iter()
        .map(|copied| {
            let file = &copied.file;
            let hash = file.sha256.get(..HASH_SHOWN).unwrap_or_default();
            let action =
                file.reason.as_ref().map_or_else(|| word(file.action), |why| format!("{}: {why}", word(file.action)));
            vec![file.name.clone(), action, size_text(file.size), format!("{hash}…"), file.source.clone()]
        })
        .collect();
    if !rows.is_empty() {
        items.push(Item::Paragraph("Driver files in System32\\drivers:".to_owned()));
        items.push(Item::Table(vec!["file", "action", "size", "SHA-256", "from"], rows));
    }
    let rows: Vec<_> = report
        .virtio
        .packages_staged
        .iter()
        .map(|package| {
            let (inf, version) = (package.inf.clone(), package.driver_version.clone());
            let (action, files) = (word(package.action), package.files.len().to_string());
            vec![package.service.clone(), inf, version, action, files, package.guest_dir.clone()]
        })
        .collect();
    if !rows.is_empty() {
        items.push(Item::Paragraph("Packages that the guest installs at its first boot:".to_owned()));
        items.push(Item::Table(vec!["package", "INF", "version", "action", "files", "in the guest"], rows));
    }
    section("Files", items)
}

/// Every edit of a file or folder, under its reason.
pub(super) fn file_edits(plan: &Plan) -> Vec<Line> {
    let mut out = Vec::new();
    let mut reason = "";
    for step in plan.steps.iter().filter(|step| step.change.hive().is_none()) {
        if step.reason != reason {
            reason = &step.reason;
            out.push(Line::new(Mark::Heading, reason));
        }
        match &step.change {
            Change::CreateDir { path, .. } => out.push(Line::new(Mark::Added, format!("{path}/"))),
            Change::WriteFile { path, content, replaces, .. } => {
                let replaced = if *replaces { ", in place of another one" } else { "" };
                let text = format!("{path}  {} bytes, SHA-256 {}{replaced}", content.size(), content.sha256());
                out.push(Line::new(Mark::Added, text));
            }
            Change::Protect { path } => {
                out.push(Line::new(Mark::Added, format!("{path}  writable for the system and administrators only")));
            }
            Change::DeleteFile { path } => out.push(Line::new(Mark::Removed, path)),
            Change::CopyBootFile { path, from, size, sha256 } => {
                let text = format!(
                    "{path}  on the boot volume, a copy of {from}: {size} bytes, SHA-256 {}",
                    hex::encode(sha256)
                );
                out.push(Line::new(Mark::Added, text));
            }
            _ => {}
        }
    }
    out
}

/// The edits of the registry, hive by hive, in the notation of `.reg` files.
pub(super) fn registry_edits(plan: &Plan) -> Vec<(GuestHive, Vec<Line>)> {
    let hives = [GuestHive::System, GuestHive::Software, GuestHive::Drivers, GuestHive::Bcd];
    hives.into_iter().map(|hive| (hive, planned_lines(plan, hive))).filter(|(_, lines)| !lines.is_empty()).collect()
}

/// What the guest does at its first boot.
pub(super) fn first_boot(report: &Report) -> Option<Section> {
    let record = &report.virtio.firstboot.record;
    let steps: Vec<String> = record.steps.iter().map(|step| format!("{} {}", step.kind, step.name)).collect();
    let facts = [
        ("Service", record.service.clone()),
        ("Method", record.method.clone()),
        ("Runs", record.payload.clone()),
        ("SHA-256 of the program", record.program_sha256.clone().unwrap_or_default()),
        ("Steps", steps.join(", ")),
        ("Not installed", record.refused.join(", ")),
        ("Log", record.log_path.clone()),
        ("Marker", record.marker_path.clone()),
        ("Left out", record.skipped.clone().unwrap_or_default()),
    ];
    let mut items = facts_item(facts).into_iter().collect::<Vec<_>>();
    let scripts = report.virtio.extras.guest_agent.iter().chain(&report.virtio.extras.scripts);
    let rows: Vec<_> = scripts
        .map(|script| {
            let ScriptRecord { file, command, seconds, log } = script;
            let changed = file.reason.clone().unwrap_or_default();
            vec![file.source.clone(), changed, command.clone(), format!("{seconds} s"), log.clone()]
        })
        .collect();
    if !rows.is_empty() {
        items.push(Item::Table(vec!["file", "changed", "command", "time limit", "log"], rows));
    }
    section("First boot", items)
}

/// What is done about the network.
pub(super) fn network(report: &Report) -> Option<Section> {
    let network = &report.virtio.network;
    let rows: Vec<_> = network
        .kept
        .iter()
        .map(|kept| {
            let suffix = kept.dns_suffix.clone().unwrap_or_default();
            vec![kept.connection.clone(), kept.mac.clone(), kept.netsh.join("; "), suffix]
        })
        .collect();
    let mut items = Vec::new();
    if !rows.is_empty() {
        let titles = vec!["former connection", "MAC address", "netsh at the first boot", "DNS suffix"];
        items.push(Item::Table(titles, rows));
    }
    items.extend(facts_item([("Addresses taken from ghost adapters", network.released.join(", "))]));
    section("Network", items)
}

/// Repairs of a guest that comes from another hypervisor.
pub(super) fn repairs(report: &Report) -> Option<Section> {
    let repairs = &report.virtio.repairs;
    let action = |action: Option<Action>| action.map(word).unwrap_or_default();
    let facts = [
        ("Restart after a stop error", action(repairs.auto_reboot)),
        ("Data disks", action(repairs.data_disks)),
        ("Left", repairs.left.join(", ")),
    ];
    let mut items: Vec<Item> = facts_item(facts).into_iter().collect();
    let services = repairs
        .services
        .iter()
        .map(|done| vec![done.hypervisor.clone(), done.service.clone(), done.control_set.clone(), word(done.action)]);
    let filters =
        repairs.filters.iter().map(|done| vec![done.hypervisor.clone(), done.filter.clone(), done.list.clone()]);
    let uninstallers =
        repairs.uninstallers.iter().map(|done| vec![done.hypervisor.clone(), done.name.clone(), done.command.clone()]);
    for (titles, rows) in [
        (vec!["hypervisor", "service disabled", "control set", "action"], services.collect::<Vec<_>>()),
        (vec!["hypervisor", "filter taken out", "list"], filters.collect()),
        (vec!["hypervisor", "uninstalled at the first boot", "command"], uninstallers.collect()),
    ] {
        if !rows.is_empty() {
            items.push(Item::Table(titles, rows));
        }
    }
    section("Repairs", items)
}

/// Files of the user.
pub(super) fn uploads(report: &Report) -> Option<Section> {
    let rows = report.virtio.extras.uploads.iter().map(|file| {
        vec![
            file.source.clone(),
            file.destination.clone(),
            word(file.action),
            size_text(file.size),
            file.sha256.clone(),
        ]
    });
    table_section("Uploads", &["file", "in the guest", "action", "size", "SHA-256"], rows.collect())
}

/// What a removal took out, and what it left.
pub(super) fn removal(report: &Report) -> Option<Section> {
    let removal = report.removal.as_ref()?;
    let mut items = Vec::new();
    if !removal.removed.is_empty() {
        items.push(Item::Paragraph("Removed:".to_owned()));
        items.push(Item::List(removal.removed.clone()));
    }
    let rows: Vec<_> = removal.left.iter().map(|item| vec![item.what.clone(), item.reason.clone()]).collect();
    if !rows.is_empty() {
        items.push(Item::Paragraph("Left in the guest:".to_owned()));
        items.push(Item::Table(vec!["what", "why"], rows));
    }
    let from = |disks: &[String]| disks.join(", ");
    items.extend(facts_item([
        ("Boots before from", from(&removal.boots_before)),
        ("Boots after from", from(&removal.boots_after)),
    ]));
    section("Removal", items)
}

/// What was asked for, and on which image.
pub(super) fn run(report: &Report) -> Option<Section> {
    let run = &report.run;
    let windows = report.virtio.windows.as_ref();
    let partition =
        report.disk.as_ref().map(|disk| format!("{} at byte {}", disk.partition.number, disk.partition.start.0));
    let facts = [
        ("Image", run.image.clone()),
        ("Other disks, only read", run.other_disks.join(", ")),
        ("Format", run.image_format.clone().unwrap_or_default()),
        ("Mode", run.mode.replace('_', " ")),
        ("Output", run.output.clone().unwrap_or_default()),
        ("SHA-256 of the output", run.output_sha256.clone().unwrap_or_default()),
        ("Undo", run.undo.clone().unwrap_or_default()),
        ("Plan", run.plan.as_ref().map(|plan| format!("{} (SHA-256 {})", plan.path, plan.sha256)).unwrap_or_default()),
        ("Drivers from", report.virtio.virtio_dir.join(", ")),
        ("Windows", windows.map(windows_text).unwrap_or_default()),
        (
            "Disk",
            report.disk.as_ref().map(|disk| format!("{}, {}", size_text(disk.size), disk.scheme)).unwrap_or_default(),
        ),
        ("Partition", partition.unwrap_or_default()),
        ("BitLocker", report.bitlocker.as_ref().map(|start| start.volume.clone()).unwrap_or_default()),
        ("Recovery environment", report.virtio.recovery.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("Volume check", run.volume_check.unwrap_or_default().to_owned()),
        ("Changed on the disk", some_bytes(run.bytes_changed)),
        ("Read from the image", some_bytes(run.bytes_read)),
        ("Time", run.time.clone()),
        ("Program", run.tool.clone()),
    ];
    section("Run", facts_item(facts).into_iter().collect())
}

/// A number of bytes, if there are any.
fn some_bytes(bytes: u64) -> String {
    if bytes == 0 { String::new() } else { size_text(bytes) }
}

/// Product, version and build in one line.
pub(super) fn windows_text(windows: &super::fields::WindowsFacts) -> String {
    let parts = [Some(windows.product.clone()), windows.edition.clone(), windows.display_version.clone()];
    let name: Vec<String> = parts.into_iter().flatten().collect();
    format!("{}, build {}, {}", name.join(" "), windows.build, windows.arch.store_name())
}

/// The machine that fits the guest.
pub(super) fn machine(report: &Report) -> Option<Item> {
    let machine = report.recommendation.as_ref()?;
    let buses = if machine.buses.is_empty() { machine.bus.to_owned() } else { machine.buses.join(" or ") };
    facts_item([
        ("Machine", machine.machine.to_owned()),
        ("Firmware", machine.firmware.to_owned()),
        ("Disk bus", buses),
        ("Block size", machine.logical_block_size.map(|size| format!("{size} bytes")).unwrap_or_default()),
        ("Network", machine.net_model.to_owned()),
        ("Clock", machine.clock.to_owned()),
        ("Secure Boot", if machine.secure_boot { "on" } else { "off" }.to_owned()),
        ("TPM", if machine.tpm { "2.0" } else { "not needed" }.to_owned()),
        ("MAC addresses", machine.mac_addresses.join(", ")),
        ("More devices", machine.extra_devices.join(", ")),
    ])
}

/// The word of the JSON form, so that all forms agree.
pub(super) fn word(action: Action) -> String {
    match serde_json::to_value(action) {
        Ok(serde_json::Value::String(word)) => word,
        _ => format!("{action:?}"),
    }
}

/// The facts that are known.
fn facts_item<const N: usize>(facts: [(&'static str, String); N]) -> Option<Item> {
    let known: Vec<_> = facts.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    (!known.is_empty()).then_some(Item::Facts(known))
}

fn section(title: &str, items: Vec<Item>) -> Option<Section> {
    (!items.is_empty()).then(|| Section { title: title.to_owned(), items })
}

fn table_section(title: &str, titles: &[&'static str], rows: Vec<Vec<String>>) -> Option<Section> {
    if rows.is_empty() {
        return None;
    }
    section(title, vec![Item::Table(titles.to_vec(), rows)])
}
