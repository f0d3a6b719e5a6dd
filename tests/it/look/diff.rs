//! `diff`: what differs is what a copy of all files shows, and the registry part makes the old one the new one.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{answer, run, tree, volume};
use crate::inject::{fixture, fixture_drivers, folder, stderr, stdout};
use crate::ntfs_check::surgeon::Surgeon;
use crate::support;
use winject::Kind;
use winject::internals::block;
use winject::internals::clock::FileTime;
use winject::internals::io::MemoryVolume;
use winject::internals::job::diff::{CompareOptions, DiffRequest, diff_images};
use winject::internals::ntfs::attribute::{AttributeType, build_resident};
use winject::internals::ntfs::{CreateOptions, FileId, NtfsName, OpenOptions, Times, Volume};
use winject::internals::partition::BitLockerKeys;
use winject::internals::random::Random;

/// The answer in JSON, and the exit code.
fn differences(folder: &Path, arguments: &[&str]) -> (Value, i32) {
    let output = run(folder, &[&["diff", "--json"], arguments].concat());
    let code = output.status.code().unwrap();
    assert!(code < 2, "{arguments:?}: {}", stderr(&output));
    (serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stdout(&output))), code)
}

/// The paths of files and folders that differ, each with what became of it.
fn files(answer: &Value, partition: u64) -> BTreeMap<String, String> {
    let items = answer["differences"].as_array().unwrap().iter();
    let items = items.filter(|item| item["what"] == "file" && item["partition"] == partition);
    items.map(|item| (item["path"].as_str().unwrap().to_owned(), item["change"].as_str().unwrap().to_owned())).collect()
}

fn differs(answer: &Value, path: &str) -> Vec<String> {
    let items = answer["differences"].as_array().unwrap();
    let item = items.iter().find(|item| item["path"] == path).unwrap_or_else(|| panic!("{path} in {answer}"));
    item["differs"].as_array().unwrap().iter().map(|aspect| aspect.as_str().unwrap().to_owned()).collect()
}

/// A whole run, seen as files of two trees on the host, and as a registry that is imported into the old image.
fn an_injection_is_shown_file_by_file_and_its_reg_file_makes_the_same_registry() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::copy(fixture(), at("old.qcow2")).unwrap();
    let drivers = fixture_drivers();
    let drivers = drivers.to_str().unwrap();
    answer(folder.path(), &["plan", "-q", "old.qcow2", "--drivers", drivers, "-o", "plan.json"]);
    std::fs::copy(at("old.qcow2"), at("new.qcow2")).unwrap();
    answer(folder.path(), &["inject", "-q", "new.qcow2", "--drivers", drivers, "--in-place"]);
    let (shown, code) = differences(folder.path(), &["old.qcow2", "new.qcow2"]);
    assert_eq!((code, &shown["same"]), (1, &Value::Bool(false)));
    assert_eq!(shown["schema"], "winject/diff");
    assert_eq!(shown["unread_files"], 0);

    // Every file of the Windows volume that differs, and no other.
    for image in ["old", "new"] {
        answer(folder.path(), &["cp", "-r", &format!("{image}.qcow2"), "/", image]);
    }
    let (old, new) = (tree(&at("old")), tree(&at("new")));
    let by_content = |path: &str| {
        let name = Path::new(path.trim_start_matches('/'));
        match (old.get(name), new.get(name)) {
            (None, Some(_)) => Some("added"),
            (Some(_), None) => Some("removed"),
            (Some(a), Some(b)) if a != b => Some("changed"),
            _ => None,
        }
    };
    let listed = files(&shown, 3);
    for path in old.keys().chain(new.keys()) {
        let path = format!("/{}", path.display());
        if let Some(change) = by_content(&path) {
            assert_eq!(listed.get(&path).map(String::as_str), Some(change), "{path}");
        }
    }
    for (path, change) in &listed {
        let is_by_time = change == "changed" && by_content(path).is_none();
        let is_folder = at("new").join(path.trim_start_matches('/')).is_dir();
        assert!(is_folder || is_by_time || by_content(path) == Some(change), "{path} {change}");
        assert!(!is_by_time || !differs(&shown, path).contains(&"content".to_owned()), "{path}");
    }
    assert!(listed.contains_key("/Windows/System32/drivers/viostor.sys"), "{listed:?}");

    // People see the same, and the values before and after.
    let text = run(folder.path(), &["diff", "old.qcow2", "new.qcow2"]);
    assert_eq!(text.status.code(), Some(1));
    let text = stdout(&text);
    assert!(text.contains("\n+ /Windows/System32/drivers/viostor.sys, "), "{text}");
    assert!(text.contains("+ [HKEY_LOCAL_MACHINE\\SYSTEM\\ControlSet001\\Services\\viostor]\n+   "), "{text}");
    assert!(
        text.contains("~   DevicePath: REG_EXPAND_SZ %SystemRoot%\\inf → REG_EXPAND_SZ %SystemRoot%\\inf;"),
        "{text}"
    );

    // A plan is what it would do.
    let (planned, code) = differences(folder.path(), &["old.qcow2", "--plan", "plan.json", "--drivers", drivers]);
    assert_eq!(code, 1);
    assert_eq!(planned, shown, "before and after the plan");
    assert_eq!(differences(folder.path(), &["new.qcow2", "new.qcow2"]).1, 0);

    // The registry part, imported into the old image, leaves no difference.
    for utf8 in [&["--utf8"][..], &[]] {
        let output = run(folder.path(), &[&["diff", "old.qcow2", "new.qcow2", "--reg"], utf8].concat());
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        std::fs::write(at("changes.reg"), &output.stdout).unwrap();
        std::fs::copy(at("old.qcow2"), at("imported.qcow2")).unwrap();
        answer(folder.path(), &["reg", "import", "-q", "imported.qcow2", "changes.reg", "--in-place"]);
        let left = run(folder.path(), &["diff", "--reg", "--utf8", "imported.qcow2", "new.qcow2"]);
        assert_eq!(left.status.code(), Some(0), "{}", stdout(&left));
        assert!(!stdout(&left).contains('['), "{}", stdout(&left));
    }
}

/// Another container, another place of every cluster: the same files and the same registry.
fn a_converted_image_is_the_same() {
    let folder = folder();
    std::fs::copy(fixture(), folder.path().join("old.qcow2")).unwrap();
    answer(folder.path(), &["convert", "-q", "old.qcow2", "new.raw"]);
    let (shown, code) = differences(folder.path(), &["old.qcow2", "new.raw"]);
    assert_eq!((code, &shown["same"]), (0, &Value::Bool(true)), "{shown}");
    assert_eq!(shown["partitions"], serde_json::json!([1, 3]));
    assert_eq!(shown["registries"], serde_json::json!([3]));
    let text = answer(folder.path(), &["diff", "old.qcow2", "new.raw", "--partition", "1"]);
    assert_eq!(text, "The same (compared: the files of partition 1)\n");
}

/// Each way in which a file can differ is found, and called by its name.
fn every_aspect_of_a_file_is_compared() {
    let create = CreateOptions::default();
    // The difference of the long one is in its last byte.
    let (content, long) = (vec![7; 5000], vec![7; 200_000]);
    let times = |seconds: u64| {
        let time = FileTime::from_unix_seconds(seconds).unwrap();
        Times { created: time, modified: time, changed: time, accessed: time }
    };
    let old = volume(|volume| {
        for name in ["same", "content", "size", "gone", "case", "stream", "streams", "attributes", "time"] {
            let content = if name == "content" { &long } else { &content };
            let file = volume.create_file(FileId::ROOT, name, content, &create).unwrap();
            volume.write_stream(file, "s", b"a stream").unwrap();
            volume.set_times(file, &times(1_600_000_000)).unwrap();
        }
        volume.create_file(FileId::ROOT, "kind", b"", &create).unwrap();
        let deep = volume.create_dir_all("/gone folder/sub", &create).unwrap();
        volume.create_file(deep, "inside", b"", &create).unwrap();
    });
    let new = {
        let mut changed = long.clone();
        *changed.last_mut().unwrap() = 8;
        volume(|volume| {
            for name in ["same", "content", "size", "CASE", "stream", "streams", "attributes", "time", "new"] {
                let content = match name {
                    "content" => &changed[..],
                    "size" => &content[1..],
                    _ => &content[..],
                };
                let file = volume.create_file(FileId::ROOT, name, content, &create).unwrap();
                volume.write_stream(file, "s", if name == "stream" { b"A stream" } else { b"a stream" }).unwrap();
                match name {
                    "streams" => volume.write_stream(file, "more", b"").unwrap(),
                    "attributes" => volume.set_attributes(file, 0x22).unwrap(),
                    _ => {}
                }
                volume.set_times(file, &times(if name == "time" { 1_700_000_000 } else { 1_600_000_000 })).unwrap();
            }
            volume.create_dir(FileId::ROOT, "kind", &create).unwrap();
            let deep = volume.create_dir_all("/new folder/sub", &create).unwrap();
            volume.create_file(deep, "inside", b"", &create).unwrap();
        })
    };
    let folder = folder();
    std::fs::write(folder.path().join("old.raw"), old).unwrap();
    std::fs::write(folder.path().join("new.raw"), new).unwrap();
    let (shown, code) = differences(folder.path(), &["old.raw", "new.raw"]);
    assert_eq!(code, 1);
    let expected = [
        ("/CASE", "changed"),
        ("/attributes", "changed"),
        ("/content", "changed"),
        ("/gone", "removed"),
        ("/gone folder", "removed"),
        ("/gone folder/sub", "removed"),
        ("/gone folder/sub/inside", "removed"),
        ("/kind", "changed"),
        ("/new", "added"),
        ("/new folder", "added"),
        ("/new folder/sub", "added"),
        ("/new folder/sub/inside", "added"),
        ("/size", "changed"),
        ("/stream", "changed"),
        ("/streams", "changed"),
        ("/time", "changed"),
    ];
    let expected: BTreeMap<String, String> = expected.map(|(path, change)| (path.to_owned(), change.to_owned())).into();
    assert_eq!(files(&shown, 0), expected);
    for (path, aspect) in [
        ("/CASE", "name"),
        ("/attributes", "attributes"),
        ("/content", "content"),
        ("/size", "size"),
        ("/stream", "streams"),
        ("/streams", "streams"),
        ("/time", "modified"),
    ] {
        assert_eq!(differs(&shown, path), [aspect], "{path}");
    }
    assert!(differs(&shown, "/kind").contains(&"kind".to_owned()));
    // Size and time alone do not show all of it.
    let (quick, _) = differences(folder.path(), &["--quick", "old.raw", "new.raw"]);
    let quick = files(&quick, 0);
    assert!(!quick.contains_key("/content") && !quick.contains_key("/stream"), "{quick:?}");
    assert!(quick.contains_key("/size") && quick.contains_key("/streams"), "{quick:?}");
    // Backwards it is the reverse.
    let (back, _) = differences(folder.path(), &["new.raw", "old.raw"]);
    let reverse = |change: &str| match change {
        "added" => "removed".to_owned(),
        "removed" => "added".to_owned(),
        other => other.to_owned(),
    };
    let reversed: BTreeMap<String, String> =
        expected.iter().map(|(path, change)| (path.replace("CASE", "case"), reverse(change))).collect();
    assert_eq!(files(&back, 0), reversed);
}

/// Reparse points that are not links, extended attributes and object ids.
fn data_that_ntfs_does_not_interpret_is_compared() {
    let image = volume(|volume| {
        volume.create_file(FileId::ROOT, "file", b"content", &CreateOptions::default()).unwrap();
    });
    for (kind, aspect) in [
        (AttributeType::REPARSE_POINT, "reparse"),
        (AttributeType::EA, "extended_attributes"),
        (AttributeType::OBJECT_ID, "object_id"),
    ] {
        // A tag that nothing knows, and that of a vendor.
        let with = |last: u8| {
            let mut surgeon = Surgeon::open(image.clone());
            let number = surgeon.named("file");
            let value = [&0x99_u32.to_le_bytes()[..], &[16, 0, 0, 0], &[7; 15], &[last]].concat();
            surgeon.add_attribute(number, &build_resident(kind, &NtfsName::default(), &value));
            surgeon.bytes
        };
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("none.raw"), &image).unwrap();
        std::fs::write(at("old.raw"), with(1)).unwrap();
        std::fs::write(at("same.raw"), with(1)).unwrap();
        std::fs::write(at("new.raw"), with(2)).unwrap();
        assert_eq!(differences(folder.path(), &["old.raw", "same.raw"]).1, 0, "{aspect}");
        for other in ["none.raw", "new.raw"] {
            for more in [&[][..], &["--quick"]] {
                let (shown, code) = differences(folder.path(), &[&["old.raw", other], more].concat());
                assert_eq!(code, 1, "{aspect}");
                assert_eq!(differs(&shown, "/file"), [aspect], "{other}");
            }
        }
    }
}

fn what_makes_no_sense_is_said_and_nothing_is_called_the_same_that_was_not_read() {
    let folder = folder();
    std::fs::copy(fixture(), folder.path().join("w.qcow2")).unwrap();
    for (arguments, code) in [
        (&["diff"][..], 2),
        (&["diff", "w.qcow2"], 2),
        (&["diff", "w.qcow2", "w.qcow2", "w.qcow2"], 2),
        (&["diff", "w.qcow2", "w.qcow2", "--allow-dirty"], 2),
        (&["diff", "w.qcow2", "w.qcow2", "--drivers", "."], 2),
        (&["diff", "w.qcow2", "w.qcow2", "--reg", "--json"], 2),
        (&["diff", "w.qcow2", "w.qcow2", "--reg", "--quick"], 2),
        (&["diff", "w.qcow2", "w.qcow2", "--partition", "9"], 2),
        (&["diff", "w.qcow2", "w.qcow2", "--partition", "2"], 4),
        (&["diff", "w.qcow2", "w.qcow2", "--partition", "1", "--reg"], 4),
        (&["diff", "w.qcow2", "--plan", "none.json"], 7),
        (&["diff", "w.qcow2", "none.qcow2"], 7),
    ] {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
    }
    // A file in a folder that cannot be read hides no difference.
    let image = volume(|volume| {
        let sub = volume.create_dir(FileId::ROOT, "sub", &CreateOptions::default()).unwrap();
        for number in 0..400 {
            volume.create_file(sub, &format!("file {number}"), b"", &CreateOptions::default()).unwrap();
        }
    });
    let mut damaged = image.clone();
    let places = (0..damaged.len()).step_by(512).filter(|&at| damaged[at..].starts_with(b"INDX"));
    let places: Vec<usize> = places.collect();
    assert!(places.len() > 2);
    // Not the root's, which would be the whole volume: the last ones are those of the new folder.
    for at in &places[places.len() - 2..] {
        damaged[*at..*at + 4].copy_from_slice(b"BAAD");
    }
    std::fs::write(folder.path().join("good.raw"), image).unwrap();
    std::fs::write(folder.path().join("bad.raw"), damaged).unwrap();
    let output = run(folder.path(), &["diff", "good.raw", "bad.raw"]);
    assert_eq!(output.status.code(), Some(5), "{}{}", stdout(&output), stderr(&output));
    assert!(stderr(&output).contains("cannot compare a file"), "{}", stderr(&output));
}

/// Whatever happens to the bytes of an image: it is called the same only if every file is.
fn a_damaged_image_is_never_called_the_same_unless_its_files_are() {
    let content = |number: usize| vec![number as u8; number * 97];
    let good = volume(|volume| {
        let sub = volume.create_dir(FileId::ROOT, "sub", &CreateOptions::default()).unwrap();
        for number in 0..60 {
            let name = format!("file {number}");
            let file = volume.create_file(sub, &name, &content(number), &CreateOptions::default()).unwrap();
            volume.write_stream(file, "s", &content(60 - number)).unwrap();
        }
    });
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("good.raw"), &good).unwrap();
    let sectors: Vec<usize> =
        (0..good.len()).step_by(512).filter(|&at| good[at..at + 512].iter().any(|&byte| byte != 0)).collect();
    let request = DiffRequest {
        old: at("good.raw"),
        new: at("bad.raw"),
        options: block::OpenOptions { format: Some(block::Format::Raw), ..Default::default() },
        bitlocker: BitLockerKeys::default(),
        compare: CompareOptions::default(),
    };
    let (mut same, mut different) = (0, 0);
    for seed in 0..support::rounds(100, 400) {
        let mut bad = good.clone();
        let mut random = Random::new(seed);
        for _ in 0..=random.below(4) {
            let place = sectors[random.index(sectors.len())] + random.index(512);
            bad[place] ^= 1 << random.below(8);
        }
        std::fs::write(at("bad.raw"), &bad).unwrap();
        let mut seen = 0;
        let compared = diff_images(&request, &mut |_| {
            seen += 1;
            Ok(())
        });
        match compared {
            Err(error) => assert!(error.kind() != Kind::Bug, "seed {seed}: {error}"),
            Ok(compared) if !compared.is_same() || compared.unread.is_some() => {
                assert!(seen > 0 || compared.unread.is_some(), "seed {seed}");
                different += 1;
            }
            Ok(_) => {
                same += 1;
                assert_eq!(seen, 0, "seed {seed}");
                let volume = Volume::open(MemoryVolume(bad), &OpenOptions::read_only()).unwrap();
                let child = |folder: FileId, name: &str| {
                    let entries = volume.entries(folder).unwrap();
                    entries.into_iter().find(|entry| entry.name == name).unwrap().file
                };
                let sub = child(FileId::ROOT, "sub");
                for number in 0..60 {
                    let file = child(sub, &format!("file {number}"));
                    assert!(volume.read(file, 1 << 20).unwrap() == content(number), "seed {seed}, file {number}");
                    let mut stream = vec![0; 1 << 16];
                    let count = volume.read_at(file, "s", 0, &mut stream).unwrap();
                    assert!(stream[..count] == content(60 - number), "seed {seed}, stream of file {number}");
                }
            }
        }
    }
    assert!(same > 0 && different > 0, "{same} the same, {different} different");
}

/// A hole of a terabyte: neither read nor written.
fn holes_of_sparse_files_are_skipped() {
    let (Some(mkntfs), Some(ntfs_3g)) = (support::program("mkntfs"), support::program("ntfs-3g")) else { return };
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("mount")).unwrap();
    for (image, marker) in [("a.raw", &b"marker"[..]), ("b.raw", b"marker"), ("c.raw", b"Marker")] {
        std::fs::File::create(at(image)).unwrap().set_len(32 << 20).unwrap();
        support::run(Command::new(&mkntfs).args(["-qFQ", "-p", "0", "-H", "0", "-S", "0"]).arg(at(image)));
        if !Command::new(&ntfs_3g).arg(at(image)).arg(at("mount")).output().unwrap().status.success() {
            return support::skip("ntfs-3g may not mount here");
        }
        let file = std::fs::File::create(at("mount/sparse")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, marker, 1 << 39).unwrap();
        file.set_len(1 << 40).unwrap();
        drop(file);
        let mut touch = Command::new("touch");
        support::run(touch.args(["-d", "2024-01-01"]).arg(at("mount/sparse")));
        support::run(Command::new("fusermount").arg("-u").arg(at("mount")));
    }
    answer(folder.path(), &["cp", "a.raw", "/sparse", "copy"]);
    let copy = std::fs::File::open(at("copy")).unwrap();
    let meta = copy.metadata().unwrap();
    assert_eq!(meta.len(), 1 << 40);
    assert!(std::os::unix::fs::MetadataExt::blocks(&meta) * 512 <= 1 << 20);
    let mut found = [0; 6];
    std::os::unix::fs::FileExt::read_exact_at(&copy, &mut found, 1 << 39).unwrap();
    assert_eq!(&found, b"marker");
    assert!(differences(folder.path(), &["a.raw", "b.raw"]).0["differences"].as_array().unwrap().is_empty());
    assert_eq!(differs(&differences(folder.path(), &["a.raw", "c.raw"]).0, "/sparse"), ["content"]);
}

tests![
    an_injection_is_shown_file_by_file_and_its_reg_file_makes_the_same_registry,
    a_converted_image_is_the_same,
    every_aspect_of_a_file_is_compared,
    data_that_ntfs_does_not_interpret_is_compared,
    a_damaged_image_is_never_called_the_same_unless_its_files_are,
    what_makes_no_sense_is_said_and_nothing_is_called_the_same_that_was_not_read,
    holes_of_sparse_files_are_skipped,
];
