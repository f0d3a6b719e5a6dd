//! What is refused, by name and with nothing written; and what may be read all the same.

use super::inject;
use super::made::{Key, Made, RECOVERY};
use crate::inject::{names, sha256, stderr, stdout, winject};
use crate::support;
use std::process::Command;

/// Runs every command that writes, and demands the exit code, these words and that no file is touched.
fn refuse(made: &Made, options: &[&str], code: i32, words: &[&str]) {
    let before = (sha256(&made.image), names(made.folder.path()));
    let out = made.path("new.qcow2");
    let mut in_place = inject(&made.image);
    in_place.arg("--in-place");
    let mut overlay = inject(&made.image);
    overlay.arg("--overlay").arg(&out);
    let mut plan = winject();
    plan.arg("plan").arg(&made.image).arg("--drivers").arg(crate::inject::fixture_drivers());
    plan.arg("-o").arg(made.path("plan.json"));
    let mut remove = winject();
    remove.arg("remove").arg(&made.image).arg("--in-place");
    let mut reg = winject();
    reg.args(["reg", "set"]).arg(&made.image).args([r"HKLM\SYSTEM\X", "--in-place"]);
    for mut command in [in_place, overlay, plan, remove, reg] {
        let output = command.args(options).output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {text}{}", stdout(&output));
        for word in words {
            assert!(text.contains(word), "{command:?} does not say {word:?}: {text}");
        }
        assert_eq!((sha256(&made.image), names(made.folder.path())), before, "{command:?}");
    }
}

fn keys_that_are_missing_or_wrong_are_named_with_the_options_that_fit() {
    let Some(made) = Made::new("xts-128", Key::Recovery, &["--tpm"]) else { return };
    refuse(&made, &[], 3, &["recovery password", "--bitlocker-recovery-key", "partition 3"]);
    let wrong = made.path("keys").join("wrong.txt");
    std::fs::write(&wrong, RECOVERY.replacen("616319", "616330", 1)).unwrap();
    let wrong = wrong.to_str().unwrap();
    refuse(&made, &["--bitlocker-recovery-key", wrong], 3, &["recovery password", "--bitlocker-recovery-key"]);
    // Meant for another volume: not tried on this one.
    let other = format!("11111111={}", made.path("keys").join("recovery.txt").display());
    refuse(&made, &["--bitlocker-recovery-key", &other], 3, &["recovery password"]);
    // A mistyped group is found before anything is tried.
    std::fs::write(wrong, RECOVERY.replacen("616319", "616318", 1)).unwrap();
    refuse(&made, &["--bitlocker-recovery-key", wrong], 2, &["--bitlocker-recovery-key", "group"]);

    // A plan for another disk: the volume stays what hinders.
    let plan = made.path("keys").join("other.json");
    let mut make = winject();
    make.arg("plan").arg(crate::inject::fixture()).arg("--drivers").arg(crate::inject::fixture_drivers());
    crate::inject::succeed(make.arg("--bundle").arg("-o").arg(&plan));
    let apply = winject().arg("apply").arg(&plan).arg("-n").arg("--image").arg(&made.image).output().unwrap();
    let said = stderr(&apply);
    assert!(apply.status.code() == Some(3) && said.contains("--bitlocker-recovery-key"), "{said}");

    let inspect = winject().arg("inspect").arg(&made.image).output().unwrap();
    let text = stdout(&inspect);
    assert_eq!(inspect.status.code(), Some(3), "{text}{}", stderr(&inspect));
    // Every other question is refused in the same words.
    let refusal = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.starts_with(['E', 'H'])).map(str::to_owned).collect()
    };
    let expected = refusal(&stderr(&inspect));
    assert!(expected.concat().contains("--bitlocker-recovery-key"), "{expected:?}");
    for question in [&["fsck"][..], &["check"], &["ntfs-log", "show"], &["ntfs-log", "replay", "--dry-run"]] {
        let output = winject().args(question).arg(&made.image).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{question:?}: {}", stderr(&output));
        assert_eq!(refusal(&stderr(&output)), expected, "{question:?}");
    }
    for word in ["AES-XTS-128", "locked", "TPM", "recovery password (key ID ", "DESKTOP-WINJECT"] {
        assert!(text.contains(word), "no {word:?}: {text}");
    }
    // With the key, the first start is described.
    let opened = made.open(winject().arg("inspect").arg(&made.image)).output().unwrap();
    let text = stdout(&opened);
    assert_eq!(opened.status.code(), Some(0), "{text}{}", stderr(&opened));
    for word in ["opened by its recovery password", "asks for a recovery key", "can be edited"] {
        assert!(text.contains(word), "no {word:?}: {text}");
    }
    let json = made.open(winject().arg("inspect").arg(&made.image).arg("--json")).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["disks"][0]["windows"][0]["bitlocker"]["asks_for_key"], true, "{json}");
    let id = json["disks"][0]["windows"][0]["bitlocker"]["key_ids"][0].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 8, "{id}");
    // The ID that inspect shows is the one that the option takes.
    let by_id = format!("{id}={}", made.path("keys").join("recovery.txt").display());
    support::run(inject(&made.image).args(["--dry-run", "--bitlocker-recovery-key", &by_id]));
}

fn a_volume_bound_to_its_machine_alone_is_refused() {
    let Some(made) = Made::new("xts-128", Key::Volume, &["--smart-card"]) else { return };
    refuse(&made, &[], 3, &["TPM", "manage-bde -protectors"]);
}

/// States in which Windows has to finish its work first. Reading is allowed in some of them.
fn volumes_in_the_middle_of_a_conversion_are_not_written() {
    for (state, is_readable, word) in
        [("paused", true, "paused at"), ("dirty", false, "interrupted"), ("eow", false, "still running")]
    {
        let Some(made) = Made::new("xts-128", Key::Clear, &["--state", state, "--bytes", "536870912"]) else { return };
        refuse(&made, &[], 3, &["partition 3", word]);
        let read = winject().args(["reg", "query"]).arg(&made.image).arg(r"HKLM\SYSTEM\Select").output().unwrap();
        assert_eq!(read.status.success(), is_readable, "{state}: {}", stderr(&read));
    }
}

fn damaged_metadata_is_refused_and_one_good_copy_suffices() {
    let breaks = [("all-crc", 5), ("hash", 5)];
    for (damage, code) in breaks {
        let Some(made) = Made::new("xts-128", Key::Clear, &["--break", damage]) else { return };
        refuse(&made, &[], code, &["partition 3"]);
    }
    let Some(made) = Made::new("xts-128", Key::Clear, &["--break", "crc0"]) else { return };
    let output = support::run(inject(&made.image).arg("--dry-run"));
    assert!(stderr(&output).contains("partition 3"), "the damaged copy is a warning: {}", stderr(&output));
    let Some(made) = Made::new("xts-128", Key::Clear, &["--break", "stale0"]) else { return };
    refuse(&made, &[], 3, &["cop"]);
}

/// A key that was typed in place of a file is repeated nowhere.
fn a_typed_key_is_not_repeated() {
    for option in
        ["--bitlocker-recovery-key", "--bitlocker-password", "--bitlocker-startup-key", "--bitlocker-volume-key"]
    {
        let image = crate::inject::fixture();
        let mut command: Command = inject(&image);
        let output = command.args(["--dry-run", option, RECOVERY]).output().unwrap();
        let text = format!("{}{}", stdout(&output), stderr(&output));
        // It is taken for the name of a file, which is missing.
        assert_eq!(output.status.code(), Some(7), "{text}");
        assert!(text.contains(option) && !text.contains("601744"), "{text}");
    }
}

tests![
    keys_that_are_missing_or_wrong_are_named_with_the_options_that_fit,
    a_volume_bound_to_its_machine_alone_is_refused,
    volumes_in_the_middle_of_a_conversion_are_not_written,
    damaged_metadata_is_refused_and_one_good_copy_suffices,
    a_typed_key_is_not_repeated,
];
