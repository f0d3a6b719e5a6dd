//! The two disks that are compared, and their volumes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::difference::{Compared, Difference, NotCompared, See, VolumeDifference};
use super::files::{FileComparison, compare_files};
use super::registry::{Guest, compare_registry};
use crate::block;
use crate::cancel::Cancel;
use crate::error::{Error, Kind, Layer, Result};
use crate::job::apply::stage_saved_plan;
use crate::job::disks::options_among;
use crate::job::explain::explain;
use crate::job::look::Files;
use crate::job::report::Report;
use crate::job::request::{InjectRequest, Observer};
use crate::job::saved_plan::SavedPlan;
use crate::job::step::Step;
use crate::ntfs::Replay;
use crate::partition::{BitLockerKeys, Content, Disk, PartitionTable};
use crate::windows::windows_folders;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Files and registry.
    #[default]
    All,
    /// The registry alone.
    Registry,
}

/// How disks are compared.
#[derive(Debug, Clone, Default)]
pub struct CompareOptions {
    /// Files and registry, or the registry alone.
    pub scope: Scope,
    /// Number of the partition to compare, as Linux counts; `None`: all that can be read.
    pub partition: Option<u32>,
    /// Whether an open NTFS log is replayed in memory.
    pub replay: Replay,
    /// Whether files with the same size and time of the last change count as the same, and are not read.
    pub is_quick: bool,
    /// Stops the comparison when another thread requests it.
    pub cancel: Cancel,
}

/// Two images to compare.
#[derive(Debug, Clone)]
pub struct DiffRequest {
    /// Path of the image before the change.
    pub old: PathBuf,
    /// Path of the image after the change.
    pub new: PathBuf,
    /// How both are opened.
    pub options: block::OpenOptions,
    /// What opens their BitLocker volumes.
    pub bitlocker: BitLockerKeys,
    /// What is compared, and how.
    pub compare: CompareOptions,
}

/// Shows `see` what differs between two images. Writes nothing.
///
/// # Errors
/// When an image or a volume cannot be read, [`Kind::NotWindows`] when the registry alone was asked for and there is no
/// Windows on both, and what `see` returns.
pub fn diff_images(request: &DiffRequest, see: &mut See<'_>) -> Result<Compared> {
    let mut compare = || {
        let both = [request.old.as_path(), request.new.as_path()];
        let open = |path: &PathBuf| block::open(path, &options_among(&request.options, path, &both));
        let (old, new) = (open(&request.old)?, open(&request.new)?);
        let read = |disk: &dyn block::Image, path: &PathBuf| {
            let table = request.bitlocker.read_partitions(disk);
            table.map_err(|error| error.path(path.display().to_string()))
        };
        let tables = [read(&*old, &request.old)?, read(&*new, &request.new)?];
        compare_disks([&&*old, &&*new], tables, &request.compare, see)
    };
    compare().map_err(explain)
}

/// Shows `see` what a saved plan changes in the image that it was made for: the plan is applied to a copy on write in
/// memory, verified, and compared with the image. Writes nothing. Of the request counts what counts to
/// [`apply`](crate::job::apply()) it, except for the destination.
///
/// # Errors
/// Those of [`apply`](crate::job::apply()), and those of [`diff_images`].
pub fn diff_with_plan(
    plan: &SavedPlan,
    request: &InjectRequest,
    observer: &dyn Observer,
    options: &CompareOptions,
    see: &mut See<'_>,
) -> Result<Compared> {
    let mut report = Report::of_request(request);
    let mut compare = || {
        let staged = stage_saved_plan(plan, request, observer, &mut report)?;
        observer.step(Step::CompareDisks);
        let (old, new) = (staged.stage.original(), &staged.stage);
        let tables = [request.bitlocker.read_partitions(&old)?, request.bitlocker.read_partitions(new)?];
        compare_disks([&old, new], tables, options, see)
    };
    compare().map_err(explain)
}

fn compare_disks(
    disks: [&dyn Disk; 2],
    tables: [PartitionTable; 2],
    options: &CompareOptions,
    see: &mut See<'_>,
) -> Result<Compared> {
    let tables = &tables.map(|table| table.with_replay(options.replay));
    let mut compared = Compared::default();
    let pairs = pair_volumes(disks, tables, options, &mut compared, see)?;
    for files in pairs.iter().flat_map(|[old, new]| [old, new]) {
        compared.warnings.extend(files.log_warning());
    }
    if options.scope == Scope::All {
        for [old, new] in &pairs {
            let how = FileComparison { is_quick: options.is_quick, cancel: &options.cancel };
            compare_files(old, new, &how, &mut compared, see).map_err(|error| error.path(new.partition().label()))?;
            compared.partitions.push(new.partition().number);
        }
    }
    for [old, new] in &pairs {
        compare_registries(old, new, options, &mut compared, see)
            .map_err(|error| error.path(new.partition().label()))?;
    }
    if options.scope == Scope::Registry && compared.registries.is_empty() {
        return Err(Error::new(
            Kind::NotWindows,
            Layer::Job,
            "cannot compare the registry: no Windows found on both disks",
        )
        .hint("winject inspect IMAGE shows what an image holds; without --reg the files of the volumes are compared"));
    }
    Ok(compared)
}

/// The volumes that are compared, the old one first.
fn pair_volumes<'d>(
    disks: [&'d dyn Disk; 2],
    tables: &[PartitionTable; 2],
    options: &CompareOptions,
    compared: &mut Compared,
    see: &mut See<'_>,
) -> Result<Vec<[Files<'d>; 2]>> {
    let [old, new] = tables;
    let numbers: BTreeSet<u32> = match options.partition {
        Some(number) => old.partition(number).and(new.partition(number)).map(|_| BTreeSet::from([number]))?,
        None => tables.iter().flat_map(|table| &table.partitions).map(|partition| partition.number).collect(),
    };
    let mut pairs = Vec::new();
    for number in numbers {
        let partitions = [old, new].map(|table| table.partitions.iter().find(|partition| partition.number == number));
        let [before, after] = partitions.map(|partition| partition.map(|partition| partition.content));
        let mut locked = partitions.into_iter().flatten().filter(|partition| partition.content == Content::BitLocker);
        if let Some(refusal) = locked.find_map(|partition| partition.refusal()) {
            return Err(refusal);
        }
        match (partitions, before) {
            ([Some(old), Some(new)], Some(content)) if before == after => match content {
                Content::Ntfs | Content::Fat => {
                    let open = |disk, partition| Files::open(disk, Vec::new(), partition);
                    let [old_disk, new_disk] = disks;
                    pairs.push([open(old_disk, old)?, open(new_disk, new)?]);
                }
                _ => compared.not_compared.push(NotCompared { partition: number, content }),
            },
            _ => {
                let difference = Difference::Volume(VolumeDifference { partition: number, old: before, new: after });
                compared.count(&difference);
                see(&difference)?;
            }
        }
    }
    if options.partition.is_some() && pairs.is_empty() && compared.volumes == 0 {
        return Err(Error::unsupported(Layer::Job, "cannot compare the partitions: neither NTFS nor FAT volumes")
            .hint("winject inspect IMAGE shows what an image holds"));
    }
    Ok(pairs)
}

fn compare_registries(
    old: &Files<'_>,
    new: &Files<'_>,
    options: &CompareOptions,
    compared: &mut Compared,
    see: &mut See<'_>,
) -> Result<()> {
    let (Some(before), Some(after)) = (old.ntfs(), new.ntfs()) else { return Ok(()) };
    let number = new.partition().number;
    match (windows_folders(before)?.as_slice(), windows_folders(after)?.as_slice()) {
        ([], []) => {}
        ([old], [new]) => {
            let (old, new) = (Guest { volume: before, folder: old }, Guest { volume: after, folder: new });
            compare_registry(&old, &new, &options.cancel, &mut |difference| {
                compared.count(difference);
                see(difference)
            })?;
            compared.registries.push(number);
        }
        _ => {
            let label = new.partition().label();
            compared.warnings.push(format!("{label}: the registry is not compared: not one Windows on either disk"));
        }
    }
    Ok(())
}
