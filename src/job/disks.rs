//! The disks of one virtual machine, opened: the one with Windows as a stage, the others to be read only.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::report::{DiskFile, Report};
use super::request::{Destination, InjectRequest};
use crate::block::{self, Image, Stage, StageOptions, is_same_image};
use crate::error::{Error, Kind, Layer, Result};
use crate::host::is_nbd_name;
use crate::nbd::NbdOptions;
use crate::partition::{Partition, PartitionTable};
use crate::plan::saved::{DiskFacts, OtherDiskFacts, ReadSet, disk_facts};
use crate::windows::{BootDisks, VmDisk};

/// Size of the stage's read cache, in bytes of decompressed image data.
const READ_CACHE_BYTES: u64 = 32 << 20;
/// The same for a disk of which only the boot files are read.
const OTHER_READ_CACHE_BYTES: u64 = 4 << 20;

/// The disks of a request.
#[derive(Debug)]
pub(super) struct OpenedDisks {
    /// The disk with Windows.
    pub(super) stage: Stage,
    pub(super) others: Vec<OtherDisk>,
}

/// A disk of the machine that does not hold its Windows. It is read, and never written.
#[derive(Debug)]
pub(super) struct OtherDisk {
    pub(super) path: PathBuf,
    /// What findings call it.
    name: String,
    /// Nothing is written to it; it records what is read.
    pub(super) stage: Stage,
    pub(super) table: PartitionTable,
    /// Why its partition table cannot be read, if it has a damaged one: `table` has no partitions then.
    fault: Option<String>,
}

impl OtherDisk {
    /// Opens a disk, and records what is read of it from then on. A disk without partitions is noted in the report.
    ///
    /// # Errors
    /// When it cannot be opened or read, is in use or half written by an interrupted run.
    pub(super) fn open(request: &InjectRequest, path: &Path, report: &mut Report) -> Result<Self> {
        let mut stage = open_briefly(request, path)?;
        stage.record_reads();
        let name = disk_name(request, path);
        let read = read_table(request, &stage, &name, report);
        let (table, fault) = read.map_err(|error| error.path(path.display().to_string()))?;
        Ok(Self { path: path.to_owned(), name, stage, table, fault })
    }

    /// The facts by which a saved plan recognises it.
    pub(super) fn facts(&self) -> Result<DiskFacts> {
        disk_facts(&self.stage.original(), &self.table)
    }

    /// What a saved plan says of it: its facts, and what was read of it so far.
    pub(super) fn into_facts(mut self) -> Result<OtherDiskFacts> {
        let log = self.stage.take_reads();
        let original = self.stage.original();
        Ok(OtherDiskFacts {
            name: name_in_plan(&self.path).map(str::to_owned),
            disk: self.facts()?,
            reads: ReadSet::of(log, &[], &original)?,
        })
    }

    /// How it differs from the disk of a saved plan; empty if it does not.
    pub(super) fn compare(&self, planned: &OtherDiskFacts) -> Result<Vec<String>> {
        let original = self.stage.original();
        let differences = planned.disk.compare(&self.facts()?, &self.name);
        let is_changed = differences.is_empty() && !planned.reads.is_unchanged(&original)?;
        let changed = is_changed.then(|| format!("{} has changed where it was read for the plan", self.name));
        Ok(differences.into_iter().chain(changed).collect())
    }

    /// Bytes read from its files.
    pub(super) fn bytes_read(&self) -> u64 {
        self.stage.image().bytes_read()
    }

    fn as_vm_disk(&self) -> VmDisk<'_> {
        VmDisk { disk: &self.stage, table: &self.table, name: &self.name }
    }
}

/// Opens the disk of this path as a request says, to be inspected and edited.
pub(super) fn open_disk(request: &InjectRequest, path: &Path) -> Result<Stage> {
    open_cached(request, path, READ_CACHE_BYTES)
}

/// The same for a disk of which little is read.
pub(super) fn open_briefly(request: &InjectRequest, path: &Path) -> Result<Stage> {
    open_cached(request, path, OTHER_READ_CACHE_BYTES)
}

fn open_cached(request: &InjectRequest, path: &Path, read_cache_bytes: u64) -> Result<Stage> {
    // Inspection, the edit and the verification read the same hives.
    let stage_options = StageOptions { read_cache_bytes, ..StageOptions::default() }.within(request.memory);
    let disks: Vec<&Path> = request.all_disks().map(PathBuf::as_path).collect();
    let options = options_among(&block_options(request), path, &disks);
    Ok(Stage::new(block::open(path, &options)?, stage_options))
}

/// The host's files of the image, with those that it names. Opens the image without reading the guest.
///
/// # Errors
/// Those of opening the image.
pub fn image_files(image: &Path, options: &block::OpenOptions) -> Result<Vec<PathBuf>> {
    Ok(block::open(image, options)?.files())
}

/// How one of several disks is opened: the choice of a disk is for the OVA among them.
pub(super) fn options_among(options: &block::OpenOptions, path: &Path, disks: &[&Path]) -> block::OpenOptions {
    let mut options = options.clone();
    if options.disk.is_some() && !block::is_ova(path) && disks.iter().any(|disk| block::is_ova(disk)) {
        options.disk = None;
    }
    options
}

/// How the disks of a request are opened.
pub(super) fn block_options(request: &InjectRequest) -> block::OpenOptions {
    let path_policy = request.path_policy.clone();
    let disk = request.disk.clone();
    block::OpenOptions {
        format: request.format,
        path_policy,
        disk,
        nbd: NbdOptions {
            cancel: request.cancel.clone(),
            is_edited: request.destination == Destination::InPlace,
            ..request.nbd.clone()
        },
        ..block::OpenOptions::default()
    }
}

/// Opens the other disks of a request, and adds what is to be said of them to the report.
///
/// # Errors
/// When one cannot be opened, is in use or half written by an interrupted run; [`Kind::Usage`] when one is a file of
/// another one.
pub(super) fn open_others(request: &InjectRequest, windows: &Stage, report: &mut Report) -> Result<Vec<OtherDisk>> {
    let mut others: Vec<OtherDisk> = Vec::new();
    for path in &request.other_disks {
        request.cancel.check()?;
        let disk = OtherDisk::open(request, path, report)?;
        let image = disk.stage.image();
        let known = others.iter().map(|other| (other.path.as_path(), other.stage.image()));
        for (other, known) in std::iter::once((request.image.as_path(), windows.image())).chain(known) {
            refuse_one_chain((other, known), (path, image))?;
        }
        report.image_files.extend(image.files());
        report.disk_files.push(disk_file(request, path, &disk.stage));
        report.virtio.warnings.extend(block::use_notes(image));
        others.push(disk);
    }
    Ok(others)
}

/// The partition table of a disk on which there need not be anything: a disk without one has no partitions to look at. One
/// with a damaged table has none that can be read, for the reason that is returned, too.
fn read_table(
    request: &InjectRequest,
    stage: &Stage,
    name: &str,
    report: &mut Report,
) -> Result<(PartitionTable, Option<String>)> {
    let error = match request.bitlocker.read_partitions(stage) {
        Ok(table) => {
            report.virtio.warnings.extend(table.warnings.iter().map(|warning| format!("{name}: {warning}")));
            return Ok((table.with_replay(request.state.replay()), None));
        }
        Err(error) => error,
    };
    let fault = match error.kind() {
        Kind::Unsupported => {
            report.virtio.notes.push(format!("{name} has no partitions: {error}"));
            None
        }
        Kind::Damaged => {
            report.virtio.warnings.push(format!("the partitions of {name} were not looked at: {error}"));
            Some(error.to_string())
        }
        _ => return Err(error),
    };
    Ok((PartitionTable::empty(), fault))
}

/// Refuses two disks of which one is a file of the other: its backing file or its data file, or the other way round.
pub(super) fn refuse_one_chain(one: (&Path, &dyn Image), other: (&Path, &dyn Image)) -> Result<()> {
    let holds = |(_, image): (&Path, &dyn Image), (path, inner): (&Path, &dyn Image)| {
        let files = image.files();
        let data_file = inner.parts().and_then(|parts| parts.data_file).map(|(_, path)| path);
        let mut written = std::iter::once(path).chain(data_file);
        written.any(|path| files.iter().any(|file| is_same_image(file, path)))
    };
    if !holds(one, other) && !holds(other, one) {
        return Ok(());
    }
    let (one, other) = (one.0.display(), other.0.display());
    Err(Error::new(Kind::Usage, Layer::Job, "cannot use two disks: one is a file of the other")
        .path(format!("{one}, {other}"))
        .hint("name each disk of the machine once, by the file that the machine uses"))
}

/// A disk as the report knows it.
pub(super) fn disk_file(request: &InjectRequest, path: &Path, stage: &Stage) -> DiskFile {
    DiskFile { path: path.to_owned(), name: disk_name(request, path), format: stage.image().format() }
}

/// What a saved plan calls a disk: the name of its file, without its folder. An NBD export has none: it is not looked for in a
/// folder.
pub(super) fn name_in_plan(path: &Path) -> Option<&str> {
    path.file_name().and_then(OsStr::to_str).filter(|_| !is_nbd_name(path))
}

/// What findings call a disk: the name of its file, with as many of its folders as other disks with the same name need;
/// an NBD export by its URI.
pub(super) fn disk_name(request: &InjectRequest, path: &Path) -> String {
    let all = request.all_disks();
    let others: Vec<&PathBuf> = all.filter(|other| *other != path).collect();
    if is_nbd_name(path) {
        return path.display().to_string();
    }
    let mut name = PathBuf::new();
    for part in path.components().rev() {
        name = Path::new(&part).join(&name).components().collect();
        if !others.iter().any(|other| other.ends_with(&name)) {
            return name.display().to_string();
        }
    }
    let folder = if path.is_absolute() { "" } else { "./" };
    format!("{folder}{}", path.display())
}

/// Adds to an error of a partition or volume on which of several disks it is.
pub(super) fn on_disk(request: &InjectRequest, error: Error) -> Error {
    if request.other_disks.is_empty() {
        return error;
    }
    let error = error.within(request.image.display());
    if error.kind() != Kind::NotWindows || request.partition.is_some() {
        return error;
    }
    // Not the hint of a disk that is the only one.
    Error::new(Kind::NotWindows, Layer::Job, error.to_string())
        .hint("name the disk that Windows is installed on: --windows-disk DISK; for convert, as the first of its disks")
}

/// The disks for the boot check. `windows` is the disk with Windows, in whatever state.
pub(super) fn with_boot_disks<T>(
    windows: VmDisk<'_>,
    partition: &Partition,
    others: &[OtherDisk],
    check: impl FnOnce(&BootDisks<'_>) -> T,
) -> T {
    let unread = others.iter().filter_map(|other| Some(format!("{} ({})", other.name, other.fault.as_ref()?)));
    let unread: Vec<String> = unread.collect();
    let others: Vec<VmDisk<'_>> = others.iter().map(OtherDisk::as_vm_disk).collect();
    check(&BootDisks { windows, partition, others: &others, unread: &unread, planned: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FileTime;

    #[test]
    fn disks_have_different_names_wherever_they_lie() {
        let names = |paths: &[&str]| -> Vec<String> {
            let mut paths = paths.iter().map(PathBuf::from);
            let image = paths.next().unwrap();
            let mut request = InjectRequest::new(image, Vec::new(), Destination::DryRun, FileTime(0));
            request.other_disks = paths.collect();
            let all = request.all_disks();
            all.map(|path| disk_name(&request, path)).collect()
        };
        assert_eq!(names(&["/vm/a.raw", "/vm/b.raw"]), ["a.raw", "b.raw"]);
        assert_eq!(names(&["/vm/1/d.raw", "/vm/2/d.raw", "/vm/e.raw"]), ["1/d.raw", "2/d.raw", "e.raw"]);
        assert_eq!(names(&["/vm/1/x/d.raw", "/vm/2/x/d.raw"]), ["1/x/d.raw", "2/x/d.raw"]);
        assert_eq!(names(&["d.raw", "x/d.raw"]), ["./d.raw", "x/d.raw"]);
        assert_eq!(names(&["/d.raw", "/x/d.raw"]), ["/d.raw", "x/d.raw"]);
        assert_eq!(names(&["nbd://h/d.raw", "d.raw"]), ["nbd://h/d.raw", "./d.raw"]);
    }

    #[test]
    fn a_plan_does_not_name_an_export_by_the_end_of_its_uri() {
        assert_eq!(name_in_plan(Path::new("/vm/d.raw")), Some("d.raw"));
        assert_eq!(name_in_plan(Path::new("nbd://h/d.raw")), None);
        assert_eq!(name_in_plan(Path::new("nbd+unix:///?socket=/run/s")), None);
    }
}
