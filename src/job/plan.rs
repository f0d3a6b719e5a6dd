//! A plan of an injection as a document. Nothing is written anywhere.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsStr;

use serde::Serialize;

use super::choose_disk::choose_disk;
use super::disks::{OtherDisk, with_boot_disks};
use super::explain::explain;
use super::report::Report;
use super::request::{InjectRequest, Observer};
use super::staging::{Staged, open_image, stage_for_document};
use super::verify::check_boot_after;
use crate::error::{Error, Kind, Layer, Result};
use crate::hex;
use crate::ntfs::{OpenOptions, Volume};
use crate::partition::{self, PartitionTable, PartitionView};
use crate::plan::saved::{
    BusVerdict, DriverFact, FindingFact, FindingLevel, ImageFacts, OtherDiskFacts, PlanDocument, ReadSet, SavedFile,
    SavedFileContent, SavedStep, Sha256Sum, StateFacts, Verdict, WindowsFacts,
};
use crate::plan::{Change, Content, Plan};
use crate::windows::{self, BootCheck, Bus, CheckOptions, Guest, Level, VmDisk};

/// A plan, and what it was made from.
#[derive(Debug)]
pub struct SavablePlan {
    /// The plan as a document.
    pub document: PlanDocument,
    /// The same with its contents at hand.
    pub plan: Plan,
    /// Whether the image is already as the plan wants it.
    pub is_empty: bool,
}

/// Plans an injection without writing anything, whatever the request's destination. The observer is called on the calling
/// thread; the report shows how far a failed run came, and is that of a dry run.
///
/// # Errors
/// Those of [`inject`](super::inject()) except those of writing.
pub fn plan(request: &InjectRequest, observer: &dyn Observer, report: &mut Report) -> Result<SavablePlan> {
    let outcome = plan_image(request, observer, report).map_err(explain);
    if let Err(error) = &outcome {
        report.fail(error);
    }
    outcome
}

fn plan_image(request: &InjectRequest, observer: &dyn Observer, report: &mut Report) -> Result<SavablePlan> {
    let request = &choose_disk(request, observer, report)?;
    let opened = open_image(request, observer, report).map(|mut disks| {
        disks.stage.record_reads();
        disks
    });
    let steps = RefCell::new(Vec::new());
    let mut staged = stage_for_document(request, observer, report, opened, Some(&steps))?;
    let reads = staged.stage.take_reads();
    observer.step("Checking whether the guest boots");
    let original = staged.stage.original();
    let table = partition::read(&original)?;
    let partition = &staged.installation.partition;
    let volume = Volume::open(PartitionView::new(&original, partition)?, &OpenOptions::read_only())?;
    let facts = ImageFacts::read(&original, &table, partition, &volume, &staged.plan.config_dir)?;
    let options = CheckOptions { signatures: staged.expectation.signatures };
    let disk = VmDisk { disk: &original, table: &table, name: &staged.name };
    let before = with_boot_disks(disk, partition, &staged.others, |disks| {
        windows::boot_checks(&volume, Some(disks), &Bus::ALL, &options)
    })?;
    let after = check_after(&staged)?;
    let verdict =
        Verdict { before: before.iter().map(bus_verdict).collect(), after: after.iter().map(bus_verdict).collect() };
    report.boot = after;
    report.add_boot_disks(&staged.name);
    report.run.bytes_read = staged.bytes_read();
    let others = std::mem::take(&mut staged.others).into_iter().map(OtherDisk::into_facts);
    let mut others: Vec<OtherDiskFacts> = others.collect::<Result<_>>()?;
    others.sort_by(|a, b| a.name.cmp(&b.name));
    let reads = ReadSet::of(&reads, &original)?;
    let document = document(request, report, &staged, facts, (reads, others), verdict, steps.into_inner())?;
    // What winject writes itself passes its own judgement, or it is not written.
    document.judge().map_err(not_savable)?;
    Ok(SavablePlan { document, is_empty: report.virtio.unchanged, plan: staged.plan })
}

/// The boot check of the staged disk, as verification makes it.
fn check_after(staged: &Staged) -> Result<Vec<BootCheck>> {
    let table: PartitionTable = partition::read(&staged.stage)?;
    check_boot_after(staged, &table)
}

fn not_savable(error: Error) -> Error {
    Error::new(Kind::Unsupported, Layer::Job, "cannot save the plan: it has a part that saved plans do not allow")
        .hint("winject inject makes the same changes without a saved plan")
        .source_error(error)
}

fn document(
    request: &InjectRequest,
    report: &Report,
    staged: &Staged,
    facts: ImageFacts,
    (reads, others): (ReadSet, Vec<OtherDiskFacts>),
    verdict: Verdict,
    steps: Vec<SavedStep>,
) -> Result<PlanDocument> {
    let guest = &staged.installation.guest;
    let ImageFacts { disk, partition, volume, hives } = facts;
    Ok(PlanDocument {
        schema: PlanDocument::schema(),
        tool: report.run.tool.clone(),
        image: request.image.file_name().and_then(OsStr::to_str).map(str::to_owned),
        disk,
        others,
        partition,
        volume,
        windows: windows_facts(guest),
        hives,
        reads,
        state: StateFacts {
            allow_dirty: request.state.allow_dirty,
            discard_ntfs_log: request.state.discard_ntfs_log,
            discard_hibernation: request.state.discard_hibernation,
            skip_volume_check: request.skip_volume_check,
        },
        expects: staged.expectation.to_document(),
        verdict,
        drivers: drivers(report),
        files: files(&staged.plan)?,
        steps,
        notes: staged.plan.notes.clone(),
        warnings: staged.plan.warnings.clone(),
    })
}

/// What a document says of a Windows.
pub(super) fn windows_facts(guest: &Guest) -> WindowsFacts {
    WindowsFacts {
        folder: guest.windows_dir.clone(),
        config: guest.config_dir(),
        build: guest.build,
        arch: guest.arch,
        text: guest.to_string(),
    }
}

fn drivers(report: &Report) -> Vec<DriverFact> {
    let virtio = &report.virtio;
    let registered = |service: Option<&String>| {
        let copied =
            virtio.files_copied.iter().find(|copied| service.is_some() && copied.file.service.as_ref() == service);
        copied.and_then(|copied| hex::decode(&copied.file.sha256)?.try_into().ok().map(Sha256Sum))
    };
    let facts = virtio.drivers_found.iter().map(|driver| DriverFact {
        name: driver.name.clone(),
        inf: driver.inf_path.rsplit('/').next().unwrap_or_default().to_owned(),
        version: driver.driver_version.clone(),
        signed: driver.signed,
        signer: driver.signer.clone(),
        sha256: registered(driver.service_name.as_ref()),
    });
    facts.collect()
}

/// The contents that the plan writes, each once, by their hashes.
fn files(plan: &Plan) -> Result<Vec<SavedFile>> {
    let mut files: BTreeMap<Sha256Sum, SavedFile> = BTreeMap::new();
    for step in plan.files() {
        if let Change::WriteFile { content, .. } = &step.change {
            let sha256 = Sha256Sum(content.sha256_bytes());
            if let Entry::Vacant(place) = files.entry(sha256) {
                place.insert(SavedFile { sha256, size: content.size(), content: saved_content(content)? });
            }
        }
    }
    Ok(files.into_values().collect())
}

fn saved_content(content: &Content) -> Result<SavedFileContent> {
    if let Some(path) = content.media_path() {
        return Ok(SavedFileContent::Media(path.trim_start_matches('/').to_owned()));
    }
    let bytes = content.read()?;
    Ok(match std::str::from_utf8(&bytes) {
        Ok(text) => SavedFileContent::Text(text.to_owned()),
        Err(_) => SavedFileContent::Hex(hex::encode(&bytes)),
    })
}

fn bus_verdict(answer: &BootCheck) -> BusVerdict {
    let findings = answer.findings.iter().map(|finding| FindingFact {
        gate: word(&finding.gate),
        level: match finding.level {
            Level::Good => FindingLevel::Good,
            Level::Note => FindingLevel::Note,
            Level::NotJudged => FindingLevel::NotJudged,
            Level::Warning => FindingLevel::Warning,
            Level::Failure => FindingLevel::Failure,
        },
        code: word(&finding.code),
        text: finding.text.clone(),
    });
    BusVerdict { bus: answer.bus.name().to_owned(), boots: answer.boots, findings: findings.collect() }
}

/// The word of the JSON form.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "unknown".to_owned(),
    }
}
