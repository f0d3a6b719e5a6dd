//! Foreign writers: ntfs-3g writes on our volumes and we on its, and it makes the special files that we read and edit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use winject::ntfs::{FileId, New};

use super::model::{Model, Random, step};
use super::volume::{Shape, TestVolume};
use crate::support;

const MIB: u64 = 1 << 20;

/// A volume mounted by ntfs-3g.
struct Mount(PathBuf);

impl Mount {
    fn new(test: &TestVolume) -> Option<Self> {
        let program = support::program("ntfs-3g")?;
        if !Path::new("/dev/fuse").exists() {
            support::skip("there is no /dev/fuse here");
            return None;
        }
        let point = test.folder.path().join("mnt");
        fs::create_dir_all(&point).unwrap();
        support::run(
            Command::new(program).args(["-o", "streams_interface=xattr,compression"]).arg(&test.path).arg(&point),
        );
        Some(Self(point))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
        // the driver writes on after umount has returned
        for _ in 0..100 {
            let busy = Command::new("mountpoint").arg("-q").arg(&self.0).status().is_ok_and(|s| s.success());
            if !busy {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
}

/// Sets an extended attribute, through Python (the standard library has no call for it).
fn set_xattr(path: &Path, name: &str, value: &Path) {
    let script = "import os,sys; os.setxattr(sys.argv[1], sys.argv[2], open(sys.argv[3],'rb').read())";
    support::run(Command::new("python3").args(["-c", script]).arg(path).arg(name).arg(value));
}

fn plain_text() -> Vec<u8> {
    fs::read(support::root().join("test-images/compress/plain.bin")).unwrap()
}

#[test]
fn ntfs_3g_and_we_take_turns() {
    let Some(test) = TestVolume::make(Shape { size: 64 * MIB, cluster: 4096, sector: 512 }) else { return };
    let mut random = Random::new(3);
    let mut model = Model::default();
    for turn in 0..3 {
        {
            let mut volume = test.open();
            for _ in 0..120 {
                step(&mut volume, &mut model, &mut random, 30_000).unwrap();
            }
            volume.flush().unwrap();
            test.assert_clean(&format!("turn {turn}, after us"));
        }
        {
            let Some(mount) = Mount::new(&test) else { return };
            let dir = mount.0.join(format!("theirs {turn}"));
            fs::create_dir(&dir).unwrap();
            for n in 0..120 {
                fs::write(dir.join(format!("file {n} by ntfs-3g")), vec![n; 400 * n as usize]).unwrap();
            }
            for n in (0..120).step_by(3) {
                fs::remove_file(dir.join(format!("file {n} by ntfs-3g"))).unwrap();
            }
        }
        test.assert_clean(&format!("turn {turn}, after ntfs-3g"));
        // what they wrote is edited by us in the next turn
        let mut volume = test.open();
        for n in (1..120).step_by(3) {
            let path = format!("/theirs {turn}/file {n} by ntfs-3g");
            let file = volume.find(&path).unwrap().unwrap();
            assert_eq!(volume.read(file, 1 << 20).unwrap(), vec![n as u8; 400 * n]);
            match n % 4 {
                0 => volume.delete(&path).unwrap(),
                1 => volume.overwrite(file, &vec![5; 300 * n]).unwrap(),
                2 => drop(volume.replace_file(&path, &vec![6; 10 * n], &New::default()).unwrap()),
                _ => volume.rename(&path, &format!("/renamed {turn} {n}")).unwrap(),
            }
        }
        volume.flush().unwrap();
        test.assert_clean(&format!("turn {turn}, after editing their files"));
    }
    test.assert_judges("ntfscheck,checkdisk,ntfsresize,ntfsfix,ntfs3g-read,dissect", "after all turns");
}

#[test]
fn the_kernel_driver_writes_after_us() {
    let Some(script) = support::judge("kernel-ntfs3.sh") else { return };
    let Some(test) = TestVolume::make(Shape { size: 64 * MIB, cluster: 4096, sector: 512 }) else { return };
    let mut volume = test.open();
    let mut random = Random::new(17);
    let mut model = Model::default();
    for _ in 0..200 {
        step(&mut volume, &mut model, &mut random, 30_000).unwrap();
    }
    volume.flush().unwrap();
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
        return support::skip("the kernel for ntfs3 is not installed");
    }
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::copy(&out, &test.path).unwrap();
    test.assert_clean("after the kernel driver");
    let mut volume = test.open();
    for _ in 0..50 {
        volume.create_file(FileId::ROOT, &format!("again {}", random.next()), &[1; 5000], &New::default()).unwrap();
    }
    volume.flush().unwrap();
    test.assert_clean("after us again");
}

#[test]
fn special_files_made_by_ntfs_3g() {
    let Some(test) = TestVolume::make(Shape { size: 64 * MIB, cluster: 4096, sector: 512 }) else { return };
    let text = plain_text();
    let value = test.folder.path().join("value");
    {
        let Some(mount) = Mount::new(&test) else { return };
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
    let read = |volume: &winject::ntfs::Volume<_>, path: &str| {
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
    volume.replace_file("/compressed/replaced", &text[200..], &New::default()).unwrap();
    volume.delete("/compressed/deleted").unwrap();
    let id = volume.find("/sparse overwritten").unwrap().unwrap();
    volume.overwrite(id, b"dense").unwrap();
    volume.delete("/sparse").unwrap();
    volume.delete("/with object id").unwrap();
    volume.replace_file("/object id replaced", b"y", &New::default()).unwrap();
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

#[test]
fn wof_files_are_read_and_become_plain() {
    let Some(test) = TestVolume::make(Shape { size: 64 * MIB, cluster: 4096, sector: 512 }) else { return };
    let text = plain_text();
    let value = test.folder.path().join("value");
    let kinds = [("xpress4k", 0u32, 4096usize), ("lzx", 1, 32768), ("xpress8k", 2, 8192), ("xpress16k", 3, 16384)];
    {
        let Some(mount) = Mount::new(&test) else { return };
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
        volume.replace_file(&format!("/{name} replaced"), &text, &New::default()).unwrap();
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
