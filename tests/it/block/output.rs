//! New files: overlays and standalone images.

use winject::internals::block::commit::{self, CommitOptions};
use winject::internals::block::convert::{ConvertOptions, convert};
use winject::internals::block::{ExtentKind, FileStorage, Format, LockMode, Locking, OpenOptions};
use winject::internals::error::Kind;

use super::*;

fn an_overlay_is_small_and_reads_as_the_stage() {
    if !has_qemu() {
        return;
    }
    for (number, source) in ["raw", "qcow2", "qcow2 -c", "qcow2 -o cluster_size=512"].iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mut model = mixed(20 << 20, 10 + number as u64);
        write_file(path, "source.raw", &model);
        qemu_img(path, &format!("convert -f raw -O {source} source.raw original"));
        let original = path.join("original");
        let before = std::fs::read(&original).unwrap();
        let mut stage = stage(&original);
        scribble(&mut stage, &mut model, &mut Random::new(number as u64), 20);
        std::fs::create_dir(path.join("sub")).unwrap();
        for out in ["new.qcow2", "sub/new.qcow2"] {
            let out = path.join(out);
            commit::commit_overlay(&mut stage, &original, &out, &CommitOptions::default()).unwrap();
            assert_clean(&out);
            write_file(path, "model.raw", &model);
            assert_same(path, out.to_str().unwrap(), "model.raw");
            let info = String::from_utf8(run(Command::new("qemu-img").arg("info").arg(&out)).stdout).unwrap();
            assert!(info.contains("backing file format: "), "{info}");
        }
        assert_equal(&read_all(&*open(&path.join("new.qcow2"))), &model, source);
        let info = qemu_img(path, "info new.qcow2");
        assert!(info.contains("backing file: original"), "relative: {info}");
        assert_eq!(std::fs::read(&original).unwrap(), before, "the original is untouched");
        // Nothing but the outputs lies around.
        let names: Vec<_> = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names.len(), 5, "{names:?}");
    }
}

fn an_existing_output_is_kept_unless_told() {
    let folder = tempfile::tempdir().unwrap();
    let original = write_file(folder.path(), "disk.raw", &mixed(1 << 20, 1));
    let out = write_file(folder.path(), "out.qcow2", b"precious");
    let mut stage = stage(&original);
    stage.write_at(ImageOffset(0), b"x").unwrap();
    let refuse = CommitOptions::default();
    let error = commit::commit_overlay(&mut stage, &original, &out, &refuse).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    let raw = ConvertOptions { format: Format::Raw, ..Default::default() };
    assert_eq!(convert(&stage, &out, &raw).unwrap_err().kind(), Kind::Usage);
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    let replace = CommitOptions { overwrite: true, ..Default::default() };
    // Never over the input itself, however the path is spelled.
    let same = folder.path().join("./disk.raw");
    assert_eq!(commit::commit_overlay(&mut stage, &original, &same, &replace).unwrap_err().kind(), Kind::Usage);
    commit::commit_overlay(&mut stage, &original, &out, &replace).unwrap();
    assert_eq!(open(&out).format(), Format::Qcow2);
    let missing = folder.path().join("no/such/folder.qcow2");
    let error = commit::commit_overlay(&mut stage, &original, &missing, &refuse).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
}

fn standalone_images_are_complete_sparse_and_repeatable() {
    if !has_qemu() {
        return;
    }
    for source in ["raw", "qcow2", "qcow2 -c -o compression_type=zstd", "qcow2 -o extended_l2=on"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mut model = mixed(9 << 20, 20);
        model.extend(vec![0; 30 << 20]);
        model.extend(mixed((1 << 20) + 512, 21));
        write_file(path, "source.raw", &model);
        qemu_img(path, &format!("convert -f raw -O {source} source.raw original"));
        let mut stage = stage(&path.join("original"));
        scribble(&mut stage, &mut model, &mut Random::new(3), 12);
        write_file(path, "model.raw", &model);
        for (format, name) in [(Format::Raw, "out.raw"), (Format::Qcow2, "out.qcow2"), (Format::Qcow2, "again.qcow2")] {
            convert(&stage, &path.join(name), &ConvertOptions { format, ..Default::default() }).unwrap();
            assert_same(path, name, "model.raw");
            let used = std::os::unix::fs::MetadataExt::blocks(&path.join(name).metadata().unwrap()) * 512;
            assert!(used < 14 << 20, "{name}: holes stay holes, but {used} bytes are used");
        }
        assert_clean(&path.join("out.qcow2"));
        assert_eq!(std::fs::read(path.join("out.qcow2")).unwrap(), std::fs::read(path.join("again.qcow2")).unwrap());
        assert_equal(&read_all(&*open(&path.join("out.qcow2"))), &model, source);
    }
}

fn a_stage_spills_and_stays_right() {
    for (case, memory_limit) in [0, 4096, 12 << 10, 256 << 10, 1 << 20].into_iter().enumerate() {
        for length in [6 << 20, (1 << 20) + 1536] {
            spill_and_stay_right(memory_limit, length, case as u64);
        }
    }
}

fn spill_and_stay_right(memory_limit: u64, length: usize, seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut model = mixed(length, 30);
    let original = write_file(folder.path(), "disk.raw", &model);
    let old = model.clone();
    let options =
        StageOptions { memory_limit, spill_folder: Some(folder.path().to_owned()), ..StageOptions::default() };
    let mut stage = Stage::new(block::open(&original, &OpenOptions::default()).unwrap(), options);
    let mut random = Random::new(31 + seed);
    for round in 0..30 {
        scribble(&mut stage, &mut model, &mut random, 10);
        let start = random.below(model.len() as u64) as usize;
        let end = (start + random.below(600_000) as usize).min(model.len());
        let mut found = vec![0; end - start];
        stage.read_at(ImageOffset(start as u64), &mut found).unwrap();
        assert_equal(&found, &model[start..end], "part");
        if round % 5 == 4 {
            stage.write_at(ImageOffset(start as u64), &old[start..end]).unwrap();
            model[start..end].copy_from_slice(&old[start..end]);
            assert_eq!(stage.drop_unchanged().unwrap(), stage.bytes_dirty());
            let whole = start.next_multiple_of(4096)..end / 4096 * 4096;
            assert!(!stage.is_range_dirty(ImageOffset(whole.start as u64), whole.len() as u64));
        }
        // The ranges are those of the blocks, however they are cut.
        let start = random.below(model.len() as u64);
        let length = random.below(model.len() as u64 - start) + 1;
        let mut covered = vec![false; length as usize];
        for (at, part) in stage.dirty_ranges_in(ImageOffset(start), length) {
            covered[(at.0 - start) as usize..][..part as usize].fill(true);
        }
        for at in (start..start + length).filter(|at| *at == start || at % 4096 == 0) {
            let dirty = stage.is_range_dirty(ImageOffset(at), 1);
            assert_eq!(covered[(at - start) as usize], dirty, "{start} {length} {at}");
            assert!(!dirty || stage.extent_at(ImageOffset(at), 1).unwrap().kind == ExtentKind::Data);
        }
    }
    let mut found = vec![0; model.len()];
    stage.read_at(ImageOffset(0), &mut found).unwrap();
    assert_equal(&found, &model, "whole");
    // What is dirty covers every difference, and undoing all changes leaves nothing dirty.
    for at in (0..model.len()).filter(|at| old[*at] != model[*at]) {
        assert!(stage.is_range_dirty(ImageOffset(at as u64), 1));
    }
    let dirty: u64 = stage.dirty_ranges().map(|(_, length)| length.next_multiple_of(4096)).sum();
    assert_eq!(dirty, stage.bytes_dirty());
    stage.write_at(ImageOffset(0), &old).unwrap();
    assert_eq!(stage.drop_unchanged().unwrap(), 0);
    assert!(!stage.is_dirty());
}

fn an_output_in_use_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let original = write_file(folder.path(), "disk.raw", &mixed(1 << 20, 2));
    let out = write_file(folder.path(), "out.img", b"the disk of a running guest");
    let mut stage = stage(&original);
    stage.write_at(ImageOffset(0), b"x").unwrap();
    let replace = CommitOptions { overwrite: true, ..Default::default() };
    let over = ConvertOptions { overwrite: true, ..Default::default() };
    let guest = FileStorage::open(&out, true).unwrap();
    guest.lock(LockMode::Write, Locking::Refuse).unwrap();
    let errors = [
        commit::commit_overlay(&mut stage, &original, &out, &replace).unwrap_err(),
        convert(&stage, &out, &ConvertOptions { format: Format::Raw, ..over.clone() }).unwrap_err(),
        convert(&stage, &out, &over).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), Kind::Refused, "{error}");
    }
    drop(guest);
    // A journal beside it would be taken for the new file's.
    let journal = write_file(folder.path(), "out.img.winject-journal", b"WINJUNDO");
    for target in [&out, &folder.path().join("./out.img")] {
        let errors = [
            commit::commit_overlay(&mut stage, &original, target, &replace).unwrap_err(),
            convert(&stage, target, &over).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), Kind::Pending, "{error}");
        }
    }
    assert_eq!(std::fs::read(&out).unwrap(), b"the disk of a running guest");
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    std::fs::remove_file(journal).unwrap();
    convert(&stage, &out, &over).unwrap();
    commit::commit_overlay(&mut stage, &original, &out, &replace).unwrap();
}

/// What is made from a private disk is private.
fn outputs_are_open_to_no_more_users_than_their_source() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let mode_of = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    // What the user's umask leaves of everything.
    let umasked = mode_of(&write_file(folder.path(), "probe", b""));
    for mode in [0o600, 0o640, 0o666] {
        let original = write_file(folder.path(), "disk.raw", &mixed(1 << 20, 2));
        std::fs::set_permissions(&original, PermissionsExt::from_mode(mode)).unwrap();
        let mut stage = stage(&original);
        stage.write_at(ImageOffset(0), b"x").unwrap();
        let [overlay, whole, converted] = ["overlay", "whole", "converted"].map(|name| folder.path().join(name));
        let options = CommitOptions { overwrite: true, ..Default::default() };
        commit::commit_overlay(&mut stage, &original, &overlay, &options).unwrap();
        let raw = ConvertOptions { format: Format::Raw, overwrite: true, ..Default::default() };
        convert(&stage, &whole, &raw).unwrap();
        convert(&stage, &converted, &ConvertOptions { overwrite: true, ..Default::default() }).unwrap();
        for path in [&overlay, &whole, &converted] {
            assert_eq!(mode_of(path), mode & umasked, "{} of {mode:o}", path.display());
        }
    }
}

/// QEMU sees the same disk under every overlay that is made; over anything else none is made.
fn overlays_over_other_containers_show_the_same_disk() {
    if !has_qemu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_file(path, "source.raw", &mixed(3 << 20, 22));
    for (number, options) in [
        "vmdk",
        "vmdk -o subformat=monolithicFlat",
        "vmdk -o subformat=twoGbMaxExtentSparse",
        "vmdk -o subformat=streamOptimized",
        "vpc",
        "vpc -o subformat=fixed,force_size=on",
        "vhdx",
        "vhdx -o subformat=fixed",
        "vdi",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("{number}.img");
        qemu_img(path, &format!("convert -f raw -O {options} source.raw {name}"));
        let original = path.join(&name);
        let mut stage = stage(&original);
        let mut model = read_all(stage.image());
        scribble(&mut stage, &mut model, &mut Random::new(23), 8);
        commit::check_overlay(&stage).unwrap_or_else(|e| panic!("{options}: {e}"));
        let out = path.join("new.qcow2");
        let replace = CommitOptions { overwrite: true, ..Default::default() };
        commit::commit_overlay(&mut stage, &original, &out, &replace).unwrap();
        write_file(path, "model.raw", &model);
        assert_same(path, "new.qcow2", "model.raw");
    }
}

tests![
    an_overlay_is_small_and_reads_as_the_stage,
    an_existing_output_is_kept_unless_told,
    standalone_images_are_complete_sparse_and_repeatable,
    a_stage_spills_and_stays_right,
    an_output_in_use_is_not_replaced,
    outputs_are_open_to_no_more_users_than_their_source,
    overlays_over_other_containers_show_the_same_disk,
];
