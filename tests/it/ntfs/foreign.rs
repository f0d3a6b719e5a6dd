//! Foreign writers: ntfs-3g writes on our volumes and we on its, and it makes the special files that we read and edit.

use std::fs;
use std::path::Path;
use std::process::Command;

use winject::internals::ntfs::{CreateOptions, FileId};

use super::geometry::Matrix;
use super::model::{Model, Random, step};
use super::volume::{Mount, Shape, TestVolume};
use crate::support;

const MIB: u64 = 1 << 20;

/// Volumes on which writers take turns: the common one, sectors of 4 KiB, large clusters, small clusters, large records.
const TURNS: [Matrix; 5] = [
    Matrix { shape: Shape { size: 64 * MIB, cluster: 4096, sector: 512 }, record: 1024 },
    Matrix { shape: Shape { size: 64 * MIB, cluster: 4096, sector: 4096 }, record: 4096 },
    Matrix { shape: Shape { size: 192 * MIB, cluster: 65536, sector: 512 }, record: 1024 },
    Matrix { shape: Shape { size: 48 * MIB, cluster: 512, sector: 512 }, record: 1024 },
    Matrix { shape: Shape { size: 48 * MIB, cluster: 2048, sector: 512 }, record: 4096 },
];

/// How ntfs-3g is mounted for writing.
const WRITE: &str = "streams_interface=xattr,compression";

/// Sets an extended attribute to what the file `value` holds.
fn set_xattr(path: &Path, name: &str, value: &Path) {
    rustix::fs::setxattr(path, name, &fs::read(value).unwrap(), rustix::fs::XattrFlags::empty()).unwrap();
}

fn plain_text() -> Vec<u8> {
    fs::read(support::root().join("test-images/compress/plain.bin")).unwrap()
}

fn ntfs_3g_and_we_take_turns() {
    for (number, geometry) in TURNS.into_iter().enumerate() {
        let turns = if number == 0 { 3 } else { 2 };
        if !take_turns_with_ntfs_3g(geometry, number as u64, turns) {
            return;
        }
    }
}

/// `false` after saying why it cannot be done here.
fn take_turns_with_ntfs_3g(geometry: Matrix, seed: u64, turns: u64) -> bool {
    let Some(test) = geometry.make() else { return false };
    let mut random = Random::new(3 + seed);
    let mut model = Model::default();
    for turn in 0..turns {
        let what = |after: &str| format!("{geometry:?}, turn {turn}, after {after}");
        {
            let mut volume = test.open();
            for _ in 0..120 {
                step(&mut volume, &mut model, &mut random, 30_000).unwrap();
            }
            volume.flush().unwrap();
            test.assert_clean(&what("us"));
        }
        {
            let Some(mount) = Mount::new(&test, WRITE) else { return false };
            let dir = mount.0.join(format!("theirs {turn}"));
            fs::create_dir(&dir).unwrap();
            for n in 0..120 {
                fs::write(dir.join(format!("file {n} by ntfs-3g")), vec![n; 400 * n as usize]).unwrap();
            }
            for n in (0..120).step_by(3) {
                fs::remove_file(dir.join(format!("file {n} by ntfs-3g"))).unwrap();
            }
        }
        test.assert_clean(&what("ntfs-3g"));
        // what they wrote is edited by us in the next turn
        let mut volume = test.open();
        for n in (1..120).step_by(3) {
            let path = format!("/theirs {turn}/file {n} by ntfs-3g");
            let file = volume.find(&path).unwrap().unwrap();
            assert_eq!(volume.read(file, 1 << 20).unwrap(), vec![n as u8; 400 * n]);
            match n % 4 {
                0 => volume.delete(&path).unwrap(),
                1 => volume.overwrite(file, &vec![5; 300 * n]).unwrap(),
                2 => drop(volume.replace_file(&path, &vec![6; 10 * n], &CreateOptions::default()).unwrap()),
                _ => volume.rename(&path, &format!("/renamed {turn} {n}")).unwrap(),
            }
        }
        volume.flush().unwrap();
        test.assert_clean(&what("editing their files"));
    }
    test.assert_judges(geometry.judges(), "after all turns");
    test.assert_judges("ntfscheck,ntfs3g-read,dissect", "after all turns");
    true
}

fn the_kernel_driver_writes_after_us() {
    for geometry in TURNS.into_iter().take(support::rounds(1, 3) as usize) {
        if !take_turns_with_the_kernel(geometry) {
            return;
        }
    }
}

/// We write, Linux's ntfs3 writes, we edit what it wrote. `false` after saying why it cannot be done here.
fn take_turns_with_the_kernel(geometry: Matrix) -> bool {
    let Some(script) = support::judge("kernel-ntfs3.sh") else { return false };
    let Some(test) = geometry.make() else { return false };
    let mut volume = test.open();
    let mut random = Random::new(17);
    let mut model = Model::default();
    for _ in 0..200 {
        step(&mut volume, &mut model, &mut random, 30_000).unwrap();
    }
    volume.flush().unwrap();
    let ours = super::volume::read_by_us(&volume);
    let out = test.folder.path().join("kernel.raw");
    let run = || Command::new("bash").arg(&script).arg("keep").arg(&test.path).arg(&out).output().unwrap();
    let mut output = run();
    for _ in 0..3 {
        // on a busy host the emulated timer sometimes fails before the kernel has looked at the volume
        if String::from_utf8_lossy(&output.stdout).contains("IO-APIC + timer") {
            output = run();
        }
    }
    if output.status.code() == Some(3) {
        support::skip("the kernel for ntfs3 is not installed");
        return false;
    }
    assert!(
        output.status.success(),
        "{geometry:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::copy(&out, &test.path).unwrap();
    test.assert_clean(&format!("{geometry:?}: after the kernel driver"));
    let mut volume = test.open();
    let theirs: Vec<String> =
        super::volume::read_by_us(&volume).into_keys().filter(|path| !ours.contains_key(path)).collect();
    assert!(!theirs.is_empty(), "the kernel driver wrote nothing");
    for (n, path) in theirs.iter().rev().enumerate() {
        let file = volume.find(path).unwrap().unwrap();
        match n % 4 {
            _ if volume.stat(file).unwrap().is_dir => {}
            0 => volume.delete(path).unwrap(),
            1 if volume.stat(file).unwrap().reparse_tag.is_none() => volume.overwrite(file, &[5; 9000]).unwrap(),
            2 => drop(volume.replace_file(path, &[6; 300], &CreateOptions::default()).unwrap()),
            _ => volume.rename(path, &format!("/renamed {n}")).unwrap(),
        }
    }
    for _ in 0..50 {
        volume
            .create_file(FileId::ROOT, &format!("again {}", random.next()), &[1; 5000], &CreateOptions::default())
            .unwrap();
    }
    volume.flush().unwrap();
    test.assert_clean(&format!("{geometry:?}: after us again"));
    println!("{geometry:?}: {} files by the kernel driver edited", theirs.len());
    true
}

/// How many entries `$Extend\\$Reparse:$R` and `$Extend\\$ObjId:$O` have, as dissect counts them.
fn index_entries(test: &TestVolume) -> Option<(u64, u64)> {
    const SCRIPT: &str = r#"
import sys
from dissect.ntfs import NTFS
volume = NTFS(open(sys.argv[1], 'rb'))
def descend(index, entries):
    for entry in entries:
        if entry.is_node: yield from descend(index, index.index_buffer(entry.node_vcn).entries())
        if entry.is_end: return
        yield entry
def count(path, name):
    index = volume.mft.get(path).index(name)
    return sum(1 for _ in descend(index, index.root.entries()))
print(count('$Extend/$Reparse', '$R'), count('$Extend/$ObjId', '$O'))
"#;
    let python = support::judge_python()?;
    let output = support::run(Command::new(python).args(["-c", SCRIPT]).arg(&test.path));
    let text = String::from_utf8(output.stdout).unwrap();
    let (r, o) = text.trim().split_once(' ').unwrap();
    Some((r.parse().unwrap(), o.parse().unwrap()))
}

fn entries_of_reparse_points_and_object_ids_go_with_their_files() {
    for geometry in [TURNS[0], TURNS[3], TURNS[4]] {
        let Some(test) = geometry.make() else { return };
        let value = test.folder.path().join("value");
        let count = 200;
        {
            let Some(mount) = Mount::new(&test, WRITE) else { return };
            for n in 0..count {
                fs::create_dir(mount.0.join(format!("junction {n}"))).unwrap();
                fs::write(&value, junction(&format!("\\??\\C:\\target {n}"))).unwrap();
                set_xattr(&mount.0.join(format!("junction {n}")), "system.ntfs_reparse_data", &value);
                fs::write(mount.0.join(format!("object {n}")), vec![n as u8; 30 * n]).unwrap();
                let mut id = [0xA5; 16];
                id[..8].copy_from_slice(&(n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes());
                fs::write(&value, id).unwrap();
                set_xattr(&mount.0.join(format!("object {n}")), "system.ntfs_object_id", &value);
            }
        }
        test.assert_clean(&format!("{geometry:?}: as ntfs-3g left it"));
        let Some((reparse, objects)) = index_entries(&test) else { return };
        assert!(reparse >= count as u64 && objects >= count as u64, "{reparse} and {objects} entries to begin with");
        let mut random = Random::new(8);
        let mut volume = test.open();
        let (mut gone_reparse, mut gone_objects) = (0, 0);
        for n in 0..count {
            let (junction, object) = (format!("/junction {n}"), format!("/object {n}"));
            match random.below(3) {
                0 => {
                    volume.delete(&junction).unwrap();
                    gone_reparse += 1;
                }
                1 => volume.rename(&junction, &format!("/moved junction {n}")).unwrap(),
                _ => {}
            }
            let file = volume.find(&object).unwrap().unwrap();
            match random.below(5) {
                0 => {
                    volume.delete(&object).unwrap();
                    gone_objects += 1;
                }
                1 => {
                    // a new file: the old one goes with its id
                    volume.replace_file(&object, &[1; 700], &CreateOptions::default()).unwrap();
                    gone_objects += 1;
                }
                2 => volume.overwrite(file, &vec![2; 40 * n]).unwrap(),
                3 => {
                    volume.link(file, FileId::ROOT, &format!("second name {n}")).unwrap();
                    // not the last name: the id stays
                    volume.delete(&object).unwrap();
                }
                _ => volume.rename(&object, &format!("/moved object {n}")).unwrap(),
            }
            if n == count / 2 {
                volume.forget_freed().unwrap();
                test.assert_clean(&format!("{geometry:?}: half way"));
            }
        }
        volume.flush().unwrap();
        test.assert_clean(&format!("{geometry:?}: edited"));
        assert_eq!(index_entries(&test), Some((reparse - gone_reparse, objects - gone_objects)));
        test.assert_judges(geometry.judges(), "edited");
        test.assert_judges("ntfs3g-read", "edited");
    }
}

fn special_files_made_by_ntfs_3g() {
    let Some(test) = TestVolume::make(Shape { size: 64 * MIB, cluster: 4096, sector: 512 }) else { return };
    let text = plain_text();
    let value = test.folder.path().join("value");
    {
        let Some(mount) = Mount::new(&test, WRITE) else { return };
        let dir = mount.0.join("compressed");
        fs::create_dir(&dir).unwrap();
        fs::write(&value, 0x800u32.to_be_bytes()).unwrap();
        set_xattr(&dir, "system.ntfs_attrib_be", &value);
        for name in ["read", "overwritten", "replaced", "deleted"] {
            fs::write(dir.join(name), &text).unwrap();
        }
        // sparse: a hole of 4 MiB, then data
        for name in ["sparse", "sparse overwritten"] {
            let file = fs::File::create(mount.0.join(name)).unwrap();
            file.set_len(4 << 20).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &text, (4 << 20) + 5).unwrap();
        }
        for name in ["with object id", "object id replaced"] {
            fs::write(mount.0.join(name), b"x").unwrap();
            let mut id = *b"0123456789abcdef";
            id[15] = name.len() as u8;
            fs::write(&value, id).unwrap();
            set_xattr(&mount.0.join(name), "system.ntfs_object_id", &value);
        }
        // junctions, which have an entry in $Reparse
        for name in ["junction", "junction renamed"] {
            fs::create_dir(mount.0.join(name)).unwrap();
            fs::write(&value, junction("\\??\\C:\\compressed")).unwrap();
            set_xattr(&mount.0.join(name), "system.ntfs_reparse_data", &value);
        }
    }
    test.assert_clean("as ntfs-3g left it");
    let mut volume = test.open();
    let read = |volume: &winject::internals::ntfs::Volume<_>, path: &str| {
        volume.read(volume.find(path).unwrap().unwrap(), 1 << 24).unwrap()
    };
    for name in ["read", "overwritten", "replaced", "deleted"] {
        assert!(read(&volume, &format!("/compressed/{name}")) == text, "{name}");
    }
    let stat = volume.stat(volume.find("/compressed/read").unwrap().unwrap()).unwrap();
    assert_eq!(stat.attributes & 0x800, 0x800);
    let mut sparse = vec![0; 4 << 20];
    sparse.extend_from_slice(&[0; 5]);
    sparse.extend_from_slice(&text);
    assert!(read(&volume, "/sparse") == sparse);
    let id = volume.find("/compressed/overwritten").unwrap().unwrap();
    volume.overwrite(id, &text[100..]).unwrap();
    assert_eq!(volume.stat(id).unwrap().attributes & 0x800, 0);
    volume.replace_file("/compressed/replaced", &text[200..], &CreateOptions::default()).unwrap();
    volume.delete("/compressed/deleted").unwrap();
    let id = volume.find("/sparse overwritten").unwrap().unwrap();
    volume.overwrite(id, b"dense").unwrap();
    volume.delete("/sparse").unwrap();
    volume.delete("/with object id").unwrap();
    volume.replace_file("/object id replaced", b"y", &CreateOptions::default()).unwrap();
    assert_eq!(volume.stat(volume.find("/junction").unwrap().unwrap()).unwrap().reparse_tag, Some(0xA000_0003));
    volume.delete("/junction").unwrap();
    volume.rename("/junction renamed", "/compressed/moved junction").unwrap();
    volume.flush().unwrap();
    test.assert_clean("after editing special files");
    assert!(read(&test.open(), "/compressed/overwritten") == text[100..]);
    test.assert_judges("ntfscheck,checkdisk,ntfsresize,ntfs3g-read", "after editing special files");
}

/// The data of a mount point (MS-FSCC 2.1.2.5).
fn junction(target: &str) -> Vec<u8> {
    let units: Vec<u8> = target.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let length = units.len() as u16;
    let mut names = Vec::new();
    for n in [0, length, length + 2, 0] {
        names.extend_from_slice(&n.to_le_bytes());
    }
    names.extend_from_slice(&units);
    names.extend_from_slice(&[0; 4]);
    let mut data = 0xA000_0003u32.to_le_bytes().to_vec();
    data.extend_from_slice(&(names.len() as u16).to_le_bytes());
    data.extend_from_slice(&[0; 2]);
    data.extend_from_slice(&names);
    data
}

fn wof_files_are_read_and_become_plain() {
    let Some(test) = TestVolume::make(Shape { size: 64 * MIB, cluster: 4096, sector: 512 }) else { return };
    let text = plain_text();
    let value = test.folder.path().join("value");
    let kinds = [("xpress4k", 0u32, 4096usize), ("lzx", 1, 32768), ("xpress8k", 2, 8192), ("xpress16k", 3, 16384)];
    {
        let Some(mount) = Mount::new(&test, WRITE) else { return };
        for (name, algorithm, chunk) in kinds {
            let Some((stream, size)) = wof_stream(name, &text, chunk) else { continue };
            for copy in ["", " deleted", " replaced"] {
                let path = mount.0.join(format!("{name}{copy}"));
                fs::File::create(&path).unwrap().set_len(size).unwrap();
                fs::write(&value, &stream).unwrap();
                set_xattr(&path, "user.WofCompressedData", &value);
                let mut point = 0x8000_0017u32.to_le_bytes().to_vec();
                point.extend_from_slice(&[16, 0, 0, 0]);
                for word in [1, 2, 1, algorithm] {
                    point.extend_from_slice(&word.to_le_bytes());
                }
                fs::write(&value, &point).unwrap();
                set_xattr(&path, "system.ntfs_reparse_data", &value);
            }
        }
    }
    test.assert_clean("as ntfs-3g left it");
    let mut volume = test.open();
    for (name, _, chunk) in kinds {
        let Some((_, size)) = wof_stream(name, &text, chunk) else { continue };
        let file = volume.find(&format!("/{name}")).unwrap().unwrap();
        assert!(volume.read(file, 1 << 20).unwrap() == text[..size as usize], "{name}");
        volume.overwrite(file, b"plain now").unwrap();
        let stat = volume.stat(file).unwrap();
        assert_eq!((stat.reparse_tag, stat.attributes & 0x600, stat.streams.len()), (None, 0, 0));
        volume.delete(&format!("/{name} deleted")).unwrap();
        volume.replace_file(&format!("/{name} replaced"), &text, &CreateOptions::default()).unwrap();
    }
    volume.flush().unwrap();
    test.assert_clean("after editing WOF files");
}

/// The stream of a WOF file with this content, chunk table included, and the content's size; `None` when the fixture is
/// no such stream.
fn wof_stream(name: &str, text: &[u8], chunk: usize) -> Option<(Vec<u8>, u64)> {
    let packed = fs::read(support::root().join(format!("test-images/compress/{name}.bin"))).unwrap();
    let table = 4 * text.len().div_ceil(chunk).saturating_sub(1);
    let first = u32::from_le_bytes(packed.get(..4)?.try_into().ok()?) as usize;
    if first == 0 || first > chunk || table >= packed.len() {
        return None;
    }
    Some((packed, text.len() as u64))
}

tests![
    ntfs_3g_and_we_take_turns,
    the_kernel_driver_writes_after_us,
    entries_of_reparse_points_and_object_ids_go_with_their_files,
    special_files_made_by_ntfs_3g,
    wof_files_are_read_and_become_plain,
];
