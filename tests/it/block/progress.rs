//! What an undo and a recovery tell of how far they are: every part ends when all of its bytes are done.

use std::cell::RefCell;

use winject::Kind;
use winject::internals::block::PathPolicy;
use winject::internals::block::commit::{self, CommitOptions, JournalPass, Recovery, UndoOptions, on};

use super::pending::interrupt;
use super::read::SIZE;
use super::virtual_host::FailingHost;
use super::*;

/// What was told: the parts in their order, each with the bytes that were done last, and all of them.
#[derive(Default)]
struct Told(RefCell<Vec<(JournalPass, u64, u64)>>);

impl Told {
    fn hear(&self, pass: JournalPass, done: u64, total: u64) {
        let mut told = self.0.borrow_mut();
        assert!(done <= total, "{pass:?}: {done} of {total}");
        match told.last_mut() {
            Some((last, before, _)) if *last == pass => {
                assert!(*before <= done, "{pass:?}: {before}, then {done}");
                *told.last_mut().unwrap() = (pass, done, total);
            }
            _ => told.push((pass, done, total)),
        }
    }

    /// The bytes of each part, which are these parts, all done.
    #[track_caller]
    fn bytes_of<const N: usize>(self, passes: [JournalPass; N]) -> [u64; N] {
        let told = self.0.into_inner();
        assert_eq!(told.iter().map(|(pass, ..)| *pass).collect::<Vec<_>>(), passes);
        assert!(told.iter().all(|(_, done, total)| done == total && *total > 0), "{told:?}");
        std::array::from_fn(|at| told[at].2)
    }
}

/// Edits the image, keeping the record.
fn edit(path: &Path) {
    let mut stage = stage(path);
    let mut model = read_all(stage.image());
    scribble(&mut stage, &mut model, &mut Random::new(300), 12);
    let options = CommitOptions { keep_undo: true, ..CommitOptions::default() };
    commit::commit_in_place(&mut stage, path, &options).unwrap();
}

fn an_undo_tells_all_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let old = mixed(SIZE, 301);
    let mut images = vec![write_file(path, "disk.raw", &old)];
    if has_qemu() {
        qemu_img(path, "convert -f raw -O qcow2 disk.raw disk.qcow2");
        images.push(path.join("disk.qcow2"));
    }
    for image in images {
        edit(&image);
        let record = commit::undo_path(&image);
        let length = record.metadata().unwrap().len();
        let told = Told::default();
        let hear = |pass, done, total| told.hear(pass, done, total);
        let dry = UndoOptions { is_dry_run: true, ..UndoOptions::default() };
        let done = commit::undo_with_progress(&image, &dry, &hear).unwrap();
        let [read, compared] = told.bytes_of([JournalPass::Read, JournalPass::Compare]);
        assert_eq!(read, length);
        assert!(compared >= done.bytes_restored, "{compared}");

        // Copied together: the record is written anew.
        let (copy, of_copy) = (path.join("copy"), commit::undo_path(&path.join("copy")));
        std::fs::copy(&image, &copy).unwrap();
        std::fs::copy(&record, &of_copy).unwrap();
        let told = Told::default();
        let hear = |pass, done, total| told.hear(pass, done, total);
        let copied = UndoOptions { is_copied: true, ..UndoOptions::default() };
        let done = commit::undo_with_progress(&copy, &copied, &hear).unwrap();
        let [_, _, copied, restored] =
            told.bytes_of([JournalPass::Read, JournalPass::Compare, JournalPass::Copy, JournalPass::Restore]);
        assert!(copied >= compared && restored >= done.bytes_restored);

        let told = Told::default();
        let hear = |pass, done, total| told.hear(pass, done, total);
        let done = commit::undo_with_progress(&image, &UndoOptions::default(), &hear).unwrap();
        let [_, same, restored] = told.bytes_of([JournalPass::Read, JournalPass::Compare, JournalPass::Restore]);
        assert_eq!(same, compared);
        // A switch writes some refcounts on its way, too.
        assert!(restored >= done.bytes_restored && done.bytes_restored > 0);
    }
}

fn a_recovery_tells_all_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let old = mixed(SIZE, 302);
    let image = write_file(folder.path(), "disk.raw", &old);
    interrupt(&image);
    let told = Told::default();
    let hear = |pass, done, total| told.hear(pass, done, total);
    let recovery = commit::recover_with_progress(&image, &PathPolicy::default(), &hear).unwrap();
    assert_eq!(recovery, Recovery::Restored);
    let [_, compared, restored] = told.bytes_of([JournalPass::Read, JournalPass::Compare, JournalPass::Restore]);
    assert_eq!(compared, restored);
    assert_equal(&std::fs::read(&image).unwrap(), &old, "rolled back");

    // Nothing is left to do, and nothing is told.
    let told = Told::default();
    let hear = |pass, done, total| told.hear(pass, done, total);
    commit::recover_with_progress(&image, &PathPolicy::default(), &hear).unwrap();
    told.bytes_of([]);
}

/// A run that wrote everything and could not end is completed: what it wrote is written once more.
fn a_completed_run_tells_all_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let image = write_file(folder.path(), "disk.raw", &mixed(SIZE, 303));
    let options = CommitOptions { keep_undo: true, ..CommitOptions::default() };
    for steps in 0..200 {
        let mut stage = stage(&image);
        stage.write_at(ImageOffset(4096), &[0xEE; 5000]).unwrap();
        let result = on::in_place(&FailingHost::new(steps), &mut stage, &image, &options);
        drop(stage);
        if result.is_ok() {
            break;
        }
        let is_pending = result.is_err_and(|error| error.kind() == Kind::Pending);
        let told = Told::default();
        let hear = |pass, done, total| told.hear(pass, done, total);
        let recovery = commit::recover_with_progress(&image, &PathPolicy::default(), &hear).unwrap();
        if recovery == Recovery::Completed {
            assert!(is_pending);
            use JournalPass::{Compare, Complete, Read};
            let [_, compared, written, again, ..] = told.bytes_of([Read, Compare, Complete, Compare, Complete]);
            assert_eq!([compared, again], [written; 2]);
            return;
        }
    }
    panic!("never interrupted after all was written");
}

tests![an_undo_tells_all_its_bytes, a_recovery_tells_all_its_bytes, a_completed_run_tells_all_its_bytes];
