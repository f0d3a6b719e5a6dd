//! Whole guests that BitLocker encrypts: every edit is that of the plain twin, and nothing plain reaches the host.

pub mod made;
mod refusals;

use crate::inject::{disk_sha256, fixture_drivers, names, sha256, stderr, stdout, succeed, winject};
use crate::support;
use crate::support::blocks::for_each_piece;
use made::{Key, Made, read_at};
use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use winject::internals::bitlocker::Secret;
use winject::internals::block::{self, Stage, StageOptions};
use winject::internals::clock::FileTime;
use winject::internals::io::VolumeRead;
use winject::internals::ntfs::{CreateOptions, OpenOptions, Volume};
use winject::internals::partition::{BitLockerKeys, PartitionView};
use winject::internals::units::VolumeOffset;

const METHODS: [&str; 6] = ["cbc-128-diffuser", "cbc-256-diffuser", "cbc-128", "cbc-256", "xts-128", "xts-256"];
const BLOCK: usize = 4096;
const CHUNK: usize = 1 << 20;

fn inject(image: &Path) -> Command {
    let mut command = winject();
    command.arg("inject").arg(image).arg("--drivers").arg(fixture_drivers());
    command
}

/// The keys of a made volume, in the process of the test.
fn keys(made: &Made) -> BitLockerKeys {
    BitLockerKeys::new([(None, Secret::volume_key(made.facts["fvek"].as_str().unwrap().as_bytes()).unwrap())])
}

/// Compares an edit of the encrypted guest with the same edit of its plain twin, block by block. Returns up to 64 pieces of
/// the plain content before and after, to search for, and how many blocks changed.
fn assert_same_edit(made: &Made, [locked_before, locked, plain_before, plain]: [&Path; 4]) -> (Vec<Vec<u8>>, usize) {
    let files = [locked_before, locked, plain_before, plain].map(|path| File::open(path).unwrap());
    let image = block::open(locked, &block::OpenOptions::default()).unwrap();
    let before = block::open(locked_before, &block::OpenOptions::default()).unwrap();
    let table = keys(made).read_partitions(&*image).unwrap();
    let partition = table.partitions.iter().find(|partition| partition.start.0 == made.start).unwrap();
    let view = PartitionView::new(&*image, partition).unwrap();
    let view_before = PartitionView::new(&*before, partition).unwrap();
    let mut chunks = [(); 4].map(|()| vec![0; CHUNK]);
    let (mut pieces, mut changed) = (Vec::new(), 0);
    let mut places = BTreeSet::new();
    for path in [locked_before, locked, plain_before, plain] {
        for_each_piece(path, |at, piece| {
            let end = at + piece.len() as u64;
            places.extend([at, end - 1].map(|at| at / CHUNK as u64 * CHUNK as u64));
        });
    }
    for at in places {
        for (file, chunk) in files.iter().zip(&mut chunks) {
            file.read_exact_at(chunk, at).unwrap();
        }
        if chunks[0] == chunks[1] && chunks[2] == chunks[3] {
            continue;
        }
        for inner in (0..CHUNK).step_by(BLOCK) {
            let [old, new, plain_old, plain_new] = [0, 1, 2, 3].map(|i| &chunks[i][inner..inner + BLOCK]);
            if old == new && plain_old == plain_new {
                continue;
            }
            let offset = at + inner as u64;
            if offset < made.start || offset >= made.start + made.length {
                assert_eq!((old == plain_old, new == plain_new), (true, true), "outside of the volume, at {offset}");
                continue;
            }
            changed += 1;
            assert!(old != new, "the twin changed at {offset}, the encrypted volume did not");
            let (mut after, mut earlier) = (vec![0; BLOCK], vec![0; BLOCK]);
            view.read_at(VolumeOffset(offset - made.start), &mut after).unwrap();
            view_before.read_at(VolumeOffset(offset - made.start), &mut earlier).unwrap();
            assert!(after == plain_new, "the plain view differs from the twin at {offset}");
            // Zeros that are written into a free cluster, which is noise in a volume of which only the used space is
            // encrypted, are no change of the twin.
            assert!(plain_old != plain_new || earlier != plain_new, "only the ciphertext changed at {offset}");
            for plain in [plain_old, plain_new] {
                let piece = plain.chunks(64).find(|piece| piece.iter().filter(|byte| **byte != 0).count() > 40);
                pieces.extend(piece.filter(|_| pieces.len() < 64).map(<[u8]>::to_vec));
            }
        }
    }
    for (offset, length) in made.untouchable() {
        let (old, new) = (read_at(locked_before, offset, length), read_at(locked, offset, length));
        assert!(old == new, "header or metadata changed at {offset}");
    }
    (pieces, changed)
}

/// Searches everything that winject wrote for secrets and for plain content.
fn assert_nothing_leaked(made: &Made, outputs: &[&Output], ciphertext: &[&Path], pieces: &[Vec<u8>]) {
    let mut texts: Vec<(String, Vec<u8>)> = Vec::new();
    for (number, output) in outputs.iter().enumerate() {
        texts.push((format!("output of run {number}"), [&output.stdout[..], &output.stderr].concat()));
    }
    for name in names(made.folder.path()) {
        let path = made.path(&name);
        if path.is_file() && !name.ends_with(".raw") {
            texts.push((name, std::fs::read(&path).unwrap()));
        }
    }
    let secrets = made.secrets();
    let first: HashSet<u8> = secrets.iter().map(|(_, secret)| secret[0]).collect();
    for (name, bytes) in &texts {
        for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| first.contains(byte)) {
            let found = secrets.iter().find(|(_, secret)| bytes[at..].starts_with(secret));
            assert!(found.is_none(), "{name} holds {}", found.map_or("", |(what, _)| what));
        }
    }
    assert!(pieces.len() > 8, "there is plain content to search for");
    let starts: HashSet<&[u8]> = pieces.iter().map(|piece| &piece[..16]).collect();
    for path in ciphertext {
        for_each_piece(path, |at, bytes| {
            for window in bytes.windows(16).step_by(8) {
                assert!(!starts.contains(window), "{} holds plain content near {at}", path.display());
            }
        });
    }
}

/// Everything that is done with a guest, on the encrypted one and its twin.
fn edit_like_the_twin(sector: u32, method: &str, key: Key) -> Option<usize> {
    let made = Made::with_sectors(sector, method, key, &[])?;
    let (locked_before, plain_before) = (made.path("win10-locked-before.raw"), made.path("win10-before.raw"));
    crate::inject::copy(&made.image, &locked_before);
    crate::inject::copy(&made.plain, &plain_before);
    let before = sha256(&made.image);
    let on = |command: &mut Command| succeed(made.open(command));

    // Questions have the same answers.
    for question in [&["check", "--json"][..], &["fsck"], &["reg", "query"]] {
        let ask = |image: &Path| {
            let mut command = winject();
            command.args(question).arg(image);
            if question[0] == "reg" {
                command.arg(r"HKLM\SYSTEM\Select");
            }
            command
        };
        let answer = |output: Output| -> String {
            let text = stdout(&output).replace("locked.raw", "win10.raw");
            let lines = text.lines().filter(|line| !line.contains("bytes_read"));
            lines.collect::<Vec<_>>().join("\n")
        };
        let (locked, plain) = (made.open(&mut ask(&made.image)).output().unwrap(), ask(&made.plain).output().unwrap());
        assert_eq!(locked.status.code(), plain.status.code(), "{method} {key:?} {question:?}: {}", stderr(&locked));
        assert_eq!(answer(locked), answer(plain), "{method} {key:?} {question:?}");
    }

    // A new overlay, a new image, a saved plan, and the image itself.
    let overlay = made.path("overlay.qcow2");
    let report = made.path("report.md");
    let first = on(inject(&made.image).arg("--overlay").arg(&overlay).arg("--report").arg(&report));
    assert!(std::fs::read_to_string(&report).unwrap().contains("BitLocker"), "the report names the encryption");
    let converted = made.path("converted.qcow2");
    let mut convert = winject();
    convert.arg("convert").arg(&made.image).arg(&converted).arg("--inject").arg(fixture_drivers());
    let second = on(&mut convert);
    let plan = made.path("plan.json");
    let mut planned = winject();
    planned.arg("plan").arg(&made.image).arg("--drivers").arg(fixture_drivers()).arg("-o").arg(&plan);
    let third = on(&mut planned);
    assert_eq!(sha256(&made.image), before, "{method} {key:?}: the image is only read");
    let applied = made.path("applied.qcow2");
    let mut apply = winject();
    apply.arg("apply").arg(&plan).arg("--image").arg(&made.image).arg("--drivers").arg(fixture_drivers());
    let fourth = on(apply.arg("--overlay").arg(&applied));
    let fifth = on(inject(&made.image).arg("--in-place"));
    succeed(inject(&made.plain).arg("--in-place"));
    let edited = disk_sha256(&made.image);
    for other in [&overlay, &converted, &applied] {
        assert_eq!(disk_sha256(other), edited, "{method} {key:?}: {}", other.display());
    }
    let (pieces, changed) = assert_same_edit(&made, [&locked_before, &made.image, &plain_before, &made.plain]);
    let undo = made.path("locked.raw.winject-undo");
    let outputs = [&first, &second, &third, &fourth, &fifth];
    assert_nothing_leaked(&made, &outputs, &[&undo, &overlay, &converted, &applied], &pieces);
    judge_through_dislocker(&made)?;

    let again = stdout(&on(inject(&made.image).arg("--in-place")));
    assert!(again.contains("Unchanged"), "{again}");
    // The undo record is that of the run that changed something.
    succeed(winject().arg("undo").arg(&made.image));
    assert_eq!(sha256(&made.image), before, "{method} {key:?}: undone byte for byte");

    // A removal after the edit, and a registry edit, again like the twin.
    on(inject(&made.image).arg("--in-place"));
    for (image, is_locked) in [(&made.image, true), (&made.plain, false)] {
        for arguments in [
            &["remove", "--in-place"][..],
            &[
                "reg",
                "set",
                r"HKLM\SYSTEM\BitLockerTest",
                "--value",
                "a",
                "--type",
                "dword",
                "--data",
                "7",
                "--in-place",
            ],
        ] {
            let mut command = winject();
            let at = if arguments[0] == "reg" { 2 } else { 1 };
            command.args(&arguments[..at]).arg(image).args(&arguments[at..]);
            succeed(if is_locked { made.open(&mut command) } else { &mut command });
        }
    }
    assert_same_edit(&made, [&locked_before, &made.image, &plain_before, &made.plain]);
    let compared = stdout(&on(winject().arg("diff").arg(&made.image).arg(&made.plain)));
    assert!(compared.starts_with("The same (compared: the files of partitions 1, 3, the registry"), "{compared}");
    Some(changed)
}

/// dislocker opens the edited volume; what it reads is the plain twin where that has data, and a sound NTFS volume.
fn judge_through_dislocker(made: &Made) -> Option<()> {
    let dislocker = support::program("dislocker-fuse").or_else(|| support::program("dislocker"))?;
    let checker = support::judge("ntfscheck.py")?;
    let python = support::judge_python()?;
    let mounted = made.path("mounted");
    std::fs::create_dir_all(&mounted).unwrap();
    let fvek = made.path("keys").join("volume.fvek");
    // The file that dislocker takes: the number of the cipher, then the key, padded to 64 bytes.
    let number = 0x8000 + METHODS.iter().position(|method| made.facts["method"] == **method).unwrap() as u16;
    let mut key = winject::internals::hex::decode(made.facts["fvek"].as_str().unwrap()).unwrap();
    key.resize(64, 0);
    std::fs::write(&fvek, [&number.to_le_bytes()[..], &key].concat()).unwrap();
    let mut mount = Command::new(dislocker);
    mount.arg("-r").arg("-V").arg(&made.image).args(["-O", &made.start.to_string(), "-k"]).arg(&fvek);
    support::run(mount.arg("--").arg(&mounted));
    let _unmount = Unmount(mounted.clone());
    let volume = mounted.join("dislocker-file");
    let checked = Command::new(python).arg(checker).arg(&volume).output().unwrap();
    assert!(checked.status.success(), "{}{}", stdout(&checked), stderr(&checked));
    let (theirs, plain) = (File::open(&volume).unwrap(), File::open(&made.plain).unwrap());
    let (mut a, mut b, zeros) = (vec![0; CHUNK], vec![0; CHUNK], vec![0; CHUNK]);
    let mut compared = 0;
    for at in (0..made.length - made.length % CHUNK as u64).step_by(CHUNK) {
        plain.read_exact_at(&mut a, made.start + at).unwrap();
        if a == zeros {
            continue;
        }
        theirs.read_exact_at(&mut b, at).unwrap();
        for (number, (ours, theirs)) in a.chunks(BLOCK).zip(b.chunks(BLOCK)).enumerate() {
            // Free space that is zero in the twin is noise here.
            if *ours != zeros[..ours.len()] {
                assert!(ours == theirs, "dislocker reads something else at {}", at + (number * BLOCK) as u64);
                compared += 1;
            }
        }
    }
    assert!(compared > 100, "{compared}");
    Some(())
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn a_suspended_guest_is_edited_like_its_plain_twin() {
    let changed = edit_like_the_twin(512, "xts-128", Key::Clear);
    assert!(changed.is_none_or(|changed| changed > 50), "{changed:?}");
}

fn a_guest_with_a_recovery_key_is_edited_like_its_plain_twin() {
    edit_like_the_twin(4096, "cbc-256-diffuser", Key::Recovery);
}

fn a_guest_with_a_volume_key_is_edited_like_its_plain_twin() {
    edit_like_the_twin(512, "cbc-128", Key::Volume);
}

/// `WINJECT_CAMPAIGN=60` edits guests with every cipher, size of a sector and kind of key.
fn every_cipher_and_kind_of_key_is_edited_like_its_plain_twin() {
    let all = METHODS.iter().flat_map(|method| Key::ALL.map(|key| (*method, key)));
    let all: Vec<_> = all.flat_map(|(method, key)| [512, 4096].map(|sector| (sector, method, key))).collect();
    // Seven has no factor in common with their number: every cipher comes early, and each of them once.
    let all = (0..all.len()).map(|number| all[number * 7 % all.len()]);
    let rounds = usize::try_from(support::rounds(0, 0)).unwrap();
    for (sector, method, key) in all.take(rounds) {
        match edit_like_the_twin(sector, method, key) {
            Some(changed) => println!("{method} {sector} {key:?}: {changed} blocks changed"),
            None => return,
        }
    }
}

/// The stage holds ciphertext, also in its spill file.
fn what_the_stage_spills_is_ciphertext() {
    let Some(made) = Made::new("xts-256", Key::Clear, &[]) else { return };
    let spill = made.path("spill");
    std::fs::create_dir(&spill).unwrap();
    let image = block::open(&made.image, &block::OpenOptions::default()).unwrap();
    let options = StageOptions { memory_limit: 1 << 20, spill_folder: Some(spill.clone()), ..StageOptions::default() };
    let mut stage = Stage::new(image, options);
    let table = BitLockerKeys::default().read_partitions(&stage).unwrap();
    let partition = table.partitions.iter().find(|partition| partition.start.0 == made.start).unwrap().clone();
    let marker = b"this must not be on the host's disk as it is";
    let content: Vec<u8> = marker.iter().copied().cycle().take(16 << 20).collect();
    let view = PartitionView::new(&mut stage, &partition).unwrap();
    let mut volume = Volume::open(view, &OpenOptions::new(FileTime(1))).unwrap();
    let root = volume.find("/").unwrap().unwrap();
    volume.create_file(root, "marker.bin", &content, &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
    drop(volume);
    // The spill file has no name, but this process has it open.
    let mut seen = 0;
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let link = entry.unwrap().path();
        let Ok(target) = std::fs::read_link(&link) else { continue };
        if target.starts_with(&spill) {
            let bytes = std::fs::read(&link).unwrap();
            let mut windows = bytes.windows(marker.len()).step_by(4);
            assert!(!windows.any(|window| window == marker), "the spill file holds plain content");
            seen += bytes.len();
        }
    }
    assert!(seen > 8 << 20, "{seen} bytes were spilled");
    let view = PartitionView::new(&stage, &partition).unwrap();
    let volume = Volume::open(view, &OpenOptions::read_only()).unwrap();
    let file = volume.find("/marker.bin").unwrap().unwrap();
    assert!(volume.read(file, 32 << 20).unwrap() == content);
}

tests![in refusals;
    a_suspended_guest_is_edited_like_its_plain_twin,
    a_guest_with_a_recovery_key_is_edited_like_its_plain_twin,
    a_guest_with_a_volume_key_is_edited_like_its_plain_twin,
    every_cipher_and_kind_of_key_is_edited_like_its_plain_twin,
    what_the_stage_spills_is_ciphertext,
];
