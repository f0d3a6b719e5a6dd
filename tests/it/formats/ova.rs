//! OVA files: a tar with an OVF and its disks.

use winject::Kind;
use winject::internals::block::commit::{self, CommitOptions};
use winject::internals::block::{Format, OpenOptions, Stage, StageOptions, open};

use super::{assert_same, disk, image, open_error, qemu_img, read_all};
use crate::support::program;

/// A tar header for a plain file, or for an extended header.
fn header(name: &str, size: usize, kind: u8) -> Vec<u8> {
    let mut raw = vec![0; 512];
    let short = &name.as_bytes()[..name.len().min(100)];
    raw[..short.len()].copy_from_slice(short);
    raw[100..108].copy_from_slice(b"0000644\0");
    raw[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    raw[156] = kind;
    raw[257..265].copy_from_slice(b"ustar\x0000");
    raw[148..156].fill(b' ');
    let sum: u32 = raw.iter().map(|b| u32::from(*b)).sum();
    raw[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    raw
}

pub fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in members {
        if name.len() > 100 {
            let record = format!(" path={name}\n");
            let length = record.len() + 3;
            let record = format!("{length}{record}");
            assert_eq!(record.len(), length);
            out.extend(header("pax", record.len(), b'x'));
            out.extend(record.as_bytes());
            out.resize(out.len().next_multiple_of(512), 0);
        }
        out.extend(header(name, content.len(), b'0'));
        out.extend(*content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.extend([0; 1024]);
    out
}

pub fn ovf(disks: &[&str]) -> String {
    let files: String =
        disks.iter().enumerate().map(|(i, d)| format!("<File ovf:href=\"{d}\" ovf:id=\"file{i}\"/>")).collect();
    let section: String = (0..disks.len())
        .map(|i| format!("<Disk ovf:capacity=\"1\" ovf:diskId=\"vmdisk{i}\" ovf:fileRef=\"file{i}\"/>"))
        .collect();
    format!(
        "<?xml version=\"1.0\"?><Envelope><References>{files}</References><DiskSection>{section}</DiskSection></Envelope>"
    )
}

fn the_disk_inside_is_read_without_unpacking() {
    if program("qemu-img").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let contents = [disk(3 << 20, 1), disk(2 << 20, 2)];
    for (i, content) in contents.iter().enumerate() {
        std::fs::write(at("source.raw"), content).unwrap();
        let out = at(&format!("{i}.vmdk"));
        qemu_img(&["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", &at("source.raw"), &out]);
    }
    let disks = [std::fs::read(at("0.vmdk")).unwrap(), std::fs::read(at("1.vmdk")).unwrap()];
    let long = format!("{}-disk1.vmdk", "a-name-too-long-for-the-header-of-ustar".repeat(3));
    let path = folder.path().join("vm.ova");

    let one = ovf(&[&long]);
    std::fs::write(&path, tar(&[("vm.ovf", one.as_bytes()), ("vm.mf", b"SHA256"), (&long, &disks[0])])).unwrap();
    let opened = image(&path);
    assert_eq!(opened.format(), Format::Vmdk);
    assert_eq!(opened.files(), std::slice::from_ref(&path));
    assert_same(&read_all(&*opened), &contents[0], "only disk");

    // Packed again by hand: the OVF comes last and in a folder, its reference is a relative URI.
    let uri = ovf(&["./disk%201.vmdk"]);
    std::fs::write(&path, tar(&[("vm/disk 1.vmdk", &disks[0]), ("./vm/vm.ovf", uri.as_bytes())])).unwrap();
    assert_same(&read_all(&*image(&path)), &contents[0], "an OVF in a folder");

    // Two disks: the user chooses.
    let two = ovf(&["a.vmdk", "b.vmdk"]);
    std::fs::write(&path, tar(&[("vm.ovf", two.as_bytes()), ("b.vmdk", &disks[1]), ("a.vmdk", &disks[0])])).unwrap();
    let error = open_error(&path);
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("a.vmdk, b.vmdk"), "{error}");
    for (name, content) in ["a.vmdk", "b.vmdk"].iter().zip(&contents) {
        let options = OpenOptions { disk: Some((*name).into()), ..OpenOptions::default() };
        assert_same(&read_all(&*open(&path, &options).unwrap()), content, name);
    }
    let options = OpenOptions { disk: Some("c.vmdk".into()), ..OpenOptions::default() };
    assert_eq!(open(&path, &options).err().unwrap().kind(), Kind::Usage);

    // Incomplete and cut off.
    std::fs::write(&path, tar(&[("vm.ovf", two.as_bytes())])).unwrap();
    let options = OpenOptions { disk: Some("a.vmdk".into()), ..OpenOptions::default() };
    assert_eq!(open(&path, &options).err().unwrap().kind(), Kind::Damaged);
    let whole = tar(&[("vm.ovf", one.as_bytes()), (&long, &disks[0])]);
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(open_error(&path).kind(), Kind::Damaged);
}

/// QEMU cannot open a member of an archive, so that nothing can be laid over it; and nothing is written into it.
fn a_disk_inside_is_neither_changed_nor_a_backing_file() {
    if program("qemu-img").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("d.raw"), disk(1 << 20, 3)).unwrap();
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", &at("d.raw"), &at("d.qcow2")]);
    qemu_img(&["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", &at("d.raw"), &at("d.vmdk")]);
    for name in ["d.raw", "d.qcow2", "d.vmdk"] {
        let path = folder.path().join("vm.ova");
        let member = std::fs::read(at(name)).unwrap();
        std::fs::write(&path, tar(&[("vm.ovf", ovf(&[name]).as_bytes()), (name, &member)])).unwrap();
        let before = std::fs::read(&path).unwrap();
        let mut stage = Stage::new(image(&path), StageOptions::default());
        stage.write_at(winject::internals::units::ImageOffset(4096), b"change").unwrap();
        let out = folder.path().join("new.qcow2");
        let options = CommitOptions::default();
        let errors = [
            commit::check_in_place(&stage, &path, &Default::default()).unwrap_err(),
            commit::commit_in_place(&mut stage, &path, &options).unwrap_err(),
            commit::check_overlay(&stage).unwrap_err(),
            commit::commit_overlay(&mut stage, &path, &out, &options).unwrap_err(),
        ];
        for error in &errors {
            assert_eq!(error.kind(), Kind::Unsupported, "{name}: {error}");
        }
        // What to do in place of an edit in place, the job says, which knows the command.
        for error in &errors[2..] {
            assert!(error.hint_text().unwrap().contains("-o NEW.qcow2"), "{name}: {error:?}");
        }
        assert!(!out.exists() && !commit::journal_path(&path).exists());
        assert_eq!(std::fs::read(&path).unwrap(), before, "{name}");
    }
}

fn archives_without_a_description_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tar");
    std::fs::write(&path, tar(&[("disk.vmdk", &[0; 4096])])).unwrap();
    assert_eq!(open_error(&path).kind(), Kind::Unsupported);
}

fn a_disk_inside_an_archive_refers_to_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let descriptor = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\nRW 8 FLAT \"other.raw\" 0\n";
    std::fs::write(folder.path().join("other.raw"), [1; 4096]).unwrap();
    let path = folder.path().join("vm.ova");
    std::fs::write(&path, tar(&[("vm.ovf", ovf(&["d.vmdk"]).as_bytes()), ("d.vmdk", descriptor.as_bytes())])).unwrap();
    assert_eq!(open_error(&path).kind(), Kind::Refused);
}

tests![
    the_disk_inside_is_read_without_unpacking,
    a_disk_inside_is_neither_changed_nor_a_backing_file,
    archives_without_a_description_are_named,
    a_disk_inside_an_archive_refers_to_nothing,
];
