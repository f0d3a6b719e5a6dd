//! The machine stops at any moment of a commit, or the host fails at any step: the image must be old or new.
//!
//! A commit runs on a host in memory that records every write, flush, and change of a folder. Then every prefix of
//! the record is replayed, and random choices of what had not been flushed.

use std::path::Path;

use winject::internals::block::commit::{self, CommitOptions, UndoOptions, on};
use winject::internals::block::{Format, Locking, PathPolicy};
use winject::internals::error::Kind;

use super::crash_case::{CASE_SIZE, Case, IMAGE, cases, content, power_cut, prefix, undo_record};
use super::virtual_host::{FailingHost, Fault, Files, Op, VirtualHost};
use super::*;
use crate::support::rounds;

impl Case {
    /// Whether the files hold the new disk; fails if they hold neither the old nor the new one.
    #[track_caller]
    pub(super) fn is_new(&self, host: &VirtualHost, when: &str) -> bool {
        let found = content(host, self.format).unwrap_or_else(|e| panic!("{}: {when}: {e}", self.name));
        assert!(found == self.old || found == self.new, "{}: {when}: neither old nor new", self.name);
        found == self.new
    }

    /// qcow2 must be usable at every moment, even if nobody recovers: leaks at worst. Afterwards recovery succeeds,
    /// and only leaks that were there before remain.
    fn judge_crash(&self, files: Files, when: &str, folder: &Path) {
        self.judge_crash_with(files, when, folder, 0);
    }

    /// As [`judge_crash`](Self::judge_crash); `worst` says whether leaks may remain after recovery.
    fn judge_crash_with(&self, files: Files, when: &str, folder: &Path, worst: i32) {
        let host = VirtualHost::new(files, Fault::Never);
        let mut was_new = false;
        if self.format == Format::Qcow2 {
            was_new = self.is_new(&host, when);
            self.judge_structure(&host, &format!("{when}, before recovery"), folder, 3);
        }
        on::recover(&host, Path::new(IMAGE), Locking::Ignore, &PathPolicy::default())
            .unwrap_or_else(|e| panic!("{}: {when}: {e}", self.name));
        let is_new = self.is_new(&host, &format!("{when}, recovered"));
        assert!(is_new == was_new || self.format == Format::Raw, "{}: {when}: recovery changed sides", self.name);
        self.judge_record(&host, is_new, when);
        if self.format == Format::Qcow2 {
            self.judge_structure(&host, &format!("{when}, recovered"), folder, worst);
            if !is_new && self.name != "dirty" {
                assert!(host.files() == self.files, "{}: {when}: restored byte for byte", self.name);
            }
        } else if !is_new {
            assert!(host.files() == self.files, "{}: {when}: restored byte for byte", self.name);
        }
    }

    /// A record that is there after a recovery is that of the last edit, and takes it back. Returns whether there is one.
    #[track_caller]
    fn judge_record(&self, host: &VirtualHost, is_new: bool, when: &str) -> bool {
        let (image, record) = (Path::new(IMAGE), undo_record());
        let files = host.files();
        let extra: Vec<_> = files.keys().filter(|path| **path != image && **path != record).collect();
        assert!(extra.is_empty(), "{}: {when}: files left over: {extra:?}", self.name);
        let (Some(found), true) = (files.get(&record), is_new) else {
            assert!(is_new || files.get(&record) == self.files.get(&record), "{}: {when}: another record", self.name);
            return files.contains_key(&record);
        };
        assert!(self.keep_undo && Some(found) != self.files.get(&record), "{}: {when}: an old record", self.name);
        let host = VirtualHost::new(files, Fault::Never);
        on::undo(&host, image, &UndoOptions::default()).unwrap_or_else(|e| panic!("{}: {when}: undo: {e}", self.name));
        assert!(host.files()[image] == self.files[image], "{}: {when}: undo", self.name);
        assert_eq!(host.files().len(), 1);
        true
    }

    /// The power goes at the end, and everything that is not durable is lost; or `count` times somewhere behind the
    /// operation `first`, and some of it is lost. Returns how often that was.
    fn judge_cuts(&self, host: &VirtualHost, first: usize, count: u64, when: &str, folder: &Path) -> u64 {
        let log = host.log();
        let mut random = Random::new(self.seed ^ first as u64);
        for round in 0..=count {
            let (end, chance) = match round {
                0 => (log.len(), 0),
                _ => (first + random.below((log.len() - first) as u64 + 1) as usize, 1),
            };
            let files = power_cut(self, &log, end, &mut random, chance);
            // A run whose last flush failed says so, and that unused clusters may be left.
            self.judge_crash_with(files, &format!("{when}, power cut at {end} of {}", log.len()), folder, 3);
        }
        count + 1
    }

    /// `worst` is qemu-img's exit code that is still good: 0 clean, 3 leaks.
    pub(super) fn judge_structure(&self, host: &VirtualHost, when: &str, folder: &Path, worst: i32) {
        let bytes = &host.files()[Path::new(IMAGE)];
        if self.name == "dirty" && bytes[79] & 1 == 1 {
            // The old state: qemu-img would repair it.
            return;
        }
        let path = write_file(folder, "judged.qcow2", bytes);
        let output = Command::new("qemu-img").args(["check", "-f", "qcow2"]).arg(&path).output().unwrap();
        let code = output.status.code().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(code == 0 || code == worst, "{}: {when}: qemu-img check says {code}: {text}", self.name);
    }
}

/// The cases, without undo records; with one that replaces an earlier one; and (two of them) without one where there was
/// one.
fn cases_with_records() -> Vec<Case> {
    let plain = cases();
    let next: Vec<Case> = plain.iter().map(Case::next).collect();
    let dropped: Vec<Case> = next.iter().take(2).map(|case| Case { keep_undo: false, ..case.clone() }).collect();
    plain.into_iter().chain(next).chain(dropped).collect()
}

/// Judges what is left when a run stops before or inside each of its operations, and after some power cuts. Returns the
/// number of stops and of power cuts.
pub(super) fn judge_stops(case: &Case, log: &[Op], judge: impl Fn(Files, &str)) -> (u64, u64) {
    let (mut stops, mut cuts) = (0, 0);
    for end in 0..=log.len() {
        judge(prefix(case, log, end, false), &format!("after {end} of {}", log.len()));
        stops += 1;
        if end > 0 && matches!(log[end - 1], Op::Write(..)) {
            judge(prefix(case, log, end, true), &format!("inside {end}"));
            stops += 1;
        }
    }
    let mut random = Random::new(case.seed);
    for round in 0..rounds(20, 40) {
        let end = random.below(log.len() as u64 + 1) as usize;
        judge(power_cut(case, log, end, &mut random, 1), &format!("power cut {round} at {end}"));
        cuts += 1;
    }
    (stops, cuts)
}

fn a_stop_at_any_moment_leaves_old_or_new() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut stops, mut cuts) = (0, 0);
    for case in cases_with_records() {
        let host = VirtualHost::new(case.files.clone(), Fault::Never);
        case.commit(&host).unwrap();
        assert!(case.is_new(&host, "without a crash"));
        assert_eq!(case.judge_record(&host, true, "without a crash"), case.keep_undo);
        let log = host.log();
        let (more_stops, more_cuts) =
            judge_stops(&case, &log, |files, when| case.judge_crash(files, when, folder.path()));
        stops += more_stops;
        cuts += more_cuts;
    }
    println!("{stops} stops, {cuts} power cuts");
}

fn a_failure_at_any_step_leaves_old_or_new() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut faults = 0;
    for case in cases_with_records() {
        let host = VirtualHost::new(case.files.clone(), Fault::Never);
        case.commit(&host).unwrap();
        let steps = host.log().len();
        for fault in (0..steps).flat_map(|n| [Fault::Once(n), Fault::From(n)]) {
            faults += 1;
            let host = VirtualHost::new(case.files.clone(), fault);
            let result = case.commit(&host);
            let when = format!("{fault:?} of {steps}");
            match &result {
                Ok(()) => assert!(case.is_new(&host, &when), "{}: {when}: says done, but is old", case.name),
                Err(error) if error.kind() == Kind::Pending => {
                    assert!(host.files().contains_key(&commit::journal_path(Path::new(IMAGE))), "{when}");
                }
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Io, "{}: {when}: {error}", case.name);
                    assert!(!case.is_new(&host, &when), "{}: {when}: says failed, but is new", case.name);
                    assert!(error.hint_text().is_some(), "{error}");
                }
            }
            case.judge_crash(host.files(), &when, folder.path());
        }
    }
    println!("{faults} faults");
}

/// A flush fails, which throws away what was to be flushed, while reads still show it; later the power goes.
fn a_lost_flush_and_a_power_cut_leave_old_or_new() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut cuts = 0u64;
    for case in cases_with_records() {
        let host = VirtualHost::new(case.files.clone(), Fault::Never);
        case.commit(&host).unwrap();
        let log = host.log();
        let flushes = (0..log.len()).filter(|n| matches!(log[*n], Op::Flush(_)));
        for flush in flushes {
            let host = VirtualHost::new(case.files.clone(), Fault::Once(flush));
            let result = case.commit(&host);
            let when = format!("flush {flush} lost, {result:?}");
            cuts += case.judge_cuts(&host, flush, rounds(2, 6), &when, folder.path());
        }
        // The process is killed, which loses nothing; the next run recovers; then the power goes.
        let is_image = |op: &Op| matches!(op, Op::Write(path, ..) | Op::Flush(path) if path == Path::new(IMAGE));
        for end in (1..=log.len()).filter(|end| is_image(&log[end - 1])) {
            let host = VirtualHost::after(case.files.clone(), &log[..end]);
            on::recover(&host, Path::new(IMAGE), Locking::Ignore, &PathPolicy::default()).unwrap();
            let is_switch = matches!(&log[end - 1], Op::Write(_, 0, _));
            let count = if is_switch { 8 } else { rounds(0, 6) };
            cuts += case.judge_cuts(&host, end, count, &format!("killed after {end}, recovered"), folder.path());
        }
    }
    println!("{cuts} power cuts");
}

/// A run is interrupted; a guest runs on the image all the same; then the next run recovers. What the guest wrote stays.
fn a_guest_that_ran_in_between_loses_nothing() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(IMAGE);
    let (mut runs, mut kept_longer) = (0, 0);
    for case in cases().iter().filter(|case| case.format == Format::Qcow2) {
        let host = VirtualHost::new(case.files.clone(), Fault::Never);
        case.commit(&host).unwrap();
        let log = host.log();
        let journal = commit::journal_path(Path::new(IMAGE));
        let is_image = |op: &Op| matches!(op, Op::Write(path, ..) | Op::Reserve(path, ..) if path == Path::new(IMAGE));
        for end in (1..log.len()).filter(|end| is_image(&log[end - 1])) {
            let mut files = prefix(case, &log, end, false);
            if !files.contains_key(&journal) {
                continue;
            }
            std::fs::write(&path, &files[Path::new(IMAGE)]).unwrap();
            let mut guest = Command::new("qemu-io");
            guest.args(["-f", "qcow2", "-c", "write -P 0x5a 37k 3k", "-c", "write -P 0xa5 300k 250k"]).arg(&path);
            assert!(guest.output().unwrap().status.success());
            files.insert(IMAGE.into(), std::fs::read(&path).unwrap());
            let host = VirtualHost::new(files, Fault::Never);
            let seen = content(&host, case.format).unwrap();
            assert_equal(&seen[300 << 10..550 << 10], &[0xa5; 250 << 10], "the guest wrote");
            let when = format!("{}: a guest after {end} of {}", case.name, log.len());
            on::recover(&host, Path::new(IMAGE), Locking::Ignore, &PathPolicy::default()).unwrap();
            assert_equal(&content(&host, case.format).unwrap(), &seen, &when);
            case.judge_structure(&host, &when, folder.path(), 3);
            runs += 1;
            kept_longer += u32::from(host.files()[Path::new(IMAGE)].len() > case.files[Path::new(IMAGE)].len());
        }
    }
    println!("{runs} runs of a guest, {kept_longer} of which made the file longer");
    assert!(kept_longer > 0);
}

fn outputs_appear_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let original = write_file(folder.path(), "original.raw", &mixed(CASE_SIZE, 40));
    let out = folder.path().join("out");
    let write = |host: &VirtualHost| {
        let mut stage = stage(&original);
        stage.write_at(ImageOffset(70_000), &[7; 5000]).unwrap();
        on::overlay(host, &mut stage, &original, &out, &CommitOptions::default()).map(|_| ())
    };
    let host = VirtualHost::new(Files::new(), Fault::Never);
    write(&host).unwrap();
    let whole = host.files();
    assert_eq!(whole.keys().collect::<Vec<_>>(), [&out]);
    let steps = host.log().len();
    // What is under the output's name was flushed before it got the name.
    let log = host.log();
    let renamed = log.iter().position(|op| matches!(op, Op::Rename(..))).unwrap();
    assert!(matches!(log[renamed - 1], Op::Flush(_)) && matches!(log[renamed + 1], Op::SyncFolder(_)));
    for fault in (0..steps).flat_map(|n| [Fault::Once(n), Fault::From(n)]) {
        let host = VirtualHost::new(Files::new(), fault);
        let error = write(&host).unwrap_err();
        assert_eq!(error.kind(), Kind::Io, "{error}");
        if let Some(found) = host.files().get(&out) {
            assert!(*found == whole[&out], "{fault:?}");
        }
        if matches!(fault, Fault::Once(_)) {
            assert!(host.files().keys().all(|path| *path == out), "{fault:?}: {:?}", host.files().keys());
        }
    }
}

fn a_file_that_changed_after_the_interruption_is_left_alone() {
    let old = mixed(CASE_SIZE, 50);
    let mut files = Files::new();
    files.insert(IMAGE.into(), old.clone());
    let mut case =
        Case { name: "raw", format: Format::Raw, files, old: old.clone(), new: old, seed: 51, keep_undo: false };
    let host = VirtualHost::new(case.files.clone(), Fault::Never);
    scribble(&mut case.stage(&host), &mut case.new, &mut Random::new(51), 5);
    case.commit(&host).unwrap();
    let log = host.log();
    let end = log.iter().position(|op| matches!(op, Op::Remove(_))).unwrap();
    let mut files = prefix(&case, &log, end, false);
    let differs = case.old.iter().zip(&case.new).position(|(a, b)| a != b).unwrap();
    files.get_mut(Path::new(IMAGE)).unwrap()[differs] ^= 0x55;
    let host = VirtualHost::new(files.clone(), Fault::Never);
    let error = on::recover(&host, Path::new(IMAGE), Locking::Ignore, &PathPolicy::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Pending, "{error}");
    assert!(host.files() == files, "nothing was touched");
    // A journal that lost its tail, or a byte, or got one more, restores nothing either.
    let journal = commit::journal_path(Path::new(IMAGE));
    let good = prefix(&case, &log, end, false);
    let length = good[&journal].len();
    for damage in 0..61 {
        let mut files = good.clone();
        let bytes = files.get_mut(&journal).unwrap();
        if damage == 60 {
            bytes.push(b'\n');
        } else if damage < 20 {
            bytes.truncate(9 + damage * length / 21);
        } else {
            bytes[8 + (damage - 20) * (length - 8) / 40] ^= 0x10;
        }
        let host = VirtualHost::new(files.clone(), Fault::Never);
        let error = on::recover(&host, Path::new(IMAGE), Locking::Ignore, &PathPolicy::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::Pending, "{error}");
        assert!(host.files() == files, "nothing was touched");
    }
}

/// The data file alone is known to be half written, too; and recovery works in a folder that has been moved.
fn a_data_file_and_its_image_go_together() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let places = [folder.path().join("here"), folder.path().join("there")];
    std::fs::create_dir(&places[0]).unwrap();
    let old = mixed(CASE_SIZE, 55);
    write_file(&places[0], "source.raw", &old);
    qemu_img(&places[0], "convert -f raw -O qcow2 -o data_file=data.bin source.raw top.qcow2");
    let before = ["top.qcow2", "data.bin"].map(|name| (name, std::fs::read(places[0].join(name)).unwrap()));
    let mut new = old.clone();
    for make in [FailingHost::new, FailingHost::once] {
        let (mut steps, mut pending) = (0, 0);
        loop {
            let [here, there] = &places;
            new.copy_from_slice(&old);
            for (name, content) in &before {
                // Holes and all: the file is made anew each time.
                std::fs::write(here.join(name), content).unwrap();
            }
            let file = here.join("top.qcow2");
            let mut stage = stage(&file);
            scribble(&mut stage, &mut new, &mut Random::new(56), 6);
            let host = make(steps);
            let path_policy = PathPolicy::default().allow(here.join("data.bin"));
            let options = CommitOptions { path_policy, ..CommitOptions::default() };
            let result = on::in_place(&host, &mut stage, &file, &options);
            drop(stage);
            std::fs::rename(here, there).unwrap();
            let (file, data) = (there.join("top.qcow2"), there.join("data.bin"));
            let alone = block::open(&data, &OpenOptions { format: Some(Format::Raw), ..OpenOptions::default() });
            // Also when the very last step of a journal failed, and then its removal.
            let journal = std::fs::read(commit::journal_path(&file)).unwrap_or_default();
            let has_journal = journal.starts_with(b"WINJUNDO");
            let is_pending = matches!(&result, Err(error) if error.kind() == Kind::Pending);
            assert_eq!(has_journal, is_pending, "step {steps}: {result:?}");
            if has_journal {
                pending += 1;
                assert_eq!(alone.unwrap_err().kind(), Kind::Pending, "step {steps}");
                assert_eq!(commit::recover(&data, &PathPolicy::default()).unwrap_err().kind(), Kind::Pending);
                let files = ["top.qcow2", "data.bin"].map(|name| std::fs::read(there.join(name)).unwrap());
                let error = commit::recover(&file, &PathPolicy::default().allow(there)).unwrap_err();
                assert_eq!(error.kind(), Kind::Refused, "writing needs the file's own name: {error}");
                assert!(error.hint_text().unwrap().contains("--allow-path"), "{error:?}");
                assert!(files == ["top.qcow2", "data.bin"].map(|name| std::fs::read(there.join(name)).unwrap()));
            } else {
                alone.unwrap_or_else(|e| panic!("step {steps}: {result:?}, but {e}"));
            }
            commit::recover(&file, &PathPolicy::default().allow(&data)).unwrap();
            let found = read_all(&*open(&file));
            assert!(found == old || found == new, "step {steps}: neither old nor new");
            assert!(result.is_err() || found == new, "step {steps}");
            assert_clean(&file);
            assert!(!commit::journal_path(&file).exists());
            assert!(!commit::journal_path(&data).exists(), "step {steps}: recovery leaves the data file's marker");
            std::fs::rename(there, here).unwrap();
            if result.is_ok() && host.left() > 0 && host.left() < usize::MAX / 2 {
                break;
            }
            steps += 1;
        }
        assert!(steps > 12, "{steps} steps");
        assert!(pending > 0, "{pending} of {steps} steps left something to recover");
    }
}

/// The job is asked to stop at any step: the image is as it was and the run says so, or it is new.
fn a_cancel_at_any_step_leaves_old_or_new() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let old = mixed(CASE_SIZE, 57);
    write_file(path, "source.raw", &old);
    qemu_img(path, "convert -f raw -O raw source.raw plain");
    qemu_img(path, "convert -f raw -O qcow2 source.raw tables");
    qemu_img(path, "convert -f raw -O qcow2 -o data_file=data.bin source.raw two");
    for name in ["plain", "tables", "two"] {
        let (file, data) = (path.join(name), path.join("data.bin"));
        let before = [&file, &data].map(|path| std::fs::read(path).unwrap());
        let (mut cancelled, mut completed) = (0, 0);
        for steps in 0.. {
            [&file, &data].into_iter().zip(&before).for_each(|(path, content)| std::fs::write(path, content).unwrap());
            let format = Some(if name == "plain" { Format::Raw } else { Format::Qcow2 });
            let image = block::open(&file, &OpenOptions { format, ..OpenOptions::default() }).unwrap();
            let mut stage = Stage::new(image, StageOptions::default());
            let mut new = old.clone();
            scribble(&mut stage, &mut new, &mut Random::new(58), 6);
            let options = CommitOptions { path_policy: PathPolicy::default().allow(&data), ..CommitOptions::default() };
            let host = FailingHost::cancelling(steps, &options.cancel);
            let result = on::in_place(&host, &mut stage, &file, &options);
            let is_over = !options.cancel.is_requested();
            drop(stage);
            let image = block::open(&file, &OpenOptions { format, ..OpenOptions::default() }).unwrap();
            match result {
                Ok(_) => assert_equal(&read_all(&*image), &new, &format!("{name}, step {steps}")),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Cancelled, "{error}");
                    assert_equal(&read_all(&*image), &old, &format!("{name}, step {steps}"));
                    cancelled += 1;
                    completed = 0;
                }
            }
            completed += 1;
            let left: Vec<_> = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(left.len(), 5, "{name}, step {steps}: {left:?}");
            if is_over {
                break;
            }
        }
        assert!(cancelled > 4 && completed > 1, "{name}: {cancelled} cancelled, then {completed} completed");
    }
}

tests![
    a_stop_at_any_moment_leaves_old_or_new,
    a_failure_at_any_step_leaves_old_or_new,
    a_lost_flush_and_a_power_cut_leave_old_or_new,
    a_guest_that_ran_in_between_loses_nothing,
    outputs_appear_whole_or_not_at_all,
    a_file_that_changed_after_the_interruption_is_left_alone,
    a_data_file_and_its_image_go_together,
    a_cancel_at_any_step_leaves_old_or_new,
];
