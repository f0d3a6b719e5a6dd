//! `ls`, `cat` and `cp`: what they show is what foreign readers read, and nothing is written where it must not be.

mod diff;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::inject::{fixture, folder, stderr, winject};
use crate::support;
use winject::internals::clock::FileTime;
use winject::internals::io::MemoryVolume;
use winject::internals::ntfs::{CreateOptions, FileId, OpenOptions, Volume};

fn run(folder: &Path, arguments: &[&str]) -> std::process::Output {
    winject().args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn answer(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The content of all files below a folder of the host, by their path.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(folder).unwrap().to_owned();
                out.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    out
}

/// A small NTFS volume with what `fill` puts on it.
fn volume(fill: impl FnOnce(&mut Volume<MemoryVolume>)) -> Vec<u8> {
    let options = OpenOptions::new(FileTime::from_unix_seconds(1_700_000_000).unwrap());
    let mut volume = Volume::open(MemoryVolume(support::volumes::small_volume()), &options).unwrap();
    fill(&mut volume);
    volume.flush().unwrap();
    volume.into_device().0
}

/// Real volumes: alternate streams, large clusters, files in all forms.
fn content_is_what_a_foreign_reader_reads() {
    let Some(ntfscat) = support::program("ntfscat") else { return };
    for corpus in ["ntfs/dfvfs-ntfs.raw.xz", "ntfs/ntfs-lastaccess.raw.gz"] {
        let Some(bytes) = support::corpus_bytes(corpus) else { return };
        let folder = folder();
        std::fs::write(folder.path().join("disk.raw"), bytes).unwrap();
        let inspected = answer(folder.path(), &["ls", "--json", "-R", "disk.raw"]);
        let listing: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        let offset = match listing["partition"].as_u64().unwrap() {
            0 => 0,
            _ => 65_536,
        };
        let volume = folder.path().join("volume.raw");
        let disk = std::fs::read(folder.path().join("disk.raw")).unwrap();
        std::fs::write(&volume, &disk[offset..]).unwrap();
        let mut count = 0;
        for file in listing["files"].as_array().unwrap().iter().filter(|file| file["kind"] == "file") {
            let path = file["path"].as_str().unwrap();
            let mut cat = Command::new(&ntfscat);
            let foreign = support::run(cat.arg("-f").arg(&volume).arg(path)).stdout;
            assert_eq!(file["size"].as_u64().unwrap(), foreign.len() as u64, "{corpus}: {path}");
            let ours = run(folder.path(), &["cat", "disk.raw", path]);
            assert!(ours.status.success(), "{corpus}: {path}: {}", stderr(&ours));
            assert!(ours.stdout == foreign, "{corpus}: {path} differs");
            for stream in file["streams"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap()) {
                let mut cat = Command::new(&ntfscat);
                let foreign = support::run(cat.args(["-f", "-n", stream]).arg(&volume).arg(path)).stdout;
                let ours = run(folder.path(), &["cat", &format!("disk.raw:{path}:{stream}")]);
                assert!(ours.stdout == foreign, "{corpus}: {path}:{stream} differs");
                count += 1;
            }
            count += 1;
        }
        assert!(count > 0, "{corpus} has no files");
    }
}

/// The EFI system partition, against mtools.
fn a_fat_volume_is_copied_as_mtools_copies_it() {
    let Some(mcopy) = support::program("mcopy") else { return };
    let folder = folder();
    let raw = folder.path().join("disk.raw");
    support::run(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(fixture()).arg(&raw));
    std::fs::create_dir(folder.path().join("theirs")).unwrap();
    let mut copy = Command::new(mcopy);
    copy.args(["-s", "-n", "-Q", "-i"]).arg(format!("{}@@1048576", raw.display())).args(["::/", "theirs"]);
    support::run(copy.current_dir(folder.path()));
    answer(folder.path(), &["cp", "-r", "--partition", "1", "disk.raw", "/", "ours"]);
    let (ours, theirs) = (tree(&folder.path().join("ours")), tree(&folder.path().join("theirs")));
    assert!(ours.len() > 2 && ours == theirs, "{:?}\n{:?}", ours.keys(), theirs.keys());
    // The short name leads to the same folder.
    let list = |path: &str| answer(folder.path(), &["ls", "--partition", "1", "disk.raw", path]);
    assert_eq!(list("/EFI/micros~1"), list("/EFI/Microsoft"));
    let listing = answer(folder.path(), &["ls", "--partition", "1", "-R", "disk.raw"]);
    for path in ours.keys() {
        assert!(listing.lines().any(|line| line == format!("/{}", path.display())), "{listing}");
    }
}

fn paths_are_found_as_people_write_them() {
    let folder = folder();
    std::fs::copy(fixture(), folder.path().join("w:in.qcow2")).unwrap();
    let drivers = answer(folder.path(), &["ls", "w:in.qcow2", "/Windows/System32/drivers"]);
    assert!(drivers.lines().any(|line| line == "disk.sys"));
    for arguments in [
        &["ls", r"w:in.qcow2:C:\windows\SYSTEM32\Drivers\"][..],
        &["ls", "w:in.qcow2:/Windows/Sys*32/d?[i]vers"],
        &["ls", "w:in.qcow2", r"\Windows\System32\drivers"],
    ] {
        assert_eq!(answer(folder.path(), arguments), drivers, "{arguments:?}");
    }
    for (arguments, code) in [
        (&["ls", "w:in.qcow2", "/nothing"][..], 2),
        (&["ls", "w:in.qcow2", "/Windows/none*"], 2),
        (&["ls", "w:in.qcow2", r"D:\Windows"], 2),
        (&["ls", "w:in.qcow2", "/Windows/../Users"], 2),
        (&["cat", "w:in.qcow2", "/Windows"], 2),
        (&["cat", "w:in.qcow2"], 2),
        (&["cp", "w:in.qcow2", "/Windows", "out"], 2),
        (&["ls", "w:in.qcow2", "--partition", "2"], 4),
        (&["ls", "w:in.qcow2", "--partition", "9"], 2),
        (&["cp", "w:in.qcow2", "/Windows/*", "out"], 2),
    ] {
        let output = run(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("Hint: "), "{arguments:?}: {}", stderr(&output));
    }
}

/// Names that the guest chose: they stay below the destination, and are never those of a journal.
fn a_guest_writes_nowhere_else() {
    let mut image = volume(|volume| {
        for name in ["QQ", "QQQQetc", "disk.raw.winject-journal", "disk.raw", "planted"] {
            volume.create_file(FileId::ROOT, name, b"of the guest", &CreateOptions::default()).unwrap();
        }
        let folder = volume.create_dir(FileId::ROOT, "sub", &CreateOptions::default()).unwrap();
        volume.create_file(folder, "inside", b"of the guest", &CreateOptions::default()).unwrap();
    });
    // Names that no writer makes: `..` and `../.etc`.
    for (from, to) in [("QQQQetc", "../.etc"), ("QQ", "..")] {
        let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let (from, to) = (wide(from), wide(to));
        let places: Vec<usize> = (0..image.len() - from.len()).filter(|&at| image[at..].starts_with(&from)).collect();
        assert!(!places.is_empty());
        places.iter().for_each(|&at| image[at..at + to.len()].copy_from_slice(&to));
    }
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("in")).unwrap();
    std::fs::write(at("in/disk.raw"), &image).unwrap();
    std::fs::create_dir(at("elsewhere")).unwrap();
    let before = tree(folder.path());
    // into the folder of the image itself, with --overwrite
    let output = run(&at("in"), &["cp", "-r", "--overwrite", "disk.raw", "/", "."]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert_eq!(std::fs::read(at("in/disk.raw")).unwrap(), image);
    assert!(!at("in/disk.raw.winject-journal").exists());
    // planted links are not followed
    for (link, target) in [("sub", "elsewhere"), ("planted", "elsewhere/planted")] {
        let out = at(&format!("out-{link}"));
        std::fs::create_dir(&out).unwrap();
        std::os::unix::fs::symlink(at(target), out.join(link)).unwrap();
        let output = run(folder.path(), &["cp", "-r", "--overwrite", "in/disk.raw", "/", out.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    }
    // also in the place of the folder itself
    std::fs::create_dir(at("in-place")).unwrap();
    std::os::unix::fs::symlink(at("elsewhere"), at("in-place/sub")).unwrap();
    let output = run(folder.path(), &["cp", "-r", "--overwrite", "in/disk.raw", "/sub", "in-place"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(tree(&at("elsewhere")).is_empty());
    // each file by its own name, also without -r
    std::fs::create_dir(at("single")).unwrap();
    answer(folder.path(), &["cp", "in/disk.raw", "/*etc", "single"]);
    assert_eq!(tree(&at("single")).into_keys().collect::<Vec<_>>(), [Path::new("..%2F.etc")]);
    let output = run(folder.path(), &["cp", "-r", "in/disk.raw", "/", "out"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("undo journals"), "{}", stderr(&output));
    let copied = tree(&at("out"));
    for name in ["%2E%2E", "..%2F.etc", "planted", "sub/inside"] {
        assert_eq!(copied[Path::new(name)], b"of the guest", "{name}");
    }
    for name in before.keys().filter(|name| !name.starts_with("in")) {
        assert_eq!(before[name], tree(folder.path())[name]);
    }
}

/// What lies in a folder is not listed with `-d`: an option that says which of it is listed would have no effect.
fn an_option_without_effect_on_a_listing_is_refused() {
    let folder = folder();
    for option in ["-a", "--all", "-R"] {
        let refused = run(folder.path(), &["ls", "-d", option, "disk.raw", "/"]);
        let text = stderr(&refused);
        assert_eq!(refused.status.code(), Some(2), "{option}: {text}");
        assert!(text.contains("--directory") && text.contains("cannot be used with"), "{text}");
    }
}

fn copies_are_whole_have_holes_and_replace_nothing_unasked() {
    let mut content = vec![0; 640 << 10];
    content[256 << 10] = 1;
    let image = volume(|volume| {
        volume.create_file(FileId::ROOT, "holes.bin", &content, &CreateOptions::default()).unwrap();
        volume.create_file(FileId::ROOT, "empty", b"", &CreateOptions::default()).unwrap();
    });
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("disk.raw"), image).unwrap();
    std::fs::set_permissions(at("disk.raw"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    answer(folder.path(), &["cp", "disk.raw:/holes.bin", "copy"]);
    assert!(std::fs::read(at("copy")).unwrap() == content);
    let meta = std::fs::metadata(at("copy")).unwrap();
    assert_eq!(meta.mode() & 0o777, 0o600, "no more open than the image");
    assert!(meta.blocks() * 512 <= 128 << 10, "{} blocks", meta.blocks());
    let refused = run(folder.path(), &["cp", "disk.raw:/empty", "copy"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("--overwrite"), "{}", stderr(&refused));
    assert_eq!(std::fs::metadata(at("copy")).unwrap().len(), 640 << 10);
    answer(folder.path(), &["cp", "--overwrite", "disk.raw:/empty", "copy"]);
    assert_eq!(std::fs::metadata(at("copy")).unwrap().len(), 0);
    assert_eq!(run(folder.path(), &["cp", "disk.raw:/empty", "-"]).status.code(), Some(2));
    // a full disk
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = winject().args(["cat", "disk.raw", "/holes.bin"]).current_dir(folder.path()).stdout(full).output();
    assert_eq!(output.unwrap().status.code(), Some(7));
}

/// A dry run writes nothing, names what the copy then writes, and refuses what the copy refuses.
fn a_dry_run_lists_what_is_copied_then() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(
        at("disk.raw"),
        volume(|volume| {
            volume.create_file(FileId::ROOT, "a b.txt", b"one", &CreateOptions::default()).unwrap();
            let sub = volume.create_dir(FileId::ROOT, "sub", &CreateOptions::default()).unwrap();
            let deep = volume.create_dir(sub, "deep", &CreateOptions::default()).unwrap();
            volume.create_file(deep, "inside", &[7; 5000], &CreateOptions::default()).unwrap();
            volume.create_file(deep, "x.winject-journal", b"", &CreateOptions::default()).unwrap();
        }),
    )
    .unwrap();
    std::fs::write(at("taken"), "mine").unwrap();
    std::fs::create_dir(at("there")).unwrap();
    std::fs::write(at("there/a b.txt"), "mine").unwrap();
    for (line, code) in [
        (&["-r", "disk.raw", "/", "out"][..], 3),
        (&["disk.raw", "/a b.txt", "copy"], 0),
        (&["disk.raw", "/a b.txt", "taken"], 2),
        (&["disk.raw", "/a b.txt", "there"], 2),
        (&["disk.raw", "/a b.txt", "/a*", "."], 2),
        (&["disk.raw", "/a b.txt", "there", "--overwrite"], 0),
        (&["-r", "disk.raw", "/sub", "taken"], 2),
        (&["-r", "disk.raw", "/sub", "none/out"], 2),
        (&["disk.raw", "/a b.txt", "none/out"], 2),
        (&["disk.raw", "/sub", "out"], 2),
        (&["disk.raw", "/none", "out"], 2),
    ] {
        let before = tree(folder.path());
        let dry = run(folder.path(), &[&["cp", "-n"][..], line].concat());
        assert_eq!(dry.status.code(), Some(code), "{line:?}: {}", stderr(&dry));
        assert!(tree(folder.path()) == before && !at("out").exists(), "{line:?}");
        let json = run(folder.path(), &[&["cp", "-n", "--json"][..], line].concat());
        let real = run(folder.path(), &[&["cp"][..], line].concat());
        assert_eq!(real.status.code(), Some(code), "{line:?}: {}", stderr(&real));
        let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        let Some(copies) = json["copies"].as_array() else { continue };
        assert_eq!((&json["dry_run"], json["files"].as_u64()), (&true.into(), Some(copies.len() as u64)), "{json}");
        let shown = String::from_utf8(dry.stdout).unwrap();
        for copy in copies {
            let path = copy["copy"].as_str().unwrap();
            assert!(shown.contains(&format!(" -> {path} (")), "{shown}");
            assert_eq!(std::fs::metadata(at(path)).unwrap().len(), copy["bytes"].as_u64().unwrap(), "{path}");
            assert_eq!(copy["replaces"], before.contains_key(Path::new(path)), "{path}");
        }
        let written = tree(folder.path()).into_keys().filter(|name| !before.contains_key(name)).count();
        let new = copies.iter().filter(|copy| copy["replaces"] == false).count();
        assert_eq!(new, written, "{line:?}");
        let _ = std::fs::remove_dir_all(at("out"));
    }
}

tests![in diff;
    content_is_what_a_foreign_reader_reads,
    a_fat_volume_is_copied_as_mtools_copies_it,
    paths_are_found_as_people_write_them,
    a_guest_writes_nowhere_else,
    an_option_without_effect_on_a_listing_is_refused,
    copies_are_whole_have_holes_and_replace_nothing_unasked,
    a_dry_run_lists_what_is_copied_then,
];
