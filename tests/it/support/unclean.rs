//! Opens the NTFS log of the sample disk's Windows volume: `tests/judges/logfile/make-unclean.py` writes records of changes into it that
//! did not, or not all, reach the volume.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::volumes::place_of;
use super::{judge, program, run};

/// Number of the Windows volume on the sample disk.
const WINDOWS: u32 = 3;
/// Bytes that are copied at once.
const PIECE: usize = 1 << 20;

/// A volume on a disk.
pub struct Volume {
    pub start: u64,
    pub length: u64,
    /// The volume as a replay has to leave it, apart from its log.
    pub want: PathBuf,
}

/// Opens the log of the Windows volume on a raw image, with these options of the generator. Files of it stay in `folder`. `None` after
/// saying that it cannot run.
pub fn open_log(image: &Path, folder: &Path, options: &str) -> Option<Volume> {
    // in the folder of Windows, which holds no hives; without the operations whose effect is not proven
    let options = format!("--dir 64 --count 20 --ops create,delete,rename,grow,resize,dup,split,zero {options}");
    open_log_of(image, WINDOWS, folder, &options)
}

/// Opens the log of the volume in this partition of a raw image.
pub fn open_log_of(image: &Path, number: u32, folder: &Path, options: &str) -> Option<Volume> {
    let (start, length) = place_of(image, number);
    let (clean, open) = (folder.join("clean.vol"), folder.join("open.vol"));
    copy_piece(image, (start, length), &clean, 0);
    generate(&clean, &open, options)?;
    copy_piece(&open, (0, length), image, start);
    Some(Volume { start, length, want: folder.join("open.vol.want") })
}

/// Makes a volume with an open log of a clean one, both as files.
pub fn generate(clean: &Path, open: &Path, options: &str) -> Option<()> {
    let (python, generator) = (program("python3")?, judge("logfile/make-unclean.py")?);
    run(Command::new(python).arg(generator).args(options.split_whitespace()).arg(clean).arg(open));
    Some(())
}

/// Copies a piece of a file into another one; what is equal already is not written, so that holes stay.
pub fn copy_piece(from: &Path, (start, length): (u64, u64), to: &Path, at: u64) {
    let from = File::open(from).unwrap();
    let to = File::options().read(true).write(true).create(true).truncate(false).open(to).unwrap();
    to.set_len(to.metadata().unwrap().len().max(at + length)).unwrap();
    let (mut new, mut old) = (vec![0; PIECE], vec![0; PIECE]);
    let is_hole = |file: &File, at: u64, part: usize| {
        let data = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at));
        !data.is_ok_and(|data| data < at + part as u64)
    };
    let mut done = 0;
    while done < length {
        let part = usize::try_from(length - done).unwrap_or(PIECE).min(PIECE);
        if is_hole(&from, start + done, part) && is_hole(&to, at + done, part) {
            done += part as u64;
            continue;
        }
        from.read_exact_at(&mut new[..part], start + done).unwrap();
        to.read_exact_at(&mut old[..part], at + done).unwrap();
        if new[..part] != old[..part] {
            to.write_all_at(&new[..part], at + done).unwrap();
        }
        done += part as u64;
    }
}
