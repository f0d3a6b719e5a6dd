//! Guests in other states and on other disks: hibernated, dirty, several installations, no partition table.

use super::{copy, disk_sha256, fixture_drivers, folder, sha256, stderr, stdout, succeed, winject, writable_fixture};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use winject::internals::block::{self, Format, Stage, StageOptions, commit};
use winject::internals::clock::FileTime;
use winject::internals::field::Field;
use winject::internals::hive::Hive;
use winject::internals::io::{VolumeRead, VolumeWrite};
use winject::internals::ntfs::attribute::AttributeType;
use winject::internals::ntfs::boot::Geometry;
use winject::internals::ntfs::fixup;
use winject::internals::ntfs::record::Record;
use winject::internals::ntfs::{CreateOptions, OpenOptions, Volume};
use winject::internals::partition::{Partition, PartitionView, read};
use winject::internals::units::{ImageOffset, VolumeOffset};

fn inject(image: &Path, more: &[&str]) -> Command {
    let mut command = winject();
    command.arg("inject").arg(image).arg("--drivers").arg(fixture_drivers()).arg("--in-place").args(more);
    command
}

fn refused(image: &Path, more: &[&str], words: &[&str]) -> Output {
    let before = sha256(image);
    let output = inject(image, more).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}`: {text}");
    }
    assert_eq!(before, sha256(image));
    output
}

/// Puts a file into the root of the fixture's Windows volume.
pub fn put(image: &Path, path: &str, data: &[u8]) {
    let mut stage = Stage::new(block::open(image, &block::OpenOptions::default()).unwrap(), StageOptions::default());
    let partition = windows_partition(&stage);
    let clock = FileTime::from_unix_seconds(1_600_000_000).unwrap();
    let view = PartitionView::new(&mut stage, &partition).unwrap();
    let mut volume = Volume::open(view, &OpenOptions::new(clock)).unwrap();
    if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
        volume.create_dir_all(parent, &CreateOptions::default()).unwrap();
    }
    volume.replace_file(path, data, &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
    drop(volume);
    commit::commit_in_place(&mut stage, image, &commit::CommitOptions::default()).unwrap();
}

pub fn windows_partition(stage: &Stage) -> Partition {
    read(stage).unwrap().partition(3).unwrap().clone()
}

fn a_hibernated_guest() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let mut session = vec![0u8; 64 << 10];
    session[..4].copy_from_slice(b"HIBR");
    put(&image, "/hiberfil.sys", &session);
    refused(&image, &[], &["hibernat", "Hint: "]);
    let text = stdout(&succeed(&mut inject(&image, &["--discard-hibernation"])));
    assert!(text.contains("Done:"), "{text}");
    // Windows shall check the volume now, so a second run has to be told
    refused(&image, &[], &["dirty", "--allow-dirty"]);
    let text = stdout(&succeed(&mut inject(&image, &["--allow-dirty"])));
    assert!(text.contains("Unchanged:"), "{text}");
    // The registry editor names an option that it has.
    let set = |option: Option<&str>| {
        let mut command = winject();
        command.args(["reg", "set"]).arg(&image).args([r"HKLM\SYSTEM\winject", "--in-place"]).args(option);
        command
    };
    let refused = set(None).output().unwrap();
    assert_eq!(refused.status.code(), Some(3));
    assert!(stderr(&refused).contains("--allow-dirty"), "{}", stderr(&refused));
    succeed(&mut set(Some("--allow-dirty")));
    succeed(winject().args(["reg", "query"]).arg(&image).arg(r"HKLM\SYSTEM\winject"));
}

/// Puts restart pages into `$LogFile` that say that operations are waiting in it.
fn open_log(image: &Path) {
    let mut stage = Stage::new(block::open(image, &block::OpenOptions::default()).unwrap(), StageOptions::default());
    let partition = windows_partition(&stage);
    let mut view = PartitionView::new(&mut stage, &partition).unwrap();
    let read = |view: &PartitionView<_>, at: u64, length: usize| {
        let mut bytes = vec![0; length];
        view.read_at(VolumeOffset(at), &mut bytes).unwrap();
        bytes
    };
    let geometry = Geometry::parse(&read(&view, 0, 512)).unwrap();
    let cluster = u64::from(geometry.cluster_size);
    let number = geometry.mft.0 * cluster + 2 * u64::from(geometry.record_size);
    let record = Record::parse(read(&view, number, geometry.record_size as usize)).unwrap();
    let data = record.find(AttributeType::DATA, "").unwrap();
    let start = data.runlist(geometry.cluster_count).unwrap().runs()[0].lcn.unwrap().0 * cluster;
    let mut page = vec![0; 4096];
    fixup::format(&mut page, *b"RSTR", 0x1E);
    for (at, value) in [(0x18, 0x30), (0x1A, 1), (0x1C, 1)] {
        Field::<u16>::at(at).set(&mut page, value);
    }
    Field::<u64>::at(0x48).set(&mut page, data.data_size());
    fixup::seal(&mut page).unwrap();
    for at in [start, start + 4096] {
        view.write_at(VolumeOffset(at), &page).unwrap();
    }
    commit::commit_in_place(&mut stage, image, &commit::CommitOptions::default()).unwrap();
}

fn a_log_with_work_in_it() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    open_log(&image);
    refused(&image, &[], &["unclean", "--discard-ntfs-log"]);
    let text = stdout(&succeed(&mut inject(&image, &["--discard-ntfs-log"])));
    assert!(text.contains("Done:"), "{text}");
    // the message says why the volume is marked
    refused(&image, &[], &["dirty", "--allow-dirty", "--discard-ntfs-log"]);
    assert!(stdout(&succeed(&mut inject(&image, &["--allow-dirty"]))).contains("Unchanged:"));
    // with the drivers there already the log is all that there is to do
    open_log(&image);
    let before = sha256(&image);
    succeed(&mut inject(&image, &["--allow-dirty", "--discard-ntfs-log"]));
    assert_ne!(before, sha256(&image));
    refused(&image, &[], &["dirty", "--allow-dirty"]);
    let after = sha256(&image);
    assert!(stdout(&succeed(&mut inject(&image, &["--allow-dirty"]))).contains("Unchanged:"));
    assert_eq!(after, sha256(&image));
}

fn a_consumed_hibernation_file_is_no_obstacle() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    put(&image, "/hiberfil.sys", &[0; 8192]);
    succeed(&mut inject(&image, &[]));
}

/// The Windows volume alone, with a boot manager of its own.
fn bare_volume(folder: &Path) -> (PathBuf, u64) {
    let disk = writable_fixture(folder, Format::Raw);
    put(&disk, "/bootmgr", b"a boot manager");
    put(&disk, "/Boot/BCD", &Hive::create("NewStoreRoot", FileTime(0)).finish(&[]).unwrap());
    let stage = Stage::new(block::open(&disk, &block::OpenOptions::default()).unwrap(), StageOptions::default());
    let partition = windows_partition(&stage);
    let out = folder.join("volume.raw");
    let file = std::fs::File::create(&out).unwrap();
    file.set_len(partition.length).unwrap();
    let mut at = 0;
    let mut buf = vec![0u8; 1 << 20];
    while at < partition.length {
        let place = ImageOffset(partition.start.0 + at);
        let extent = stage.extent_at(place, (1u64 << 20).min(partition.length - at)).unwrap();
        let part = &mut buf[..usize::try_from(extent.length).unwrap()];
        if !extent.kind.is_zero() {
            stage.read_at(place, part).unwrap();
            file.write_all_at(part, at).unwrap();
        }
        at += extent.length;
    }
    std::fs::remove_file(disk).unwrap();
    (out, partition.length)
}

fn a_volume_without_a_partition_table() {
    let folder = folder();
    let (image, _) = bare_volume(folder.path());
    let text = stdout(&succeed(&mut inject(&image, &[])));
    assert!(text.contains("no partition table"), "{text}");
    let before = sha256(&image);
    assert!(stdout(&succeed(&mut inject(&image, &["--partition", "0"]))).contains("Unchanged:"));
    assert_eq!(before, sha256(&image));
}

/// An MBR disk with the volume once as a primary and once as a logical partition.
fn two_installations(folder: &Path) -> PathBuf {
    let (volume, length) = bare_volume(folder);
    let image = folder.join("two.raw");
    let sectors = u32::try_from(length / 512).unwrap();
    let (first, link) = (2048u32, 2048 + sectors);
    let second = link + 2048;
    let disk = std::fs::File::create(&image).unwrap();
    disk.set_len((u64::from(second) + u64::from(sectors) + 2048) * 512).unwrap();
    let mut mbr = crate::partition::mbr_sector(&[(7, first, sectors), (0x0F, link, 2048 + sectors)]);
    mbr[446] = 0x80; // active
    disk.write_all_at(&mbr, 0).unwrap();
    disk.write_all_at(&crate::partition::mbr_sector(&[(7, 2048, sectors)]), u64::from(link) * 512).unwrap();
    for start in [first, second] {
        let mut dd = Command::new("dd");
        dd.arg(format!("if={}", volume.display())).arg(format!("of={}", image.display()));
        dd.arg(format!("seek={}", u64::from(start) * 512));
        succeed(dd.args(["oflag=seek_bytes", "bs=1M", "conv=sparse,notrunc", "status=none"]));
    }
    std::fs::remove_file(volume).unwrap();
    image
}

fn several_installations_have_to_be_chosen_from() {
    let folder = folder();
    let image = two_installations(folder.path());
    refused(&image, &[], &["2 Windows installations", "--partition 1", "--partition 5"]);
    let output = inject(&image, &["--partition", "2"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let before = disk_sha256(&image);
    let text = stdout(&succeed(&mut inject(&image, &["--partition", "5"])));
    assert!(text.contains("Done: Windows 10 (MBR)"), "{text}");
    assert_ne!(before, disk_sha256(&image));
    assert!(stdout(&succeed(&mut inject(&image, &["--partition", "5"]))).contains("Unchanged:"));
    // the other one is untouched, so there is work to do in it
    assert!(stdout(&succeed(&mut inject(&image, &["--partition", "1"]))).contains("Done:"));
}

fn a_damaged_primary_gpt_is_no_obstacle_and_stays_as_it_is() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let file = std::fs::File::options().read(true).write(true).open(&image).unwrap();
    file.write_all_at(b"damaged!", 512).unwrap();
    let output = succeed(&mut inject(&image, &[]));
    assert!(stderr(&output).contains("primary GPT is damaged"), "{}", stderr(&output));
    let mut header = [0u8; 8];
    file.read_exact_at(&mut header, 512).unwrap();
    assert_eq!(&header, b"damaged!");
}

/// Where the Windows volume, its `$MFT` and its `$Bitmap` begin in the image.
fn bitmap_places(image: &Path) -> (u64, u64, u64) {
    let stage = Stage::new(block::open(image, &block::OpenOptions::default()).unwrap(), StageOptions::default());
    let partition = windows_partition(&stage);
    let view = PartitionView::new(&stage, &partition).unwrap();
    let mut sector = vec![0; 512];
    view.read_at(VolumeOffset(0), &mut sector).unwrap();
    let geometry = Geometry::parse(&sector).unwrap();
    let mft = geometry.bytes_in(geometry.mft.0);
    let mut block = vec![0; geometry.record_size as usize];
    view.read_at(VolumeOffset(mft + 6 * block.len() as u64), &mut block).unwrap();
    let record = Record::parse(block).unwrap();
    let runs = record.find(AttributeType::DATA, "").unwrap().runlist(geometry.cluster_count).unwrap();
    let (lcn, _) = runs.real().next().unwrap();
    let base = partition.start.0;
    (base, base + mft, base + geometry.bytes_in(lcn.0))
}

fn clusters_of_a_file_that_are_marked_as_free() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let (_, _, bitmap) = bitmap_places(&image);
    let file = std::fs::File::options().read(true).write(true).open(&image).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bitmap).unwrap();
    file.write_all_at(&[byte[0] & !1], bitmap).unwrap();
    let before = sha256(&image);
    let key = ["HKLM\\SYSTEM\\Test", "--value", "x", "--data", "y", "--in-place"];
    let set = |more: &[&str]| winject().args(["reg", "set"]).arg(&image).args(key).args(more).output().unwrap();
    for output in [inject(&image, &[]).output().unwrap(), set(&[])] {
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(5), "{text}");
        assert!(text.contains("chkdsk") && text.contains("$Boot"), "{text}");
        assert!(text.contains(&format!("{bitmap:#x}")), "the place in the image: {text}");
        assert_eq!(before, sha256(&image));
    }
    let output = set(&["--skip-volume-check"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("not checked"), "{}", stderr(&output));
}

/// Two files that own the same cluster: the edit of one would change the other.
fn cross_linked_files_are_damage() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    for path in ["/first.bin", "/second.bin"] {
        put(&image, path, &[7; 20_000]);
    }
    let stage = Stage::new(block::open(&image, &block::OpenOptions::default()).unwrap(), StageOptions::default());
    let view = PartitionView::new(&stage, &windows_partition(&stage)).unwrap();
    let volume = Volume::open(view, &OpenOptions::read_only()).unwrap();
    let number = |path: &str| volume.find(path).unwrap().unwrap().record.0;
    let numbers = [number("/first.bin"), number("/second.bin")];
    drop(volume);
    drop(stage);
    let (_, mft, _) = bitmap_places(&image);
    let file = std::fs::File::options().read(true).write(true).open(&image).unwrap();
    // Header and length of the first run, then the cluster that it begins at.
    let run = |number: u64| {
        let mut record = [0; 1024];
        file.read_exact_at(&mut record, mft + number * 1024).unwrap();
        let u16_at = |at: usize| usize::from(u16::from_le_bytes([record[at], record[at + 1]]));
        let mut at = u16_at(20);
        while record[at] != 0x80 {
            at += u16_at(at + 4);
        }
        let pairs = at + u16_at(at + 32);
        let (length, offset) = (usize::from(record[pairs] & 15), usize::from(record[pairs] >> 4));
        (mft + number * 1024 + (pairs + 1 + length) as u64, record[pairs + 1 + length..][..offset].to_vec())
    };
    let [(_, first), (place, second)] = numbers.map(run);
    assert!(first.len() == second.len() && first != second);
    file.write_all_at(&first, place).unwrap();
    let before = sha256(&image);
    let output = inject(&image, &[]).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(text.contains("chkdsk") && text.contains("cluster"), "{text}");
    assert_eq!(before, sha256(&image));
}

/// Two folders whose names differ in case only, as Linux makes them. One with a spelling that no path has is not mistaken
/// for `System32`; with one that the registry uses, the guest is refused as it is.
fn a_twin_of_system32_is_not_mistaken_for_it() {
    for (made, twin, code) in [("sYstem3x", "sYstem32", 0), ("system3x", "system32", 5)] {
        let folder = folder();
        let image = writable_fixture(folder.path(), Format::Raw);
        put(&image, &format!("/Windows/{made}/drivers/decoy.txt"), b"decoy");
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        // In its record and in the index of the folder. Both sort after `System32`, as NTFS orders such names.
        let replaced = replace(&image, &utf16(made), &utf16(twin));
        assert!(replaced >= 2, "{replaced} places");
        let before = sha256(&image);
        let output = inject(&image, &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{twin}: {}", stderr(&output));
        assert_eq!(before == sha256(&image), code != 0);
        let stage = Stage::new(block::open(&image, &block::OpenOptions::default()).unwrap(), StageOptions::default());
        let view = PartitionView::new(&stage, &windows_partition(&stage)).unwrap();
        let volume = Volume::open(view, &OpenOptions::read_only()).unwrap();
        let driver = volume.find("/Windows/System32/drivers/viostor.sys").unwrap();
        assert_eq!(driver.is_some(), code == 0, "{twin}");
        let decoy = volume.find(&format!("/Windows/{twin}/drivers")).unwrap().unwrap();
        let names: Vec<String> = volume.entries(decoy).unwrap().iter().map(|entry| entry.name.to_string()).collect();
        assert_eq!(names, ["decoy.txt"]);
    }
}

/// Replaces bytes wherever they stand in a file; returns the number of places.
fn replace(path: &Path, from: &[u8], to: &[u8]) -> usize {
    const PIECE: usize = 1 << 20;
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let zeros = vec![0; PIECE];
    let (mut piece, mut count) = (vec![0; PIECE], 0);
    for offset in (0..file.metadata().unwrap().len()).step_by(PIECE) {
        let got = file.read_at(&mut piece, offset).unwrap();
        if piece[..got] == zeros[..got] {
            continue;
        }
        for at in (0..got.saturating_sub(from.len())).step_by(2) {
            if piece[at] == from[0] && piece[at..].starts_with(from) {
                file.write_all_at(to, offset + at as u64).unwrap();
                count += 1;
            }
        }
    }
    count
}

fn the_place_of_damage_is_one_of_the_image() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let (_, mft, _) = bitmap_places(&image);
    let root = mft + 5 * 1024;
    let file = std::fs::File::options().read(true).write(true).open(&image).unwrap();
    let mut record = [0; 1024];
    file.read_exact_at(&mut record, root).unwrap();
    let first = u64::from(u16::from_le_bytes([record[20], record[21]]));
    file.write_all_at(&[7, 0, 0, 0], root + first + 4).unwrap();
    for mut command in [inject(&image, &[]), winject()] {
        if command.get_args().next().is_none() {
            command.arg("inspect").arg(&image);
        }
        let output = command.output().unwrap();
        let text = stdout(&output) + &stderr(&output);
        assert_eq!(output.status.code(), Some(5), "{text}");
        assert!(text.contains(&format!("{:#x}", root + first)), "{text}");
    }
}

fn an_image_in_use() {
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let copy_of_it = folder.path().join("copy.raw");
    copy(&image, &copy_of_it);
    let Some(mut user) = Busy::start(&image) else { return };
    let output = inject(&image, &[]).output().unwrap();
    let checked = winject().args(["reg", "check"]).arg(&image).output().unwrap();
    user.stop();
    assert_eq!(checked.status.code(), Some(3), "{checked:?}");
    assert!(checked.stdout.is_empty() && stderr(&checked).contains("image-in-use"), "{checked:?}");
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("another process"), "{}", stderr(&output));
    assert_eq!(sha256(&image), sha256(&copy_of_it));
}

/// qemu-nbd or qemu-io that has the image open for writing.
struct Busy(std::process::Child);

impl Busy {
    fn start(image: &Path) -> Option<Self> {
        let qemu_io = crate::support::program("qemu-io")?;
        let mut child = Command::new(qemu_io)
            .args(["-f", "raw"])
            .arg(image)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .ok()?;
        // its prompt says that the image is open
        let mut prompt = [0u8; 1];
        std::io::Read::read_exact(child.stdout.as_mut()?, &mut prompt).ok()?;
        Some(Self(child))
    }
    fn stop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// Damages the Windows volume of a raw image in one place.
fn damage(image: &Path, what: &str) {
    let stage = Stage::new(block::open(image, &block::OpenOptions::default()).unwrap(), StageOptions::default());
    let partition = windows_partition(&stage);
    let view = PartitionView::new(&stage, &partition).unwrap();
    let mut boot = [0; 512];
    view.read_at(VolumeOffset(0), &mut boot).unwrap();
    let geometry = Geometry::parse(&boot).unwrap();
    let cluster = u64::from(geometry.cluster_size);
    let number = |path: &str| {
        let volume = Volume::open(PartitionView::new(&stage, &partition).unwrap(), &OpenOptions::read_only()).unwrap();
        volume.find(path).unwrap().unwrap().record.0
    };
    let record = |number: u64| geometry.mft.0 * cluster + number * u64::from(geometry.record_size);
    let (at, length) = match what {
        "mirror" => (geometry.mirror.0 * cluster + 3 * u64::from(geometry.record_size) + 0x170, 1),
        "backup boot sector" => (Field::<u64>::at(0x28).get(&boot) * u64::from(geometry.sector_size) + 0x50, 1),
        "parent reference" => (record(number("/Windows/System32/config/SYSTEM")), 1024),
        "folder's parent" => (record(number("/Windows/System32/drivers")), 1024),
        "signature of $AttrDef's record" => (record(4), 1),
        _ => panic!("{what}"),
    };
    let mut bytes = vec![0; length];
    view.read_at(VolumeOffset(at), &mut bytes).unwrap();
    if length == 1 {
        bytes[0] ^= 0x91;
    } else {
        fixup::unseal(&mut bytes, fixup::FILE).unwrap();
        let mut attribute = usize::from(u16::from_le_bytes([bytes[0x14], bytes[0x15]]));
        while bytes[attribute] != 0x30 {
            attribute += usize::from(u16::from_le_bytes([bytes[attribute + 4], bytes[attribute + 5]]));
        }
        // the sequence number in the reference to the parent
        bytes[attribute + 0x18 + 6] ^= 0x40;
        fixup::seal(&mut bytes).unwrap();
    }
    let start = partition.start.0;
    let file = std::fs::File::options().write(true).open(image).unwrap();
    file.write_all_at(&bytes, start + at).unwrap();
}

/// Damage that was in the guest before is told as such, with code 5 and what to do, by every command that changes it.
fn damage_that_was_there_before_is_not_a_defect_of_the_change() {
    for what in
        ["mirror", "backup boot sector", "parent reference", "folder's parent", "signature of $AttrDef's record"]
    {
        let folder = folder();
        let image = writable_fixture(folder.path(), Format::Raw);
        damage(&image, what);
        let before = sha256(&image);
        let new = folder.path().join("new.qcow2");
        let mut convert = winject();
        convert.arg("convert").arg(&image).arg(&new).arg("--inject").arg(fixture_drivers());
        let mut set = winject();
        set.arg("reg").arg("set").arg(&image).arg(r"HKLM\SYSTEM\Select").args(["--value", "x", "--type", "sz"]);
        set.args(["--data", "y", "--in-place"]);
        let mut commands = vec![inject(&image, &[]), convert, set];
        // reg does not touch the folder of the drivers
        if what == "folder's parent" {
            commands.pop();
        }
        for mut command in commands {
            let output = command.output().unwrap();
            let text = stderr(&output);
            assert_eq!(output.status.code(), Some(5), "{what}: {command:?}: {text}");
            assert!(text.contains("chkdsk") && !text.contains("defect"), "{what}: {command:?}: {text}");
            assert_eq!(before, sha256(&image), "{what}: {command:?}");
            assert!(!new.exists(), "{what}: {command:?}");
        }
    }
}

tests![
    a_hibernated_guest,
    a_log_with_work_in_it,
    a_consumed_hibernation_file_is_no_obstacle,
    a_volume_without_a_partition_table,
    several_installations_have_to_be_chosen_from,
    a_damaged_primary_gpt_is_no_obstacle_and_stays_as_it_is,
    clusters_of_a_file_that_are_marked_as_free,
    cross_linked_files_are_damage,
    a_twin_of_system32_is_not_mistaken_for_it,
    the_place_of_damage_is_one_of_the_image,
    an_image_in_use,
    damage_that_was_there_before_is_not_a_defect_of_the_change,
];
