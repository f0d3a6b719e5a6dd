//! winject and QEMU take turns on one image: each must find what the other left.

use winject::internals::block::commit::{self, CommitOptions};

use super::*;
use crate::support::rounds;

const SIZE: usize = 3 << 20;

fn qemu_io(folder: &Path, command: &str) {
    run(Command::new("qemu-io").current_dir(folder).args(["-d", "unmap", "-c", command, "top.qcow2"]));
}

/// One turn of QEMU on the image and the model: writes, zeros, discards.
fn qemu_turn(folder: &Path, model: &mut [u8], random: &mut Random, is_v3: bool) {
    let at = random.below(SIZE as u64 / 512) * 512;
    let length = ((random.below(200) + 1) * 512).min(SIZE as u64 - at);
    let range = at as usize..(at + length) as usize;
    match random.below(if is_v3 { 3 } else { 1 }) {
        0 => {
            let byte = random.below(256) as u8;
            qemu_io(folder, &format!("write -P {byte} {at} {length}"));
            model[range].fill(byte);
        }
        1 => {
            let flag = if random.below(2) == 0 { "-z -u" } else { "-z" };
            qemu_io(folder, &format!("write {flag} {at} {length}"));
            model[range].fill(0);
        }
        _ => {
            // Whole clusters of a discarded range read as zeros; others stay.
            let (at, length) = (at / 65536 * 65536, length.next_multiple_of(65536));
            let length = length.min(SIZE as u64 - at);
            qemu_io(folder, &format!("discard {at} {length}"));
            model[at as usize..(at + length) as usize].fill(0);
        }
    }
}

/// The disk as imago reads it.
fn read_with_imago(path: &Path) -> Vec<u8> {
    use imago::{FormatDriverBuilder, PermissiveImplicitOpenGate};
    let image = imago::qcow2::Qcow2::<imago::file::File>::builder_path(path)
        .open(PermissiveImplicitOpenGate::default())
        .unwrap();
    let image = imago::FormatAccess::new(image);
    let mut disk = vec![0; image.size() as usize];
    image.read(&mut disk[..], 0).unwrap();
    disk
}

fn winject_and_qemu_take_turns() {
    if !has_qemu() {
        return;
    }
    for (number, options) in [
        "-o cluster_size=64k",
        "-o cluster_size=4k,refcount_bits=8",
        "-c -o cluster_size=64k",
        "-c -o cluster_size=16k,compression_type=zstd",
        "-o extended_l2=on,cluster_size=64k",
        "-o compat=0.10,cluster_size=2k",
        "-o lazy_refcounts=on,cluster_size=32k",
    ]
    .iter()
    .enumerate()
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let file = path.join("top.qcow2");
        let mut random = Random::new(70 + number as u64);
        let mut model = mixed(SIZE, random.next());
        write_file(path, "source.raw", &model);
        qemu_img(path, &format!("convert -f raw -O qcow2 {options} source.raw top.qcow2"));
        let mut snapshots: Vec<(String, Vec<u8>)> = Vec::new();
        for turn in 0..rounds(12, 16) {
            match random.below(8) {
                0..4 => {
                    let mut stage = stage(&file);
                    scribble(&mut stage, &mut model, &mut random, 4);
                    commit::commit_in_place(&mut stage, &file, &CommitOptions::default()).unwrap();
                }
                4 | 5 => qemu_turn(path, &mut model, &mut random, !options.contains("0.10")),
                6 if snapshots.len() < 3 => {
                    let name = format!("s{turn}");
                    qemu_img(path, &format!("snapshot -c {name} top.qcow2"));
                    snapshots.push((name, model.clone()));
                }
                _ if !snapshots.is_empty() => {
                    let (name, content) = snapshots.swap_remove(random.below(snapshots.len() as u64) as usize);
                    if random.below(2) == 0 {
                        qemu_img(path, &format!("snapshot -a {name} top.qcow2"));
                        model = content;
                    }
                    qemu_img(path, &format!("snapshot -d {name} top.qcow2"));
                }
                _ => {}
            }
            assert_clean(&file);
            let what = format!("{options}, turn {turn}");
            assert_equal(&read_all(&*open(&file)), &model, &what);
        }
        write_file(path, "model.raw", &model);
        assert_same(path, "top.qcow2", "model.raw");
        for (name, content) in &snapshots {
            qemu_img(path, &format!("convert -l snapshot.name={name} -O raw top.qcow2 snapshot.raw"));
            assert_equal(&std::fs::read(path.join("snapshot.raw")).unwrap(), content, name);
        }
        if !options.contains("zstd") && !options.contains("extended") {
            assert_equal(&read_with_imago(&file), &model, "imago");
        }
    }
}

tests![winject_and_qemu_take_turns,];
