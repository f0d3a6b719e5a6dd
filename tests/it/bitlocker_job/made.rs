//! The fixture encrypted by a maker that shares no code with winject, and its plain twin.

use crate::inject::{folder, made, writable_fixture};
use crate::support;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use winject::internals::block::Format;
use winject::internals::hex;

pub const RECOVERY: &str = "616319-601744-502117-534017-367994-176748-607299-663201";
pub const PASSWORD: &str = "correct horse battery";

/// How the volume is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Clear,
    Recovery,
    Password,
    Startup,
    Volume,
}

impl Key {
    pub const ALL: [Self; 5] = [Self::Clear, Self::Recovery, Self::Password, Self::Startup, Self::Volume];
}

/// An encrypted guest, the same guest as it was before that, and what the maker says of the volume.
pub struct Made {
    /// Everything in it that the maker has not put there, winject has.
    pub folder: TempDir,
    pub plain: PathBuf,
    pub image: PathBuf,
    pub start: u64,
    pub length: u64,
    pub facts: serde_json::Value,
    pub key: Key,
}

impl Made {
    /// Makes it; `None` after saying why that is not possible. `more` are arguments of the maker.
    pub fn new(method: &str, key: Key, more: &[&str]) -> Option<Self> {
        Self::with_sectors(512, method, key, more)
    }

    /// The same with sectors of 512 or 4096 bytes on the volume.
    pub fn with_sectors(sector: u32, method: &str, key: Key, more: &[&str]) -> Option<Self> {
        let python = support::judge_python()?;
        let maker = support::judge("bitlocker/make-bitlocker.py")?;
        support::program("ntfs-3g")?;
        if !made::is_root() {
            support::skip("make-bitlocker.py mounts the volume, and needs root for it");
            return None;
        }
        let folder = folder();
        let keys = folder.path().join("keys");
        std::fs::create_dir(&keys).unwrap();
        let plain = writable_fixture(folder.path(), Format::Raw);
        let (start, length) = support::volumes::place_of(&plain, 3);
        if sector != 512 {
            make_again(&plain, start, length, sector, folder.path());
        }
        let image = folder.path().join("locked.raw");
        let mut make = Command::new(python);
        make.arg(maker).arg(&plain).arg(&image).args(["--method", method]);
        make.args(["--offset", &start.to_string(), "--length", &length.to_string()]).args(more);
        match key {
            Key::Clear => drop(make.arg("--clear")),
            Key::Recovery => drop(make.args(["--recovery", RECOVERY])),
            Key::Password => drop(make.args(["--password", PASSWORD])),
            Key::Startup => drop(make.arg("--bek").arg(keys.join("startup.bek"))),
            Key::Volume => drop(make.arg("--tpm")),
        }
        let made = support::run(&mut make);
        let facts: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
        std::fs::write(keys.join("recovery.txt"), format!("{RECOVERY}\r\n")).unwrap();
        std::fs::write(keys.join("password.txt"), format!("{PASSWORD}\n")).unwrap();
        std::fs::write(keys.join("volume.txt"), facts["fvek"].as_str().unwrap()).unwrap();
        Some(Self { folder, plain, image, start, length, facts, key })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Adds the option that opens the volume.
    pub fn open<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let file = |name: &str| self.path("keys").join(name);
        match self.key {
            Key::Clear => command,
            Key::Recovery => command.arg("--bitlocker-recovery-key").arg(file("recovery.txt")),
            Key::Password => command.args(["--bitlocker-password", "env:SECRET"]).env("SECRET", PASSWORD),
            Key::Startup => command.arg("--bitlocker-startup-key").arg(file("startup.bek")),
            Key::Volume => command.args(["--bitlocker-volume-key", "-"]).stdin(File::open(file("volume.txt")).unwrap()),
        }
    }

    /// Places on the disk that must never change: header and metadata.
    pub fn untouchable(&self) -> Vec<(u64, usize)> {
        let areas = self.facts["metadata"].as_array().unwrap().iter();
        let mut out: Vec<(u64, usize)> = areas.map(|area| (self.start + area.as_u64().unwrap(), 65536)).collect();
        out.push((self.start, 8192));
        out
    }

    /// What must be in no file that winject writes, each with its name.
    pub fn secrets(&self) -> Vec<(&'static str, Vec<u8>)> {
        let text = |name: &str| self.facts[name].as_str().unwrap().to_owned();
        let mut out = Vec::new();
        for (name, digits) in [("the VMK", text("vmk")), ("the FVEK", text("fvek"))] {
            // Halves, too: the two keys of a cipher.
            let bytes = hex::decode(&digits).unwrap();
            out.extend(bytes.chunks(16).map(|part| (name, part.to_vec())));
            out.push((name, digits.into_bytes()));
        }
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        for (name, secret) in [("the recovery key", RECOVERY), ("the password", PASSWORD)] {
            out.push((name, secret.as_bytes().to_vec()));
            out.push((name, utf16(secret)));
        }
        if let Ok(bek) = std::fs::read(self.path("keys").join("startup.bek")) {
            out.push(("the startup key", bek[bek.len() - 32..].to_vec()));
        }
        out
    }
}

/// Replaces the NTFS volume by one with sectors of another size and the same files.
fn make_again(disk: &Path, start: u64, length: u64, sector: u32, folder: &Path) {
    let script = r#"
        set -e
        export PATH=$PATH:/usr/sbin:/sbin
        cd "$1"; disk=$2 start=$3 length=$4 sector=$5
        bytes=iflag=skip_bytes,count_bytes
        dd if="$disk" of=old bs=1M $bytes skip=$start count=$length conv=sparse status=none
        truncate -s $((length / 4096 * 4096)) new
        mkntfs -F -Q -q -c 4096 -s $sector -p $((start / 512)) -H 255 -S 63 new 2>/dev/null
        mkdir from to
        ntfs-3g -o ro old from; ntfs-3g new to
        cp -a from/. to/
        umount to; umount from
        while pgrep -f "^ntfs-3g new to" >/dev/null; do sleep 0.1; done
        fallocate -p -o $start -l $length "$disk"
        dd if=new of="$disk" bs=1M oflag=seek_bytes seek=$start conv=notrunc,sparse status=none
        rm -r old new from to"#;
    let (start, length, sector) = (start.to_string(), length.to_string(), sector.to_string());
    let mut bash = Command::new("bash");
    bash.args(["-c", script, "make_again"]).arg(folder).arg(disk).args([start, length, sector]);
    support::run(&mut bash);
}

pub fn read_at(path: &Path, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    File::open(path).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    bytes
}
