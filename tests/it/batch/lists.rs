//! What the items of a batch are.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use super::{batch, code, events, guests, inject, outcomes};
use crate::inject::{fixture_drivers, stderr};

/// Ten thousand names, hostile ones among them, in two forms of a list; shards divide them without a gap.
fn a_long_list_of_hostile_names_is_divided() {
    let folder = tempfile::tempdir().unwrap();
    let mut names: Vec<Vec<u8>> = (0..10_000).map(|i| format!("none-{i}.qcow2").into_bytes()).collect();
    names.extend(
        [&b"-rf"[..], b"--json", b"a\nb", b"\x1b[31m", b"\xff\xfe", b"$(id)", b"*?[", b"{name}"].map(<[u8]>::to_vec),
    );
    let list = names.join(&0);
    let mut seen = Vec::new();
    for shard in ["0/2000", "1/2000", "1999/2000"] {
        let mut command = batch(folder.path(), &format!("inspect - --json --shard {shard}"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let list = list.clone();
        let writer = std::thread::spawn(move || stdin.write_all(&list).unwrap());
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        let begun = events(&output)[0].clone();
        assert_eq!(begun["items_in_all"], names.len(), "{}", stderr(&output));
        let ended = outcomes(&output);
        assert!(ended.iter().all(|(_, outcome)| outcome == "failed") && ended.len() as u64 == begun["items"]);
        seen.extend(ended);
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "an id in two shards");
}

/// Every hostile name is an item whose worker looks for a file of that name.
fn hostile_names_reach_their_workers() {
    let folder = tempfile::tempdir().unwrap();
    let names: [&[u8]; 7] = [b"-rf", b"--json", b"a b", b"\x1b[31m", b"\xff\xfe.qcow2", b"*?[", b"{name}.qcow2"];
    for name in names {
        guests(folder.path(), &["x"]);
        std::fs::rename(folder.path().join("x"), folder.path().join(OsStr::from_bytes(name))).unwrap();
    }
    let mut command = batch(folder.path(), "inspect - --results results");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&names.join(&0)).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stdout));
    assert!(!output.stdout.contains(&0x1b), "a name steers the terminal");
    let items = crate::inject::names(&folder.path().join("results/items"));
    assert_eq!(items.len(), names.len());
}

/// Each file that is left out is named with the reason, and what cannot be meant is refused before anything begins.
fn a_file_is_one_item_and_outputs_are_each_items_own() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    guests(at, &["a.qcow2", "b.qcow2"]);
    std::fs::hard_link(at.join("a.qcow2"), at.join("a2.qcow2")).unwrap();
    std::fs::create_dir(at.join("sub")).unwrap();
    std::fs::rename(at.join("b.qcow2"), at.join("sub/a.qcow2")).unwrap();
    let output = batch(at, "inspect *.qcow2 --json").output().unwrap();
    assert_eq!(events(&output)[0]["skipped"][0]["reason"], "the same file as a.qcow2");
    assert_eq!(outcomes(&output).len(), 1);
    for (line, word) in [
        ("inspect none*.qcow2", "matches no file"),
        ("inject a.qcow2 sub/a.qcow2 -o same.qcow2 --drivers .", "the same file"),
        ("inject a.qcow2 sub/a.qcow2 -o {name}-new.qcow2 --drivers .", "the same file"),
        ("inject a.qcow2 sub/a.qcow2 -o {stem}.qcow2 --drivers .", "{stem}"),
        ("inject a.qcow2 -o sub/{name}.qcow2 sub/a.qcow2 --drivers .", "the same file"),
        ("inject a.qcow2 --drivers .", "no destination"),
        ("inject a.qcow2 --in-place", "--drivers"),
        ("convert a.qcow2", "--output"),
        ("inspect a.qcow2 --shard 2/2", "counted from 0"),
        ("inspect a.qcow2 --shard auto", "cannot tell the shard"),
        ("inspect a.qcow2 --results no/such/folder", "its folder does not exist"),
    ] {
        let mut command = batch(at, line);
        for variable in ["JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID", "CI_NODE_INDEX"] {
            command.env_remove(variable);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}: {}", stderr(&output));
        assert!(stderr(&output).contains(word), "{line}: {}", stderr(&output));
        assert!(!at.join("same.qcow2").exists());
    }
    let output = inject(at, "a.qcow2 sub/a.qcow2 -o new-{id}.qcow2").output().unwrap();
    // The file has another name: as in the single command, only an edit in place minds.
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stdout));
}

/// A backing file is not an item; overlays over it are.
fn a_file_that_another_item_needs_is_not_an_item() {
    let Some(qemu_img) = crate::support::program("qemu-img") else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    guests(at, &["base.qcow2"]);
    for name in ["one.qcow2", "two.qcow2"] {
        let mut create = std::process::Command::new(&qemu_img);
        create.current_dir(at).args(["create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", name]);
        crate::support::run(&mut create);
    }
    let before = std::fs::read(at.join("base.qcow2")).unwrap();
    let output = inject(at, "*.qcow2 --in-place --no-undo --json").output().unwrap();
    assert_eq!(outcomes(&output), super::pairs(&[("one.qcow2", "done"), ("two.qcow2", "done")]), "{}", stderr(&output));
    assert!(std::fs::read(at.join("base.qcow2")).unwrap() == before);
}

/// A list as a program of Windows writes it; a missing image that is listed twice is one item, which fails for good.
fn a_list_of_windows_and_a_missing_image_listed_twice() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    guests(at, &["a.qcow2"]);
    std::os::unix::fs::symlink("nowhere.qcow2", at.join("lost.qcow2")).unwrap();
    let mut child =
        batch(at, "inspect - ./absent.qcow2 --json").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"\xef\xbb\xbfa.qcow2\r\nabsent.qcow2\r\nabsent.qcow2\r\nlost.qcow2")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let expected =
        [("./absent.qcow2", "failed"), ("a.qcow2", "done"), ("absent.qcow2", "failed"), ("lost.qcow2", "failed")];
    assert_eq!((outcomes(&output), code(&output)), (super::pairs(&expected), 1));
    assert_eq!(events(&output)[0]["skipped"][0]["reason"], "the same name as absent.qcow2");
    let lost = events(&output).into_iter().find(|event| event["id"] == "lost.qcow2" && event["event"] == "finished");
    let lost = lost.unwrap();
    assert!(lost["reason"] == "file-not-found" && lost["retryable"] == false, "{lost}");
    assert!(lost["hint"].as_str().unwrap().contains("nowhere.qcow2"), "{lost}");
}

/// What is wrong with the options of one entry is said with its name and in full, before anything begins.
fn a_wrong_entry_is_named_before_anything_begins() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    guests(at, &["a.qcow2", "b.qcow2"]);
    let drivers = fixture_drivers();
    for (text, words) in [
        (
            "job: convert\nimages:\n  - {image: a.qcow2, to_output: new.raw}\n  - {id: second, image: b.qcow2}\n",
            ["second", "no output given"],
        ),
        (
            &format!(
                "job: inject\ndrivers: {}\nimages:\n  - {{image: a.qcow2, in_place: true}}\n  - {{id: second, image: b.qcow2}}\n",
                drivers.display()
            ),
            ["second", "no destination"],
        ),
        ("job: inject\nin_place: true\nimages: [a.qcow2]\n", ["a.qcow2", "--drivers"]),
        ("job: check\nbus: scsi\nimages: [b.qcow2]\n", ["b.qcow2", "use one of virtio-blk"]),
    ] {
        std::fs::write(at.join("fleet.yaml"), text).unwrap();
        let output = batch(at, "fleet.yaml --results results").output().unwrap();
        assert_eq!(code(&output), 2, "{text}: {}", stderr(&output));
        assert!(words.iter().all(|word| stderr(&output).contains(word)), "{text}: {}", stderr(&output));
        assert!(stderr(&output).contains("Hint: ") && !at.join("results").exists() && !at.join("new.raw").exists());
    }
}

tests![
    a_list_of_windows_and_a_missing_image_listed_twice,
    a_wrong_entry_is_named_before_anything_begins,
    a_long_list_of_hostile_names_is_divided,
    hostile_names_reach_their_workers,
    a_file_is_one_item_and_outputs_are_each_items_own,
    a_file_that_another_item_needs_is_not_an_item,
];
