//! Sound volumes must not be accused: made by Windows, by mkntfs in every geometry, by ntfs-3g, and by ourselves.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use winject::internals::clock::FileTime;
use winject::internals::error::{Error, Layer, Result};
use winject::internals::io::{MemoryVolume, VolumeRead};
use winject::internals::ntfs::check::{CheckOptions, CheckReport, Code, check, check_touched};
use winject::internals::ntfs::{CreateOptions, OpenOptions, Overlaid, RecordNumber, Replay, Volume};
use winject::internals::units::VolumeOffset;

use super::surgeon::{Surgeon, fixture};
use crate::support::{corpus, corpus_bytes, program, root};

/// A volume in a file, which counts what is read.
struct FileVolume {
    file: File,
    start: u64,
    length: u64,
    read: AtomicU64,
}

impl FileVolume {
    fn open(path: &Path, start: u64) -> Self {
        let file = File::open(path).unwrap();
        let length = file.metadata().unwrap().len() - start;
        Self { file, start, length, read: AtomicU64::new(0) }
    }
}

impl VolumeRead for FileVolume {
    fn len(&self) -> u64 {
        self.length
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.file.read_exact_at(buf, self.start + offset.0).map_err(|e| Error::io(Layer::Host, "read", e))
    }
}

fn options() -> CheckOptions {
    CheckOptions::default()
}

fn assert_clean(what: &str, report: &CheckReport) {
    assert!(report.is_clean(), "{what} is accused:\n{report}");
}

/// Unpacks a gz file into a sparse one.
fn unpack(path: &Path, to: &Path) {
    let mut from = flate2::read::GzDecoder::new(File::open(path).unwrap());
    let mut out = File::create(to).unwrap();
    let (mut block, mut length) = (vec![0; 1 << 16], 0u64);
    loop {
        let mut filled = 0;
        while filled < block.len() {
            match from.read(&mut block[filled..]).unwrap() {
                0 => break,
                n => filled += n,
            }
        }
        if block[..filled].iter().any(|&b| b != 0) {
            out.seek(SeekFrom::Start(length)).unwrap();
            out.write_all(&block[..filled]).unwrap();
        }
        length += filled as u64;
        if filled < block.len() {
            break;
        }
    }
    out.set_len(length).unwrap();
}

fn volumes_formatted_by_windows() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ntfs-2m.raw.gz", "ntfs-ptrn.raw.gz", "ntfs-lastaccess.raw.gz"] {
        let Some(path) = corpus(&format!("ntfs/{name}")) else { return };
        let raw = folder.path().join("volume");
        unpack(&path, &raw);
        let report = check(&FileVolume::open(&raw, 65536), &options()).unwrap();
        assert_clean(name, &report);
        assert!(report.stats.entries > 20, "{name}: {:?}", report.stats);
    }
    let Some(bytes) = corpus_bytes("ntfs/dfvfs-ntfs.raw.xz") else { return };
    assert_clean("dfvfs-ntfs", &check(&MemoryVolume(bytes), &options()).unwrap());
}

fn an_open_log_is_the_only_fault_of_the_unclean_volume_and_is_closed_by_its_replay() {
    let Some(bytes) = corpus_bytes("ntfs/tiny-unclean-log.raw.xz") else { return };
    let report = check(&MemoryVolume(bytes.clone()), &options()).unwrap();
    assert_eq!((report.errors, report.has(Code::Log)), (1, true), "{report}");
    let without_replay = OpenOptions { replay: Replay::Never, ..OpenOptions::new(FileTime(1 << 56)) };
    let error = Volume::open(MemoryVolume(bytes.clone()), &without_replay).unwrap_err();
    assert!(
        error.to_string().contains("unclean") && error.hint_text().unwrap().contains("shutdown /s /t 0"),
        "{error}"
    );
    let replayed = Overlaid::open(MemoryVolume(bytes), Replay::WhereOpen).unwrap();
    assert!(replayed.replay().is_some(), "{:?}", replayed.replay_failure());
    assert_clean("replayed", &check(&replayed, &options()).unwrap());
}

/// Formats, fills through ntfs-3g where it can be mounted, and checks before and after.
fn geometry(folder: &Path, cluster: u32, sector: u32) {
    let image = folder.join(format!("c{cluster}s{sector}"));
    let size = if cluster > 65536 { 1 << 30 } else { 48 << 20 };
    File::create(&image).unwrap().set_len(size).unwrap();
    let Some(mkntfs) = program("mkntfs") else { return };
    let output = Command::new(mkntfs)
        .args(["-qFQ", "-p", "0", "-H", "0", "-S", "0", "-c", &cluster.to_string(), "-s", &sector.to_string()])
        .arg(&image)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let what = format!("clusters of {cluster}, sectors of {sector}");
    assert_clean(&what, &check(&FileVolume::open(&image, 0), &options()).unwrap());
    let (mount, Some(ntfs_3g)) = (folder.join("mount"), program("ntfs-3g")) else { return };
    std::fs::create_dir_all(&mount).unwrap();
    if !Command::new(ntfs_3g).arg(&image).arg(&mount).output().unwrap().status.success() {
        // no rights to mount: the volume as formatted has been checked
        std::fs::remove_file(image).unwrap();
        return;
    }
    std::fs::create_dir(mount.join("d")).unwrap();
    for n in 0..150 {
        let name = mount.join(format!("d/a file whose name is rather long, number {n}"));
        std::fs::write(name, vec![b'x'; n * 37]).unwrap();
    }
    for n in (0..150).step_by(3) {
        std::fs::remove_file(mount.join(format!("d/a file whose name is rather long, number {n}"))).unwrap();
    }
    assert!(Command::new("fusermount").arg("-u").arg(&mount).status().unwrap().success());
    let report = check(&FileVolume::open(&image, 0), &options()).unwrap();
    assert_clean(&format!("{what}, written by ntfs-3g"), &report);
    assert!(report.stats.entries > 100);
    std::fs::remove_file(image).unwrap();
}

fn every_geometry_of_mkntfs() {
    let folder = tempfile::tempdir().unwrap();
    for sector in [512u32, 4096] {
        for cluster in [512u32, 1024, 2048, 4096, 8192, 65536, 1 << 20, 2 << 20] {
            if cluster >= sector {
                geometry(folder.path(), cluster, sector);
            }
        }
    }
}

/// Our own edits of the fixture: the records that they touched.
fn edited() -> (MemoryVolume, Vec<RecordNumber>) {
    let mut volume =
        Volume::open(MemoryVolume(fixture()), &OpenOptions::new(FileTime(132_000_000_000_000_000))).unwrap();
    let dir = volume.create_dir_all("/hyper2kvm/drivers", &CreateOptions::default()).unwrap();
    let mut touched = vec![RecordNumber(0), RecordNumber::BITMAP, dir.record];
    for n in 0..60u8 {
        let name = format!("driver file number {n}.sys");
        let file = volume.create_file(dir, &name, &vec![n; usize::from(n) * 100], &CreateOptions::default()).unwrap();
        touched.push(file.record);
    }
    touched.push(
        volume.replace_file("/Windows/System32/config/SYSTEM", &[7; 50_000], &CreateOptions::default()).unwrap().record,
    );
    volume.flush().unwrap();
    (volume.into_device(), touched)
}

fn touched_records_are_checked_alone() {
    let (volume, touched) = edited();
    assert_clean("the whole", &check(&volume, &options()).unwrap());
    let report = check_touched(&volume, &touched, &options()).unwrap();
    assert_clean("what was touched", &report);
    assert!(report.stats.records < 120, "only what was touched is read: {:?}", report.stats);

    let file = touched[10].0;
    type Make = fn(&mut Surgeon, u64);
    let defects: [(Code, Make); 5] = [
        (Code::LinkCount, |s, n| s.set(n, winject::internals::ntfs::record::header::LINKS, 3)),
        (Code::MftBitmap, |s, n| s.flip(0, winject::internals::ntfs::attribute::AttributeType::BITMAP, "", n)),
        (Code::BadClustersAndMirror, |s, _| {
            let at = usize::try_from(s.geometry.mirror.0 * 4096).unwrap();
            s.bytes[at + 0x60] ^= 1;
        }),
        (Code::ClusterBitmap, |s, n| {
            let kind = winject::internals::ntfs::attribute::AttributeType::DATA;
            let lcn = s.runs(n, kind, "").runs()[0].lcn.unwrap().0;
            s.flip(6, kind, "", lcn);
        }),
        (Code::OrphanName, |s, _| {
            let dir = s.named("drivers");
            let vcn = s.blocks(dir, "$I30")[0];
            let at = s.entries(dir, "$I30", vcn)[0];
            s.remove_entry(dir, "$I30", vcn, at);
        }),
    ];
    let large = touched[touched.len() - 2].0;
    for (code, make) in defects {
        let mut surgeon = Surgeon::open(volume.0.clone());
        make(&mut surgeon, if code == Code::ClusterBitmap { large } else { file });
        let report = check_touched(&MemoryVolume(surgeon.bytes), &touched, &options()).unwrap();
        assert!(report.has(code), "{code} is not seen:\n{report}");
    }
}

fn fsck_on_the_command_line() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_winject")).arg("fsck").args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let image = root().join("test-images/win10.qcow2");
    let (code, text) = run(&[image.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run(&[image.to_str().unwrap(), "--json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, report["volumes"][0]["clean"].as_bool()), (Some(0), Some(true)));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.raw");
    let mut surgeon = Surgeon::open(fixture());
    let number = surgeon.named("SYSTEM");
    surgeon.set(number, winject::internals::ntfs::record::header::LINKS, 3);
    std::fs::write(&path, &surgeon.bytes).unwrap();
    let (code, text) = run(&[path.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(text.contains("error[B16]: /Windows/System32/config/SYSTEM (record "), "{text}");
    std::fs::write(&path, vec![0; 4096]).unwrap();
    assert_eq!(run(&[path.to_str().unwrap()]).0, Some(4));
}

fn fsck_looks_at_every_volume_of_a_disk() {
    const SECTOR: usize = 512;
    let volume = fixture();
    let mut broken = Surgeon::open(volume.clone());
    let number = broken.named("SYSTEM");
    broken.set(number, winject::internals::ntfs::record::header::LINKS, 3);
    let sectors = volume.len() / SECTOR;
    let starts = [2048, 4096 + sectors];
    // offsets are those in the image
    let at = starts[1] * SECTOR + broken.record_at(number);
    let mut disk = vec![0; (starts[1] + sectors) * SECTOR];
    for (slot, (start, bytes)) in starts.into_iter().zip([&volume, &broken.bytes]).enumerate() {
        let entry = &mut disk[446 + 16 * slot..462 + 16 * slot];
        entry[4] = 7;
        entry[8..12].copy_from_slice(&u32::try_from(start).unwrap().to_le_bytes());
        entry[12..16].copy_from_slice(&u32::try_from(sectors).unwrap().to_le_bytes());
        disk[start * SECTOR..start * SECTOR + bytes.len()].copy_from_slice(bytes);
    }
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.raw");
    std::fs::write(&path, &disk).unwrap();
    let run = |arguments: &[&str]| {
        let command = Command::new(env!("CARGO_BIN_EXE_winject")).arg("fsck").arg(&path).args(arguments).output();
        let output = command.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = run(&[]);
    let fault = format!(
        "error[B16]: /Windows/System32/config/SYSTEM (record {number}, at {at:#x}): the link count is not the number of \
         names: expected 1, found 3"
    );
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&fault), "{text}");
    assert_eq!(text.matches("1 errors, 0 minor").count(), 1, "{text}");
    assert_eq!(text.matches("0 errors, 0 minor").count(), 1, "{text}");
    assert_eq!(run(&["--partition", "1"]).0, Some(0));
    assert_eq!(run(&["--partition", "2"]).0, Some(1));
    let (_, text) = run(&["--json"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let fault = &report["volumes"][1]["faults"][0];
    assert_eq!(report["volumes"][0]["clean"], true);
    assert_eq!((fault["code"].as_str(), fault["severity"].as_str()), (Some("B16"), Some("error")));
    assert_eq!(
        (fault["path"].as_str(), fault["offset"].as_u64()),
        (Some("/Windows/System32/config/SYSTEM"), Some(at as u64))
    );
    assert_eq!((fault["expected"].as_str(), fault["found"].as_str()), (Some("1"), Some("3")));
}

tests![
    volumes_formatted_by_windows,
    an_open_log_is_the_only_fault_of_the_unclean_volume_and_is_closed_by_its_replay,
    every_geometry_of_mkntfs,
    touched_records_are_checked_alone,
    fsck_on_the_command_line,
    fsck_looks_at_every_volume_of_a_disk,
];
