//! Every container and subformat that qemu-img writes, with every kind of data.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{assert_same, disk, image, qemu_img, read_all, read_foreign, read_qemu};
use crate::support::program;
use winject::internals::block::Format;
use winject::internals::units::ImageOffset;

/// Format, options, and whether the size may be rounded up by the format.
const MATRIX: &[(&str, &str)] = &[
    ("vmdk", "subformat=monolithicSparse"),
    ("vmdk", "subformat=monolithicSparse,compat6"),
    ("vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
    ("vmdk", "subformat=monolithicFlat"),
    ("vmdk", "subformat=twoGbMaxExtentSparse"),
    ("vmdk", "subformat=twoGbMaxExtentFlat"),
    ("vmdk", "subformat=streamOptimized"),
    ("vpc", "subformat=dynamic"),
    ("vpc", "subformat=dynamic,force_size=on"),
    ("vpc", "subformat=fixed"),
    ("vpc", "subformat=fixed,force_size=on"),
    ("vhdx", "subformat=dynamic"),
    ("vhdx", "subformat=dynamic,block_size=1048576"),
    ("vhdx", "subformat=dynamic,block_size=2097152,block_state_zero=off"),
    ("vhdx", "subformat=dynamic,block_size=268435456"),
    ("vhdx", "subformat=fixed"),
    ("vdi", "static=off"),
    ("vdi", "static=on"),
    ("qcow2", "cluster_size=65536"),
    ("raw", "preallocation=off"),
];

fn make(folder: &Path, source: &Path, format: &str, options: &str, name: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    let options: Vec<&str> = if options.is_empty() { vec![] } else { vec!["-o", options] };
    let mut arguments = vec!["convert", "-f", "raw", "-O", format];
    arguments.extend(options);
    arguments.extend([source.to_str().unwrap(), path.to_str().unwrap()]);
    qemu_img(&arguments);
    path
}

fn all_subformats_read_as_they_were_written() {
    if program("qemu-img").is_none() {
        return;
    }
    for (seed, size) in [(1, 24 << 20), (2, (9 << 20) + 512), (3, 3 << 20)] {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source.raw");
        let content = disk(size, seed);
        std::fs::write(&source, &content).unwrap();
        for (number, (format, options)) in MATRIX.iter().enumerate() {
            let path = make(folder.path(), &source, format, options, &format!("{number}.{format}"));
            let what = format!("{format} {options}, {size} bytes");
            let opened = image(&path);
            assert_eq!(opened.format().name(), *format, "{what}");
            let ours = read_all(&*opened);
            assert_same(&ours[..size], &content, &what);
            assert!(ours[size..].iter().all(|b| *b == 0), "{what}");
            assert_same(&ours, &read_qemu(&path, format), &what);
            match *format {
                "vmdk" => {
                    let reader = vmdk::VmdkReader::open_path(&path).unwrap();
                    assert_same(&ours, &read_foreign(reader, ours.len() as u64), &what);
                }
                "vhdx" => {
                    let reader = vhdx::VhdxReader::open(&path).unwrap();
                    assert_same(&ours, &read_foreign(reader, ours.len() as u64), &what);
                }
                _ => {}
            }
        }
    }
}

/// Disks beyond 4 GiB, in parts of 2 GiB and in one piece: nothing may be cut to 32 bits.
fn large_disks_are_not_cut() {
    if program("qemu-img").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    let file = File::options().read(true).write(true).create_new(true).open(&source).unwrap();
    let size: u64 = (5 << 30) + 12_288;
    file.set_len(size).unwrap();
    let spots = [0, (2 << 30) - 4096, 2 << 30, (4 << 30) - 512, (4 << 30) + 65_536, size - 4096];
    for (i, at) in spots.iter().enumerate() {
        file.write_all_at(&[i as u8 + 1; 4096], *at).unwrap();
    }
    let kinds = [
        ("vmdk", "subformat=twoGbMaxExtentSparse"),
        ("vmdk", "subformat=twoGbMaxExtentFlat"),
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=streamOptimized"),
        ("vpc", "subformat=dynamic,force_size=on"),
        ("vhdx", "subformat=dynamic"),
        ("vdi", ""),
    ];
    for (number, (format, options)) in kinds.into_iter().enumerate() {
        let path = make(folder.path(), &source, format, options, &format!("{number}.{format}"));
        let opened = image(&path);
        assert_eq!(opened.len(), size, "{format} {options}");
        for (i, at) in spots.iter().enumerate() {
            let mut buf = [0; 6000];
            let from = at.saturating_sub(512);
            let length = buf.len().min((size - from) as usize);
            opened.read_at(ImageOffset(from), &mut buf[..length]).unwrap();
            let mut expected = vec![0; length];
            file.read_exact_at(&mut expected, from).unwrap();
            assert_same(&buf[..length], &expected, &format!("{format} {options}, spot {i}"));
        }
        let (mut at, mut data) = (0, 0);
        while at < size {
            let extent = opened.extent_at(ImageOffset(at), u64::MAX).unwrap();
            data += if extent.kind.is_zero() { 0 } else { extent.length };
            at += extent.length;
        }
        assert!(data <= 6 * (32 << 20), "{format} {options}: {data} bytes of data in a nearly empty disk");
    }
}

fn other_formats_are_never_taken_for_raw() {
    if program("qemu-img").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    std::fs::write(&source, disk(1 << 20, 9)).unwrap();
    let fixed = make(folder.path(), &source, "vpc", "subformat=fixed", "fixed.raw");
    assert_eq!(image(&fixed).format(), Format::Vhd);
}

tests![all_subformats_read_as_they_were_written, large_disks_are_not_cut, other_formats_are_never_taken_for_raw,];
