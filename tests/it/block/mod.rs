//! Images, the stage, and commit, judged by qemu-img and qemu-io.

mod crash;
mod crash_case;
mod full_disk;
mod in_place;
mod interplay;
mod interruption;
mod made;
mod matrix;
mod mutate;
mod output;
pub mod pending;
mod progress;
mod read;
mod undo;
mod undo_crash;
mod virtual_host;

use std::path::Path;
use std::process::Command;

use winject::internals::block::{self, Image, OpenOptions, Stage, StageOptions};
use winject::internals::units::ImageOffset;

pub use made::{Random, mixed, qemu_img, scribble, write_file};

use crate::support::{program, run};

/// Whether the judges of this module are here; says so when not.
pub fn has_qemu() -> bool {
    ["qemu-img", "qemu-io"].iter().all(|name| program(name).is_some())
}

/// `qemu-img check` must find neither errors nor leaks.
pub fn assert_clean(path: &Path) {
    // QEMU looks for a relative data file in the current folder.
    run(Command::new("qemu-img").current_dir(path.parent().unwrap()).arg("check").arg(path));
}

/// `qemu-img compare` must find the same disk in both files.
pub fn assert_same(folder: &Path, one: &str, two: &str) {
    run(Command::new("qemu-img").current_dir(folder).args(["compare", one, two]));
}

pub fn open(path: &Path) -> Box<dyn Image> {
    block::open(path, &OpenOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn stage(path: &Path) -> Stage {
    Stage::new(open(path), StageOptions::default())
}

pub fn read_all(image: &dyn Image) -> Vec<u8> {
    let mut disk = vec![0; image.len() as usize];
    image.read_at(ImageOffset(0), &mut disk).unwrap();
    disk
}

/// The first place where two disks differ.
#[track_caller]
pub fn assert_equal(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    if let Some(at) = found.iter().zip(expected).position(|(a, b)| a != b) {
        panic!("{what}: differs at {at:#x}: {:#04x} instead of {:#04x}", found[at], expected[at]);
    }
}

tests![in crash, full_disk, in_place, interplay, matrix, mutate, output, pending, progress, read, undo, undo_crash;];
