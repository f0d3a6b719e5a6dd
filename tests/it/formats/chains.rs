//! VMDK snapshot chains, and extents that no program at hand writes.

use std::collections::BTreeMap;
use std::path::Path;

use winject::Kind;
use winject::internals::block::{Image, OpenOptions, PathPolicy, open};

use super::craft::{Grain, Vhdx, cowd, put32, put64, sesparse};
use super::{Random, assert_same, disk, image, open_error, qemu_img, read_all, read_foreign, read_qemu};
use crate::support::program;

/// 40 MiB: more than one table of either sparse kind.
const SIZE: usize = 40 << 20;
const SECTORS: usize = SIZE / 512;

fn descriptor(create_type: &str, cid: u32, parent: Option<(u32, &str)>, extents: &str) -> String {
    let (parent_cid, hint) = match parent {
        Some((cid, name)) => (cid, format!("parentFileNameHint=\"{name}\"\n")),
        None => (u32::MAX, String::new()),
    };
    format!(
        "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID={cid:08x}\nparentCID={parent_cid:08x}\n{hint}\
         isNativeSnapshot=\"no\"\ncreateType=\"{create_type}\"\n\n# Extent description\n{extents}\n\n\
         # The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"5\"\n\
         ddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\nddb.virtualHWVersion = \"8\"\n"
    )
}

/// Random changes: grains of `bytes` each, applied to `model` too.
fn changes(model: &mut [u8], bytes: usize, count: usize, seed: u64) -> BTreeMap<u64, Grain> {
    let mut random = Random(seed);
    let mut grains = BTreeMap::new();
    let total = (model.len() / bytes) as u64;
    for i in 0..count {
        // Some neighbours, some far away, the first and the last one.
        let number = match i {
            0 => 0,
            1 => total - 1,
            _ if i % 3 == 0 => (i as u64 / 3) % total,
            _ => random.below(total),
        };
        let range = number as usize * bytes..(number as usize + 1) * bytes;
        if random.below(4) == 0 {
            model[range].fill(0);
            grains.insert(number, Grain::Zero);
        } else {
            let mut data = vec![0; bytes];
            random.fill(&mut data);
            model[range].copy_from_slice(&data);
            grains.insert(number, Grain::Data(data));
        }
    }
    grains
}

/// Base (flat), a COWD snapshot over it, an seSparse snapshot over that.
fn vmfs_chain(folder: &Path) -> Vec<Vec<u8>> {
    let mut model = disk(SIZE, 77);
    let mut contents = vec![model.clone()];
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
    write("base-flat.vmdk", &model);
    let extents = format!("RW {SECTORS} VMFS \"base-flat.vmdk\"");
    write("base.vmdk", descriptor("vmfs", 0x1111_1111, None, &extents).as_bytes());

    // One grain a sector; a zero grain is not a thing every reader of COWD knows, so there are none here.
    let mut grains = changes(&mut model, 512, 900, 1);
    for (number, grain) in &mut grains {
        if matches!(grain, Grain::Zero) {
            *grain = Grain::Data(vec![0; 512]);
        }
        let _ = number;
    }
    contents.push(model.clone());
    write("snap1-delta.vmdk", &cowd(SECTORS as u32, 1, false, &grains));
    let extents = format!("RW {SECTORS} VMFSSPARSE \"snap1-delta.vmdk\"");
    write("snap1.vmdk", descriptor("vmfsSparse", 0x2222_2222, Some((0x1111_1111, "base.vmdk")), &extents).as_bytes());

    let grains = changes(&mut model, 4096, 300, 2);
    contents.push(model.clone());
    write("snap2-sesparse.vmdk", &sesparse(SECTORS as u64, &grains));
    let extents = format!("RW {SECTORS} SESPARSE \"snap2-sesparse.vmdk\"");
    let hint = "/vmfs/volumes/59c1a3f2-aa/vm/snap1.vmdk";
    write("snap2.vmdk", descriptor("seSparse", 0x3333_3333, Some((0x2222_2222, hint)), &extents).as_bytes());
    contents
}

fn snapshots_of_esx_read_through_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let contents = vmfs_chain(folder.path());
    for (name, content) in ["base.vmdk", "snap1.vmdk", "snap2.vmdk"].iter().zip(&contents) {
        let path = folder.path().join(name);
        let opened = image(&path);
        assert_same(&read_all(&*opened), content, name);
        assert_eq!(
            opened.files().len(),
            match *name {
                "base.vmdk" => 2,
                "snap1.vmdk" => 4,
                _ => 6,
            }
        );
    }
    if program("qemu-img").is_some() {
        // QEMU does not look for the parent's base name, so it gets the hint that it needs.
        let path = folder.path().join("snap2.vmdk");
        let text = std::fs::read_to_string(&path).unwrap().replace("/vmfs/volumes/59c1a3f2-aa/vm/", "");
        std::fs::write(&path, text).unwrap();
        for (name, content) in ["snap1.vmdk", "snap2.vmdk"].iter().zip(&contents[1..]) {
            assert_same(&read_qemu(&folder.path().join(name), "vmdk"), content, name);
        }
    }
}

fn a_whole_cowd_disk_reads_like_the_second_reader_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = vec![0; 8 << 20];
    let mut grains = changes(&mut model, 4096, 200, 5);
    grains.retain(|_, grain| !matches!(grain, Grain::Zero));
    let mut model = vec![0; 8 << 20];
    for (number, grain) in &grains {
        if let Grain::Data(data) = grain {
            model[*number as usize * 4096..][..4096].copy_from_slice(data);
        }
    }
    let path = folder.path().join("old.vmdk");
    std::fs::write(&path, cowd(model.len() as u32 / 512, 8, true, &grains)).unwrap();
    assert_same(&read_all(&*image(&path)), &model, "COWD");
    let reader = vmdk::VmdkReader::open_path(&path).unwrap();
    assert_same(&read_foreign(reader, model.len() as u64), &model, "COWD, vmdk-core");
}

fn zero_grains_of_cowd_hide_the_parent() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("base-flat.vmdk", &[0xEE; 4096]);
    write("base.vmdk", descriptor("vmfs", 1, None, "RW 8 VMFS \"base-flat.vmdk\"").as_bytes());
    let grains = BTreeMap::from([(1, Grain::Zero), (2, Grain::Data(vec![7; 512]))]);
    write("snap-delta.vmdk", &cowd(8, 1, false, &grains));
    write(
        "snap.vmdk",
        descriptor("vmfsSparse", 2, Some((1, "base.vmdk")), "RW 8 VMFSSPARSE \"snap-delta.vmdk\"").as_bytes(),
    );
    let bytes = read_all(&*image(&folder.path().join("snap.vmdk")));
    let sectors: Vec<u8> = bytes.chunks(512).map(|s| s[0]).collect();
    assert_eq!(sectors, [0xEE, 0, 7, 0xEE, 0xEE, 0xEE, 0xEE, 0xEE]);
}

fn qemu_snapshot_chains_and_changed_parents() {
    if program("qemu-img").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("source.raw"), disk(6 << 20, 4)).unwrap();
    qemu_img(&["convert", "-f", "raw", "-O", "vmdk", &at("source.raw"), &at("base.vmdk")]);
    qemu_img(&["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", "base.vmdk", &at("snap.vmdk")]);
    if let Some(qemu_io) = program("qemu-io") {
        let mut write = std::process::Command::new(qemu_io);
        write.args(["-f", "vmdk", "-c", "write -P 0x5a 100k 200k", &at("snap.vmdk")]);
        crate::support::run(&mut write);
    }
    let snap = folder.path().join("snap.vmdk");
    assert_same(&read_all(&*image(&snap)), &read_qemu(&snap, "vmdk"), "snapshot");

    let mut base = std::fs::read(at("base.vmdk")).unwrap();
    let cid = base.windows(5).position(|w| w == b"\nCID=").unwrap() + 5;
    base[cid] = if base[cid] == b'0' { b'1' } else { b'0' };
    std::fs::write(at("base.vmdk"), base).unwrap();
    let error = open_error(&snap);
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.to_string().contains("CID"), "{error}");
    std::fs::remove_file(at("base.vmdk")).unwrap();
    let error = open_error(&snap);
    assert!(error.to_string().contains("base.vmdk") && error.hint_text().is_some(), "{error}");
}

fn loops_and_long_chains_end() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &str| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("self.vmdk", &descriptor("custom", 1, Some((1, "self.vmdk")), "RW 8 ZERO"));
    assert_eq!(open_error(&folder.path().join("self.vmdk")).kind(), Kind::Damaged);
    write("a.vmdk", &descriptor("custom", 1, Some((2, "b.vmdk")), "RW 8 ZERO"));
    write("b.vmdk", &descriptor("custom", 2, Some((1, "a.vmdk")), "RW 8 ZERO"));
    assert_eq!(open_error(&folder.path().join("a.vmdk")).kind(), Kind::Damaged);
    for i in 0..40 {
        let parent = (i < 39).then(|| (1, format!("{}.vmdk", i + 1)));
        write(
            &format!("{i}.vmdk"),
            &descriptor("custom", 1, parent.as_ref().map(|(c, n)| (*c, n.as_str())), "RW 8 ZERO"),
        );
    }
    assert!(open(&folder.path().join("20.vmdk"), &OpenOptions::default()).is_ok());
    assert_eq!(open_error(&folder.path().join("0.vmdk")).kind(), Kind::Unsupported);
}

fn extents_outside_the_folder_are_refused() {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(outer.path().join("secret"), vec![1; 4096]).unwrap();
    std::os::unix::fs::symlink("../secret", inner.join("link")).unwrap();
    let absolute = outer.path().join("secret").display().to_string();
    for name in ["../secret", &absolute, "link", "/dev/zero", "nbd://host/x", "sub/../../secret"] {
        let path = inner.join("disk.vmdk");
        std::fs::write(&path, descriptor("monolithicFlat", 1, None, &format!("RW 8 FLAT \"{name}\" 0"))).unwrap();
        assert_eq!(open_error(&path).kind(), Kind::Refused, "{name}");
    }
    let path = inner.join("disk.vmdk");
    std::fs::write(&path, descriptor("monolithicFlat", 1, None, "RW 8 FLAT \"../secret\" 0")).unwrap();
    let options = OpenOptions { path_policy: PathPolicy::default().allow(outer.path()), ..OpenOptions::default() };
    assert_eq!(read_all(&*open(&path, &options).unwrap()), vec![1; 4096]);
}

fn one_part_of_a_disk_is_not_the_disk() {
    if program("qemu-img").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    qemu_img(&["create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", &at("disk.vmdk"), "3G"]);
    let error = open_error(&folder.path().join("disk-s001.vmdk"));
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.hint_text().unwrap().contains("descriptor"));
    std::fs::write(at("delta.vmdk"), cowd(8, 1, false, &BTreeMap::new())).unwrap();
    assert_eq!(open_error(&folder.path().join("delta.vmdk")).kind(), Kind::Unsupported);
    std::fs::write(at("se.vmdk"), sesparse(8, &BTreeMap::new())).unwrap();
    assert_eq!(open_error(&folder.path().join("se.vmdk")).kind(), Kind::Unsupported);
}

/// A stream whose footer is damaged is read by its markers; one that was cut off is not read at all.
fn stream_optimised_disks_without_footer_and_cut_off() {
    if program("qemu-img").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let content = disk((5 << 20) + 512 * 3, 8);
    std::fs::write(at("source.raw"), &content).unwrap();
    qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "vmdk",
        "-o",
        "subformat=streamOptimized",
        &at("source.raw"),
        &at("disk.vmdk"),
    ]);
    let file = std::fs::read(at("disk.vmdk")).unwrap();
    let stream = crate::formats::hostile::without_footer(&file);
    let path = folder.path().join("walked.vmdk");
    std::fs::write(&path, &stream).unwrap();
    assert_same(&read_all(&*image(&path)), &content, "by markers");
    // Padded behind the end.
    let padded = [stream.as_slice(), &[0; 3000]].concat();
    std::fs::write(&path, padded).unwrap();
    assert_same(&read_all(&*image(&path)), &content, "padded");
    for length in [stream.len() / 3, stream.len() / 2] {
        std::fs::write(&path, &stream[..length]).unwrap();
        let error = open_error(&path);
        assert_eq!(error.kind(), Kind::Damaged, "{error}");
        assert!(error.hint_text().unwrap().contains("truncated"), "{error}");
        // A download into a file that had its length already: zeros, which would be an end mark, follow.
        let mut sparse = stream[..length].to_vec();
        sparse.resize(stream.len() + (1 << 20), 0);
        std::fs::write(&path, &sparse).unwrap();
        let error = open_error(&path);
        assert_eq!(error.kind(), Kind::Damaged, "{error}");
        assert!(error.hint_text().unwrap().contains("truncated"), "{error}");
    }
}

fn vhdx_with_sectors_of_4096_bytes() {
    let mut random = Random(3);
    let mut blocks = BTreeMap::new();
    let mut model = vec![0; 12 << 20];
    for block in [0, 3, 10] {
        let mut data = vec![0; 1 << 20];
        random.fill(&mut data);
        model[(block as usize) << 20..][..1 << 20].copy_from_slice(&data);
        blocks.insert(block, data);
    }
    let vhdx = Vhdx { virtual_size: 12 << 20, sector: 4096, block_size: 1 << 20, blocks, parent: None };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("4kn.vhdx");
    std::fs::write(&path, vhdx.build()).unwrap();
    assert_same(&read_all(&*image(&path)), &model, "4Kn");
    let reader = vhdx::VhdxReader::open(&path).unwrap();
    assert_same(&read_foreign(reader, model.len() as u64), &model, "4Kn, vhdx-core");
}

fn unclean_sesparse_and_damaged_headers_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    let path = folder.path().join("snap.vmdk");
    write("snap.vmdk", descriptor("seSparse", 1, None, "RW 8 SESPARSE \"se.vmdk\"").as_bytes());
    let mut extent = sesparse(8, &BTreeMap::new());
    put64(&mut extent, 512 + 24, 1);
    write("se.vmdk", &extent);
    assert_eq!(open_error(&path).kind(), Kind::Refused);

    write("snap.vmdk", descriptor("vmfsSparse", 1, None, "RW 80 VMFSSPARSE \"se.vmdk\"").as_bytes());
    let mut extent = cowd(80, 1, true, &BTreeMap::new());
    put32(&mut extent, 24, 0);
    write("se.vmdk", &extent);
    assert_eq!(open_error(&path).kind(), Kind::Damaged);

    let opened: fn(&Path) -> Box<dyn Image> = image;
    write("snap.vmdk", descriptor("custom", 1, None, "RW 80 ZERO\nRW 0 ZERO").as_bytes());
    assert_eq!(opened(&path).len(), 80 * 512);
}

tests![
    snapshots_of_esx_read_through_the_chain,
    a_whole_cowd_disk_reads_like_the_second_reader_says,
    zero_grains_of_cowd_hide_the_parent,
    qemu_snapshot_chains_and_changed_parents,
    loops_and_long_chains_end,
    extents_outside_the_folder_are_refused,
    one_part_of_a_disk_is_not_the_disk,
    stream_optimised_disks_without_footer_and_cut_off,
    vhdx_with_sectors_of_4096_bytes,
    unclean_sesparse_and_damaged_headers_are_named,
];
