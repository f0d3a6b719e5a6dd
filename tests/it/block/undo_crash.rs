//! The machine stops at any moment of an undo, or the host fails at any step of it or of the recovery that finishes it:
//! the image is as the edit left it, and can be undone still; or it is what it was before, to the last byte.

use winject::internals::block::commit::{self, Recovery, UndoOptions, on};
use winject::internals::block::{Format, Locking, PathPolicy};
use winject::internals::error::Kind;

use super::crash::judge_stops;
use super::crash_case::{Case, IMAGE, cases, content, power_cut, prefix, undo_record};
use super::virtual_host::{Fault, Files, Op, VirtualHost};
use super::*;
use crate::support::rounds;

/// An edit that can be undone. What was new is the old content here, and the other way round.
struct Undoing {
    /// The files after the edit are the case's files, and its `old` content is the edit's new one.
    case: Case,
    /// The image before the edit.
    before: Vec<u8>,
}

fn undoings() -> Vec<Undoing> {
    let undoing = |case: Case| Undoing { before: case.files[Path::new(IMAGE)].clone(), case: case.committed() };
    cases().into_iter().map(undoing).collect()
}

fn undo(host: &VirtualHost) -> winject::Result<()> {
    on::undo(host, Path::new(IMAGE), &UndoOptions::default()).map(drop)
}

fn recover(host: &VirtualHost) -> winject::Result<Recovery> {
    on::recover(host, Path::new(IMAGE), Locking::Ignore, &PathPolicy::default())
}

impl Undoing {
    /// The whole undo on a host of its own.
    fn log(&self) -> Vec<Op> {
        let host = VirtualHost::new(self.case.files.clone(), Fault::Never);
        undo(&host).unwrap_or_else(|e| panic!("{}: {e}", self.case.name));
        self.assert_undone(&host.files(), "without a crash");
        host.log()
    }

    #[track_caller]
    fn assert_undone(&self, files: &Files, when: &str) {
        assert_eq!(files.keys().collect::<Vec<_>>(), [Path::new(IMAGE)], "{}: {when}", self.case.name);
        assert_equal(&files[Path::new(IMAGE)], &self.before, &format!("{}: {when}", self.case.name));
    }

    /// A qcow2 file can be used at every moment; then recovery finishes the undo if it had begun, and if not, it can
    /// still be done.
    fn judge(&self, files: Files, when: &str, folder: &Path) {
        let case = &self.case;
        let host = VirtualHost::new(files, Fault::Never);
        if case.format == Format::Qcow2 {
            case.is_new(&host, when);
            case.judge_structure(&host, &format!("{when}, before recovery"), folder, 3);
        }
        recover(&host).unwrap_or_else(|e| panic!("{}: {when}: {e}", case.name));
        if host.files().contains_key(&undo_record()) {
            assert_equal(&host.files()[Path::new(IMAGE)], &case.files[Path::new(IMAGE)], when);
            undo(&host).unwrap_or_else(|e| panic!("{}: {when}: {e}", case.name));
        }
        self.assert_undone(&host.files(), when);
    }
}

fn a_stop_at_any_moment_of_an_undo_can_be_finished() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut stops, mut cuts) = (0, 0);
    for undoing in undoings() {
        let log = undoing.log();
        let (more_stops, more_cuts) =
            judge_stops(&undoing.case, &log, |files, when| undoing.judge(files, when, folder.path()));
        stops += more_stops;
        cuts += more_cuts;
    }
    println!("{stops} stops, {cuts} power cuts");
}

/// Faults of the host, and power cuts after them: a flush that fails may have thrown away what was to be flushed.
fn a_failure_at_any_step_of_an_undo_can_be_finished() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut faults, mut cuts) = (0, 0);
    for undoing in undoings() {
        let steps = undoing.log().len();
        for fault in (0..steps).flat_map(|n| [Fault::Once(n), Fault::From(n)]) {
            faults += 1;
            let host = VirtualHost::new(undoing.case.files.clone(), fault);
            let result = undo(&host);
            let when = format!("{fault:?} of {steps}: {result:?}");
            let journal = commit::journal_path(Path::new(IMAGE));
            match &result {
                Ok(()) => undoing.assert_undone(&host.files(), &when),
                Err(error) if error.kind() == Kind::Pending => {
                    assert!(host.files().contains_key(&journal), "{when}");
                    assert!(error.hint_text().unwrap().contains("winject recover"), "{when}");
                }
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Io, "{when}");
                    assert!(error.hint_text().is_some(), "{when}");
                    let image = &host.files()[Path::new(IMAGE)];
                    assert_equal(image, &undoing.case.files[Path::new(IMAGE)], &when);
                }
            }
            undoing.judge(host.files(), &when, folder.path());
            let (log, mut random) = (host.log(), Random::new(undoing.case.seed ^ steps as u64));
            for round in 0..=rounds(0, 1) {
                let chance = u64::from(round > 0);
                let end = if round == 0 { log.len() } else { random.below(log.len() as u64 + 1) as usize };
                let files = power_cut(&undoing.case, &log, end, &mut random, chance);
                undoing.judge(files, &format!("{when}, power cut at {end}"), folder.path());
                cuts += 1;
            }
        }
    }
    println!("{faults} faults, {cuts} power cuts");
}

/// The recovery that finishes an interrupted undo fails at any step, or the power goes in it; the next one finishes it.
fn a_failure_inside_the_recovery_of_an_undo_can_be_finished() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut faults, mut cuts) = (0, 0);
    for undoing in undoings() {
        let log = undoing.log();
        let journal = commit::journal_path(Path::new(IMAGE));
        let has_begun = |end: usize| prefix(&undoing.case, &log, end, false).contains_key(&journal);
        let mut random = Random::new(undoing.case.seed ^ 9);
        // Also where the journal's name is not durable yet.
        for end in (1..log.len()).filter(|end| has_begun(*end)) {
            let whole = VirtualHost::after(undoing.case.files.clone(), &log[..end]);
            assert_eq!(recover(&whole).unwrap(), Recovery::Undone);
            undoing.assert_undone(&whole.files(), "recovered");
            let steps = whole.log().len() - end;
            for _ in 0..rounds(1, 2) {
                let fault = random.below(steps as u64) as usize;
                let fault = if random.below(2) == 0 { Fault::Once(fault) } else { Fault::From(fault) };
                let host = VirtualHost::after(undoing.case.files.clone(), &log[..end]);
                host.set_fault(fault);
                let when = format!("stopped after {end}, then {fault:?}: {:?}", recover(&host));
                undoing.judge(host.files(), &when, folder.path());
                let log = host.log();
                let cut = end + random.below((log.len() - end) as u64 + 1) as usize;
                let files = power_cut(&undoing.case, &log, cut, &mut random, 1);
                undoing.judge(files, &format!("{when}, power cut at {cut}"), folder.path());
                (faults, cuts) = (faults + 1, cuts + 1);
            }
        }
    }
    println!("{faults} faults in a recovery, {cuts} power cuts");
}

/// Something writes to an image that was edited, or to one whose undo was interrupted. What it wrote stays, or the undo
/// is refused.
fn what_a_guest_wrote_stays() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(IMAGE);
    let (mut undone, mut refused, mut finished, mut given_up) = (0, 0, 0, 0);
    for undoing in undoings().iter().filter(|undoing| undoing.case.format == Format::Qcow2) {
        let case = &undoing.case;
        let run_guest = |image: &[u8], at: u64, length: u64| {
            std::fs::write(&path, image).unwrap();
            let mut guest = Command::new("qemu-io");
            let write = format!("write -P 0xa5 {at} {length}");
            guest.args(["-f", "qcow2", "-c", &write]).arg(&path);
            assert!(guest.output().unwrap().status.success());
            std::fs::read(&path).unwrap()
        };
        let mut random = Random::new(case.seed);
        for round in 0..rounds(8, 20) {
            let at = random.below(1200) * 512;
            let length = [512, 4096, 60_000][random.below(3) as usize].min(case.old.len() as u64 - at);
            let mut files = case.files.clone();
            files.insert(IMAGE.into(), run_guest(&files[Path::new(IMAGE)], at, length));
            let host = VirtualHost::new(files.clone(), Fault::Never);
            let seen = content(&host, case.format).unwrap();
            let when = format!("{}: round {round}, a guest wrote {length} at {at}", case.name);
            match undo(&host) {
                Ok(()) => {
                    let mut expected = case.new.clone();
                    let place = at as usize..(at + length) as usize;
                    expected[place.clone()].copy_from_slice(&seen[place]);
                    assert_equal(&content(&host, case.format).unwrap(), &expected, &when);
                    case.judge_structure(&host, &when, folder.path(), 3);
                    undone += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Refused, "{when}: {error}");
                    assert!(host.files() == files, "{when}: touched");
                    refused += 1;
                }
            }
        }
        let log = undoing.log();
        let is_image = |op: &Op| matches!(op, Op::Write(path, ..) if path == Path::new(IMAGE));
        for end in (1..log.len()).filter(|end| is_image(&log[end - 1])) {
            let mut files = prefix(case, &log, end, false);
            let written = 300 << 10..550 << 10;
            let length = (written.end - written.start) as u64;
            files.insert(IMAGE.into(), run_guest(&files[Path::new(IMAGE)], written.start as u64, length));
            let host = VirtualHost::new(files, Fault::Never);
            let seen = content(&host, case.format).unwrap();
            let when = format!("{}: a guest after {end} of {}", case.name, log.len());
            let recovery = recover(&host).unwrap_or_else(|e| panic!("{when}: {e}"));
            assert_equal(&content(&host, case.format).unwrap(), &seen, &when);
            // What the recovery says of the rest of the disk is what it holds.
            let said = match recovery {
                Recovery::Undone => &case.new,
                Recovery::GivenUp => &case.old,
                other => panic!("{when}: {other:?}"),
            };
            let mut expected = said.clone();
            expected[written.clone()].copy_from_slice(&seen[written]);
            assert_equal(&seen, &expected, &format!("{when}: {recovery:?}"));
            given_up += usize::from(recovery == Recovery::GivenUp);
            case.judge_structure(&host, &when, folder.path(), 3);
            finished += 1;
        }
    }
    println!(
        "{undone} undone around a guest's writes, {refused} refused, {finished} recoveries after a guest, {given_up} given up"
    );
    assert!(refused > 0 && finished > given_up && given_up > 0);
}

tests![
    a_stop_at_any_moment_of_an_undo_can_be_finished,
    a_failure_at_any_step_of_an_undo_can_be_finished,
    a_failure_inside_the_recovery_of_an_undo_can_be_finished,
    what_a_guest_wrote_stays,
];
