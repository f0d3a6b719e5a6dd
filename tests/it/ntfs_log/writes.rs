//! What is written of an unclean guest: the replay and the edit, in one commit.

use std::process::Command;

use super::made::{Unclean, disk_sha256, ends, inject, sha256, stderr, stdout, succeed, unclean, unclean_of, winject};
use crate::support::{self, judge, rounds};

fn every_destination_holds_the_same_replayed_guest() {
    let Some(guest) = unclean("--seed 1 --end lose --version 2.0") else { return };
    let Unclean { image, .. } = &guest;
    let before = sha256(image);
    let (overlay, new, planned) = (guest.path("overlay.qcow2"), guest.path("new.qcow2"), guest.path("planned.raw"));
    succeed(inject(image, &["--overlay"]).arg(&overlay));
    let drivers = super::made::fixture_drivers();
    succeed(winject().arg("convert").arg(image).arg(&new).arg("--inject").arg(&drivers));
    let plan = guest.path("plan.json");
    let report = guest.path("report.json");
    let text = stdout(&succeed(
        winject()
            .arg("plan")
            .arg(image)
            .arg("--drivers")
            .arg(&drivers)
            .arg("-o")
            .arg(&plan)
            .arg("--report")
            .arg(&report),
    ));
    assert!(text.contains("NTFS log") && text.contains("version 2.0, replayed before the edits"), "{text}");
    assert_eq!(before, sha256(image), "nothing of this writes into the image");
    let mut apply = winject();
    succeed(apply.arg("apply").arg(&plan).arg("--drivers").arg(&drivers).arg("-o").arg(&planned));
    succeed(inject(image, &["--in-place", "--report"]).arg(&report));
    let report = std::fs::read_to_string(&report).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["log_replay"]["version"], "2.0");
    assert!(report["log_replay"]["records_redone"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["run"]["volume_check"], "passed");
    let expected = disk_sha256(image);
    for other in [&new, &planned] {
        assert_eq!(expected, disk_sha256(other), "{}", other.display());
    }
    guest.judge(image);
    ends(&mut winject_on("fsck", image), 0);
    assert!(stdout(&succeed(&mut inject(image, &["--in-place"]))).contains("Unchanged:"));
    // the overlay's backing file has been changed by now
    succeed(winject().arg("undo").arg(image));
    assert_eq!(before, sha256(image));
    assert_eq!(expected, disk_sha256(&overlay));
}

fn winject_on(command: &str, image: &std::path::Path) -> Command {
    let mut all = winject();
    all.args(command.split(' ')).arg(image);
    all
}

/// The phases that are counted in bytes end when all are done.
fn every_byte_is_told(output: &std::process::Output, phases: &[&str]) {
    let text = stderr(output);
    let lines: Vec<serde_json::Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for phase in phases {
        let end = lines.iter().find(|line| line["phase"] == *phase && line["state"] == "end");
        let end = end.unwrap_or_else(|| panic!("no {phase}: {text}"));
        assert!(end["done"].as_u64() > Some(0) && end["done"] == end["total"], "{end}");
    }
}

fn a_replay_alone_gives_what_the_generator_wanted() {
    for seed in 0..rounds(2, 4) {
        let (version, end) = (["1.1", "2.0"][seed as usize % 2], ["commit", "lose", "abort"][seed as usize % 3]);
        let Some(guest) = unclean(&format!("--seed {seed} --version {version} --end {end}")) else { return };
        let image = &guest.image;
        let text = ends(&mut winject_on("ntfs-log show", image), 1);
        assert!(text.contains("open, version") && text.contains("transaction"), "{text}");
        let before = sha256(image);
        let copy = guest.path("copy.raw");
        succeed(winject_on("ntfs-log replay", image).arg("-o").arg(&copy));
        assert_eq!(before, sha256(image));
        let replay = succeed(winject_on("ntfs-log replay --progress json", image).arg("--in-place"));
        every_byte_is_told(&replay, &["check-volume", "check-folders", "commit"]);
        let text = stdout(&replay);
        assert!(text.contains("Done:") && text.contains("Undo:"), "{text}");
        assert_eq!(sha256(&copy), sha256(image));
        guest.judge(image);
        let same = judge("logfile/samevol.py").unwrap();
        support::run(Command::new("python3").arg(same).arg(&guest.volume.want).arg(guest.volume_in(image)));
        assert!(ends(&mut winject_on("ntfs-log show", image), 0).contains("closed, version 1.1"));
        assert!(ends(winject_on("ntfs-log replay", image).arg("--in-place"), 0).contains("Unchanged:"));
        // An overlay that is asked for is there afterwards, with nothing in it.
        let overlay = guest.path("overlay.qcow2");
        let text = stdout(&succeed(winject_on("ntfs-log replay", image).arg("--overlay").arg(&overlay)));
        assert!(text.contains("overlay.qcow2 is empty") && !text.contains("nothing was written"), "{text}");
        assert_eq!(disk_sha256(&overlay), disk_sha256(image));
        succeed(winject().arg("undo").arg(image));
        assert_eq!(before, sha256(image));
    }
}

fn a_removal_replays_first_and_leaves_a_sound_guest() {
    let injected = |image: &std::path::Path| drop(succeed(&mut inject(image, &["--in-place", "--no-undo"])));
    let Some(guest) = unclean_of("--seed 3 --end lose", injected) else { return };
    let image = &guest.image;
    let before = sha256(image);
    let text = stdout(&succeed(winject_on("remove", image).arg("--in-place")));
    assert!(text.contains("Removed:"), "{text}");
    guest.judge(image);
    succeed(winject().arg("undo").arg(image));
    assert_eq!(before, sha256(image));
}

fn an_edit_of_the_registry_replays_first() {
    let Some(guest) = unclean("--seed 4 --version 2.0") else { return };
    let image = &guest.image;
    let before = sha256(image);
    let set = |more: &[&str]| {
        let mut command = winject_on("reg set", image);
        command.args([r"HKLM\SYSTEM\Setup", "--value", "Replayed", "--data", "yes", "--in-place"]).args(more);
        command
    };
    ends(&mut set(&["--no-replay"]), 3);
    assert_eq!(before, sha256(image));
    assert!(ends(&mut set(&[]), 0).contains("NTFS log: version 2.0, replayed"));
    guest.judge(image);
    assert!(ends(&mut winject_on("ntfs-log show", image), 0).contains("closed"));
    succeed(winject().arg("undo").arg(image));
    assert_eq!(before, sha256(image));
}

tests![
    every_destination_holds_the_same_replayed_guest,
    a_replay_alone_gives_what_the_generator_wanted,
    a_removal_replays_first_and_leaves_a_sound_guest,
    an_edit_of_the_registry_replays_first,
];
