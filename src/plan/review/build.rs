//! The review of a document.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::model::{Item, Line, Mark, Review, Section};
use super::registry::registry_lines;
use crate::drivers::SignatureLevel;
use crate::plan::boot::BootPlace;
use crate::plan::change::{Access, GuestHive};
use crate::plan::saved::{
    BusVerdict, FindingFact, FindingLevel, OtherDiskFacts, PlanDocument, SavedEdit, SavedFileContent, SavedStep,
    Sha256Sum,
};

/// See [`UNPROVEN`].
const UPLOADS: &str = "Files of the user that the plan puts outside of winject's own folder. They are new there, lie outside of \
                       the Windows folder, and are what their hashes say: look at them before you approve the plan.";

/// The contents of a document by their hashes.
type Contents<'a> = HashMap<Sha256Sum, &'a SavedFileContent>;

/// What of a document is text that nothing bounds.
const UNPROVEN: &str = "winject apply compares the image, every edit and every content with this plan. Reasons, notes and \
                        warnings are as the plan says.";
/// See [`UNPROVEN`].
const VERDICT: &str = "As the plan says. Before it writes, winject apply makes this check on the changed disk, and refuses \
                       the plan if the guest boots from other buses or has other failures or warnings.";
/// See [`UNPROVEN`].
const DRIVERS: &str = "Names, versions and signers are as the plan says. The last column names the file that the plan writes \
                       with this hash.";

impl Review {
    /// The review of a document.
    #[must_use]
    pub fn new(document: &PlanDocument) -> Self {
        let image = document.image.as_deref().unwrap_or("an image");
        let contents = document.files.iter().map(|file| (file.sha256, &file.content)).collect();
        let mut sections = vec![
            section("Image", vec![Item::Facts(facts(document)), Item::Paragraph(UNPROVEN.to_owned())]),
            section("Boot check", verdict(document)),
            section("Drivers", drivers(document)),
            section("Files", vec![or_none(file_lines(document, &contents))]),
        ];
        if !document.uploads.is_empty() {
            sections.push(section("Uploads", uploads(document, &contents)));
        }
        for hive in std::iter::once(GuestHive::Bcd).chain(GuestHive::ALL) {
            let lines = registry_lines(&document.steps, hive);
            if !lines.is_empty() {
                sections.push(section(format!("Registry: {hive}"), vec![Item::Difference(lines)]));
            }
        }
        for (title, list) in [("Warnings", &document.warnings), ("Notes", &document.notes)] {
            if !list.is_empty() {
                sections.push(section(title, vec![Item::List(list.clone())]));
            }
        }
        let texts: Vec<Item> = document.steps.iter().filter_map(|step| content(&contents, step)).collect();
        if !texts.is_empty() {
            sections.push(section("Contents that the plan holds itself", texts));
        }
        Self { title: format!("Plan for {image}"), sections }
    }
}

fn section(title: impl Into<String>, items: Vec<Item>) -> Section {
    Section { title: title.into(), items }
}

fn or_none(lines: Vec<Line>) -> Item {
    if lines.is_empty() { Item::Paragraph("none".to_owned()) } else { Item::Difference(lines) }
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn facts(document: &PlanDocument) -> Vec<(&'static str, String)> {
    let PlanDocument { disk, partition, volume, windows, state, reads, .. } = document;
    let id = |id: &Option<String>| id.as_ref().map(|id| format!(", {id}")).unwrap_or_default();
    let mut out = vec![
        ("Windows", windows.text.clone()),
        ("Disk", format!("{} bytes, {}{}", disk.size, disk.scheme, id(&disk.id))),
        (
            "Partition",
            format!(
                "{} at byte {}, {} bytes{}",
                partition.number,
                partition.start,
                partition.length,
                id(&partition.id)
            ),
        ),
        ("Volume", format!("serial number {}", volume.serial)),
        ("Read for the plan", format!("{} bytes, SHA-256 {}", reads.bytes, reads.sha256)),
        ("Made by", document.tool.clone()),
        ("Edits", document.steps.len().to_string()),
    ];
    if let Some(BootPlace { partition, start, length, store }) = &document.boot {
        out.push(("Boot volume", format!("partition {partition} at byte {start}, {length} bytes; {store}")));
    }
    for OtherDiskFacts { name, disk, reads } in &document.others {
        let name = name.as_deref().unwrap_or("a disk");
        let disk = format!("{} bytes, {}{}", disk.size, disk.scheme, id(&disk.id));
        out.push(("Other disk, only read", format!("{name}: {disk}; {} bytes read", reads.bytes)));
    }
    if let Some(replay) = &document.log_replay {
        out.push(("NTFS log", replay.text()));
    }
    for (is_set, what) in [
        (state.allow_dirty, "a volume that Windows wants to check is edited"),
        (state.discard_ntfs_log, "an unclean NTFS log is discarded"),
        (state.discard_hibernation, "a hibernated session is discarded"),
        (state.no_replay, "an NTFS log that is not closed is not replayed"),
        (state.skip_volume_check, "the owners of the volume's clusters were not checked"),
    ] {
        if is_set {
            out.push(("Decision", what.to_owned()));
        }
    }
    match document.expects.signature_policy {
        SignatureLevel::Require => {}
        SignatureLevel::Present => {
            out.push(("Decision", "boot drivers need a signature, which need not match".to_owned()))
        }
        SignatureLevel::Warn => out.push(("Decision", "boot drivers without a signature are accepted".to_owned())),
    }
    out
}

/// For each bus the answers, and the findings gate by gate.
fn verdict(document: &PlanDocument) -> Vec<Item> {
    let find = |list: &[BusVerdict], bus: &str| list.iter().find(|verdict| verdict.bus == bus).cloned();
    let mut items = vec![Item::Paragraph(VERDICT.to_owned())];
    for after in &document.verdict.after {
        let before = find(&document.verdict.before, &after.bus);
        let was = before.as_ref().map_or("not checked", |before| yes(before.boots));
        items.push(Item::Paragraph(format!("Boots from {}: {was} before, {} after", after.bus, yes(after.boots))));
        let before = before.map(|before| before.findings).unwrap_or_default();
        items.push(or_none(verdict_lines(&before, &after.findings)));
    }
    items
}

/// The gates in the order in which a machine passes them.
const GATES: [&str; 12] = [
    "firmware",
    "partition",
    "boot_code",
    "boot_manager",
    "bcd",
    "os_loader",
    "loader",
    "binding",
    "start",
    "boot_drivers",
    "filters",
    "state",
];

/// Findings by their gates.
type ByGate<'a> = BTreeMap<&'a str, Vec<&'a FindingFact>>;

fn by_gate(findings: &[FindingFact]) -> ByGate<'_> {
    let mut out = ByGate::new();
    findings.iter().for_each(|finding| out.entry(&finding.gate).or_default().push(finding));
    out
}

fn verdict_lines(before: &[FindingFact], after: &[FindingFact]) -> Vec<Line> {
    let (before, after) = (by_gate(before), by_gate(after));
    let mut gates: Vec<&str> = before.keys().chain(after.keys()).copied().collect();
    gates.sort_by_key(|gate| (GATES.iter().position(|known| known == gate).unwrap_or(GATES.len()), *gate));
    gates.dedup();
    let mut out = Vec::new();
    for gate in gates {
        out.push(Line::new(Mark::Heading, gate.replace('_', " ")));
        let old = before.get(gate).map_or(&[][..], Vec::as_slice);
        let new = after.get(gate).map_or(&[][..], Vec::as_slice);
        let line =
            |mark, finding: &FindingFact| Line::new(mark, format!("{:<8}{}", level(finding.level), finding.text));
        let (known, kept): (HashSet<_>, HashSet<_>) = (old.iter().collect(), new.iter().collect());
        out.extend(old.iter().filter(|f| !kept.contains(f)).map(|finding| line(Mark::Removed, finding)));
        out.extend(new.iter().map(|f| line(if known.contains(f) { Mark::Same } else { Mark::Added }, f)));
    }
    out
}

fn level(level: FindingLevel) -> &'static str {
    match level {
        FindingLevel::Good => "ok",
        FindingLevel::Note => "note",
        FindingLevel::NotJudged => "?",
        FindingLevel::Warning => "warning",
        FindingLevel::Failure => "NO",
    }
}

fn drivers(document: &PlanDocument) -> Vec<Item> {
    if document.drivers.is_empty() {
        return vec![Item::Paragraph("none".to_owned())];
    }
    let rows = document.drivers.iter().map(|driver| {
        let signed = if driver.signed { "yes" } else { "no" };
        vec![
            driver.name.clone(),
            driver.inf.clone(),
            driver.version.clone().unwrap_or_default(),
            driver.signer.clone().unwrap_or_else(|| signed.to_owned()),
            driver.sha256.map(|sum| sum.to_string()).unwrap_or_default(),
            driver.sha256.map(|sum| written_as(document, sum)).unwrap_or_default(),
        ]
    });
    let titles = vec!["driver", "INF", "version", "signed", "SHA-256 of the driver", "file"];
    vec![Item::Paragraph(DRIVERS.to_owned()), Item::Table(titles, rows.collect())]
}

/// The files that the plan puts outside of winject's own places.
fn uploads(document: &PlanDocument, contents: &Contents<'_>) -> Vec<Item> {
    let lines = document.uploads.iter().map(|upload| {
        let written = document.steps.iter().find_map(|step| match &step.edit {
            SavedEdit::WriteFile { path, sha256, size, .. } if path == upload => Some((sha256, size)),
            _ => None,
        });
        let what = written.map_or_else(
            || "not written by this plan".to_owned(),
            |(sum, size)| format!("{size} bytes, SHA-256 {sum}, {}", origin(contents.get(sum).copied())),
        );
        Line::new(Mark::Added, format!("{upload}: {what}"))
    });
    vec![Item::Paragraph(UPLOADS.to_owned()), Item::Difference(lines.collect())]
}

/// The file in the folder of drivers that the plan writes with this content.
fn written_as(document: &PlanDocument, sum: Sha256Sum) -> String {
    let folder = format!("{}/System32/drivers/", document.windows.folder);
    let path = document.steps.iter().find_map(|step| match &step.edit {
        SavedEdit::WriteFile { path, sha256, .. } if *sha256 == sum && path.starts_with(&folder) => Some(path.clone()),
        _ => None,
    });
    path.unwrap_or_else(|| "not written by this plan".to_owned())
}

/// The edits of files and folders, under their reasons.
fn file_lines(document: &PlanDocument, contents: &Contents<'_>) -> Vec<Line> {
    let mut out = Vec::new();
    let mut reason = None;
    for step in document.steps.iter().filter(|step| step.edit.hive().is_none()) {
        if reason != Some(&step.reason) {
            reason = Some(&step.reason);
            out.push(Line::new(Mark::Heading, &step.reason));
        }
        let file = |size: u64, sum: Sha256Sum| format!("{size} bytes, SHA-256 {sum}");
        let mut line = |mark, path: &str, what: String| out.push(Line::new(mark, format!("{path}: {what}")));
        match &step.edit {
            SavedEdit::CreateDir { path, access } => {
                line(Mark::Added, path, format!("a folder, {}", access_text(access)))
            }
            SavedEdit::WriteFile { path, sha256, size, access, before } => {
                if let Some(before) = before {
                    line(Mark::Removed, path, file(before.size, before.sha256));
                }
                let access = if before.is_none() { format!(", {}", access_text(access)) } else { String::new() };
                let from = origin(contents.get(sha256).copied());
                line(Mark::Added, path, format!("{}{access}, {from}", file(*size, *sha256)));
            }
            SavedEdit::Protect { path, before } => {
                let was = before.map_or_else(|| "none".to_owned(), |sum| format!("SHA-256 {sum}"));
                line(Mark::Removed, path, format!("its own permissions ({was})"));
                line(Mark::Added, path, access_text(&Access::Protected));
            }
            SavedEdit::DeleteFile { path, before } => {
                let was = before.map_or_else(|| "a folder".to_owned(), |before| file(before.size, before.sha256));
                line(Mark::Removed, path, was);
            }
            SavedEdit::CopyBootFile { path, from, size, sha256 } => {
                line(Mark::Added, path, format!("{}, on the boot volume, a copy of its {from}", file(*size, *sha256)));
            }
            _ => {}
        }
    }
    out
}

fn access_text(access: &Access) -> String {
    match access {
        Access::Protected => "writable for the system and administrators only".to_owned(),
        Access::Like(sample) => format!("permissions of {sample}"),
        Access::Inherited => "permissions inherited from its folder".to_owned(),
    }
}

/// Where a content comes from.
fn origin(content: Option<&SavedFileContent>) -> String {
    match content {
        Some(SavedFileContent::Media(path)) => format!("from {path} of the media"),
        Some(SavedFileContent::Host(name)) => format!("from {name}, a file of the user"),
        Some(SavedFileContent::Text(_) | SavedFileContent::Hex(_)) => "held by the plan, shown below".to_owned(),
        None => "from nowhere".to_owned(),
    }
}

/// Whether a file is winject's service program by its name. Its bytes tell people nothing.
fn is_program(path: &str) -> bool {
    path.eq_ignore_ascii_case("/hyper2kvm/hyper2kvm-firstboot.exe")
}

/// What an edit writes, as far as the document holds it; of winject's own program, its size only.
fn content(contents: &Contents<'_>, step: &SavedStep) -> Option<Item> {
    let SavedEdit::WriteFile { path, sha256, size, .. } = &step.edit else { return None };
    match contents.get(sha256)? {
        SavedFileContent::Hex(_) if is_program(path) => Some(Item::Paragraph(format!(
            "{path}: a program of {size} bytes, which is winject's own (other programs are refused)"
        ))),
        SavedFileContent::Text(text) => Some(Item::Content(path.clone(), text.clone())),
        SavedFileContent::Hex(digits) => Some(Item::Content(path.clone(), digits.clone())),
        SavedFileContent::Media(_) | SavedFileContent::Host(_) => None,
    }
}
