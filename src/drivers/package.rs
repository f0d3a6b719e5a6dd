//! A driver package chosen for a guest, and the result of a choice.

use std::sync::Arc;

use serde::Serialize;
use sha2::Digest;

use super::definitions::Category;
use super::inf::{Facts, Guid};
use super::source::Source;
use super::trust::SignatureReport;
use crate::error::{Error, Kind, Layer, Result};
use crate::hex;

/// The largest file that stays loaded from the choice until it is used, in bytes: nearly all files of drivers.
pub(super) const CACHED_FILE_MAX: u64 = 1 << 20;

/// One file of a package. The content of a large one stays on the media until [`read`](Self::read).
#[derive(Debug, Clone, Serialize)]
pub struct PackageFile {
    /// Name relative to the package's folder, with `/`.
    pub name: String,
    /// Size in bytes, as the media lists it.
    pub size: u64,
    /// SHA-256 of the content.
    #[serde(serialize_with = "as_hex")]
    pub sha256: [u8; 32],
    #[serde(skip)]
    pub(crate) source: Arc<Source>,
    #[serde(skip)]
    pub(crate) path: String,
    /// The content as it was read when the file was chosen, if the file is small.
    #[serde(skip)]
    pub(crate) content: Option<Arc<Vec<u8>>>,
}

impl PackageFile {
    /// The content.
    ///
    /// # Errors
    /// When the media cannot be read, or the content has changed since the file was chosen.
    pub fn read(&self) -> Result<Arc<Vec<u8>>> {
        if let Some(content) = &self.content {
            return Ok(Arc::clone(content));
        }
        let data = self.source.read(&self.path)?;
        if sha2::Sha256::digest(&data).as_slice() != self.sha256 {
            return Err(self.changed());
        }
        Ok(Arc::new(data))
    }

    /// Fills `part` with the content from `offset` on. The caller compares the hash of all parts.
    ///
    /// # Errors
    /// When the media cannot be read, or the file has become shorter.
    pub(crate) fn read_at(&self, offset: u64, part: &mut [u8]) -> Result<()> {
        let file = self.source.find(&self.path).ok_or_else(|| self.changed())?;
        let data = self.source.read_part(file, offset, part.len() as u64)?;
        if data.len() != part.len() {
            return Err(self.changed());
        }
        part.copy_from_slice(&data);
        Ok(())
    }

    /// The error for content that has changed since the file was chosen.
    pub(crate) fn changed(&self) -> Error {
        Error::new(Kind::Drivers, Layer::Drivers, "the file has changed since it was chosen")
            .path(self.source.show(&self.path))
            .hint("leave the file and the driver media alone while winject runs, and start again")
    }

    /// Whether this is a file of the host that the user named, not one of driver media.
    pub(crate) fn is_of_host(&self) -> bool {
        self.source.is_file()
    }

    /// The file on the host, or in the image of the media, as messages and reports show it.
    #[must_use]
    pub fn shown(&self) -> String {
        self.source.show(&self.path)
    }

    /// Path below the source, for reports.
    #[must_use]
    pub fn media_path(&self) -> &str {
        &self.path
    }
}

fn as_hex<S: serde::Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes))
}

/// A driver file that is put into `System32\drivers` and registered as a service offline: storage drivers, and those
/// that a definition gives a `start_type`.
#[derive(Debug, Clone, Serialize)]
pub struct BootDriver {
    /// Service name as the INF writes it.
    pub service: String,
    /// File name for `System32\drivers`: `viostor.sys`.
    pub file_name: String,
    /// Content of the file, checked: PE, CPU, native subsystem, not truncated, signature as the policy asks.
    #[serde(skip)]
    pub data: Arc<Vec<u8>>,
    /// SHA-256 of the file's content.
    #[serde(skip)]
    pub sha256: [u8; 32],
    /// `Type` of the service.
    pub kind: u32,
    /// `Start` of the service: 0 for storage.
    pub start: u32,
    /// `ErrorControl` of the service.
    pub error_control: u32,
    /// `Group` of the service.
    pub group: Option<String>,
    /// Class of the devices; the INF's.
    pub class_guid: Guid,
    /// Hardware ids, as the INF has them (`PCI\VEN_…`, upper case), then those that a definition adds.
    pub hardware_ids: Vec<String>,
    /// Compatible ids of the INF.
    pub compatible_ids: Vec<String>,
    /// Whether `CriticalDeviceDatabase` entries are wanted.
    pub critical_device_database: bool,
    /// File version of the version resource, if there is one.
    pub file_version: Option<[u16; 4]>,
    /// Embedded signature of the file, checked.
    pub signature: SignatureReport,
}

/// One INF with its files, chosen for a guest.
#[derive(Debug, Clone, Serialize)]
pub struct Package {
    /// Folder below `C:\hyper2kvm\drivers\virtio`; unique in a [`Selection`], in lower case.
    pub stage_name: String,
    /// The driver's folder on the media: `viostor`, `NetKVM`.
    pub driver: String,
    /// The package's folder on the media, with the media's own path before it.
    pub source_path: String,
    /// The folder that stands for the Windows release (`w10`, `2k22`), empty where the layout has none.
    pub bucket: String,
    /// Name of the INF: `viostor.inf`. Empty for a driver that a definition describes without an INF.
    pub inf_name: String,
    /// The facts of the INF for this guest.
    pub inf: Facts,
    /// All files that are staged, the INF among them.
    pub files: Vec<PackageFile>,
    /// Kind of device, by the definition or the INF's class.
    pub category: Category,
    /// Set if the driver is registered offline.
    pub boot: Option<BootDriver>,
    /// Signature of the catalogue, checked against the package's files.
    pub signature: SignatureReport,
    /// Why this package and not another, in a sentence.
    pub reason: String,
    /// SHA-1 of the INF, for the number in a driver-store name.
    #[serde(skip)]
    pub inf_sha1: [u8; 20],
}

impl Package {
    /// Names of the files that its INF copies in this guest, and that it lacks: Windows does not install such a package.
    #[must_use]
    pub fn missing_files(&self) -> Vec<&str> {
        let has = |name: &str| {
            let mut names = self.files.iter().filter_map(|file| file.name.rsplit('/').next());
            names.any(|own| own.eq_ignore_ascii_case(name))
        };
        self.inf.copied_files().into_iter().filter(|name| !has(name)).collect()
    }
}

/// A package or folder of the media that is not used, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Skipped {
    /// Path on the media.
    pub name: String,
    /// Why it is not used, as a clause.
    pub reason: String,
}

/// The packages that [`select`](super::select()) chose for a guest.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Selection {
    /// Packages to stage: storage first, then network, then the others by name.
    pub packages: Vec<Package>,
    /// Packages and folders of the media that are not used.
    pub skipped: Vec<Skipped>,
    /// Oddities of media, INFs, signatures and definitions, for the user.
    pub warnings: Vec<String>,
    /// The folders tried for the guest's release, best first.
    pub buckets: Vec<String>,
    /// Why none of the disk controllers on the media was chosen, although other packages were.
    #[serde(skip)]
    pub no_storage: Option<String>,
    /// The installer of the QEMU guest agent, if it is wanted.
    #[serde(skip)]
    pub guest_agent: Option<PackageFile>,
}

impl Selection {
    /// The packages whose driver is registered offline.
    pub fn boot_packages(&self) -> impl Iterator<Item = (&Package, &BootDriver)> {
        self.packages.iter().filter_map(|p| p.boot.as_ref().map(|b| (p, b)))
    }
}
