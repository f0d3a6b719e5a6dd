//! Saved plans of machines with several disks.

use super::{MACHINES, Machine, command, fail, uefi};
use crate::block::Random;
use crate::inject::{copy, disk_sha256, folder, names, sha256, stdout, succeed, winject};
use crate::support;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use winject::internals::job::SavedPlan;
use winject::internals::plan::saved::PlanDocument;

/// Saves the plan for a machine, with its bundle.
fn plan(machine: &Machine, is_windows_first: bool) -> PathBuf {
    let path = machine.system.with_file_name("plan.json");
    let options = format!("--bundle --overwrite -o {}", path.display());
    succeed(&mut command("plan", &machine.in_order(is_windows_first), &options));
    path
}

fn apply(plan: &Path, options: &str) -> Command {
    let mut command = winject();
    command.arg("apply").arg(plan).args(options.split_whitespace());
    command
}

/// The plan is one file whatever the order; applied, found by name or given in any order, it does what an injection does.
fn a_plan_of_two_disks_applies_like_an_injection() {
    for (firmware, make) in MACHINES {
        let folder = folder();
        let machine = make(folder.path());
        let (old, boot) = (sha256(&machine.system), sha256(&machine.boot));
        let saved = plan(&machine, true);
        let bytes = std::fs::read(&saved).unwrap();
        plan(&machine, false);
        assert_eq!(std::fs::read(&saved).unwrap(), bytes, "{firmware}: the order counts");
        let document = SavedPlan::read(&saved).unwrap().document().clone();
        assert_eq!(document.image.as_deref(), Some("system.raw"));
        assert_eq!(document.others.len(), 1);
        assert_eq!(document.others[0].name.as_deref(), Some("boot.raw"));
        assert!(document.others[0].reads.bytes > 0);

        let out = folder.path().join("injected.qcow2");
        succeed(&mut command("inject", &machine.in_order(true), &format!("--overlay {}", out.display())));
        let expected = disk_sha256(&out);
        let (one, other) = (machine.system.display(), machine.boot.display());
        for images in
            [String::new(), format!("--image {one} --image {other}"), format!("--image {other} --image {one}")]
        {
            succeed(&mut apply(&saved, &format!("{images} --in-place")));
            assert_eq!(disk_sha256(&machine.system), expected, "{firmware} {images}");
            fail(&mut apply(&saved, &format!("{images} --in-place")), 9, &[&machine.system, &machine.boot]);
            succeed(winject().arg("undo").arg(&machine.system));
            assert_eq!((sha256(&machine.system), sha256(&machine.boot)), (old.clone(), boot.clone()));
        }
        let text = fail(&mut apply(&saved, &format!("--image {one} --in-place")), 2, &[&machine.system]);
        assert!(text.contains(&format!("--image {one} --image {other}")), "{text}");
        let review = stdout(&succeed(winject().arg("plan").arg("--show").arg(&saved)));
        assert!(review.contains("boot.raw"), "{review}");
    }
}

/// Any order of four disks is the same machine.
fn any_order_of_the_disks_gives_the_same_plan() {
    let folder = folder();
    let machine = uefi(folder.path());
    let blank = folder.path().join("blank.raw");
    std::fs::File::create(&blank).unwrap().set_len(1 << 20).unwrap();
    let other = folder.path().join("another.raw");
    copy(&machine.boot, &other);
    super::edit_gpt(&other, &[super::ESP], Some(0x44));
    let mut disks = [machine.boot.as_path(), &machine.system, &blank, &other];
    let saved = folder.path().join("plan.json");
    let mut random = Random::new(3);
    let mut first = None;
    for _ in 0..support::rounds(6, 24) {
        for index in (1..disks.len()).rev() {
            disks.swap(index, usize::try_from(random.below(index as u64 + 1)).unwrap());
        }
        succeed(&mut command("plan", &disks, &format!("--overwrite -o {}", saved.display())));
        let bytes = std::fs::read(&saved).unwrap();
        assert_eq!(*first.get_or_insert_with(|| bytes.clone()), bytes, "{disks:?}");
    }
    let names: Vec<_> =
        SavedPlan::read(&saved).unwrap().document().others.iter().map(|other| other.name.clone()).collect();
    assert_eq!(names, ["another.raw", "blank.raw", "boot.raw"].map(|name| Some(name.to_owned())));
    let drivers = crate::inject::fixture_drivers();
    succeed(apply(&saved, "--in-place --drivers").arg(drivers));
}

fn flip(path: &Path, offset: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x55], offset).unwrap();
}

/// A byte of the other disk makes the plan stale exactly if it was read.
fn the_other_disk_counts_where_it_was_read() {
    let folder = folder();
    let machine = uefi(folder.path());
    let saved = plan(&machine, true);
    let document = SavedPlan::read(&saved).unwrap().document().clone();
    let ranges = &document.others[0].reads.ranges;
    let mut random = Random::new(77);
    let both = [machine.system.as_path(), &machine.boot];
    for _ in 0..support::rounds(8, 30) {
        let range = &ranges[usize::try_from(random.below(ranges.len() as u64)).unwrap()];
        let offset = range.start + random.below(range.length);
        flip(&machine.boot, offset);
        let output = apply(&saved, "--dry-run").output().unwrap();
        let text = crate::inject::stderr(&output);
        assert_eq!(output.status.code(), Some(9), "{offset:#x}: {text}");
        assert!(text.contains("boot.raw") && text.contains("the plan is stale: "), "{offset:#x}: {text}");
        flip(&machine.boot, offset);
    }
    let is_read = |at: u64| ranges.iter().any(|range| (range.start..range.start + range.length).contains(&at));
    let mut applied = 0;
    while applied < support::rounds(4, 10) {
        let offset = random.below(document.others[0].disk.size);
        if is_read(offset) {
            continue;
        }
        flip(&machine.boot, offset);
        succeed(&mut apply(&saved, "--dry-run"));
        flip(&machine.boot, offset);
        applied += 1;
    }
    std::fs::File::options().write(true).open(&machine.boot).unwrap().set_len((1 << 30) + 512).unwrap();
    let text = fail(&mut apply(&saved, "--in-place"), 9, &both);
    assert!(text.contains("the size of boot.raw is "), "{text}");
    assert!(text.contains(&format!("winject plan {} {}", both[0].display(), both[1].display())), "{text}");
    assert_eq!(names(folder.path()), ["boot.raw", "plan.files", "plan.json", "system.raw"]);
}

/// A forged document says nothing impossible of the other disks.
fn the_other_disks_of_a_document_are_judged() {
    let folder = folder();
    let machine = uefi(folder.path());
    let good = SavedPlan::read(&plan(&machine, true)).unwrap().document().clone();
    let refused = |what: &str, change: &dyn Fn(&mut PlanDocument)| {
        let mut document = good.clone();
        change(&mut document);
        let error = document.judge().expect_err(what);
        assert!(error.to_string().contains("others"), "{what}: {error}");
    };
    refused("a path", &|plan| plan.others[0].name = Some("../boot.raw".to_owned()));
    refused("no name", &|plan| plan.others[0].name = Some(String::new()));
    refused("a sector", &|plan| plan.others[0].disk.sector = 513);
    refused("an id", &|plan| plan.others[0].disk.id = Some("0x00000001".to_owned()));
    refused("a range", &|plan| plan.others[0].reads.ranges[0].start = plan.others[0].disk.size);
    refused("a sum", &|plan| plan.others[0].reads.bytes += 1);
    refused("too many", &|plan| plan.others = vec![plan.others[0].clone(); 64]);
    good.judge().unwrap();
    let text = String::from_utf8(good.to_bytes()).unwrap();
    PlanDocument::parse(text.as_bytes()).unwrap();
    let mut alone = good.clone();
    alone.others.clear();
    assert!(
        !String::from_utf8(alone.to_bytes()).unwrap().contains("\"others\""),
        "a plan of one disk has no such field"
    );
}

/// The files may be renamed: disks are found by what they hold.
fn renamed_disks_are_found_by_content() {
    let folder = folder();
    let machine = uefi(folder.path());
    let saved = plan(&machine, true);
    let (one, other) = (folder.path().join("a.img"), folder.path().join("b.img"));
    copy(&machine.boot, &one);
    copy(&machine.system, &other);
    let old = sha256(&one);
    let images = format!("--image {} --image {} --in-place", one.display(), other.display());
    let text = stdout(&succeed(&mut apply(&saved, &images)));
    assert!(text.contains(&format!("Windows is on {}", other.display())), "{text}");
    assert_eq!(sha256(&one), old);
    assert_ne!(sha256(&other), sha256(&machine.system));
}

/// A plan knows little of another disk than that with Windows, and a copy of that one has all of it: the plan's own disk is
/// written all the same, whatever the order.
fn a_copy_of_the_disk_with_windows_is_not_taken_for_it() {
    let folder = folder();
    let machine = uefi(folder.path());
    let clone = folder.path().join("a-clone.raw");
    copy(&machine.system, &clone);
    let saved = folder.path().join("plan.json");
    let (system, boot) = (machine.system.as_path(), machine.boot.as_path());
    let all = [system, boot, &clone];
    let images = |disks: &[&Path]| disks.iter().map(|disk| format!(" --image {}", disk.display())).collect::<String>();
    for is_edited in [false, true] {
        if is_edited {
            succeed(&mut command("inject", &[&clone, boot], "--in-place --no-undo"));
        }
        let options = format!("--bundle --overwrite -o {} --windows-disk {}", saved.display(), system.display());
        succeed(&mut command("plan", &all, &options));
        let (old, copied) = (sha256(system), sha256(&clone));
        for images in [String::new(), images(&all), images(&[&clone, boot, system]), images(&[boot, &clone, system])] {
            succeed(&mut apply(&saved, &format!("{images} --in-place")));
            assert_ne!(sha256(system), old, "{images}");
            assert_eq!(sha256(&clone), copied, "{images}: the copy was written");
            succeed(winject().arg("undo").arg(system));
            assert_eq!(sha256(system), old);
        }
    }
    // Two that hold the same, and neither has the name: which one is meant cannot be known.
    let renamed = [folder.path().join("one.raw"), folder.path().join("other.raw")];
    copy(system, &renamed[0]);
    copy(system, &renamed[1]);
    let options = format!("--bundle --overwrite -o {} --windows-disk {}", saved.display(), system.display());
    succeed(&mut command("plan", &[system, boot, &renamed[0]], &options));
    let disks = [renamed[0].as_path(), boot, &renamed[1]];
    let text = fail(&mut apply(&saved, &format!("{} --in-place", images(&disks))), 3, &disks);
    assert!(text.contains("cannot tell which disk"), "{text}");
}

tests![
    a_copy_of_the_disk_with_windows_is_not_taken_for_it,
    a_plan_of_two_disks_applies_like_an_injection,
    any_order_of_the_disks_gives_the_same_plan,
    the_other_disk_counts_where_it_was_read,
    the_other_disks_of_a_document_are_judged,
    renamed_disks_are_found_by_content,
];
