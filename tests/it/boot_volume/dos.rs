//! FAT volumes through the programs of mtools and dosfstools, which we did not write.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::inject::sha256;
use crate::support;

/// A FAT volume in a file, with the judges; `None` if they are not installed.
pub struct Dos {
    pub path: PathBuf,
}

impl Dos {
    /// Makes a volume: `bits` 12, 16 or 32, `sectors` per cluster.
    pub fn format(path: &Path, bits: u32, mib: u64, sectors: u32) -> Option<Self> {
        let mkfs = support::program("mkfs.fat")?;
        std::fs::File::create(path).unwrap().set_len(mib << 20).unwrap();
        let options = ["-F", &bits.to_string(), "-s", &sectors.to_string(), "-n", "SYSTEM", "-i", "12345678"];
        support::run(Command::new(mkfs).args(options).arg(path));
        Self::open(path)
    }

    pub fn open(path: &Path) -> Option<Self> {
        ["mcopy", "mdir", "minfo", "fsck.fat"]
            .into_iter()
            .all(|name| support::program(name).is_some())
            .then(|| Self { path: path.to_owned() })
    }

    fn tool(&self, name: &str, arguments: &[&str]) -> std::process::Output {
        let path = support::program(name).unwrap();
        let mut command = Command::new(path);
        command.env("MTOOLS_SKIP_CHECK", "1").env("TZ", "UTC").arg("-i").arg(&self.path).args(arguments);
        support::run(&mut command)
    }

    pub fn mkdir(&self, path: &str) {
        self.tool("mmd", &[&format!("::{path}")]);
    }

    pub fn put(&self, path: &str, bytes: &[u8]) {
        let file = self.path.with_extension("put");
        std::fs::write(&file, bytes).unwrap();
        self.tool("mcopy", &["-o", file.to_str().unwrap(), &format!("::{path}")]);
    }

    pub fn delete(&self, path: &str) {
        self.tool("mdel", &[&format!("::{path}")]);
    }

    pub fn delete_folder(&self, path: &str) {
        self.tool("mdeltree", &[&format!("::{path}")]);
    }

    /// The content of every file, as mtools reads it, by its path.
    pub fn files(&self) -> BTreeMap<String, String> {
        let folder = self.path.with_extension("out");
        drop(std::fs::remove_dir_all(&folder));
        std::fs::create_dir(&folder).unwrap();
        self.tool("mcopy", &["-s", "-n", "-Q", "::/", folder.to_str().unwrap()]);
        let mut out = BTreeMap::new();
        let mut pending = vec![folder.clone()];
        while let Some(at) = pending.pop() {
            for entry in std::fs::read_dir(&at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    let name = path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
                    out.insert(name, sha256(&path));
                }
            }
        }
        out
    }

    /// What `mdir` lists: names, sizes and times.
    pub fn listing(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.tool("mdir", &["-/", "-a", "::/"]).stdout).into_owned();
        text.lines().map(str::to_owned).collect()
    }

    /// `fsck.fat -n` finds nothing.
    pub fn assert_clean(&self) {
        let output =
            Command::new(support::program("fsck.fat").unwrap()).args(["-n", "-v"]).arg(&self.path).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        for word in ["differ", "wrong", "orphan", "Dirty", "bad", "contains"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
    }
}

/// The partition of an image as a file of its own.
pub fn partition_of(image: &Path, number: u32, out: &Path) -> Option<Dos> {
    use winject::internals::block::{self, Stage, StageOptions};
    use winject::internals::io::VolumeRead as _;
    use winject::internals::partition::{PartitionView, read};
    let stage = Stage::new(block::open(image, &block::OpenOptions::default()).unwrap(), StageOptions::default());
    let partition = read(&stage).unwrap().partition(number).unwrap().clone();
    let view = PartitionView::new(&stage, &partition).unwrap();
    let mut bytes = vec![0; usize::try_from(view.len()).unwrap()];
    view.read_at(winject::internals::units::VolumeOffset(0), &mut bytes).unwrap();
    std::fs::write(out, bytes).unwrap();
    Dos::open(out)
}

/// Writes a partition back into a raw image.
pub fn put_partition(image: &Path, number: u32, dos: &Dos) {
    use std::os::unix::fs::FileExt as _;
    use winject::internals::{block, partition};
    let start = {
        let image = block::open(image, &block::OpenOptions::default()).unwrap();
        partition::read(&*image).unwrap().partition(number).unwrap().start.0
    };
    let file = std::fs::File::options().write(true).open(image).unwrap();
    file.write_all_at(&std::fs::read(&dos.path).unwrap(), start).unwrap();
}

/// The judges see what they have to see: a lost cluster is found, a sound volume is not blamed.
fn the_judges_find_damage() {
    let folder = crate::inject::folder();
    let Some(dos) = Dos::format(&folder.path().join("fat"), 16, 16, 4) else { return };
    dos.put("/a.txt", b"x");
    dos.assert_clean();
    let mut bytes = std::fs::read(&dos.path).unwrap();
    let fat = usize::from(u16::from_le_bytes([bytes[14], bytes[15]])) * 512;
    bytes[fat + 2 * 77] = 0xFF;
    std::fs::write(&dos.path, bytes).unwrap();
    assert!(std::panic::catch_unwind(|| dos.assert_clean()).is_err());
}

tests![the_judges_find_damage];
