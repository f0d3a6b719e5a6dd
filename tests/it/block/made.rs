//! Disks, images and random changes of them, made for a test.

use std::path::{Path, PathBuf};
use std::process::Command;

use winject::internals::block::Stage;
use winject::internals::units::ImageOffset;

use crate::support::run;

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

/// Runs qemu-img in `folder` with arguments separated by blanks.
pub fn qemu_img(folder: &Path, arguments: &str) -> String {
    let mut command = Command::new("qemu-img");
    command.current_dir(folder).args(arguments.split_whitespace());
    String::from_utf8_lossy(&run(&mut command).stdout).into_owned()
}

pub fn write_file(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}
