//! Volumes for tests: made by mkntfs, kept in a file, judged by programs that are not ours.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use winject::internals::clock::FileTime;
use winject::internals::error::{Error, Layer, Result};
use winject::internals::io::{VolumeRead, VolumeWrite};
use winject::internals::ntfs::check::Code;
use winject::internals::ntfs::{OpenOptions, Volume};
use winject::internals::units::VolumeOffset;

use crate::support;

/// A volume in a file of the host.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    length: u64,
    start: u64,
}

impl FileDevice {
    pub fn open(path: &Path, start: u64) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len() - start;
        Self { file, length, start }
    }
}

impl VolumeRead for FileDevice {
    fn len(&self) -> u64 {
        self.length
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buf, self.start + offset.0).map_err(|e| Error::io(Layer::Block, "read", e).at(offset))
    }
}

impl VolumeWrite for FileDevice {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        self.file.write_all_at(data, self.start + offset.0).map_err(|e| Error::io(Layer::Block, "write", e).at(offset))
    }
}

/// How mkntfs is to make a volume.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub size: u64,
    pub cluster: u32,
    pub sector: u32,
}

/// A volume in a temporary folder.
pub struct TestVolume {
    pub folder: tempfile::TempDir,
    pub path: PathBuf,
    pub start: u64,
    /// The volume as it was before anything was done to it, for judges that compare.
    pub baseline: Option<PathBuf>,
}

/// 2024-01-02: the time of everything that tests write.
pub fn clock() -> FileTime {
    FileTime::from_date(2024, 1, 2).unwrap()
}

impl TestVolume {
    /// A fresh volume by mkntfs; `None` after saying that mkntfs is not installed.
    pub fn make(shape: Shape) -> Option<Self> {
        let mkntfs = support::program("mkntfs")?;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volume.raw");
        File::create(&path).unwrap().set_len(shape.size).unwrap();
        support::run(
            Command::new(mkntfs)
                .args(["-F", "-q", "-f", "-p", "0", "-H", "0", "-S", "0", "-c"])
                .arg(shape.cluster.to_string())
                .arg("-s")
                .arg(shape.sector.to_string())
                .arg(&path),
        );
        Some(Self { folder, path, start: 0, baseline: None })
    }

    /// A copy of a volume's bytes, beginning at `start`; judged against itself before the edits.
    pub fn copy_of(bytes: &[u8], start: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volume.raw");
        std::fs::write(&path, bytes).unwrap();
        let baseline = folder.path().join("before.raw");
        std::fs::write(&baseline, bytes).unwrap();
        Self { folder, path, start, baseline: Some(baseline) }
    }

    pub fn device(&self) -> FileDevice {
        FileDevice::open(&self.path, self.start)
    }

    pub fn open(&self) -> Volume<FileDevice> {
        Volume::open(self.device(), &OpenOptions::new(clock())).unwrap()
    }

    /// The strict foreign checker finds nothing (nothing new, when there is a baseline).
    pub fn assert_clean(&self, what: &str) {
        if self.baseline.is_none() {
            let report = winject::internals::ntfs::check::check(
                &self.device(),
                &winject::internals::ntfs::check::CheckOptions::default(),
            );
            let report = report.unwrap();
            // tests add descriptors, and delete the files that used them
            let unexpected: Vec<_> = report.faults.iter().filter(|f| f.code != Code::UnusedDescriptor).collect();
            assert!(unexpected.is_empty(), "{what}: our checker: {unexpected:?}");
        }
        let Some(script) = support::judge("ntfscheck.py") else { return };
        let mut command = Command::new(script);
        command.arg("--offset").arg(self.start.to_string());
        if let Some(baseline) = &self.baseline {
            command.arg("--baseline").arg(baseline);
        }
        let output = command.arg(&self.path).output().unwrap();
        if !output.status.success() {
            let keep = std::env::temp_dir().join("winject-failed-volume.raw");
            std::fs::copy(&self.path, &keep).unwrap();
            panic!(
                "{what}: (volume kept as {})\n{}{}",
                keep.display(),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }

    /// The other public judges, by name.
    pub fn assert_judges(&self, names: &str, what: &str) {
        let Some(script) = support::judge("ntfs-judge.sh") else { return };
        let output = Command::new("bash")
            .arg(script)
            .args(["-K", "-o", names])
            .arg(&self.path)
            .arg(self.start.to_string())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{what}:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// What dissect sees; `None` after saying that it is not installed.
    pub fn read_by_dissect(&self) -> Option<BTreeMap<String, Seen>> {
        let python = support::judge_python()?;
        let output =
            support::run(Command::new(python).args(["-c", DISSECT]).arg(&self.path).arg(self.start.to_string()));
        let files: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let pair = |v: &serde_json::Value| (v[0].as_u64().unwrap() as usize, v[1].as_u64().unwrap() as u32);
        let seen = |v: &serde_json::Value| Seen {
            sum: (!v["sum"].is_null()).then(|| pair(&v["sum"])),
            streams: v["streams"].as_object().unwrap().iter().map(|(name, sum)| (name.clone(), pair(sum))).collect(),
            attributes: v["attributes"].as_u64().unwrap() as u32,
            created: FileTime(v["created"].as_u64().unwrap()),
            security: v["security"].as_u64().unwrap() as u32,
        };
        Some(files.as_object().unwrap().iter().map(|(path, v)| (path.clone(), seen(v))).collect())
    }

    /// Length and checksum of every file (`None` for directories) as ntfs-3g reads it; `None` after saying that it cannot
    /// be mounted, or when the volume is a part of a disk.
    pub fn read_by_ntfs_3g(&self) -> Option<BTreeMap<String, Option<(usize, u32)>>> {
        if self.start != 0 {
            return None;
        }
        let mount = Mount::new(self, "ro")?;
        let mut out = BTreeMap::new();
        let mut stack = vec![(String::new(), mount.0.clone())];
        while let Some((path, dir)) = stack.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                let path = format!("{path}/{}", entry.file_name().into_string().unwrap());
                let kind = entry.file_type().unwrap();
                assert!(kind.is_dir() || kind.is_file(), "{path}: ntfs-3g shows a special file, which may block");
                let is_dir = kind.is_dir();
                if is_dir {
                    stack.push((path.clone(), entry.path()));
                }
                out.insert(path, (!is_dir).then(|| sum(&std::fs::read(entry.path()).unwrap())));
            }
        }
        Some(out)
    }

    /// Everything on the volume as the crate `ntfs` reads it: path → content (`None` for directories).
    pub fn read_by_crate(&self) -> BTreeMap<String, Option<Vec<u8>>> {
        let mut file = Offset { file: File::open(&self.path).unwrap(), start: self.start, at: 0 };
        let mut volume = ntfs::Ntfs::new(&mut file).unwrap();
        volume.read_upcase_table(&mut file).unwrap();
        let mut out = BTreeMap::new();
        let mut stack = vec![(String::new(), volume.root_directory(&mut file).unwrap())];
        while let Some((path, dir)) = stack.pop() {
            let index = dir.directory_index(&mut file).unwrap();
            let mut entries = index.entries();
            let mut found = Vec::new();
            while let Some(entry) = entries.next(&mut file) {
                let entry = entry.unwrap();
                let key = entry.key().unwrap().unwrap();
                if key.namespace() != ntfs::structured_values::NtfsFileNamespace::Dos {
                    found.push((key.name().to_string_lossy(), entry.file_reference()));
                }
            }
            for (name, reference) in found {
                if reference.file_record_number() < 24 {
                    continue;
                }
                let child = reference.to_file(&volume, &mut file).unwrap();
                let path = format!("{path}/{name}");
                if child.is_directory() {
                    out.insert(path.clone(), None);
                    stack.push((path, child));
                } else {
                    let content = child.data(&mut file, "").map(|item| {
                        let item = item.unwrap();
                        let attribute = item.to_attribute().unwrap();
                        let mut value = attribute.value(&mut file).unwrap().attach(&mut file);
                        let mut content = Vec::new();
                        std::io::Read::read_to_end(&mut value, &mut content).unwrap();
                        content
                    });
                    out.insert(path, Some(content.unwrap_or_default()));
                }
            }
        }
        out
    }
}

/// Length and checksum, as [`TestVolume::read_by_dissect`] gives them.
pub fn sum(content: &[u8]) -> (usize, u32) {
    let mut crc = flate2::Crc::new();
    crc.update(content);
    (content.len(), crc.sum())
}

/// A file as dissect sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Length and checksum; `None` for directories.
    pub sum: Option<(usize, u32)>,
    pub streams: BTreeMap<String, (usize, u32)>,
    pub attributes: u32,
    pub created: FileTime,
    pub security: u32,
}

/// Walks a volume with dissect.ntfs.
const DISSECT: &str = r#"
import sys, zlib, json, io
import dissect.ntfs.mft
from dissect.ntfs import NTFS
# it reads the longest header there is, and misses a short attribute at the very end of a record
dissect.ntfs.mft.BytesIO = lambda data: io.BytesIO(bytes(data) + bytes(64))
class Part:
    def __init__(self, file, start): self.file, self.start = file, start; file.seek(start)
    def seek(self, n, whence=0): return self.file.seek(n + self.start if whence == 0 else n, whence) - self.start
    def tell(self): return self.file.tell() - self.start
    def read(self, n=-1): return self.file.read(n)
volume = NTFS(Part(open(sys.argv[1], 'rb'), int(sys.argv[2])))
stack = [('', volume.mft.get(5))]
out = {}
def total(data): return [len(data), zlib.crc32(data)]
def descend(index, entries):
    # its own walk reads blocks too that are no longer in the tree
    for entry in entries:
        if entry.is_node: yield from descend(index, index.index_buffer(entry.node_vcn).entries())
        if entry.is_end: return
        yield entry
while stack:
    path, folder = stack.pop()
    index = folder.index('$I30')
    for entry in descend(index, index.root.entries()):
        if entry.attribute.flags & 3 == 2: continue
        record = entry.dereference()
        if record.segment < 24: continue
        name = path + '/' + entry.attribute.file_name
        facts = record.attributes[0x10][0].attribute
        seen = {'sum': None, 'streams': {}, 'attributes': int(facts.attr.FileAttributes), 'security': facts.security_id or 0,
                'created': int(facts.attr.CreationTime)}
        for data in record.attributes.get(0x80, []):
            if data.name: seen['streams'][data.name] = total(record.open(data.name).read())
        if record.is_dir():
            stack.append((name, record))
        else:
            seen['sum'] = total(record.open().read())
        assert name not in out, name
        out[name] = seen
print(json.dumps(out))
"#;

/// A volume mounted by ntfs-3g.
pub struct Mount(pub PathBuf);

impl Mount {
    /// `None` after saying that it cannot be mounted here.
    pub fn new(test: &TestVolume, options: &str) -> Option<Self> {
        let program = support::program("ntfs-3g")?;
        if !Path::new("/dev/fuse").exists() {
            support::skip("there is no /dev/fuse here");
            return None;
        }
        let point = test.folder.path().join("mnt");
        std::fs::create_dir_all(&point).unwrap();
        support::run(Command::new(program).arg("-o").arg(options).arg(&test.path).arg(&point));
        Some(Self(point))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
        // the driver writes on after umount has returned
        for _ in 0..100 {
            let busy = Command::new("mountpoint").arg("-q").arg(&self.0).status().is_ok_and(|s| s.success());
            if !busy {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
}

/// A part of a file, as a stream.
struct Offset {
    file: File,
    start: u64,
    at: u64,
}

impl std::io::Read for Offset {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read_at(buf, self.start + self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl std::io::Seek for Offset {
    fn seek(&mut self, pos: std::io::SeekFrom) -> std::io::Result<u64> {
        let end = || self.file.metadata().map(|m| m.len() - self.start);
        self.at = match pos {
            std::io::SeekFrom::Start(n) => n,
            std::io::SeekFrom::Current(n) => self.at.checked_add_signed(n).ok_or(std::io::ErrorKind::InvalidInput)?,
            std::io::SeekFrom::End(n) => end()?.checked_add_signed(n).ok_or(std::io::ErrorKind::InvalidInput)?,
        };
        Ok(self.at)
    }
}

/// Everything on the volume as our own reader reads it.
pub fn read_by_us<D: VolumeRead>(volume: &Volume<D>) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut out = BTreeMap::new();
    let mut stack = vec![(String::new(), winject::internals::ntfs::FileId::ROOT)];
    while let Some((path, dir)) = stack.pop() {
        for entry in volume.entries(dir).unwrap() {
            if entry.file.record.0 < 24 || entry.namespace == winject::internals::ntfs::Namespace::Dos {
                continue;
            }
            let path = format!("{path}/{}", entry.name);
            if entry.is_dir {
                out.insert(path.clone(), None);
                stack.push((path, entry.file));
            } else {
                out.insert(path, Some(volume.read(entry.file, 1 << 30).unwrap()));
            }
        }
    }
    out
}
