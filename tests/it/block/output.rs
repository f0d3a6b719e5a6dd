//! New files: overlays and standalone images.

use winject::block::commit::{self, CommitOptions};
use winject::block::{Format, OpenOptions};
use winject::error::Kind;

use super::*;

#[test]
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

#[test]
fn an_existing_output_is_kept_unless_told() {
    let folder = tempfile::tempdir().unwrap();
    let original = write_file(folder.path(), "disk.raw", &mixed(1 << 20, 1));
    let out = write_file(folder.path(), "out.qcow2", b"precious");
    let mut stage = stage(&original);
    stage.write_at(ImageOffset(0), b"x").unwrap();
    let refuse = CommitOptions::default();
    let error = commit::commit_overlay(&mut stage, &original, &out, &refuse).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert_eq!(commit::write_standalone(&stage, &out, Format::Raw, &refuse).unwrap_err().kind(), Kind::Usage);
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    let replace = CommitOptions { overwrite: true, ..Default::default() };
    // Never over the input itself, however the path is spelled.
    let same = folder.path().join("./disk.raw");
    assert_eq!(commit::commit_overlay(&mut stage, &original, &same, &replace).unwrap_err().kind(), Kind::Usage);
    commit::commit_overlay(&mut stage, &original, &out, &replace).unwrap();
    assert_eq!(open(&out).format(), Format::Qcow2);
    let missing = folder.path().join("no/such/folder.qcow2");
    let error = commit::commit_overlay(&mut stage, &original, &missing, &refuse).unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
}

#[test]
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
            commit::write_standalone(&stage, &path.join(name), format, &CommitOptions::default()).unwrap();
            assert_same(path, name, "model.raw");
            let used = std::os::unix::fs::MetadataExt::blocks(&path.join(name).metadata().unwrap()) * 512;
            assert!(used < 14 << 20, "{name}: holes stay holes, but {used} bytes are used");
        }
        assert_clean(&path.join("out.qcow2"));
        assert_eq!(std::fs::read(path.join("out.qcow2")).unwrap(), std::fs::read(path.join("again.qcow2")).unwrap());
        assert_equal(&read_all(&*open(&path.join("out.qcow2"))), &model, source);
    }
}

#[test]
fn a_stage_spills_and_stays_right() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = mixed(6 << 20, 30);
    let original = write_file(folder.path(), "disk.raw", &model);
    let options = StageOptions { memory_limit: 256 << 10, spill_folder: Some(folder.path().to_owned()) };
    let mut stage = Stage::new(block::open(&original, &OpenOptions::default()).unwrap(), options);
    let mut random = Random::new(31);
    for _ in 0..20 {
        scribble(&mut stage, &mut model, &mut random, 10);
        let start = random.below(model.len() as u64) as usize;
        let end = (start + random.below(600_000) as usize).min(model.len());
        let mut found = vec![0; end - start];
        stage.read_at(ImageOffset(start as u64), &mut found).unwrap();
        assert_equal(&found, &model[start..end], "part");
    }
    let mut found = vec![0; model.len()];
    stage.read_at(ImageOffset(0), &mut found).unwrap();
    assert_equal(&found, &model, "whole");
    // What is dirty covers every difference, and undoing all changes leaves nothing dirty.
    let old = std::fs::read(&original).unwrap();
    for at in (0..model.len()).filter(|at| old[*at] != model[*at]) {
        assert!(stage.is_range_dirty(ImageOffset(at as u64), 1));
    }
    let dirty: u64 = stage.dirty_ranges().map(|(_, length)| length).sum();
    assert_eq!(dirty, stage.bytes_dirty());
    stage.write_at(ImageOffset(0), &old).unwrap();
    assert_eq!(stage.drop_unchanged().unwrap(), 0);
    assert!(!stage.is_dirty());
}
