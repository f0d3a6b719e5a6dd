//! File systems on which locks of other machines cannot be seen.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::qemu_lock::has_locks;
use super::read::{open_as_it_is, read};

/// Largest list of mounts that is read, in bytes.
const LIST_BYTES_MAX: u64 = 16 << 20;

/// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)), as far as it tells about locks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount<'a> {
    /// Major and minor number of the device.
    device: (u64, u64),
    /// Name of the file system: `nfs4`, `fuse.sshfs`.
    kind: &'a str,
    /// Options of the file system.
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        // Optional fields end with a dash.
        let (before, after) = line.split_once(" - ")?;
        let (major, minor) = before.split(' ').nth(2)?.split_once(':')?;
        let mut after = after.split(' ');
        let kind = after.next()?;
        let options = after.nth(1).unwrap_or_default();
        Some(Self { device: (major.parse().ok()?, minor.parse().ok()?), kind, options })
    }

    fn has_option(&self, wanted: &[&str]) -> bool {
        self.options.split(',').any(|option| wanted.contains(&option))
    }

    /// Whether other machines may use the files, and locks stay on this one.
    fn hides_locks(&self) -> bool {
        match self.kind {
            "nfs" | "nfs4" => self.has_option(&["nolock", "local_lock=all", "local_lock=posix"]),
            "cifs" | "smb3" => self.has_option(&["nobrl"]),
            "lustre" => self.has_option(&["localflock", "noflock"]),
            // 9p is answered by QEMU, which takes no lock; the others have none.
            "9p" | "virtiofs" | "vboxsf" | "vmhgfs" | "prl_fs" => true,
            // Through FUSE a local file system comes, too: only the remote ones are named.
            kind => kind.strip_prefix("fuse.").is_some_and(|program| {
                [
                    "sshfs",
                    "rclone",
                    "s3fs",
                    "goofys",
                    "gcsfuse",
                    "blobfuse",
                    "blobfuse2",
                    "mount-s3",
                    "curlftpfs",
                    "davfs",
                    "gvfsd-fuse",
                    "vmhgfs-fuse",
                ]
                .contains(&program)
            }),
        }
    }
}

/// What has to be said about the files of an image: that some lie where it cannot be seen whether another machine uses
/// them. One sentence for each file system.
pub(crate) fn lock_notes(files: &[PathBuf]) -> Vec<String> {
    let list = read("/proc/self/mountinfo".as_ref(), LIST_BYTES_MAX).unwrap_or_default();
    notes(files, &String::from_utf8_lossy(&list))
}

/// [`lock_notes`] with the list of mounts.
fn notes(files: &[PathBuf], list: &str) -> Vec<String> {
    let mounts: Vec<_> = list.lines().filter_map(Mount::parse).collect();
    let mut seen = Vec::new();
    let mut notes = Vec::new();
    for path in files {
        let Ok(file) = path.canonicalize().and_then(|path| open_as_it_is(&path)) else { continue };
        let Ok(device) = file.metadata().map(|meta| meta.dev()) else { continue };
        if seen.contains(&device) {
            continue;
        }
        seen.push(device);
        let numbers = (u64::from(rustix::fs::major(device)), u64::from(rustix::fs::minor(device)));
        // The last one mounted hides the others; all of one device have the same options.
        let mount = mounts.iter().rev().find(|mount| mount.device == numbers);
        notes.extend(note(path, mount, &file));
    }
    notes
}

fn note(path: &Path, mount: Option<&Mount<'_>>, file: &File) -> Option<String> {
    let kind = mount.map_or("a file system", |mount| mount.kind);
    if mount.is_some_and(Mount::hides_locks) || !has_locks(file) {
        let path = path.display();
        return Some(format!("{path} lies on {kind} without locks: whether another machine uses it cannot be seen"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hides_locks(line: &str) -> bool {
        Mount::parse(line).unwrap().hides_locks()
    }

    #[test]
    fn the_options_of_a_mount_say_whether_locks_are_seen() {
        let nfs =
            "52 28 0:49 / /mnt/a\\040b rw,relatime shared:29 master:1 - nfs4 server:/x rw,vers=4.2,local_lock=none";
        assert_eq!(
            Mount::parse(nfs).unwrap(),
            Mount { device: (0, 49), kind: "nfs4", options: "rw,vers=4.2,local_lock=none" }
        );
        assert!(!hides_locks(nfs));
        for (line, hidden) in [
            ("52 28 0:49 / /m rw - nfs server:/x rw,vers=3,nolock,local_lock=all", true),
            ("52 28 0:49 / /m rw - nfs server:/x rw,vers=3,local_lock=posix", true),
            ("52 28 0:49 / /m rw - nfs server:/x rw,vers=3,local_lock=flock", false),
            ("52 28 0:50 / /m rw shared:7 - cifs //server/x rw,vers=3.1.1,nobrl", true),
            ("52 28 0:50 / /m rw shared:7 - cifs //server/x rw,vers=3.1.1", false),
            ("52 28 0:51 / /m rw - 9p share rw,trans=virtio", true),
            ("52 28 0:52 / /m rw - fuse.sshfs me@server:/ rw,user_id=0", true),
            ("52 28 0:52 / /m rw - fuse.fuse-overlayfs fuse-overlayfs rw", false),
            ("52 28 8:1 / / rw - ext4 /dev/sda1 rw", false),
            ("52 28 8:1 / / rw - fuseblk /dev/sdb1 rw", false),
        ] {
            assert_eq!(hides_locks(line), hidden, "{line}");
        }
        for line in ["", "1 2 3 4 - x", "1 2 a:b / / rw - ext4 /dev/sda1 rw", "1 2 8:1 / / rw"] {
            assert_eq!(Mount::parse(line), None, "{line}");
        }
    }

    #[test]
    fn each_file_system_is_named_once() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<_> = ["a", "b"].iter().map(|name| folder.path().join(name)).collect();
        files.iter().for_each(|file| std::fs::write(file, b"x").unwrap());
        assert_eq!(lock_notes(&files), [""; 0], "the folder of this test is local");
        let device = std::fs::metadata(&files[0]).unwrap().dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let list =
            format!("1 2 {major}:{minor} / / rw - ext4 x rw\n52 28 {major}:{minor} / /m rw - nfs s:/x rw,nolock\n");
        let found = notes(&files, &list);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("/a lies on nfs without locks"), "{found:?}");
    }
}
