//! Encrypts the Windows volume of the sample disk with BitLocker's format, by a maker that shares no code with winject.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use winject::internals::block;
use winject::internals::io::VolumeRead as _;
use winject::internals::partition::{BitLockerKeys, PartitionView};
use winject::internals::units::VolumeOffset;

use super::volumes::place_of;
use super::{judge, judge_python, run};

/// Number of the Windows volume on the sample disk.
const WINDOWS: u32 = 3;
/// Bytes that are compared at once.
const BLOCK: usize = 4096;
const CHUNK: usize = 1 << 20;

/// An encrypted volume on a disk, which its clear key opens.
pub struct Encrypted {
    start: u64,
    length: u64,
}

/// Encrypts the Windows volume of the raw image `plain` into `locked`. `None` after saying that the maker cannot run. Some files
/// of BitLocker are added to the plain volume, too.
pub fn encrypt(plain: &Path, locked: &Path) -> Option<Encrypted> {
    let (python, maker) = (judge_python()?, judge("bitlocker/make-bitlocker.py")?);
    let (start, length) = place_of(plain, WINDOWS);
    let mut make = Command::new(python);
    make.arg(maker).arg(plain).arg(locked).args(["--method", "xts-128", "--clear"]);
    run(make.args(["--offset", &start.to_string(), "--length", &length.to_string()]));
    Some(Encrypted { start, length })
}

impl Encrypted {
    /// Compares an edit of the encrypted disk with that of its plain twin, both before and after, and returns how many blocks
    /// changed.
    ///
    /// # Panics
    /// When a block of the plain view changed, and is not what the twin has there.
    pub fn count_edited(&self, locked: [&Path; 2], plain: [&Path; 2]) -> usize {
        let disks = locked.map(|path| block::open(path, &block::OpenOptions::default()).unwrap());
        let tables = [0, 1].map(|i| BitLockerKeys::default().read_partitions(&*disks[i]).unwrap());
        let views = [0, 1].map(|i| PartitionView::new(&*disks[i], tables[i].partition(WINDOWS).unwrap()).unwrap());
        let plain = plain.map(|path| File::open(path).unwrap());
        let mut chunks = [(); 4].map(|()| vec![0; CHUNK]);
        let mut changed = 0;
        let mut at = 0;
        while at < self.length {
            let count = usize::try_from(self.length - at).unwrap().min(CHUNK);
            for i in 0..2 {
                views[i].read_at(VolumeOffset(at), &mut chunks[i][..count]).unwrap();
                plain[i].read_exact_at(&mut chunks[2 + i][..count], self.start + at).unwrap();
            }
            for inner in (0..count).step_by(BLOCK) {
                let [old, new, plain_old, plain_new] =
                    [0, 1, 2, 3].map(|i| &chunks[i][inner..count.min(inner + BLOCK)]);
                // Zeros that are written into a free cluster, which is noise where only the used space is encrypted, are no
                // change of the twin.
                if old != new || plain_old != plain_new {
                    assert!(new == plain_new, "the plain view differs from the twin at {}", at + inner as u64);
                    changed += 1;
                }
            }
            at += count as u64;
        }
        changed
    }
}
