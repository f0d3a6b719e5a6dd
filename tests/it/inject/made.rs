//! Guests and driver media that the judges' makers make. Kept in the target folder, because making takes seconds.

use crate::support;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Makers run one at a time: two tests may want the same guest.
static MAKING: Mutex<()> = Mutex::new(());

/// A guest of the maker.
#[derive(Debug, Clone)]
pub struct Guest {
    pub product: &'static str,
    pub geometry: &'static str,
    /// Bytes in a cluster of the Windows volume.
    pub cluster: u32,
    pub raw: PathBuf,
    /// Of the Windows volume.
    pub offset: u64,
}

/// What the makers call the Windows releases.
pub const PRODUCTS: [&str; 6] = ["w7", "w8.1", "w10", "w11", "2k22", "2k25"];

impl Guest {
    /// Makes it, or takes the one made before; `None` after saying why that is not possible.
    pub fn make(product: &'static str, geometry: &'static str) -> Option<Self> {
        Self::with_clusters(product, geometry, 4096)
    }

    /// The same with clusters of another size.
    pub fn with_clusters(product: &'static str, geometry: &'static str, cluster: u32) -> Option<Self> {
        support::corpus("hives/win10-1909")?;
        let maker = support::judge("make-guest.py")?;
        if !is_root() {
            support::skip("make-guest.py mounts the volume that it makes, and needs root for it");
            return None;
        }
        let (hives, arch) = match product {
            "w7" => ("hives/win7", "x86"),
            "w8.1" => ("hives/win8.1", "amd64"),
            _ => ("hives/win10-1909", "amd64"),
        };
        let hives = support::corpus(hives)?;
        let raw = cache(&maker, &format!("{product}-{geometry}-{cluster}.raw"));
        let offset_file = raw.with_extension("offset");
        let _one = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !offset_file.exists() {
            let mut make = Command::new(&maker);
            make.arg(&raw).args(["--files", "300", "--size", "3G", "--geometry", geometry, "--product", product]);
            let made =
                support::run(make.args(["--arch", arch, "--cluster", &cluster.to_string(), "--hives"]).arg(hives));
            let text = String::from_utf8(made.stdout).unwrap();
            let line = text.lines().find(|line| line.starts_with("windows ")).unwrap();
            std::fs::write(&offset_file, line.split_whitespace().nth(2).unwrap()).unwrap();
        }
        let offset = std::fs::read_to_string(&offset_file).unwrap().parse().unwrap();
        Some(Self { product, geometry, cluster, raw, offset })
    }

    /// A private copy, raw or qcow2.
    pub fn copy(&self, folder: &Path, format: &str) -> Option<PathBuf> {
        let out = folder.join(format!("{}-{}.{format}", self.product, self.geometry));
        if format == "raw" {
            super::copy(&self.raw, &out);
        } else {
            let qemu_img = support::program("qemu-img")?;
            let mut convert = Command::new(qemu_img);
            support::run(convert.args(["convert", "-f", "raw", "-O", format]).arg(&self.raw).arg(&out));
        }
        Some(out)
    }
}

/// The stand-in for virtio-win: real INF texts, signatures that are noise.
pub fn media() -> Option<PathBuf> {
    support::corpus("inf")?;
    let maker = support::judge("make-virtio-win.py")?;
    let folder = cache(&maker, "virtio-win");
    let _one = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !folder.exists() {
        let making = folder.with_extension("making");
        let _ = std::fs::remove_dir_all(&making);
        support::run(Command::new(&maker).arg(&making));
        std::fs::rename(&making, &folder).unwrap();
    }
    Some(folder)
}

/// A place for what `maker` makes; another one when the maker changes.
fn cache(maker: &Path, name: &str) -> PathBuf {
    let hash = Sha256::digest(std::fs::read(maker).unwrap());
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("made-{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2]));
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
    })
}
