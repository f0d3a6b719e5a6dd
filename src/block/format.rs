//! The names of the container formats.

use std::path::Path;

/// Container format of a disk image. winject reads all of them, and writes [`Raw`](Self::Raw) and
/// [`Qcow2`](Self::Qcow2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// The disk's bytes as they are, in a file or a block device.
    Raw,
    /// QEMU's qcow2, versions 2 and 3.
    Qcow2,
    /// VMware's disks: monolithic, split, on ESX, or stream-optimised as in an OVA.
    Vmdk,
    /// VHD of Virtual PC and older Hyper-V ("vpc" in qemu-img's terms).
    Vhd,
    /// Hyper-V since Windows Server 2012.
    Vhdx,
    /// VirtualBox's own format.
    Vdi,
}

impl Format {
    /// Name of the format in qemu-img's terms.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vmdk => "vmdk",
            Self::Vhd => "vpc",
            Self::Vhdx => "vhdx",
            Self::Vdi => "vdi",
        }
    }

    /// The format that the ending of a file name stands for; `None` for other endings.
    #[must_use]
    pub fn from_extension(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "img" => Some(Self::Raw),
            ending => Self::from_name(ending),
        }
    }

    /// The format of this name, in qemu-img's terms or as an ending; `None` for an unknown one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "raw" => Self::Raw,
            "qcow2" => Self::Qcow2,
            "vmdk" => Self::Vmdk,
            "vpc" | "vhd" => Self::Vhd,
            "vhdx" => Self::Vhdx,
            "vdi" => Self::Vdi,
            _ => return None,
        })
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
