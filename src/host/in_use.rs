//! VMware's locks: a folder `FILE.lck` next to a disk that a VM uses, with a file for every program that does.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorCode, Layer, Result};
use crate::escape::shell_argument;

/// Entries of a lock folder that are looked at: VMware keeps a few in it.
const ENTRIES_MAX: usize = 4096;

/// Refuses a file that VMware's products have locked. The file is looked for under its real name, too.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused), also for a lock folder that cannot be read.
pub(super) fn refuse_vmware_lock(path: &Path) -> Result<()> {
    let real_path = path.canonicalize().ok().filter(|real_path| real_path != path);
    for path in std::iter::once(path).chain(real_path.as_deref()) {
        let folder = lock_folder(path);
        let held = match holds_lock(&folder) {
            Ok(held) => held,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => false,
            Err(error) => return Err(in_use(path, &folder).source_error(error)),
        };
        if held {
            return Err(in_use(path, &folder));
        }
    }
    Ok(())
}

fn lock_folder(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lck");
    PathBuf::from(name)
}

/// Whether a folder holds a lock file (`M12345.lck`). An empty one is what VMware leaves when it ends.
fn holds_lock(folder: &Path) -> io::Result<bool> {
    let mut entries = std::fs::read_dir(folder)?.take(ENTRIES_MAX);
    entries.try_fold(false, |held, entry| Ok(held || entry?.path().extension().is_some_and(|end| end == "lck")))
}

fn in_use(path: &Path, folder: &Path) -> Error {
    let folder = shell_argument(folder, "the folder");
    Error::refused(Layer::Host, "a VMware product has locked the image")
        .with_code(ErrorCode::ImageInUse)
        .path(path.display().to_string())
        .hint(format!("shut the VM down; if no VMware product uses the image, remove its lock: rm -r {folder}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_lock_counts_as_long_as_a_file_is_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("it's a disk.vmdk");
        std::fs::write(&disk, b"disk").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&disk, &link).unwrap();
        refuse_vmware_lock(&disk).unwrap();
        let lock = folder.path().join("it's a disk.vmdk.lck");
        std::fs::create_dir(&lock).unwrap();
        std::fs::write(lock.join("M12345.txt"), b"").unwrap();
        refuse_vmware_lock(&disk).unwrap();
        std::fs::write(lock.join("M12345.lck"), b"").unwrap();
        for path in [&disk, &link] {
            let error = refuse_vmware_lock(path).unwrap_err();
            assert_eq!(error.kind(), Kind::Refused);
            let (_, command) = error.hint_text().unwrap().split_once("lock: ").unwrap();
            let shown = std::process::Command::new("sh").args(["-c", &command.replacen("rm -r", "ls", 1)]).output();
            assert!(shown.unwrap().status.success(), "{command}");
        }
        std::fs::remove_dir_all(&lock).unwrap();
        std::fs::write(&lock, b"a file of that name is not a lock").unwrap();
        refuse_vmware_lock(&disk).unwrap();
    }
}
