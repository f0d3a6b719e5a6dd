//! Windows-shaped disks of every release, made once for all tests, and edited through files of the host.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use winject::Result;
use winject::internals::clock::FileTime;
use winject::internals::drivers::{Definitions, Policy, Selection, SignatureLevel, Sources, select};
use winject::internals::error::{Error, Layer};
use winject::internals::hive::{Hive, RegistryData};
use winject::internals::io::{VolumeRead, VolumeWrite};
use winject::internals::ntfs::{CreateOptions, OpenOptions, Volume};
use winject::internals::plan::{Applied, Plan, apply, verify};
use winject::internals::units::VolumeOffset;
use winject::internals::windows::{Guest, InjectOptions, Injection, plan_injection};

use crate::support;

pub const NOW: FileTime = FileTime(0x01DB_0000_0000_0000);

/// A release of Windows, as the judges' maker knows it.
#[derive(Debug)]
pub struct Product {
    pub name: &'static str,
    pub hives: &'static str,
    pub arch: &'static str,
    pub geometry: &'static str,
}

const fn product(name: &'static str, hives: &'static str, arch: &'static str, geometry: &'static str) -> Product {
    Product { name, hives, arch, geometry }
}

pub const PRODUCTS: [Product; 6] = [
    product("w7", "win7", "x86", "mbr"),
    product("w8.1", "win8.1", "amd64", "gpt"),
    product("w10", "win10-1909", "amd64", "gpt"),
    product("w11", "win10-1909", "amd64", "gpt"),
    product("2k22", "win10-1909", "amd64", "mbr"),
    product("2k25", "win10-1909", "amd64", "gpt"),
];

/// A raw disk and where its Windows volume is.
#[derive(Debug, Clone)]
pub struct Disk {
    pub path: PathBuf,
    pub offset: u64,
    pub length: u64,
}

/// The Windows volume in a raw file.
#[derive(Debug)]
pub struct FileVolume {
    file: File,
    disk: Disk,
}

impl FileVolume {
    fn place(&self, offset: VolumeOffset, length: usize) -> Result<u64> {
        let inside = offset.0.checked_add(length as u64).is_some_and(|end| end <= self.disk.length);
        inside.then(|| self.disk.offset + offset.0).ok_or_else(|| Error::damaged(Layer::Block, "outside").at(offset))
    }
}

impl VolumeRead for FileVolume {
    fn len(&self) -> u64 {
        self.disk.length
    }
    fn read_at(&self, offset: VolumeOffset, buf: &mut [u8]) -> Result<()> {
        let at = self.place(offset, buf.len())?;
        self.file.read_exact_at(buf, at).map_err(|e| Error::io(Layer::Host, "test disk", e))
    }
}

impl VolumeWrite for FileVolume {
    fn write_at(&mut self, offset: VolumeOffset, data: &[u8]) -> Result<()> {
        let at = self.place(offset, data.len())?;
        self.file.write_all_at(data, at).map_err(|e| Error::io(Layer::Host, "test disk", e))
    }
}

impl Disk {
    /// Opens the volume for reading and writing the raw file directly.
    pub fn volume(&self) -> Volume<FileVolume> {
        let file = File::options().read(true).write(true).open(&self.path).unwrap();
        Volume::open(FileVolume { file, disk: self.clone() }, &OpenOptions::new(NOW)).unwrap()
    }

    /// A copy in the same folder.
    pub fn copy(&self, name: &str) -> Disk {
        let path = self.path.with_file_name(format!("{}-{name}", self.path.file_name().unwrap().to_str().unwrap()));
        support::run(Command::new("cp").arg("--sparse=always").arg(&self.path).arg(&path));
        Disk { path, ..self.clone() }
    }
}

fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // kept between runs: nothing changes a guest after it is made, tests work on copies
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("windows-guests");
        std::fs::create_dir_all(&path).unwrap();
        path
    })
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|s| s.lines().any(|l| l.starts_with("Uid:\t0\t")))
}

/// A fresh guest; `None` after saying why it cannot be made here.
pub fn guest(product: &Product) -> Option<Disk> {
    static LOCK: Mutex<()> = Mutex::new(());
    support::corpus("hives/win10-1909")?;
    let maker = support::judge("make-guest.py")?;
    let hives = support::corpus(&format!("hives/{}", product.hives))?;
    if !is_root() {
        support::skip("guests are made by root only (a mount through FUSE)");
        return None;
    }
    support::program("ntfs-3g")?;
    let path = folder().join(format!("{}.raw", product.name));
    let list = path.with_extension("txt");
    let _guard = LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !list.exists() {
        let made = support::run(
            Command::new(maker)
                .arg(&path)
                .args(["--files", "300", "--size", "460M", "--product", product.name, "--arch", product.arch])
                .args(["--geometry", product.geometry])
                .arg("--hives")
                .arg(hives),
        );
        std::fs::write(&list, made.stdout).unwrap();
    }
    let text = std::fs::read_to_string(&list).unwrap();
    let words: Vec<&str> = text.lines().find(|l| l.starts_with("windows")).unwrap().split_whitespace().collect();
    Some(Disk { path, offset: words[2].parse().unwrap(), length: words[4].parse().unwrap() })
}

/// Gives a guest the hive that the guest maker leaves out: `DRIVERS`, with the packages of Windows itself for classes
/// that are not needed for booting. Its root has the values that the guest's SYSTEM has in the same place.
pub fn add_drivers_hive(disk: &Disk) {
    let mut volume = disk.volume();
    let config = "/Windows/System32/config";
    let system = volume.find(&format!("{config}/SYSTEM")).unwrap().unwrap();
    let system = Hive::open(volume.read(system, 1 << 30).unwrap()).unwrap();
    let root = system.find(system.root(), "DriverDatabase").unwrap().unwrap();
    let mut hive = Hive::create("DRIVERS", NOW);
    let database = hive.create_key(hive.root(), "DriverDatabase", NOW).unwrap();
    for value in system.values(root).unwrap() {
        if ["Version", "SchemaVersion", "Architecture"].iter().any(|name| value.name.to_string() == *name) {
            hive.set_value_named(database, &value.name, &value.data, NOW).unwrap();
        }
    }
    hive.create_key(database, "DriverFiles", NOW).unwrap();
    // two network cards and a display, as Windows has them in the box: names of our own
    for (inf, id, class) in [
        ("netone.inf", "PCI\\VEN_10EC&DEV_8139", "{4d36e972-e325-11ce-bfc1-08002be10318}"),
        ("nettwo.inf", "PCI\\VEN_8086&DEV_100E", "{4d36e972-e325-11ce-bfc1-08002be10318}"),
        ("display.inf", "PCI\\VEN_1234&DEV_1111", "{4d36e968-e325-11ce-bfc1-08002be10318}"),
    ] {
        let package = format!("{inf}_amd64_00112233445566aa");
        let mut version = vec![0, 0xff, 9, 0, 0, 0, 0, 0];
        version.extend(winject::internals::drivers::inf::Guid::parse(class).unwrap().0);
        version.extend([0; 24]);
        for (key, name, data) in [
            (format!("DriverInfFiles\\{inf}"), "", RegistryData::multi_sz(&[&package])),
            (format!("DriverInfFiles\\{inf}"), "Active", RegistryData::sz(&package)),
            (format!("DriverPackages\\{package}"), "", RegistryData::sz(inf)),
            (format!("DriverPackages\\{package}"), "Version", RegistryData::binary(version)),
            (format!("DriverPackages\\{package}"), "Provider", RegistryData::sz("Nobody")),
            (format!("DriverPackages\\{package}"), "SignerScore", RegistryData::dword(0x0D00_0003)),
            (format!("DeviceIds\\{id}"), inf, RegistryData::binary([1, 0xff, 0, 0])),
            (format!("DeviceIds\\{class}"), inf, RegistryData::none()),
        ] {
            let key = hive.create_key(database, &key, NOW).unwrap();
            hive.set_value(key, name, &data, NOW).unwrap();
        }
    }
    volume.replace_file(&format!("{config}/DRIVERS"), &hive.finish(&[]).unwrap(), &CreateOptions::default()).unwrap();
    volume.flush().unwrap();
}

/// Driver media with every driver; `None` after saying why not.
pub fn media() -> Option<PathBuf> {
    static MEDIA: OnceLock<Option<PathBuf>> = OnceLock::new();
    let made = MEDIA.get_or_init(|| {
        support::corpus("inf")?;
        let maker = support::judge("make-virtio-win.py")?;
        let (path, done) = (folder().join("media-6"), folder().join("media-6.txt"));
        if !done.exists() {
            let _ = std::fs::remove_dir_all(&path);
            let made = support::run(
                Command::new(maker).arg(&path).args(["--drivers", "viostor,vioscsi,NetKVM,Balloon,vioserial,viorng"]),
            );
            std::fs::write(done, made.stdout).unwrap();
        }
        Some(path)
    });
    made.clone()
}

/// The packages for a guest. The stand-in media carry noise in place of signatures.
pub fn selection(guest: &Guest, media: &Path) -> Selection {
    let sources = Sources::open(&[media]).unwrap();
    let policy = Policy { signature: SignatureLevel::Warn };
    select(&sources, &guest.target(), &Definitions::builtin(), &policy).unwrap()
}

/// Injects straight into the raw file and verifies; answers with the plan.
pub fn inject(disk: &Disk, media: &Path, options: &InjectOptions) -> Injection {
    let mut volume = disk.volume();
    let guest = Guest::inspect(&volume).unwrap().unwrap();
    let chosen = selection(&guest, media);
    let mut injection = plan_injection(&volume, &guest, &chosen, options).unwrap();
    let hives = std::mem::take(&mut injection.hives);
    let applied = apply(&injection.plan, &mut volume, hives, NOW).unwrap();
    volume.flush().unwrap();
    let device = volume.into_device();
    check(&device, &injection.plan);
    verify(&device, &injection.plan, &applied, false).unwrap();
    injection
}

/// Knows nothing of what was written: the hives are checked as a whole.
fn check(device: &FileVolume, plan: &Plan) {
    verify(device, plan, &Applied::default(), false).unwrap();
}
