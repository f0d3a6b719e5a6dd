//! Registry hives inside an image: reading and editing them as a job of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::explain::explain;
use super::hive_name::HiveName;
use super::locate::{Installation, locate, search_folders};
use super::log_replay::LogReplayRecord;
use super::log_replay::unreplayed;
use super::outputs::{add_output, check_destination, refuse_misnamed_overlay};
use super::recover::recover_first;
use super::request::{Destination, Observer, StateOverrides};
use super::step::Step;
use super::volume_check::{SKIPPED, VolumeChecked, check_volume, observe_check};
use super::write_stage::{commit_stage, convert_stage};
use crate::block::commit::{CommitOptions, Recovery};
use crate::block::convert::ConvertOptions;
use crate::block::{self, Stage, StageOptions};
use crate::cancel::Cancel;
use crate::clock::FileTime;
use crate::error::{DEFECT_HINT, Error, ErrorCode, Kind, Layer, Result};
use crate::escape::shell_argument;
use crate::hive::check::{Severity, check};
use crate::hive::reader::Reader;
use crate::hive::reg_file::{Applied, Import, ImportChange, KeyPath, Parser, RegEntry, SeeChange};
use crate::hive::{Hive, HiveFile, Replay};
use crate::host::RunFiles;
use crate::io::{VolumeRead, VolumeWrite};
use crate::ntfs::{OpenOptions, Overlaid, Volume};
use crate::partition::{BitLockerKeys, Partition, PartitionView};
use crate::plan;
use crate::windows::load_hive_file;

/// The image whose hives are read or edited, and how.
#[derive(Debug, Clone)]
pub struct HiveRequest {
    /// Path of the image.
    pub image: PathBuf,
    /// How the image is opened: format, disk of an OVA, files that it may refer to.
    pub options: block::OpenOptions,
    /// Number of the partition with Windows; needed when there are several installations.
    pub partition: Option<u32>,
    /// What opens a BitLocker volume, apart from its clear key.
    pub bitlocker: BitLockerKeys,
    /// Of a dry run: where the run would write. What a run refuses about it is refused, too.
    pub rehearsed: Option<Destination>,
    /// Whether an existing output file is replaced.
    pub overwrite_output: bool,
    /// Whether an edit in place keeps what it overwrites, so that [`undo`](super::undo()) can take it back.
    pub keep_undo: bool,
    /// Overrides of refusals because of the volume's state.
    pub state: StateOverrides,
    /// Time for everything that is written, so that equal runs write equal bytes.
    pub clock: FileTime,
    /// Leave out the pass over the file records that compares them with the volume's bitmaps before the first edit.
    pub skip_volume_check: bool,
    /// Stops the job when another thread requests it.
    pub cancel: Cancel,
}

/// Outcome of [`import_into_image`] and [`edit_hive`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HiveEdit {
    /// Whether any hive changed; if not, only a new file that was asked for was written.
    pub changed: bool,
    /// What a `.reg` file changed.
    pub applied: Applied,
    /// Logs that were replayed in memory, of the hives that changed.
    pub replays: Vec<Replay>,
    /// What was done about an earlier, interrupted run.
    pub recovery: Recovery,
    /// The replay of the volume's NTFS log, if it was written with the change.
    pub log_replay: Option<LogReplayRecord>,
    /// Warnings of the volume check and of the commit.
    pub warnings: Vec<String>,
    /// The command that takes the edit back, if an undo record was kept.
    pub undo_command: Option<String>,
    /// SHA-256 of the new image in hexadecimal, if it was asked for.
    pub output_sha256: Option<String>,
}

/// Opens a hive of the Windows in an image, its logs replayed in memory, and returns a warning with it if the log of the volume
/// cannot be replayed. Writes nothing.
///
/// # Errors
/// [`Kind::Refused`], [`Kind::Unsupported`], [`Kind::Damaged`] for the image, the volume or the hive;
/// [`Kind::NotWindows`] when the image has no Windows, [`Kind::Usage`] when the Windows has no such hive.
pub fn read_hive(request: &HiveRequest, hive: HiveName) -> Result<(HiveFile, Option<String>)> {
    let read = || {
        let stage = open(request)?;
        let installation = find(request, &stage)?;
        let view = PartitionView::new(&stage, &installation.partition)?;
        let volume = Volume::open_shared(view, &installation.partition.replay, &OpenOptions::read_only())?;
        let warning = unreplayed(&volume, &installation.partition);
        Ok((load(request, &volume, &hive_path(&installation, hive))?, warning))
    };
    read().map_err(explain)
}

/// Edits one hive of the Windows in an image, and writes the image as `destination` says when anything changed.
///
/// # Errors
/// Those of [`read_hive`], of the edit and of the commit; [`Kind::Verify`] when what was staged is not what was edited.
/// Nothing was written then.
pub fn edit_hive(
    request: &HiveRequest,
    hive: HiveName,
    destination: &Destination,
    observer: &dyn Observer,
    edit: &mut dyn FnMut(&mut Hive) -> Result<()>,
) -> Result<HiveEdit> {
    edit_hives(request, destination, observer, &mut |hives| {
        let (path, hive) = hives.get(hive)?;
        edit(hive).map_err(|e| e.path(path))
    })
    .map_err(explain)
}

/// Applies a `.reg` file, whose keys are full paths, to the hives of the Windows in an image: all of it or nothing. The
/// file is parsed as it is read. `see` is told each change with the full path of its key.
///
/// # Errors
/// Those of [`edit_hive`], and [`Kind::Usage`] for a `.reg` file that cannot be read.
pub fn import_into_image(
    request: &HiveRequest,
    file: &mut Parser<'_>,
    destination: &Destination,
    observer: &dyn Observer,
    see: &mut SeeChange<'_>,
) -> Result<HiveEdit> {
    let mut imports: BTreeMap<HiveName, Import> = BTreeMap::new();
    let mut import = |hives: &mut Hives<'_>| {
        let mut current = None;
        while let Some(entry) = file.next_entry()? {
            let name = match (&entry, current) {
                (RegEntry::Key { path, .. }, _) => HiveName::of(path)?.0,
                (RegEntry::Value(..), Some(name)) => name,
                (RegEntry::Value(..), None) => return Err(Error::bug(Layer::Job, "a value without a key")),
            };
            current = Some(name);
            let import = imports.entry(name).or_insert_with(|| Import::new(request.clock));
            let (path, hive) = hives.get(name)?;
            let root = name.root();
            let mut see = |path: &KeyPath, change: ImportChange<'_>| see(&root.concat(path), change);
            let done = match &entry {
                RegEntry::Key { path, delete } => import.key(hive, &HiveName::of(path)?.1, *delete, &mut see),
                RegEntry::Value(name, data) => import.value(hive, name, data.as_ref(), &mut see),
            };
            done.map_err(|e| e.path(path))?;
        }
        Ok(())
    };
    let done = edit_hives(request, destination, observer, &mut import).map_err(explain)?;
    let applied = imports.values().map(Import::applied).fold(Applied::default(), Applied::plus);
    Ok(HiveEdit { applied, ..done })
}

/// Loads a hive by its path, and returns what was replayed from its logs.
type Load<'a> = dyn Fn(&str) -> Result<HiveFile> + 'a;

/// The hives that are being edited, loaded when they are asked for.
struct Hives<'a> {
    installation: &'a Location,
    load: &'a Load<'a>,
    loaded: BTreeMap<HiveName, (String, HiveFile)>,
}

impl Hives<'_> {
    /// A hive and its path on the volume.
    fn get(&mut self, name: HiveName) -> Result<(&str, &mut Hive)> {
        use std::collections::btree_map::Entry;
        let (path, file) = match self.loaded.entry(name) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => {
                let path = hive_path(self.installation, name);
                let file = (self.load)(&path)?;
                place.insert((path, file))
            }
        };
        Ok((path, &mut file.hive))
    }
}

fn edit_hives(
    request: &HiveRequest,
    destination: &Destination,
    observer: &dyn Observer,
    edit: &mut dyn FnMut(&mut Hives<'_>) -> Result<()>,
) -> Result<HiveEdit> {
    let judged = destination.judged(request.rehearsed.as_ref());
    check_output(request, judged)?;
    let policy = &request.options.path_policy;
    let recovery = recover_first(&request.image, policy, destination, &request.cancel, observer)?;
    observer.step(Step::Open);
    let mut stage = open(request)?;
    check_destination(&stage, &request.image, policy, judged, |error| {
        let image = shell_argument(&request.image, "IMAGE");
        let hint = match error.kind() {
            Kind::Unsupported => format!("edit a copy of it: winject convert {image} NEW.qcow2"),
            _ => "-o NEW.qcow2 in place of --in-place writes a new image, and leaves this one as it is".to_owned(),
        };
        error.hint(hint)
    })?;
    observer.step(Step::Inspect);
    let installation = find(request, &stage)?;
    if let Some(refusal) = installation.partition.write_refusal() {
        return Err(refusal);
    }
    observer.step(Step::EditRegistry);
    let mut done = HiveEdit { recovery, warnings: block::use_notes(stage.image()), ..HiveEdit::default() };
    let mut written = Vec::new();
    let original = stage.original();
    let view = PartitionView::new(&mut stage, &installation.partition)?;
    let options = request.state.open_options(request.clock);
    let mut volume = Volume::open_shared(view, &installation.partition.replay, &options)?;
    let mut hives =
        Hives { installation: &installation, load: &|path| load(request, &volume, path), loaded: BTreeMap::default() };
    edit(&mut hives)?;
    let names: Vec<HiveName> = hives.loaded.keys().copied().collect();
    for (path, HiveFile { hive, replay }) in hives.loaded.into_values() {
        if !hive.is_changed() {
            continue;
        }
        done.changed = true;
        done.replays.extend(replay);
        if written.is_empty() {
            let is_skipped = request.skip_volume_check;
            let told = observe_check(observer);
            match check_volume(&original, &installation.partition, &request.state, is_skipped, &told)? {
                VolumeChecked::Passed => {}
                VolumeChecked::Skipped => done.warnings.push(SKIPPED.to_owned()),
            }
            observer.step(Step::Stage);
            done.log_replay = LogReplayRecord::of(&volume, &installation.partition);
            check_before(&volume, &installation, &names, request.state.any())?;
        }
        let bytes = hive.finish(&[]).map_err(|e| e.path(&path))?;
        let file = volume.find(&path)?.ok_or_else(|| Error::bug(Layer::Job, "the hive is gone").path(&path))?;
        volume.overwrite(file, &bytes)?;
        written.push((path, bytes));
    }
    volume.flush()?;
    drop(volume);
    // An output that is asked for is there afterwards, whether or not anything changed.
    if !done.changed && destination.new_file().is_none() {
        return Ok(done);
    }
    observer.step(Step::Verify);
    verify(request, &stage, &installation, &written)?;
    drop(written);
    stage.drop_unchanged()?;
    if let Some((path, options)) = destination.new_image() {
        let overwrite = request.overwrite_output;
        let options =
            ConvertOptions { overwrite, cancel: request.cancel.clone(), nbd: request.options.nbd.clone(), ..options };
        let converted = convert_stage(&stage, path, options, observer)?;
        done.output_sha256 = converted.sha256;
        done.warnings.extend(converted.notes);
        return Ok(done);
    }
    let options = CommitOptions {
        overwrite: request.overwrite_output,
        path_policy: policy.clone(),
        cancel: request.cancel.clone(),
        keep_undo: request.keep_undo,
        ..CommitOptions::default()
    };
    let committed = commit_stage(&mut stage, &request.image, destination, options, observer)?;
    let Some(committed) = committed else { return Ok(done) };
    done.warnings.extend(committed.warnings.into_iter().chain(committed.notes));
    done.undo_command = committed.undo_command;
    Ok(done)
}

/// Refuses an output that cannot be written, before any work is done.
fn check_output(request: &HiveRequest, destination: &Destination) -> Result<()> {
    let mut files = RunFiles::default();
    files.add_input("the input image", &request.image);
    add_output(&mut files, destination, [request.image.as_path()], request.overwrite_output)?;
    refuse_misnamed_overlay(destination)
}

pub(super) fn open(request: &HiveRequest) -> Result<Stage> {
    Ok(Stage::new(block::open(&request.image, &request.options)?, StageOptions::default()))
}

/// Where the hives are: partition and folder.
pub(super) struct Location {
    pub(super) partition: Partition,
    /// Path of the folder on the volume: `/Windows/System32/config`.
    config_dir: String,
}

pub(super) fn find(request: &HiveRequest, stage: &Stage) -> Result<Location> {
    let read = request.bitlocker.read_partitions(stage);
    let table = read.map_err(|error| error.path(request.image.display().to_string()))?;
    let mut table = table.with_replay(request.state.replay());
    match locate(stage, &table, request.partition) {
        Ok((Installation { partition, guest }, _)) => Ok(Location { partition, config_dir: guest.config_dir() }),
        // What prevents the inspection of the guest (a wrong Select, say) may be just what is to be repaired.
        Err(error) if matches!(error.kind(), Kind::Damaged | Kind::NotWindows) => {
            table.partitions.retain(|partition| request.partition.is_none_or(|number| number == partition.number));
            let mut places = Vec::new();
            for (partition, folders) in search_folders(stage, &table).found {
                places.extend(folders.iter().map(|folder| Location {
                    partition: partition.clone(),
                    config_dir: format!("{folder}/System32/config"),
                }));
            }
            places.pop().filter(|_| places.is_empty()).ok_or(error)
        }
        Err(error) => Err(error),
    }
}

pub(super) fn hive_path(location: &Location, hive: HiveName) -> String {
    format!("{}/{}", location.config_dir, hive.file())
}

fn load<D: VolumeRead>(request: &HiveRequest, volume: &Volume<D>, path: &str) -> Result<HiveFile> {
    load_hive_file(volume, path)?.ok_or_else(|| no_hive_file(request, path))
}

/// A hive that this Windows does not have: its keys are missing keys.
pub(super) fn no_hive_file(request: &HiveRequest, path: &str) -> Error {
    let folder = path.rsplit_once('/').map_or("/", |(folder, _)| folder);
    let (image, folder) = (shell_argument(&request.image, "IMAGE"), shell_argument(Path::new(folder), "PATH"));
    Error::new(Kind::Usage, Layer::Job, "no such key: this Windows does not have the hive file")
        .with_code(ErrorCode::NoSuchKey)
        .path(path)
        .hint(format!("this shows the hives that it has: winject ls {image} {folder}"))
}

/// Reads the hives back from the staged disk, through readers that share no code with the writers.
fn verify(request: &HiveRequest, stage: &Stage, installation: &Location, written: &[(String, Vec<u8>)]) -> Result<()> {
    let view = PartitionView::new(stage, &installation.partition)?;
    view.check_metadata()?;
    plan::verify_files(&view, written, request.state.any()).map_err(|error| {
        let before = PartitionView::new(stage.image(), &installation.partition);
        let before = before.and_then(|before| Overlaid::open_shared(before, &installation.partition.replay));
        before.map_or_else(|error| error, |before| plan::blame(&before, request.state.any(), error))
    })?;
    for (path, bytes) in written {
        if check(bytes).iter().any(|fault| fault.severity() == Severity::Error) {
            return Err(Error::new(Kind::Verify, Layer::Job, "the staged hive differs from what was to be written")
                .path(path)
                .hint(DEFECT_HINT));
        }
        Reader::open(bytes)?.walk(&mut |_, node| node.values().map(drop))?;
    }
    Ok(())
}

/// Checks what [`verify`] will check on the untouched volume, so that existing damage is not taken for a fault of the edit.
fn check_before<D: VolumeWrite>(
    volume: &Volume<D>,
    installation: &Location,
    hives: &[HiveName],
    is_marked: bool,
) -> Result<()> {
    let mut paths = Vec::new();
    for &name in hives {
        let path = hive_path(installation, name);
        if volume.find(&path)?.is_some() {
            paths.push(path);
        }
    }
    plan::check_files_before(volume.device(), &paths, is_marked)
        .map_err(|error| error.path(installation.partition.label()))
}
