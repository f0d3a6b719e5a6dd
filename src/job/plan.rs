//! A plan of an injection as a document. Nothing is written anywhere.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::boot_verdict::to_verdicts;
use super::choose_disk::choose_disk;
use super::disks::{OtherDisk, disk_name, name_in_plan, with_boot_disks};
use super::expectation::Expectation;
use super::explain::explain;
use super::locate::Installation;
use super::phases::PhaseClock;
use super::report::Report;
use super::report_log::report_log;
use super::request::{InjectRequest, Observer};
use super::staging::{
    DriverPlanner, FoundWindows, PlanInputs, Planned, Planner as _, find_drivers_and_windows, in_parallel, open_image,
    open_to_read, planned_boot_files, report_volume_check,
};
use super::step::Step;
use super::volume_check::check_volume;
use crate::block::Stage;
use crate::error::{Error, Kind, Layer, Result};
use crate::hex;
use crate::hive::Hive;
use crate::hive::check::Survey;

use crate::plan::saved::{
    DriverFact, ImageFacts, LogReplayFacts, OtherDiskFacts, PlanDocument, ReadSet, SavedFile, SavedFileContent,
    SavedStep, Sha256Sum, StateFacts, Verdict, WindowsFacts,
};
use crate::plan::{self, Change, Content, GuestHive, Plan};
use crate::windows::{self, BootCheck, BootDisks, Bus, CheckOptions, Guest, KnownGuest, VmDisk};

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
/// thread. The same image, media and options give the same document, byte for byte, at any time and with any number of
/// threads.
///
/// ```no_run
/// use winject::{Destination, FileTime, InjectRequest, SavedPlan, Silent, apply, plan};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let drivers = vec!["virtio-win.iso".into()];
/// let mut request = InjectRequest::new("guest.qcow2", drivers, Destination::DryRun, FileTime::now());
/// let planned = plan(&request, &Silent)?;
/// std::fs::write("plan.json", planned.document.to_bytes())?;
///
/// // Later, when it has been reviewed, maybe on another machine:
/// let saved = SavedPlan::read("plan.json".as_ref())?;
/// request.destination = Destination::InPlace;
/// println!("{}", apply(&saved, &request, &Silent)?.summary);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Those of [`inject`](super::inject()) except those of writing.
pub fn plan(request: &InjectRequest, observer: &dyn Observer) -> Result<SavablePlan> {
    plan_into(request, observer, &mut Report::of_request(request))
}

/// Like [`plan`], but fills the caller's report, which is that of a dry run and shows how far a failed run came.
///
/// # Errors
/// Those of [`plan`].
pub fn plan_into(request: &InjectRequest, observer: &dyn Observer, report: &mut Report) -> Result<SavablePlan> {
    let job = |observer: &dyn Observer, report: &mut Report| plan_image(request, observer, report).map_err(explain);
    let outcome = PhaseClock::measure(observer, report, job);
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
    let (drivers, found) = find_drivers_and_windows(request, observer, report, opened)?;
    let FoundWindows { mut stage, others, table, installation, mut hives, boot: boot_volume } = found;
    let name = disk_name(request, &request.image);
    report.add_guest(stage.len(), &table, &installation.partition, &installation.guest);
    let original = stage.original();
    let owners = || {
        let (partition, is_skipped) = (&installation.partition, request.skip_volume_check);
        check_volume(&original, partition, &request.state, is_skipped, &|_, _, _| ())
    };
    if request.threads.is_some() {
        observer.step(Step::CheckVolume);
    }
    let (owners, planned) = in_parallel(request, owners, || {
        let survey = || hives.get(&GuestHive::System).map(Hive::survey);
        let inputs = PlanInputs {
            table: &table,
            installation: &installation,
            hives: &hives,
            others: &others,
            boot: boot_volume.as_ref(),
        };
        let planner = DriverPlanner { request, observer, drivers: &drivers };
        let draw = || Ok::<_, Error>((draw(&planner, report, &inputs, &mut stage)?, windows::known_hives(&hives)));
        let (survey, drawn) = in_parallel(request, survey, draw)?;
        let (drawn, known) = drawn?;
        observer.step(Step::CheckBoot);
        let system = hives.remove(&GuestHive::System).zip(survey);
        let store = hives.remove(&GuestHive::Bcd);
        let boot_files = planned_boot_files(request, &stage, boot_volume.as_ref(), &drawn.plan, store)?;
        let disk = VmDisk { disk: &stage, table: &table, name: &name };
        let boot = with_boot_disks(disk, &installation.partition, &others, |disks| {
            let after = BootDisks { planned: boot_files.as_ref(), ..*disks };
            BootBeforeAndAfter::check(request, &stage, [disks, &after], &installation, &drawn, system)
        });
        if request.threads.is_none() {
            observer.step(Step::CheckVolume);
        }
        Ok::<_, Error>((drawn, known, boot))
    })?;
    let (drawn, known, boot) = planned?;
    // Damage of the whole volume says more than what came of it.
    report_volume_check(owners, report)?;
    drawn.checked?;
    let boot = boot?;
    drawn.expectation.compare(&boot.after, &installation.partition)?;

    let reads = stage.take_reads();
    let volume = open_to_read(&original, &installation.partition)?;
    let config = &drawn.plan.config_dir;
    let facts = ImageFacts::read(&original, &table, &installation.partition, &volume, config, &known)?;
    let reads = ReadSet::of(reads, &facts.hashed, &original)?;
    report.virtio.unchanged = drawn.plan.is_empty() && !drawn.overrides_change;
    report.boot.clone_from(&boot.after);
    report.add_boot_disks(&name);
    let bytes_read = others.iter().map(OtherDisk::bytes_read);
    report.run.bytes_read = bytes_read.fold(stage.image().bytes_read(), u64::saturating_add);
    let others = others.into_iter().map(OtherDisk::into_facts);
    let mut others: Vec<OtherDiskFacts> = others.collect::<Result<_>>()?;
    others.sort_by(|a, b| a.name.cmp(&b.name));
    let document = PlanDocument {
        schema: PlanDocument::schema(),
        version: PlanDocument::version(),
        tool: report.run.tool.clone(),
        image: name_in_plan(&request.image).map(str::to_owned),
        disk: facts.disk,
        others,
        partition: facts.partition,
        boot: drawn.plan.boot.clone(),
        volume: facts.volume,
        windows: windows_facts(&installation.guest),
        hives: facts.hives,
        reads,
        state: StateFacts {
            allow_dirty: request.state.allow_dirty,
            discard_ntfs_log: request.state.discard_ntfs_log,
            discard_hibernation: request.state.discard_hibernation,
            skip_volume_check: request.skip_volume_check,
            no_replay: request.state.no_replay,
        },
        log_replay: drawn.log_replay,
        expects: drawn.expectation.to_document(&boot.after),
        verdict: boot.to_verdict(),
        drivers: drivers_of(report),
        uploads: drawn.plan.uploads.clone(),
        files: files(&drawn.plan)?,
        steps: drawn.steps,
        notes: drawn.plan.notes.clone(),
        warnings: drawn.plan.warnings.clone(),
    };
    // What winject writes itself passes its own judgement, or it is not written.
    document.judge().map_err(not_savable)?;
    Ok(SavablePlan { document, is_empty: report.virtio.unchanged, plan: drawn.plan })
}

/// A plan that was drawn up, and what is known of it.
struct Drawn {
    expectation: Expectation,
    plan: Plan,
    /// The edits with what they replace.
    steps: Vec<SavedStep>,
    /// Whether what the plan touches was sound before it.
    checked: Result<()>,
    /// The replay of the volume's log.
    log_replay: Option<LogReplayFacts>,
    /// Whether the replay or the user's overrides change the volume, whatever the plan.
    overrides_change: bool,
}

/// Draws up the plan. It is not applied to the stage: nothing that the document says needs that, and `apply` verifies
/// the outcome. Only the replay and overrides are, to see whether they change anything.
fn draw(planner: &DriverPlanner<'_>, report: &mut Report, inputs: &PlanInputs<'_>, stage: &mut Stage) -> Result<Drawn> {
    let original = stage.original();
    let Planned { expectation, mut volume, plan, hives } = planner.plan(report, inputs, stage)?;
    let steps = windows::saved_steps(&volume, [inputs.hives, &hives], &plan)?;
    let state = planner.request.state;
    let checked = plan::check_before(volume.device(), &plan, state.any())
        .map_err(|error| error.path(inputs.installation.partition.label()));
    report_log(report, &volume, &original, &inputs.installation.partition);
    let log_replay = volume.device().replay().map(LogReplayFacts::of);
    volume.apply_admission()?;
    volume.flush()?;
    drop(volume);
    let overrides_change = stage.drop_unchanged()? > 0;
    Ok(Drawn { expectation, plan, steps, checked, log_replay, overrides_change })
}

/// The boot check's answers for all buses.
struct BootBeforeAndAfter {
    before: Vec<BootCheck>,
    after: Vec<BootCheck>,
}

impl BootBeforeAndAfter {
    /// Checks the guest as it is, and as the plan is going to leave it. `system` is its SYSTEM hive with the check of it.
    fn check(
        request: &InjectRequest,
        stage: &Stage,
        [before_disks, after_disks]: [&BootDisks<'_>; 2],
        installation: &Installation,
        drawn: &Drawn,
        system: Option<(Hive, Survey)>,
    ) -> Result<Self> {
        let Installation { partition, guest } = installation;
        let volume = open_to_read(stage, partition)?;
        let options = CheckOptions { signatures: drawn.expectation.signatures };
        let (mut hive, survey) =
            system.ok_or_else(|| windows::missing_hive(&drawn.plan.hive_path(GuestHive::System)))?;
        let fault = survey.first_error().cloned();
        let before = match hive.unchanged_bytes() {
            Some(system) => {
                let known = KnownGuest { guest, system, fault: fault.as_ref() };
                windows::boot_checks_of(&volume, Some(before_disks), known, &Bus::ALL, &options)?
            }
            // Its logs were applied: it is checked as the log's replay is written.
            None => windows::boot_checks(&volume, Some(before_disks), &Bus::ALL, &options)?,
        };
        if drawn.plan.is_empty() {
            return Ok(Self { after: before.clone(), before });
        }
        let is_edited = drawn.plan.of_hive(GuestHive::System).next().is_some();
        hive.adopt(survey);
        let edited = plan::edit_hive(&drawn.plan, GuestHive::System, hive, request.clock)
            .map_err(|error| error.path(drawn.plan.hive_path(GuestHive::System)))?;
        // An edited hive has no such fault: the editor refuses a hive that has one.
        let known = KnownGuest { guest, system: &edited.bytes, fault: fault.as_ref().filter(|_| !is_edited) };
        let after = windows::boot_checks_of_plan(&volume, &drawn.plan, Some(after_disks), known, &Bus::ALL, &options)?;
        Ok(Self { before, after })
    }

    fn to_verdict(&self) -> Verdict {
        Verdict { before: to_verdicts(&self.before), after: to_verdicts(&self.after) }
    }
}

fn not_savable(error: Error) -> Error {
    Error::new(Kind::Unsupported, Layer::Job, "cannot save the plan: it has a part that saved plans do not allow")
        .hint("winject inject makes the same changes without a saved plan")
        .source_error(error)
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

fn drivers_of(report: &Report) -> Vec<DriverFact> {
    let virtio = &report.virtio;
    let registered = |service: Option<&String>| {
        let copied =
            virtio.files_copied.iter().find(|copied| service.is_some() && copied.file.service.as_ref() == service);
        copied.and_then(|copied| hex::decode_array(&copied.file.sha256).map(Sha256Sum))
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
            // A script that is uploaded, too, is held by the document all the same.
            let is_made = content.media_path().is_none() && content.host_name().is_none();
            let saved = || Ok::<_, Error>(SavedFile { sha256, size: content.size(), content: saved_content(content)? });
            match files.entry(sha256) {
                Entry::Vacant(place) => drop(place.insert(saved()?)),
                Entry::Occupied(mut place) if is_made => drop(place.insert(saved()?)),
                Entry::Occupied(_) => {}
            }
        }
    }
    Ok(files.into_values().collect())
}

fn saved_content(content: &Content) -> Result<SavedFileContent> {
    if let Some(path) = content.media_path() {
        return Ok(SavedFileContent::Media(path.trim_start_matches('/').to_owned()));
    }
    if let Some(name) = content.host_name() {
        return Ok(SavedFileContent::Host(name.to_owned()));
    }
    let bytes = content.read()?;
    Ok(match std::str::from_utf8(&bytes) {
        Ok(text) => SavedFileContent::Text(text.to_owned()),
        Err(_) => SavedFileContent::Hex(hex::encode(&bytes)),
    })
}
