//! Images, the stage, and commit, judged by qemu-img and qemu-io.

mod crash;
mod in_place;
mod interplay;
mod matrix;
mod mutate;
mod output;
mod pending;
mod read;
mod virtual_host;

use std::path::{Path, PathBuf};
use std::process::Command;

use winject::internals::block::{self, Image, OpenOptions, Stage, StageOptions};
use winject::internals::units::ImageOffset;

use crate::support::{program, run};

/// A small generator of pseudo-random numbers (xorshift64*), so that failures can be repeated by their seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut out: Vec<u8> =
            std::iter::repeat_with(|| self.next().to_le_bytes()).take(count / 8 + 1).flatten().collect();
        out.truncate(count);
        out
    }
}

/// A disk with runs of zeros, patterns, text and noise.
pub fn mixed(size: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut disk = vec![0; size];
    let mut at = 0;
    while at < size {
        let length = ((random.below(160) + 1) * 1024) as usize;
        let end = (at + length).min(size);
        let run = &mut disk[at..end];
        match random.below(5) {
            0 | 1 => {}
            2 => run.fill(random.next() as u8),
            3 => run.iter_mut().enumerate().for_each(|(i, b)| *b = b"the quick brown fox "[i % 20] ^ (i >> 9) as u8),
            _ => run.copy_from_slice(&random.bytes(end - at)),
        }
        at = end;
    }
    disk
}

/// Whether the judges of this module are here; says so when not.
pub fn has_qemu() -> bool {
    ["qemu-img", "qemu-io"].iter().all(|name| program(name).is_some())
}

/// Runs qemu-img in `folder` with arguments separated by blanks.
pub fn qemu_img(folder: &Path, arguments: &str) -> String {
    let mut command = Command::new("qemu-img");
    command.current_dir(folder).args(arguments.split_whitespace());
    String::from_utf8_lossy(&run(&mut command).stdout).into_owned()
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

/// Random writes on the stage and on the flat model alike.
pub fn scribble(stage: &mut Stage, model: &mut [u8], random: &mut Random, count: u64) {
    for _ in 0..count {
        let length = match random.below(4) {
            0 => 512,
            1 => random.below(3000) + 1,
            2 => 4096 * (random.below(8) + 1),
            _ => random.below(140_000) + 1,
        };
        let start = random.below(model.len() as u64);
        let end = (start + length).min(model.len() as u64);
        let data =
            if random.below(5) == 0 { vec![0; (end - start) as usize] } else { random.bytes((end - start) as usize) };
        stage.write_at(ImageOffset(start), &data).unwrap();
        model[start as usize..end as usize].copy_from_slice(&data);
    }
}

/// The first place where two disks differ.
#[track_caller]
pub fn assert_equal(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    if let Some(at) = found.iter().zip(expected).position(|(a, b)| a != b) {
        panic!("{what}: differs at {at:#x}: {:#04x} instead of {:#04x}", found[at], expected[at]);
    }
}

pub fn write_file(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

tests![in crash, in_place, interplay, matrix, mutate, output, pending, read;];
