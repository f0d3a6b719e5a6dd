//! The sample disk as two disks of one machine.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const SECTOR: u64 = 512;
/// Numbers of the sample disk's partitions.
pub const ESP: usize = 1;
const WINDOWS: usize = 3;

/// Makes two raw copies of the sample disk one machine: Windows on `system`, its EFI system partition on `boot`.
pub fn split_sample(system: &Path, boot: &Path) {
    edit_gpt(system, &[ESP], None);
    remove_windows(boot);
}

/// Removes Windows from a raw copy of the sample disk, so that its EFI system partition remains, and gives it another id.
pub fn remove_windows(path: &Path) {
    edit_gpt(path, &[WINDOWS, WINDOWS - 1], Some(0xB0));
}

/// Removes partitions of the sample disk from a raw disk's GPT, and gives the disk another id.
pub fn edit_gpt(path: &Path, remove: &[usize], id: Option<u8>) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let last = file.metadata().unwrap().len() / SECTOR - 1;
    for own in [1, last] {
        let mut header = [0u8; 92];
        file.read_exact_at(&mut header, own * SECTOR).unwrap();
        assert_eq!(&header[..8], b"EFI PART");
        let at = u64::from_le_bytes(header[72..80].try_into().unwrap()) * SECTOR;
        let size = u32::from_le_bytes(header[84..88].try_into().unwrap()) as usize;
        let count = u32::from_le_bytes(header[80..84].try_into().unwrap()) as usize;
        let mut entries = vec![0u8; count * size];
        file.read_exact_at(&mut entries, at).unwrap();
        remove.iter().for_each(|number| entries[(number - 1) * size..number * size].fill(0));
        file.write_all_at(&entries, at).unwrap();
        if let Some(id) = id {
            header[56..72].fill(id);
        }
        header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
        header[16..20].fill(0);
        let sum = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
        file.write_all_at(&header, own * SECTOR).unwrap();
    }
}
