//! What qemu-img writes, we read.

use winject::internals::block::convert::{ConvertOptions, convert};
use winject::internals::block::{ExtentKind, Format, OpenOptions, PathPolicy};
use winject::internals::error::Kind;
use winject::internals::units::ImageOffset;

use super::*;

/// Creation options of qemu-img, sampled over the matrix of versions, cluster sizes, refcount widths, compression,
/// subclusters and preallocation. A leading `-c` compresses.
pub const VARIANTS: &[&str] = &[
    "-o compat=1.1",
    "-o compat=0.10",
    "-o compat=0.10,cluster_size=512",
    "-o compat=0.10,cluster_size=2M",
    "-o cluster_size=512",
    "-o cluster_size=4k",
    "-o cluster_size=2M",
    "-o refcount_bits=1",
    "-o refcount_bits=2,cluster_size=1k",
    "-o refcount_bits=4,cluster_size=8k",
    "-o refcount_bits=8",
    "-o refcount_bits=32,cluster_size=512",
    "-o refcount_bits=64",
    "-o lazy_refcounts=on",
    "-o preallocation=metadata",
    "-o preallocation=falloc,cluster_size=16k",
    "-o preallocation=full,compat=0.10",
    "-c -o compat=0.10",
    "-c -o compression_type=zlib",
    "-c -o compression_type=zlib,cluster_size=512",
    "-c -o compression_type=zlib,cluster_size=2M",
    "-c -o compression_type=zlib,refcount_bits=1",
    "-c -o compression_type=zlib,refcount_bits=4",
    "-c -o compression_type=zstd",
    "-c -o compression_type=zstd,cluster_size=4k",
    "-c -o compression_type=zstd,cluster_size=2M",
    "-o extended_l2=on",
    "-o extended_l2=on,cluster_size=16k",
    "-o extended_l2=on,cluster_size=2M",
    "-c -o extended_l2=on,cluster_size=128k",
    "-o extended_l2=on,preallocation=metadata",
];

pub const SIZE: usize = 5 * 1024 * 1024 + 3 * 512;

/// Reads in odd pieces, which must give the same as one big read.
fn read_in_pieces(image: &dyn Image, random: &mut Random) -> Vec<u8> {
    let mut disk = vec![0xEE; image.len() as usize];
    let mut at = 0;
    while at < disk.len() {
        let end = (at + random.below(200_000) as usize + 1).min(disk.len());
        image.read_at(ImageOffset(at as u64), &mut disk[at..end]).unwrap();
        at = end;
    }
    disk
}

/// Every byte of an extent that is said to be zero is zero, and extents cover the disk.
fn check_extents(image: &dyn Image, disk: &[u8]) {
    let mut at = 0;
    while at < image.len() {
        let extent = image.extent_at(ImageOffset(at), image.len() - at).unwrap();
        assert!(extent.length > 0 && at + extent.length <= image.len());
        if extent.kind != ExtentKind::Data {
            assert!(disk[at as usize..(at + extent.length) as usize].iter().all(|b| *b == 0), "extent at {at:#x}");
        }
        at += extent.length;
    }
}

fn every_variant_reads_as_its_source() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = mixed(SIZE, 1);
    write_file(folder.path(), "source.raw", &disk);
    for (number, variant) in VARIANTS.iter().enumerate() {
        let name = format!("{number}.qcow2");
        qemu_img(folder.path(), &format!("convert -f raw -O qcow2 {variant} source.raw {name}"));
        let image = open(&folder.path().join(&name));
        assert_eq!(image.format(), Format::Qcow2);
        assert_equal(&read_all(&*image), &disk, variant);
        assert_equal(&read_in_pieces(&*image, &mut Random::new(number as u64)), &disk, variant);
        check_extents(&*image, &disk);
        std::fs::remove_file(folder.path().join(name)).unwrap();
    }
}

fn raw_files_are_read_with_their_holes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse.raw");
    let file = std::fs::File::create(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"data", 1 << 20).unwrap();
    file.set_len((4 << 20) + 100).unwrap();
    let image = open(&path);
    assert_eq!((image.format(), image.len()), (Format::Raw, (4 << 20) + 512));
    let disk = read_all(&*image);
    assert_eq!(&disk[1 << 20..][..4], b"data");
    check_extents(&*image, &disk);
    let first = image.extent_at(ImageOffset(0), image.len()).unwrap();
    assert_eq!((first.kind, first.length), (ExtentKind::Unallocated, 1 << 20));
}

fn backing_chains_read_through() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut random = Random::new(7);
    // Parents shorter and longer than the child, with other cluster sizes, raw at the bottom.
    for (base_size, base, top) in [
        (3 << 20, "raw", "cluster_size=64k"),
        (6 << 20, "raw", "cluster_size=4k"),
        (2 << 20, "qcow2 -o cluster_size=2M", "cluster_size=512"),
        (6 << 20, "qcow2 -o cluster_size=512", "extended_l2=on,cluster_size=128k"),
        (4 << 20, "qcow2 -o extended_l2=on", "compat=0.10"),
    ] {
        let disk = mixed(base_size, random.next());
        write_file(path, "base.raw", &disk);
        qemu_img(path, &format!("convert -f raw -O {base} base.raw base"));
        let format = base.split(' ').next().unwrap();
        qemu_img(path, &format!("create -q -f qcow2 -b base -F {format} -o {top} middle.qcow2 5M"));
        qemu_img(path, &format!("create -q -f qcow2 -b middle.qcow2 -F qcow2 -o {top} top.qcow2 5M"));
        for (file, seed) in [("middle.qcow2", 1), ("top.qcow2", 2)] {
            for _ in 0..12 {
                let (at, length, byte) =
                    (random.below(9000) * 512, random.below(200) * 512 + 512, seed + random.below(200));
                let length = length.min((5 << 20) - at);
                let write = if random.below(4) == 0 {
                    format!("write -z {at} {length}")
                } else {
                    format!("write -P {byte} {at} {length}")
                };
                run(Command::new("qemu-io").current_dir(path).args(["-c", &write, file]));
            }
        }
        qemu_img(path, "convert -f qcow2 -O raw top.qcow2 expected.raw");
        let expected = std::fs::read(path.join("expected.raw")).unwrap();
        let image = open(&path.join("top.qcow2"));
        assert_equal(&read_all(&*image), &expected, base);
        check_extents(&*image, &expected);
        assert_eq!(image.files().len(), 3);
    }
}

fn external_data_files_are_read() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = mixed(SIZE, 3);
    write_file(folder.path(), "source.raw", &disk);
    for raw in ["off", "on"] {
        qemu_img(
            folder.path(),
            &format!("convert -f raw -O qcow2 -o data_file=data.bin,data_file_raw={raw} source.raw top.qcow2"),
        );
        let image = open(&folder.path().join("top.qcow2"));
        assert_equal(&read_all(&*image), &disk, raw);
        assert_eq!(image.files().len(), 2);
    }
}

fn references_are_followed_only_inside_the_folder() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir(path.join("inner")).unwrap();
    write_file(path, "base.raw", &mixed(1 << 20, 4));
    qemu_img(path, "create -q -f qcow2 -b ../base.raw -F raw inner/top.qcow2");
    let top = path.join("inner/top.qcow2");
    let refused = block::open(&top, &OpenOptions::default()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused);
    assert!(refused.hint_text().is_some());
    let allowed = OpenOptions { path_policy: PathPolicy::default().allow(path.join("base.raw")), ..Default::default() };
    block::open(&top, &allowed).unwrap();
    std::fs::remove_file(path.join("base.raw")).unwrap();
    assert_eq!(block::open(&top, &allowed).unwrap_err().kind(), Kind::Io);
}

fn a_chain_that_bites_its_tail_is_damaged() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    qemu_img(path, "create -q -f qcow2 a.qcow2 1M");
    qemu_img(path, "create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2");
    qemu_img(path, "rebase -u -b b.qcow2 -F qcow2 a.qcow2");
    assert_eq!(block::open(&path.join("a.qcow2"), &OpenOptions::default()).unwrap_err().kind(), Kind::Damaged);
}

fn an_unstated_backing_format_is_only_ever_raw() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let disk = mixed(1 << 20, 5);
    write_file(path, "base.raw", &disk);
    qemu_img(path, "create -q -f qcow2 base.qcow2 1M");
    for (name, result) in [("base.raw", None), ("base.qcow2", Some(Kind::Refused))] {
        qemu_img(path, &format!("create -q -f qcow2 -b {name} -F {} top.qcow2", name.split('.').nth(1).unwrap()));
        // Older programs left the format out; qemu-img no longer does, so its extension is made an unknown one.
        let mut bytes = std::fs::read(path.join("top.qcow2")).unwrap();
        let at = bytes.windows(4).position(|w| w == 0xE279_2ACA_u32.to_be_bytes()).unwrap();
        bytes[at] = 0x12;
        write_file(path, "top.qcow2", &bytes);
        let opened = block::open(&path.join("top.qcow2"), &OpenOptions::default());
        assert_eq!(opened.map(|_| ()).err().map(|e| e.kind()), result, "{name}");
    }
}

fn encrypted_and_unknown_images_are_refused_by_name() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // Making a real one measures the processor, which fails on a busy machine; the field says it all.
    run(Command::new("qemu-img").current_dir(path).args(["create", "-q", "-f", "qcow2", "luks.qcow2", "1M"]));
    let mut bytes = std::fs::read(path.join("luks.qcow2")).unwrap();
    bytes[32..36].copy_from_slice(&2_u32.to_be_bytes());
    write_file(path, "luks.qcow2", &bytes);
    let error = block::open(&path.join("luks.qcow2"), &OpenOptions::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("LUKS"), "{error}");
    // Unknown incompatible feature, named by the image's own table.
    qemu_img(path, "create -q -f qcow2 new.qcow2 1M");
    let mut bytes = std::fs::read(path.join("new.qcow2")).unwrap();
    bytes[72..80].copy_from_slice(&(1u64 << 40).to_be_bytes());
    let new = write_file(path, "new.qcow2", &bytes);
    let error = block::open(&new, &OpenOptions::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    // AES, as the old header had it.
    bytes[72..80].fill(0);
    bytes[32..36].copy_from_slice(&1u32.to_be_bytes());
    let aes = write_file(path, "aes.qcow2", &bytes);
    let error = block::open(&aes, &OpenOptions::default()).unwrap_err();
    assert!(error.kind() == Kind::Refused && error.to_string().contains("AES"), "{error}");
}

fn a_truncated_image_says_so() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    write_file(folder.path(), "source.raw", &mixed(SIZE, 6));
    qemu_img(folder.path(), "convert -f raw -O qcow2 source.raw full.qcow2");
    let bytes = std::fs::read(folder.path().join("full.qcow2")).unwrap();
    let cut = write_file(folder.path(), "cut.qcow2", &bytes[..100_000]);
    let error = block::open(&cut, &OpenOptions::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.hint_text().unwrap().contains("truncated"), "{error}");
}

/// The tables of a conversion are in front, so that half a download has all of them; the half that is missing must not be
/// taken for zeros.
fn data_that_a_file_is_cut_off_before_are_damage() {
    let folder = tempfile::tempdir().unwrap();
    let source = write_file(folder.path(), "source.raw", &Random::new(1).bytes(SIZE));
    let full = folder.path().join("full.qcow2");
    let options = ConvertOptions::default();
    let length = convert(&*open(&source), &full, &options).unwrap().file_length;
    let bytes = std::fs::read(&full).unwrap();
    let cluster = 65_536;
    for (kept, is_whole) in [
        (length, true),
        // Inside the last cluster: QEMU's own images may end like this.
        (length - 60_000, true),
        (length - cluster + 1, true),
        (length - cluster, false),
        (length - cluster - 1, false),
        (length / 2, false),
    ] {
        let cut = write_file(folder.path(), "cut.qcow2", &bytes[..kept as usize]);
        let image = open(&cut);
        let out = folder.path().join("out.raw");
        let done = convert(&*image, &out, &ConvertOptions { format: Format::Raw, overwrite: true, ..options.clone() });
        assert_eq!(done.is_ok(), is_whole, "{kept} of {length} bytes");
        if let Err(error) = done {
            assert_eq!(error.kind(), Kind::Damaged, "{error}");
            assert!(error.hint_text().unwrap().contains("truncated"), "{error}");
        }
        // What is there can still be read.
        let first = &mut [0; 4096];
        image.read_at(ImageOffset(0), first).unwrap();
        assert_equal(first, &std::fs::read(&source).unwrap()[..4096], "the start");
    }
}

/// The last cluster may be short, and clusters that were only set aside need not be there as data.
fn short_ends_that_are_legal_are_read() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut model = mixed(1 << 20, 10);
    for preallocation in ["metadata", "falloc", "full"] {
        qemu_img(path, &format!("create -q -f qcow2 -o preallocation={preallocation} top.qcow2 5M"));
        assert_equal(&read_all(&*open(&path.join("top.qcow2"))), &vec![0; 5 << 20], preallocation);
    }
    write_file(path, "source.raw", &model);
    for options in ["data_file=data.bin", "data_file=data.bin,data_file_raw=on"] {
        qemu_img(path, &format!("convert -f raw -O qcow2 -o {options} source.raw top.qcow2"));
        assert_equal(&read_all(&*open(&path.join("top.qcow2"))), &model, options);
    }
    // The guest's last cluster, written last, ends the file in its middle.
    qemu_img(path, "create -q -f qcow2 top.qcow2 1M");
    run(Command::new("qemu-io").current_dir(path).args(["-c", "write -P 7 0 64k", "top.qcow2"]));
    model.fill(0);
    model[..30_000].fill(7);
    let bytes = std::fs::read(path.join("top.qcow2")).unwrap();
    let data = bytes.chunks(1 << 16).position(|cluster| cluster.iter().all(|b| *b == 7)).unwrap();
    assert_eq!(bytes.len().div_ceil(1 << 16), data + 1, "it is the last one");
    let short = write_file(path, "short.qcow2", &bytes[..(data << 16) + 30_000]);
    assert_equal(&read_all(&*open(&short)), &model, "a short cluster");
}

fn internal_snapshots_do_not_disturb_reading() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_file(path, "source.raw", &mixed(SIZE, 8));
    qemu_img(path, "convert -f raw -O qcow2 source.raw top.qcow2");
    qemu_img(path, "snapshot -c one top.qcow2");
    run(Command::new("qemu-io").current_dir(path).args(["-c", "write -P 7 100k 300k", "top.qcow2"]));
    qemu_img(path, "convert -f qcow2 -O raw top.qcow2 expected.raw");
    assert_equal(&read_all(&*open(&path.join("top.qcow2"))), &std::fs::read(path.join("expected.raw")).unwrap(), "");
}

tests![
    every_variant_reads_as_its_source,
    raw_files_are_read_with_their_holes,
    backing_chains_read_through,
    external_data_files_are_read,
    references_are_followed_only_inside_the_folder,
    a_chain_that_bites_its_tail_is_damaged,
    an_unstated_backing_format_is_only_ever_raw,
    encrypted_and_unknown_images_are_refused_by_name,
    a_truncated_image_says_so,
    data_that_a_file_is_cut_off_before_are_damage,
    short_ends_that_are_legal_are_read,
    internal_snapshots_do_not_disturb_reading,
];
