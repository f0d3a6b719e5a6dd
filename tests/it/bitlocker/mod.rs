//! BitLocker below the file system: published volumes with their secrets, volumes made by our maker, and other readers.

mod ciphers;
mod corpus;
mod hostile;
mod made;
mod refusals;
mod secrets;
mod writes;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use winject::internals::bitlocker::{Metadata, Secret, Unlocked};
use winject::internals::error::{Error, Layer, Result};
use winject::internals::io::{VolumeRead, VolumeWrite};
use winject::internals::units::VolumeOffset;

use crate::support;

/// A file as a volume.
struct FileVolume {
    file: File,
    length: u64,
}

impl FileVolume {
    fn open(path: &Path) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        Self { file, length }
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io(Layer::Host, "cannot access the test's volume", error)
}

impl VolumeRead for FileVolume {
    fn len(&self) -> u64 {
        self.length
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buf, offset.0).map_err(failed)
    }
}

impl VolumeWrite for FileVolume {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        self.file.write_all_at(data, offset.0).map_err(failed)
    }
}

/// The plain view of a device as a volume.
struct Plain<'a, D> {
    device: D,
    unlocked: &'a Unlocked,
}

impl<D: VolumeRead> VolumeRead for Plain<'_, D> {
    fn len(&self) -> u64 {
        self.unlocked.len()
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        self.unlocked.read(&self.device, offset, buf)
    }
}

impl<D: VolumeWrite> VolumeWrite for Plain<'_, D> {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        self.unlocked.write(&mut self.device, offset, data)
    }
}

/// Opens a device that must open.
fn open<D: VolumeRead>(device: &D, secrets: &[Secret]) -> Unlocked {
    Metadata::read(device).unwrap().unlock(device, secrets).unwrap_or_else(|e| panic!("{e}")).0
}

/// Unpacks a volume of the corpus to a sparse file; `None` after saying what is missing.
fn unpack(name: &str, to: &Path) -> Option<()> {
    let packed = support::corpus(&format!("bitlocker/{name}"))?;
    let program = support::program(if name.ends_with(".xz") { "xz" } else { "gzip" })?;
    let mut child = Command::new(program).arg("-dc").arg(packed).stdout(Stdio::piped()).spawn().unwrap();
    let mut file = File::create(to).unwrap();
    let mut from = child.stdout.take().unwrap();
    let mut buf = vec![0; 1 << 16];
    loop {
        let mut filled = 0;
        while filled < buf.len() {
            match from.read(&mut buf[filled..]).unwrap() {
                0 => break,
                n => filled += n,
            }
        }
        if filled == 0 {
            break;
        }
        if buf[..filled].iter().all(|b| *b == 0) {
            file.seek(SeekFrom::Current(filled as i64)).unwrap();
        } else {
            file.write_all(&buf[..filled]).unwrap();
        }
    }
    let length = file.stream_position().unwrap();
    file.set_len(length).unwrap();
    assert!(child.wait().unwrap().success());
    Some(())
}

/// A volume of the corpus in memory.
fn volume_bytes(name: &str) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume");
    unpack(name, &path)?;
    Some(std::fs::read(path).unwrap())
}

/// The clear key only, 100 MiB: opens at once.
const CLEAR_KEY_ONLY: &str = "c-aes-xts-128-clearkey-only.img.xz";

tests![in ciphers, corpus, hostile, made, refusals, secrets, writes;];
