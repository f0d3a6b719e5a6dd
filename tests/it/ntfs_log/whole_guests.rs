//! Guests as the field has them: idle at the moment of the snapshot, with a boot volume of their own, encrypted.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::made::{Unclean, ends, folder, inject, judge_volume, sha256, stdout, succeed, unclean, winject};
use crate::bitlocker_job::made::{Key, Made};
use crate::disks::bios_with_system_reserved;
use crate::support::unclean::{copy_piece, generate, open_log_of};
use crate::windows::guests::NOW;
use winject::internals::block::commit::{CommitOptions, commit_in_place};
use winject::internals::block::{self, Stage, StageOptions};
use winject::internals::io::{VolumeRead, VolumeWrite};
use winject::internals::ntfs::{CreateOptions, OpenOptions, Volume};
use winject::internals::partition::{BitLockerKeys, Partition, PartitionView};
use winject::internals::units::VolumeOffset;

/// Bytes that are copied at once.
const PIECE: u64 = 1 << 20;

/// A log with nothing pending: the guest ran, and wrote nothing for a while.
fn a_guest_that_was_idle_is_edited_and_its_log_closed() {
    for version in ["1.1", "2.0"] {
        let Some(guest) = unclean(&format!("--count 0 --version {version}")) else { return };
        let Unclean { image, .. } = &guest;
        let before = sha256(image);
        let inspected = ends(winject().arg("inspect").arg(image).arg("--json"), 0);
        let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        let log = &inspected["disks"][0]["windows"][0]["ntfs_log"];
        assert_eq!((log["state"].as_str(), log["records"].as_u64()), (Some("nothing_pending"), Some(0)), "{log}");
        assert_eq!(log["version"], version);
        let report = guest.path("report.json");
        let text = stdout(&succeed(inject(image, &["--in-place", "--report"]).arg(&report)));
        assert!(text.contains("Done:"), "{text}");
        let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
        assert_eq!(report["log_replay"]["version"], version);
        assert_eq!(report["log_replay"]["records_redone"], 0);
        guest.judge(image);
        assert!(stdout(&succeed(&mut inject(image, &["--in-place"]))).contains("Unchanged:"));
        succeed(winject().arg("undo").arg(image));
        assert_eq!(before, sha256(image));
    }
}

/// The boot volume of a BIOS guest ("System Reserved") has a log of its own.
fn an_open_log_of_the_boot_volume_is_replayed_with_its_edit() {
    let folder = folder();
    let image = bios_with_system_reserved(folder.path());
    // nothing is pending in it; the log of so small a volume has no room for version 2.0
    let options = "--ops create --count 6 --version 1.1 --end lose --seed 1";
    let Some(volume) = open_log_of(&image, 1, folder.path(), options) else { return };
    let before = sha256(&image);
    let sign = |more: &[&str]| inject(&image, &[&["--in-place", "--test-signing", "on"], more].concat());
    let text = ends(&mut sign(&["--no-replay"]), 3);
    assert!(text.contains("partition 1/$LogFile") && text.contains("without --no-replay"), "{text}");
    assert_eq!(before, sha256(&image));
    let text = stdout(&succeed(&mut sign(&[])));
    assert!(text.contains("Done:"), "{text}");
    let out = folder.path().join("boot.vol");
    copy_piece(&image, (volume.start, volume.length), &out, 0);
    judge_volume(&out);
    assert!(stdout(&succeed(&mut sign(&[]))).contains("Unchanged:"));
    succeed(winject().arg("undo").arg(&image));
    assert_eq!(before, sha256(&image));
}

fn an_open_log_of_an_encrypted_volume_is_replayed() {
    let Some(made) = Made::new("xts-128", Key::Clear, &[]) else { return };
    let (image, clean, open) = (&made.image, made.path("clean.vol"), made.path("open.vol"));
    let folder = put_files(&made);
    read_plain(&made, &clean);
    let options =
        format!("--dir {folder} --ops rename,grow,resize,delete --seed 9 --version 2.0 --end lose --flush none");
    if generate(&clean, &open, &options).is_none() {
        return;
    }
    write_plain(&made, &open);
    let before = sha256(image);
    ends(&mut inject(image, &["--in-place", "--no-replay"]), 3);
    let report = made.path("report.json");
    let text = stdout(&succeed(inject(image, &["--in-place", "--report"]).arg(&report)));
    assert!(text.contains("Done:"), "{text}");
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    assert!(report["log_replay"]["records_redone"].as_u64().unwrap() > 0, "{report}");
    let after = made.path("after.vol");
    read_plain(&made, &after);
    judge_volume(&after);
    succeed(winject().arg("undo").arg(image));
    assert_eq!(before, sha256(image));
}

fn partition_of(made: &Made, stage: &Stage) -> Partition {
    let table = BitLockerKeys::default().read_partitions(stage).unwrap();
    table.partitions.into_iter().find(|partition| partition.start.0 == made.start).unwrap()
}

fn stage_of(image: &Path) -> Stage {
    Stage::new(block::open(image, &block::OpenOptions::default()).unwrap(), StageOptions::default())
}

/// Puts small files into a folder of the encrypted guest; the number of the folder's record. The maker of the encryption
/// leaves no free record for new ones.
fn put_files(made: &Made) -> u64 {
    let mut stage = stage_of(&made.image);
    let partition = partition_of(made, &stage);
    let view = PartitionView::new(&mut stage, &partition).unwrap();
    let mut volume = Volume::open(view, &OpenOptions::new(NOW)).unwrap();
    let options = CreateOptions::default();
    let folder = volume.create_dir_all("/Files", &options).unwrap();
    for number in 0..10 {
        volume.create_file(folder, &format!("file-{number}.txt"), b"some content", &options).unwrap();
    }
    volume.flush().unwrap();
    drop(volume);
    commit_in_place(&mut stage, &made.image, &CommitOptions::default()).unwrap();
    folder.record.0
}

/// The pieces of a volume, by their offset.
fn pieces(length: u64) -> impl Iterator<Item = (u64, Vec<u8>)> {
    let step = usize::try_from(PIECE).unwrap();
    (0..length).step_by(step).map(move |at| (at, vec![0; usize::try_from(PIECE.min(length - at)).unwrap()]))
}

/// Copies the plain volume of an encrypted guest into a file.
fn read_plain(made: &Made, to: &Path) {
    let stage = stage_of(&made.image);
    let partition = partition_of(made, &stage);
    let view = PartitionView::new(&stage, &partition).unwrap();
    let file = File::create(to).unwrap();
    file.set_len(view.len()).unwrap();
    for (at, mut piece) in pieces(view.len()) {
        view.read_at(VolumeOffset(at), &mut piece).unwrap();
        if piece.iter().any(|&byte| byte != 0) {
            file.write_all_at(&piece, at).unwrap();
        }
    }
}

/// Writes what differs of a plain volume into the encrypted guest.
fn write_plain(made: &Made, from: &Path) {
    let mut stage = stage_of(&made.image);
    let partition = partition_of(made, &stage);
    let mut view = PartitionView::new(&mut stage, &partition).unwrap();
    let file = File::open(from).unwrap();
    for (at, mut old) in pieces(view.len()) {
        let mut new = old.clone();
        file.read_exact_at(&mut new, at).unwrap();
        view.read_at(VolumeOffset(at), &mut old).unwrap();
        if old != new {
            view.write_at(VolumeOffset(at), &new).unwrap();
        }
    }
    drop(view);
    commit_in_place(&mut stage, &made.image, &CommitOptions::default()).unwrap();
}

tests![
    a_guest_that_was_idle_is_edited_and_its_log_closed,
    an_open_log_of_the_boot_volume_is_replayed_with_its_edit,
    an_open_log_of_an_encrypted_volume_is_replayed,
];
