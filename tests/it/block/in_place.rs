//! Editing the user's own file: content, structure, snapshots and neighbours as they must be.

use winject::internals::block::commit::{self, CommitOptions};
use winject::internals::block::{Locking, PathPolicy, formats::qcow2};
use winject::internals::error::Kind;

use super::read::{SIZE, VARIANTS};
use super::*;

fn commit(path: &Path, stage: &mut Stage) -> commit::Committed {
    let path_policy = PathPolicy::default().allow(path.with_file_name("data.bin"));
    commit::commit_in_place(stage, path, &CommitOptions { path_policy, ..CommitOptions::default() })
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn assert_checked(path: &Path) {
    assert_clean(path);
    let report = qcow2::check(path, &OpenOptions::default()).unwrap();
    assert!(report.is_clean(), "{:?}", report.problems);
    assert!(!commit::journal_path(path).exists());
}

fn every_variant_is_edited_and_clean() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let disk = mixed(SIZE, 1);
    write_file(path, "source.raw", &disk);
    for (number, variant) in VARIANTS.iter().enumerate() {
        let name = format!("{number}.qcow2");
        let file = path.join(&name);
        qemu_img(path, &format!("convert -f raw -O qcow2 {variant} source.raw {name}"));
        // Narrow refcounts leave no room for a snapshot's references.
        let is_narrow = variant.contains("refcount_bits=1") || variant.contains("refcount_bits=4");
        let has_snapshot = !is_narrow && number % 2 == 0;
        if has_snapshot {
            qemu_img(path, &format!("snapshot -c before {name}"));
        }
        let mut model = disk.clone();
        let mut random = Random::new(number as u64);
        for round in 0..2 {
            let mut stage = stage(&file);
            scribble(&mut stage, &mut model, &mut random, 12);
            commit(&file, &mut stage);
            drop(stage);
            assert_checked(&file);
            write_file(path, "model.raw", &model);
            assert_same(path, &name, "model.raw");
            assert_equal(&read_all(&*open(&file)), &model, &format!("{variant}, round {round}"));
        }
        if has_snapshot {
            qemu_img(path, &format!("convert -l snapshot.name=before -O raw {name} snapshot.raw"));
            assert_same(path, "snapshot.raw", "source.raw");
            // The image works on: going back and deleting leave nothing behind.
            qemu_img(path, &format!("snapshot -a before {name}"));
            assert_same(path, &name, "source.raw");
            qemu_img(path, &format!("snapshot -d before {name}"));
            assert_clean(&file);
        }
        std::fs::remove_file(file).unwrap();
    }
}

fn raw_is_edited_and_holes_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = mixed(8 << 20, 2);
    let path = write_file(folder.path(), "disk.raw", &model);
    model.resize(40 << 20, 0);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(model.len() as u64).unwrap();
    for round in 0..3 {
        let mut stage = stage(&path);
        scribble(&mut stage, &mut model, &mut Random::new(round), 10);
        let done = commit(&path, &mut stage);
        assert!(done.bytes_written > 0);
        assert_equal(&std::fs::read(&path).unwrap(), &model, "raw");
        assert!(!commit::journal_path(&path).exists());
    }
    let used = std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap()) * 512;
    assert!(used < 16 << 20, "{used} bytes used");
}

fn nothing_changed_means_nothing_written() {
    let folder = tempfile::tempdir().unwrap();
    let disk = mixed(1 << 20, 3);
    let path = write_file(folder.path(), "disk.raw", &disk);
    let before = path.metadata().unwrap().modified().unwrap();
    let mut stage = stage(&path);
    stage.write_at(ImageOffset(5000), &disk[5000..9000]).unwrap();
    assert_eq!(commit(&path, &mut stage).bytes_written, 0);
    assert_eq!(path.metadata().unwrap().modified().unwrap(), before);
}

fn overlays_are_edited_and_their_parents_are_not() {
    if !has_qemu() {
        return;
    }
    for (base_format, base_size, top) in [
        ("raw", SIZE, "cluster_size=64k"),
        ("qcow2", 3 << 20, "cluster_size=4k"),
        ("qcow2", SIZE, "extended_l2=on,cluster_size=128k"),
        ("raw", 3 << 20, "extended_l2=on,cluster_size=16k"),
        ("qcow2", SIZE, "compat=0.10,cluster_size=512"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        write_file(path, "base.raw", &mixed(base_size, 4));
        qemu_img(path, &format!("convert -f raw -O {base_format} base.raw base"));
        qemu_img(path, &format!("create -q -f qcow2 -b base -F {base_format} -o {top} top.qcow2 {SIZE}"));
        run(Command::new("qemu-io").current_dir(path).args([
            "-c",
            "write -P 9 1M 70k",
            "-c",
            "write -z 2M 100k",
            "top.qcow2",
        ]));
        qemu_img(path, "convert -f qcow2 -O raw top.qcow2 model.raw");
        let mut model = std::fs::read(path.join("model.raw")).unwrap();
        let before = std::fs::read(path.join("base")).unwrap();
        let file = path.join("top.qcow2");
        for round in 0..2 {
            let mut stage = stage(&file);
            scribble(&mut stage, &mut model, &mut Random::new(round), 10);
            commit(&file, &mut stage);
            assert_checked(&file);
            write_file(path, "model.raw", &model);
            assert_same(path, "top.qcow2", "model.raw");
        }
        assert_eq!(std::fs::read(path.join("base")).unwrap(), before);
    }
}

fn external_data_files_are_edited() {
    if !has_qemu() {
        return;
    }
    for (raw, subclusters) in [("off", "off"), ("on", "off"), ("off", "on")] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mut model = mixed(SIZE, 5);
        write_file(path, "source.raw", &model);
        let options = format!("data_file=data.bin,data_file_raw={raw},extended_l2={subclusters}");
        qemu_img(path, &format!("convert -f raw -O qcow2 -o {options} source.raw top.qcow2"));
        let file = path.join("top.qcow2");
        for round in 0..2 {
            let mut stage = stage(&file);
            scribble(&mut stage, &mut model, &mut Random::new(round), 15);
            commit(&file, &mut stage);
            assert_checked(&file);
            write_file(path, "model.raw", &model);
            assert_same(path, "top.qcow2", "model.raw");
        }
        if raw == "on" {
            assert_equal(&std::fs::read(path.join("data.bin")).unwrap()[..SIZE], &model, "the data file alone");
        }
    }
}

/// Its marker would be found under one name only.
fn a_data_file_with_several_names_is_not_written() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_file(path, "source.raw", &mixed(SIZE, 5));
    qemu_img(path, "convert -f raw -O qcow2 -o data_file=data.bin source.raw top.qcow2");
    let (file, data) = (path.join("top.qcow2"), path.join("data.bin"));
    let before = std::fs::read(&data).unwrap();
    std::fs::hard_link(&data, path.join("other.bin")).unwrap();
    let mut stage = stage(&file);
    stage.write_at(ImageOffset(4096), &[0x77; 4096]).unwrap();
    let path_policy = PathPolicy::default().allow(&data);
    let early = commit::check_in_place(&stage, &file, &path_policy).unwrap_err();
    let options = CommitOptions { path_policy, ..CommitOptions::default() };
    let late = commit::commit_in_place(&mut stage, &file, &options).unwrap_err();
    for error in [early, late] {
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(error.to_string().contains("several names"), "{error}");
    }
    assert_equal(&std::fs::read(&data).unwrap(), &before, "the data file");
    assert!(!commit::journal_path(&file).exists());
}

/// A disk that ends inside a block of the stage: nothing is written behind its end.
fn an_edit_at_the_end_does_not_lengthen_a_data_file() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut model = mixed(SIZE, 5);
    write_file(path, "source.raw", &model);
    let options = "data_file=data.bin,data_file_raw=on,extended_l2=on,cluster_size=16k";
    qemu_img(path, &format!("convert -f raw -O qcow2 -o {options} source.raw top.qcow2"));
    let length = path.join("data.bin").metadata().unwrap().len();
    let file = path.join("top.qcow2");
    let mut stage = stage(&file);
    stage.write_at(ImageOffset(SIZE as u64 - 512), &[0x77; 512]).unwrap();
    model[SIZE - 512..].fill(0x77);
    commit(&file, &mut stage);
    assert_checked(&file);
    write_file(path, "model.raw", &model);
    assert_same(path, "top.qcow2", "model.raw");
    assert_eq!(path.join("data.bin").metadata().unwrap().len(), length, "the data file's length");
}

fn bitmaps_record_the_edit() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut model = mixed(SIZE, 6);
    write_file(path, "source.raw", &model);
    qemu_img(path, "convert -f raw -O qcow2 source.raw top.qcow2");
    qemu_img(path, "bitmap --add -g 64k top.qcow2 empty");
    qemu_img(path, "bitmap --add -g 4k top.qcow2 used");
    qemu_img(path, "bitmap --add --disable top.qcow2 frozen");
    run(Command::new("qemu-io").current_dir(path).args(["-c", "write -P 1 0 64k", "top.qcow2"]));
    model[..64 << 10].fill(1);
    let file = path.join("top.qcow2");
    let mut stage = stage(&file);
    let changed = (1 << 20) + 8192;
    stage.write_at(ImageOffset(changed), &[0xAB; 4096]).unwrap();
    model[changed as usize..][..4096].fill(0xAB);
    commit(&file, &mut stage);
    drop(stage);
    assert_checked(&file);
    write_file(path, "model.raw", &model);
    assert_same(path, "top.qcow2", "model.raw");
    let info = qemu_img(path, "info --output=json top.qcow2");
    assert!(!info.contains("in-use"), "{info}");
    for (bitmap, is_marked) in [("empty", true), ("used", true), ("frozen", false)] {
        let marked = marked_ranges(path, bitmap);
        let is_covered = marked.iter().any(|(start, length)| *start <= changed && changed + 4096 <= start + length);
        assert_eq!(is_covered, is_marked, "{bitmap}: {marked:?}");
    }
}

/// The dirty ranges of a persistent bitmap, as qemu-nbd shows them.
fn marked_ranges(folder: &Path, bitmap: &str) -> Vec<(u64, u64)> {
    let socket = folder.join(format!("{bitmap}.sock"));
    let mut server = Command::new("qemu-nbd")
        .current_dir(folder)
        .args(["-r", "-f", "qcow2", "-B", bitmap, "-k"])
        .arg(&socket)
        .arg("top.qcow2")
        .spawn()
        .unwrap();
    while !socket.exists() {
        assert!(server.try_wait().unwrap().is_none(), "qemu-nbd ended");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let image = format!(
        "driver=nbd,server.type=unix,server.path={},x-dirty-bitmap=qemu:dirty-bitmap:{bitmap}",
        socket.display()
    );
    let output = run(Command::new("qemu-img").args(["map", "--output=json", "--image-opts", &image]));
    server.wait().unwrap();
    // With x-dirty-bitmap, "data": false marks what is dirty.
    let map: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    map.as_array()
        .unwrap()
        .iter()
        .filter(|e| e["data"] == false)
        .map(|e| (e["start"].as_u64().unwrap(), e["length"].as_u64().unwrap()))
        .collect()
}

fn a_dirty_image_is_repaired_on_the_way() {
    if !has_qemu() {
        return;
    }
    for options in
        ["lazy_refcounts=on", "lazy_refcounts=on,cluster_size=4k,refcount_bits=8", "lazy_refcounts=on,extended_l2=on"]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        write_file(path, "source.raw", &mixed(SIZE, 7));
        qemu_img(path, &format!("convert -f raw -O qcow2 -o {options} source.raw top.qcow2"));
        qemu_img(path, "snapshot -c before top.qcow2");
        // A writer that is killed leaves the dirty bit and stale refcounts behind.
        let mut writer = Command::new("qemu-io");
        writer.current_dir(path).args(["-c", "write -P 5 100k 2M", "-c", "flush", "-c", "abort", "top.qcow2"]);
        assert!(!writer.output().unwrap().status.success());
        let file = path.join("top.qcow2");
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!(bytes[79] & 1, 1, "the image is marked dirty");
        let mut model = read_all(&*open(&file));
        assert_eq!(&model[100 << 10..][..1000], &[5; 1000]);
        let mut stage = stage(&file);
        scribble(&mut stage, &mut model, &mut Random::new(8), 10);
        commit(&file, &mut stage);
        drop(stage);
        assert_eq!(std::fs::read(&file).unwrap()[79] & 1, 0, "no longer");
        assert_checked(&file);
        write_file(path, "model.raw", &model);
        assert_same(path, "top.qcow2", "model.raw");
        qemu_img(path, "convert -l snapshot.name=before -O raw top.qcow2 snapshot.raw");
        assert_same(path, "snapshot.raw", "source.raw");
    }
}

fn the_refcount_table_grows() {
    if !has_qemu() {
        return;
    }
    // Small clusters and wide refcounts: one block covers 32 KiB, one cluster of the table 2 MiB.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    qemu_img(path, "create -q -f qcow2 -o cluster_size=512,refcount_bits=64 top.qcow2 32M");
    let file = path.join("top.qcow2");
    let mut model = vec![0; 32 << 20];
    let mut random = Random::new(9);
    for round in 0..5u64 {
        let mut stage = stage(&file);
        let (start, length) = ((round * 5) << 20, 5 << 20);
        let data = random.bytes(length);
        stage.write_at(ImageOffset(start), &data).unwrap();
        model[start as usize..][..length].copy_from_slice(&data);
        commit(&file, &mut stage);
        assert_checked(&file);
    }
    write_file(path, "model.raw", &model);
    assert_same(path, "top.qcow2", "model.raw");
    let header = std::fs::read(&file).unwrap();
    assert!(u32::from_be_bytes(header[56..60].try_into().unwrap()) > 8);
}

fn unknown_autoclear_features_are_cleared() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    qemu_img(folder.path(), "create -q -f qcow2 top.qcow2 4M");
    let file = folder.path().join("top.qcow2");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[88..96].copy_from_slice(&(1u64 << 33).to_be_bytes());
    std::fs::write(&file, bytes).unwrap();
    let mut stage = stage(&file);
    stage.write_at(ImageOffset(4096), b"change").unwrap();
    commit(&file, &mut stage);
    assert_eq!(std::fs::read(&file).unwrap()[88..96], [0; 8]);
    assert_checked(&file);
}

fn images_that_must_not_be_written_are_refused_untouched() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_file(path, "source.raw", &mixed(1 << 20, 10));
    qemu_img(path, "convert -f raw -O qcow2 source.raw good.qcow2");
    let good = std::fs::read(path.join("good.qcow2")).unwrap();
    let l1 = u64::from_be_bytes(good[40..48].try_into().unwrap()) as usize;
    let l2 = (u64::from_be_bytes(good[l1..l1 + 8].try_into().unwrap()) & 0xFF_FFFF_FFFF_FE00) as usize;
    let table = u64::from_be_bytes(good[48..56].try_into().unwrap()) as usize;
    let block = u64::from_be_bytes(good[table..table + 8].try_into().unwrap()) as usize;
    let first = (0..8192).find(|i| good[l2 + i * 8..][..8] != [0; 8]).unwrap();
    type Damage = Box<dyn Fn(&mut Vec<u8>)>;
    let cases: Vec<(&str, Kind, Damage)> = vec![
        ("corrupt bit", Kind::Refused, Box::new(|b| b[79] |= 2)),
        // The old entry's refcount is 0: somebody would reuse the cluster.
        ("refcount too low", Kind::Damaged, Box::new(move |b| b[block..block + 64].fill(0))),
        (
            "data over the L1 table",
            Kind::Damaged,
            Box::new(move |b| {
                b[l2 + first * 8..][..8].copy_from_slice(&(l1 as u64 | 1 << 63).to_be_bytes());
            }),
        ),
        (
            "data over the refcount table",
            Kind::Damaged,
            Box::new(move |b| {
                b[l2 + first * 8..][..8].copy_from_slice(&(table as u64 | 1 << 63).to_be_bytes());
            }),
        ),
        ("unaligned cluster", Kind::Damaged, Box::new(move |b| b[l2 + first * 8 + 6] |= 2)),
        (
            "L2 table twice",
            Kind::Damaged,
            Box::new(move |b| b[l2 + first * 8..][..8].copy_from_slice(&(l2 as u64 | 1 << 63).to_be_bytes())),
        ),
    ];
    for (what, kind, damage) in cases {
        let mut bytes = good.clone();
        damage(&mut bytes);
        let file = write_file(path, "bad.qcow2", &bytes);
        let mut stage = Stage::new(open(&file), StageOptions::default());
        // A write of a whole block does not read the damaged one.
        stage.write_at(ImageOffset(512 << 10), &[0x5A; 65536]).unwrap();
        let error = commit::commit_in_place(&mut stage, &file, &CommitOptions::default()).unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert_eq!(
            commit::check_in_place(&stage, &file, &PathPolicy::default()).is_err(),
            kind == Kind::Refused,
            "{what}"
        );
        assert!(error.hint_text().is_some(), "{what}");
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "{what}: untouched");
        assert!(!commit::journal_path(&file).exists());
    }
}

fn an_image_in_use_is_refused() {
    if !has_qemu() || program("qemu-nbd").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    qemu_img(path, "create -q -f qcow2 top.qcow2 4M");
    let file = path.join("top.qcow2");
    let mut stage = stage(&file);
    stage.write_at(ImageOffset(0), b"change").unwrap();
    // While we have it open for reading, nobody can begin to write.
    let writer = Command::new("qemu-io").current_dir(path).args(["-c", "write 0 4k", "top.qcow2"]).output().unwrap();
    assert!(!writer.status.success(), "qemu-io respects our lock");
    drop(stage);
    let socket = path.join("nbd.sock");
    let mut server = Command::new("qemu-nbd")
        .current_dir(path)
        .args(["-t", "-f", "qcow2", "-k"])
        .arg(&socket)
        .arg("top.qcow2")
        .spawn()
        .unwrap();
    // the socket is there before the image is open: wait until the export answers
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    while !Command::new("qemu-img").args(["info", &uri]).output().unwrap().status.success() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let error = block::open(&file, &OpenOptions::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(error.hint_text().is_some());
    let live = OpenOptions { locking: Locking::Ignore, ..Default::default() };
    let mut stage = Stage::new(block::open(&file, &live).unwrap(), StageOptions::default());
    stage.write_at(ImageOffset(0), b"change").unwrap();
    let before = std::fs::read(&file).unwrap();
    let error = commit::commit_in_place(&mut stage, &file, &CommitOptions::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
    server.kill().unwrap();
    server.wait().unwrap();
}

fn a_file_that_changed_meanwhile_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_file(folder.path(), "disk.raw", &mixed(1 << 20, 11));
    let mut stage = stage(&path);
    stage.write_at(ImageOffset(0), b"change").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::os::unix::fs::FileExt::write_all_at(
        &std::fs::OpenOptions::new().write(true).open(&path).unwrap(),
        b"other",
        4096,
    )
    .unwrap();
    let before = std::fs::read(&path).unwrap();
    let error = commit::commit_in_place(&mut stage, &path, &CommitOptions::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

fn other_containers_are_never_written() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    write_file(folder.path(), "source.raw", &mixed(1 << 20, 12));
    qemu_img(folder.path(), "convert -f raw -O vmdk source.raw disk.vmdk");
    let options = OpenOptions { path_policy: PathPolicy::default(), ..Default::default() };
    let Ok(image) = block::open(&folder.path().join("disk.vmdk"), &options) else { return };
    let mut stage = Stage::new(image, StageOptions::default());
    stage.write_at(ImageOffset(0), b"change").unwrap();
    let path = folder.path().join("disk.vmdk");
    let error = commit::commit_in_place(&mut stage, &path, &CommitOptions::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
}

/// Clusters of 2 MiB are written in two pieces; the second may lie wholly behind the disk's end.
fn the_last_cluster_may_be_mostly_behind_the_end() {
    if !has_qemu() {
        return;
    }
    for rest in [4096, 512, (1 << 20) - 512] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mut model = mixed((4 << 20) + rest, 13);
        write_file(path, "source.raw", &model);
        qemu_img(path, "convert -f raw -O qcow2 -o cluster_size=2M source.raw top.qcow2");
        let file = path.join("top.qcow2");
        let mut stage = stage(&file);
        let at = (4 << 20) + 100;
        stage.write_at(ImageOffset(at), &[0x77; 300]).unwrap();
        model[at as usize..][..300].fill(0x77);
        commit(&file, &mut stage);
        drop(stage);
        assert_checked(&file);
        write_file(path, "model.raw", &model);
        assert_same(path, "top.qcow2", "model.raw");
    }
}

/// The stage's blocks reach beyond a disk whose size is no multiple of 4096; the data file must not grow by it.
fn a_data_file_never_grows() {
    if !has_qemu() {
        return;
    }
    for options in ["cluster_size=16k,extended_l2=on", "cluster_size=64k,extended_l2=on", "cluster_size=4k"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let size = (1 << 20) + 512;
        qemu_img(
            path,
            &format!("create -q -f qcow2 -o data_file=data.bin,data_file_raw=on,{options} top.qcow2 {size}"),
        );
        let file = path.join("top.qcow2");
        let mut model = vec![0; size];
        let length = path.join("data.bin").metadata().unwrap().len();
        let mut stage = stage(&file);
        stage.write_at(ImageOffset(1 << 20), &[0x66; 512]).unwrap();
        model[1 << 20..].fill(0x66);
        commit(&file, &mut stage);
        drop(stage);
        assert_checked(&file);
        let data = std::fs::read(path.join("data.bin")).unwrap();
        assert_eq!(data.len() as u64, length, "{options}");
        assert_equal(&data[..size], &model, options);
        write_file(path, "model.raw", &model);
        assert_same(path, "top.qcow2", "model.raw");
    }
}

tests![
    every_variant_is_edited_and_clean,
    raw_is_edited_and_holes_stay,
    nothing_changed_means_nothing_written,
    overlays_are_edited_and_their_parents_are_not,
    external_data_files_are_edited,
    a_data_file_with_several_names_is_not_written,
    an_edit_at_the_end_does_not_lengthen_a_data_file,
    bitmaps_record_the_edit,
    a_dirty_image_is_repaired_on_the_way,
    the_refcount_table_grows,
    unknown_autoclear_features_are_cleared,
    images_that_must_not_be_written_are_refused_untouched,
    an_image_in_use_is_refused,
    a_file_that_changed_meanwhile_is_refused,
    other_containers_are_never_written,
    the_last_cluster_may_be_mostly_behind_the_end,
    a_data_file_never_grows,
];
