//! Forged plans through the real application: whatever they say, the image is as it was, or it is sound and changed
//! only by edits of the plan in places where plans may edit.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use winject::internals::block::Format;
use winject::internals::clock::FileTime;
use winject::internals::error::Kind;
use winject::internals::job::{self, Destination, InjectRequest, SavedPlan, Silent, StateOverrides};
use winject::internals::partition::Partition;
use winject::internals::plan::GuestHive;
use winject::internals::plan::saved::{PLAN_BYTES_MAX, PlanDocument, SavedEdit};
use winject::{UndoOptions, undo};

use super::forge::{Break, Forgery, breakage, forgery, inline, mend};
use super::guest_state::{GuestState, partition_of, read_hive};
use super::{fail, plan};
use crate::disks::uefi;
use crate::inject::{fixture_drivers, folder, names, sha256, succeed, winject, writable_fixture};
use crate::support;

/// A disk with a plan for it, perhaps with other disks of its machine.
struct Subject {
    folder: tempfile::TempDir,
    image: PathBuf,
    others: Vec<PathBuf>,
    plan: PlanDocument,
    partition: Partition,
    state: GuestState,
    old: String,
    files: Vec<String>,
}

/// What became of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It was not read.
    NotRead,
    /// It was not applied, with an error of this kind.
    Refused(Kind),
    /// The image is as the plan wants it already.
    Unchanged,
    Applied,
}

impl Subject {
    /// The sample guest after these injections, with a plan of these options.
    fn new(injected: &[&str], options: &str) -> Self {
        let folder = folder();
        let image = writable_fixture(folder.path(), Format::Raw);
        for form in injected {
            let mut inject = winject();
            inject.arg("inject").arg(&image).arg("--drivers").arg(fixture_drivers());
            succeed(inject.args(["--in-place", "--no-undo", "--registration", form]));
        }
        Self::planned(folder, image, Vec::new(), options)
    }

    /// The same guest, with its boot files on another disk.
    fn on_two_disks() -> Self {
        let folder = folder();
        let machine = uefi(folder.path());
        Self::planned(folder, machine.system, vec![machine.boot], "--registration minimal")
    }

    fn planned(folder: tempfile::TempDir, image: PathBuf, others: Vec<PathBuf>, options: &str) -> Self {
        let saved = folder.path().join("plan.json");
        let mut command = winject();
        command.arg("plan").arg(&image).args(&others).arg("--drivers").arg(fixture_drivers()).arg("-o").arg(&saved);
        succeed(command.args(options.split_whitespace()));
        let plan = SavedPlan::read(&saved).unwrap().document().clone();
        std::fs::remove_file(saved).unwrap();
        let (partition, state) = (partition_of(&image), GuestState::read(&image));
        let mut subject = Self { folder, image, others, plan, partition, state, old: String::new(), files: Vec::new() };
        (subject.old, subject.files) = (subject.hash(), names(subject.folder.path()));
        subject
    }

    /// Hashes of all disks.
    fn hash(&self) -> String {
        std::iter::once(&self.image).chain(&self.others).map(|path| sha256(path)).collect()
    }

    /// Applies what these bytes say, judges the outcome, and takes it back.
    fn apply(&self, bytes: &[u8]) -> Outcome {
        let path = self.folder.path().join("forged.json");
        std::fs::write(&path, bytes).unwrap();
        let read = SavedPlan::read(&path);
        std::fs::remove_file(&path).unwrap();
        let saved = match read {
            Ok(saved) => saved,
            Err(error) => {
                assert!(error.kind() == Kind::Usage && error.hint_text().is_some(), "{error}");
                return Outcome::NotRead;
            }
        };
        match job::apply(&saved, &self.request(saved.document()), &Silent) {
            Err(error) => {
                assert!(error.kind() != Kind::Bug && error.hint_text().is_some(), "{error}");
                self.require_untouched();
                Outcome::Refused(error.kind())
            }
            Ok(_) if self.hash() == self.old => {
                self.require_untouched();
                Outcome::Unchanged
            }
            Ok(_) => {
                let new = GuestState::read(&self.image);
                let unexplained = self.state.unexplained(&new, saved.document());
                assert!(unexplained.is_empty(), "changed, but not by a permitted edit: {unexplained:?}");
                self.show_to_judges(saved.document());
                undo(&self.image, &UndoOptions::default(), &Silent).unwrap();
                self.require_untouched();
                Outcome::Applied
            }
        }
    }

    /// The person who applies it agrees to all that it overrides.
    fn request(&self, document: &PlanDocument) -> InjectRequest {
        let clock = FileTime::from_unix_seconds(1_700_000_000).unwrap();
        let planned = &document.state;
        InjectRequest {
            state: StateOverrides {
                allow_dirty: planned.allow_dirty,
                discard_ntfs_log: planned.discard_ntfs_log,
                discard_hibernation: planned.discard_hibernation,
                no_replay: planned.no_replay,
            },
            skip_volume_check: planned.skip_volume_check,
            other_disks: self.others.clone(),
            ..InjectRequest::new(&self.image, vec![fixture_drivers()], Destination::InPlace, clock)
        }
    }

    fn require_untouched(&self) {
        assert_eq!(self.hash(), self.old, "a disk was touched");
        assert_eq!(names(self.folder.path()), self.files);
    }

    /// Checkers that share no code with us.
    fn show_to_judges(&self, document: &PlanDocument) {
        let (Some(volumes), Some(hives)) = (support::judge("ntfscheck.py"), support::judge("hivecheck.py")) else {
            return;
        };
        let offset = self.partition.start.0.to_string();
        support::run(Command::new("python3").arg(volumes).arg("--offset").arg(offset).arg(&self.image));
        let folder = tempfile::tempdir().unwrap();
        let edited = |hive: &GuestHive| document.steps.iter().any(|step| step.edit.hive() == Some(*hive));
        let edited = GuestHive::ALL.into_iter().filter(edited).map(|hive| {
            let path = folder.path().join(hive.file_name());
            std::fs::write(&path, read_hive(&self.image, hive)).unwrap();
            path
        });
        let edited: Vec<PathBuf> = edited.collect();
        if !edited.is_empty() {
            support::run(Command::new("python3").arg(hives).args(edited));
        }
    }

    /// The bytes of the plan after these changes.
    fn forge(&self, forgeries: &[Forgery], is_mended: bool, breaks: &[Break]) -> Vec<u8> {
        let mut plan = self.plan.clone();
        forgeries.iter().for_each(|forgery| forgery.apply(&mut plan));
        if is_mended {
            mend(&mut plan, &self.state, &self.image);
        }
        if breaks.is_empty() {
            return plan.to_bytes();
        }
        let mut value = serde_json::to_value(&plan).unwrap();
        breaks.iter().for_each(|change| change.apply(&mut value));
        // In the canonical form, if it is a document at all.
        match serde_json::from_value::<PlanDocument>(value.clone()) {
            Ok(document) => document.to_bytes(),
            Err(_) => serde_json::to_vec_pretty(&value).unwrap(),
        }
    }
}

/// Plans that register, that install whole packages, that remove these again, and that are for two disks.
fn subjects() -> Vec<Subject> {
    vec![
        Subject::new(&[], "--registration minimal"),
        Subject::new(&[], "--registration full"),
        Subject::new(&["full"], "--registration minimal"),
        Subject::on_two_disks(),
    ]
}

fn whatever_a_plan_says_the_image_is_as_it_was_or_sound() {
    let subjects = subjects();
    let cases = u32::try_from(support::rounds(60, 150)).unwrap();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcomes: RefCell<Vec<Outcome>> = RefCell::default();
    let breaks = prop_oneof![5 => Just(Vec::new()), 1 => vec(breakage(), 1..3)];
    let input = (0..subjects.len(), vec(forgery(), 1..3), prop::bool::weighted(0.85), breaks);
    let ended = runner.run(&input, |(subject, forgeries, is_mended, breaks)| {
        let subject = &subjects[subject];
        let outcome = subject.apply(&subject.forge(&forgeries, is_mended, &breaks));
        outcomes.borrow_mut().push(outcome);
        Ok(())
    });
    let outcomes = outcomes.into_inner();
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    outcomes.iter().for_each(|outcome| *counts.entry(format!("{outcome:?}")).or_default() += 1);
    println!("{counts:?}");
    ended.unwrap_or_else(|error| panic!("{error}"));
    let count = |wanted: Outcome| outcomes.iter().filter(|outcome| **outcome == wanted).count();
    assert!(count(Outcome::NotRead) > 0 && count(Outcome::Refused(Kind::Stale)) > 0 && count(Outcome::Applied) > 4);
}

/// The read set is a promise of the plan: without it the plan still changes nothing but what it names, and an image that
/// has changed is still not taken for another.
fn a_plan_without_a_read_set_does_what_it_says() {
    let subject = Subject::new(&[], "--registration minimal");
    let apply = |forgeries: &[Forgery], is_mended| subject.apply(&subject.forge(forgeries, is_mended, &[]));
    assert_eq!(apply(&[], false), Outcome::Applied);
    assert_eq!(apply(&[Forgery::NoReads], true), Outcome::Applied);
    assert_eq!(apply(&[Forgery::NoReads], false), Outcome::NotRead);
    assert_eq!(apply(&[Forgery::NoReads, Forgery::Volume], true), Outcome::Refused(Kind::Stale));
    // A promise that the guest boots is not kept without the edits that see to it.
    let mut empty = subject.plan.clone();
    empty.steps.clear();
    mend(&mut empty, &subject.state, &subject.image);
    assert_eq!(subject.apply(&empty.to_bytes()), Outcome::Refused(Kind::Usage));
    empty.expects.boots_from.clear();
    empty.expects.boots_from_any = false;
    assert_eq!(subject.apply(&empty.to_bytes()), Outcome::NotRead);
    empty.verdict.after.clone_from(&empty.verdict.before);
    assert_eq!(subject.apply(&empty.to_bytes()), Outcome::Unchanged);
}

/// The service program runs as the system, and people cannot review one: a plan brings none but winject's own.
fn a_plan_with_another_service_program_is_refused() {
    const PROGRAM: &str = "/hyper2kvm/hyper2kvm-firstboot.exe";
    let subject = Subject::new(&[], "--registration minimal");
    let read = |program: &[u8], name: &str| {
        let mut forged = subject.plan.clone();
        let file = inline(program);
        let mut count = 0;
        for step in &mut forged.steps {
            if let SavedEdit::WriteFile { path, sha256, size, .. } = &mut step.edit
                && path.eq_ignore_ascii_case(PROGRAM)
            {
                (*path, *sha256, *size) = (name.to_owned(), file.sha256, file.size);
                count += 1;
            }
        }
        assert_eq!(count, 1, "the plan brings the program");
        forged.files.push(file);
        mend(&mut forged, &subject.state, &subject.image);
        let path = subject.folder.path().join("forged.json");
        std::fs::write(&path, forged.to_bytes()).unwrap();
        let read = SavedPlan::read(&path);
        std::fs::remove_file(path).unwrap();
        read
    };
    let own = std::fs::read(support::root().join("src/windows/first_boot/program/amd64.exe")).unwrap();
    assert!(read(&own, PROGRAM).is_ok());
    let mut patched = own.clone();
    *patched.last_mut().unwrap() ^= 1;
    for program in [&patched[..], &own[..own.len() - 1], b"MZ", b""] {
        for name in [PROGRAM, "/HYPER2KVM/Hyper2kvm-Firstboot.exe"] {
            let error = read(program, name).unwrap_err();
            assert!(error.kind() == Kind::Usage && error.to_string().contains("service program"), "{name}: {error}");
        }
    }
    subject.require_untouched();
}

/// A reviewer reads the verdict: a plan that shows another one than its edits bring about is refused.
fn a_verdict_that_is_not_true_is_refused() {
    let subject = Subject::new(&[], "--registration minimal");
    let apply = |change: &dyn Fn(&mut PlanDocument)| {
        let mut plan = subject.plan.clone();
        change(&mut plan);
        mend(&mut plan, &subject.state, &subject.image);
        subject.apply(&plan.to_bytes())
    };
    let no_drivers = |plan: &mut PlanDocument| plan.steps.retain(|step| step.edit.hive() != Some(GuestHive::System));
    let expect_nothing = |plan: &mut PlanDocument| {
        plan.expects.boots_from.clear();
        plan.expects.boots_from_any = false;
    };
    assert_eq!(apply(&|_| {}), Outcome::Applied);
    // It says that the guest boots, and brings nothing that it boots with.
    assert_eq!(apply(&no_drivers), Outcome::Refused(Kind::Usage));
    let silent = |plan: &mut PlanDocument| {
        no_drivers(plan);
        expect_nothing(plan);
    };
    assert_eq!(apply(&silent), Outcome::NotRead);
    // One of the buses.
    let one = |plan: &mut PlanDocument| {
        plan.steps.retain(|step| step.edit.key().is_none_or(|(_, key)| !key.contains("vioscsi")))
    };
    assert_eq!(apply(&one), Outcome::Refused(Kind::Usage));
    let hidden = |plan: &mut PlanDocument| {
        one(plan);
        plan.expects.boots_from.truncate(1);
        plan.verdict.after.truncate(1);
    };
    assert_eq!(apply(&hidden), Outcome::NotRead);
    // It says that the guest does not boot, and makes it boot.
    let modest = |plan: &mut PlanDocument| {
        expect_nothing(plan);
        plan.verdict.after.clone_from(&plan.verdict.before);
    };
    assert_eq!(apply(&modest), Outcome::Refused(Kind::Usage));
    // It does not boot, for another reason than the plan says.
    let other_reason = |plan: &mut PlanDocument| {
        no_drivers(plan);
        modest(plan);
        plan.verdict.after.iter_mut().for_each(|verdict| verdict.findings.clear());
    };
    assert_eq!(apply(&other_reason), Outcome::Refused(Kind::Usage));
    let honest = |plan: &mut PlanDocument| {
        no_drivers(plan);
        modest(plan);
    };
    assert_eq!(apply(&honest), Outcome::Applied);
}

/// At the limits and beyond them a document is refused in bounded memory, and the image is never opened.
fn huge_and_deep_documents_are_refused_in_bounded_memory() {
    let Some(prlimit) = support::program("prlimit") else { return };
    let folder = folder();
    let image = writable_fixture(folder.path(), Format::Raw);
    let saved = plan(&image, "");
    let text = std::fs::read_to_string(&saved).unwrap();
    let path = folder.path().join("huge.json");
    let room = usize::try_from(PLAN_BYTES_MAX).unwrap() - text.len();
    let with_notes = |notes: &str| text.replacen("\"notes\": [", &format!("\"notes\": [\n{notes}"), 1);
    let documents = [
        ("many notes", with_notes(&"    \"\",\n".repeat(room / 8))),
        ("a long note", with_notes(&format!("    \"{}\",\n", "n".repeat(room - 20)))),
        ("escapes", with_notes(&format!("    \"{}\",\n", "\\u0000".repeat(room / 6 - 20)))),
        ("deep", with_notes(&"[".repeat(room - 1))),
        ("too long", with_notes(&" ".repeat(room + 1))),
    ];
    for (what, document) in documents {
        std::fs::write(&path, document).unwrap();
        // Measured: the binary itself takes 0.1 GB, the longest document read 0.8 GB.
        let mut command = Command::new(&prlimit);
        command.arg("--as=1500000000").arg(winject().get_program()).arg("apply").arg(&path);
        let said = fail(command.arg("--image").arg(&image).arg("--in-place"), 2);
        assert!(said.contains("huge.json") && said.contains("plan"), "{what}: {said}");
    }
}

tests![
    whatever_a_plan_says_the_image_is_as_it_was_or_sound,
    a_plan_without_a_read_set_does_what_it_says,
    a_verdict_that_is_not_true_is_refused,
    a_plan_with_another_service_program_is_refused,
    huge_and_deep_documents_are_refused_in_bounded_memory,
];
