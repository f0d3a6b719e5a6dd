//! The machine, whatever it is printed as.

use std::path::{Path, PathBuf};

use crate::block::Format;
use crate::drivers::Arch;
use crate::error::{Error, Kind, Layer, Result};
use crate::escape::escape;
use crate::job::report::{DiskFile, Recommendation, Report};
use crate::job::request::{Destination, InjectRequest};

/// Memory of the machine, in MiB: the disk does not say how much it had.
pub(super) const MEMORY_MIB: u32 = 4096;
/// Processors of the machine: the disk does not say how many it had.
pub(super) const PROCESSORS: u32 = 2;
/// Most network cards that are described.
const NICS_MAX: usize = 8;
/// Longest name of a machine, in characters; Kubernetes adds to it, and allows 63.
const NAME_MAX: usize = 40;

/// What a machine is described for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineKind {
    /// A libvirt domain (XML), for `virsh define`.
    Libvirt,
    /// A command line of QEMU.
    Qemu,
    /// A `VirtualMachine` of KubeVirt (YAML), for `kubectl apply`.
    KubeVirt,
    /// Commands of Proxmox VE (`qm`).
    Proxmox,
}

impl MachineKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Libvirt, Self::Qemu, Self::KubeVirt, Self::Proxmox];

    /// Its name in texts.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Libvirt => "libvirt",
            Self::Qemu => "QEMU",
            Self::KubeVirt => "KubeVirt",
            Self::Proxmox => "Proxmox VE",
        }
    }
}

/// A machine that fits a guest.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Name of the machine, from that of the disk: lower-case letters, digits and hyphens.
    pub name: String,
    /// The guest: `Windows 10 Professional 22H2`.
    pub title: String,
    /// The guest's id in libosinfo's database: `win10`.
    pub osinfo: String,
    /// CPU of the guest.
    pub arch: Arch,
    /// Major version of the guest's kernel: 5 is Windows XP.
    pub major: u32,
    /// Machine, firmware, buses, devices.
    pub hardware: Recommendation,
    /// The disks, that with Windows first.
    pub disks: Vec<MachineDisk>,
    /// The network cards.
    pub nics: Vec<Nic>,
    /// What to know before the first start.
    pub notes: Vec<String>,
}

/// A disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineDisk {
    /// Absolute path of its file on the host, as text.
    pub path: String,
    /// Container format.
    pub format: Format,
    /// Place in the boot order, from 1.
    pub boot_order: usize,
}

/// A network card of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Its MAC address, if the guest had one.
    pub mac: Option<String>,
}

impl Machine {
    /// The machine for the guest of a report.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] when the report does not recommend a machine; [`Kind::Usage`] when the path of a disk cannot
    /// be written in a description.
    pub fn of_report(report: &Report) -> Result<Self> {
        let (Some(hardware), Some(windows)) = (&report.recommendation, &report.virtio.windows) else {
            let what = "cannot describe the machine: the run did not get as far as to know it";
            return Err(Error::new(Kind::Unsupported, Layer::Job, what)
                .hint("winject check IMAGE --machine KIND describes it for the guest as it is"));
        };
        let parts = [Some(windows.product.clone()), windows.edition.clone(), windows.display_version.clone()];
        let title: Vec<String> = parts.into_iter().flatten().collect();
        let kept = report.virtio.network.kept.iter().map(|kept| kept.mac.clone());
        let mut macs: Vec<String> = kept.collect();
        if macs.is_empty() {
            macs.clone_from(&hardware.mac_addresses);
        }
        macs.truncate(NICS_MAX);
        let mut nics: Vec<Nic> = macs.into_iter().map(|mac| Nic { mac: Some(mac) }).collect();
        if nics.is_empty() {
            nics.push(Nic { mac: None });
        }
        let disks = disks(report)?;
        let mut notes = vec![format!(
            "memory ({MEMORY_MIB} MiB) and processors ({PROCESSORS}) are a guess: no disk says what the machine had"
        )];
        notes.extend(hardware.notes.iter().cloned());
        if hardware.logical_block_size.is_some() && !is_virtio(hardware.bus) {
            notes.push(format!("a disk on {} cannot show blocks of another size than 512 bytes", hardware.bus));
        }
        Ok(Self {
            name: disks.first().map_or_else(|| name_of(Path::new("")), |disk| name_of(Path::new(&disk.path))),
            title: title.join(" "),
            osinfo: windows.osinfo_id.clone(),
            arch: windows.arch,
            major: windows.major,
            hardware: hardware.clone(),
            disks,
            nics,
            notes,
        })
    }

    /// Refuses a request with a path that a description could not hold, before anything is done.
    ///
    /// # Errors
    /// [`Kind::Usage`].
    pub fn check_paths(request: &InjectRequest) -> Result<()> {
        let output = match &request.destination {
            Destination::Overlay(path) | Destination::Standalone { path, .. } => Some(path),
            Destination::InPlace | Destination::DryRun => None,
        };
        // The output takes the place of the disk with Windows; which of several that is, the job finds out.
        let is_described = output.is_none() || !request.other_disks.is_empty();
        let disks = request.all_disks().filter(|_| is_described);
        disks.chain(output).try_for_each(|path| path_text(path).map(drop))
    }

    /// Whether it has this device.
    pub(super) fn has(&self, device: &str) -> bool {
        self.hardware.extra_devices.contains(&device)
    }

    pub(super) fn is_uefi(&self) -> bool {
        self.hardware.firmware == "uefi" || self.arch == Arch::Arm64
    }

    pub(super) fn is_local_time(&self) -> bool {
        self.hardware.clock == "localtime"
    }

    /// Whether Windows knows the interfaces of Hyper-V, which make it faster on any hypervisor (Vista and later).
    pub(super) fn knows_hyperv(&self) -> bool {
        self.major >= 6 && self.arch != Arch::Arm64
    }

    /// Bytes of a block, if the disks have to show another size than 512.
    pub(super) fn block_size(&self) -> Option<u32> {
        self.hardware.logical_block_size.filter(|_| is_virtio(self.hardware.bus))
    }
}

fn is_virtio(bus: &str) -> bool {
    bus.starts_with("virtio-")
}

/// The disks of a report: the output in place of the image, if there is one.
fn disks(report: &Report) -> Result<Vec<MachineDisk>> {
    let start = report.boot.first().and_then(|answer| answer.start_disk.as_deref());
    let mut after = 1 + usize::from(start.is_some());
    let disk = |(index, file): (usize, &DiskFile)| {
        let output =
            report.run.output.as_deref().filter(|_| index == 0 && report.error.is_none() && !report.run.dry_run);
        let path = output.map_or_else(|| file.path.clone(), PathBuf::from);
        let boot_order = if start == Some(file.name.as_str()) {
            1
        } else {
            after += 1;
            after - 1
        };
        let format = report.run.output_format.filter(|_| output.is_some()).unwrap_or(file.format);
        Ok(MachineDisk { path: path_text(&path)?, format, boot_order })
    };
    report.disk_files.iter().enumerate().map(disk).collect()
}

/// An absolute path as a description can hold it.
fn path_text(path: &Path) -> Result<String> {
    let cannot = |why: &str| {
        Error::new(Kind::Usage, Layer::Job, format!("cannot describe the machine: the disk's path {why}"))
            .path(path.display().to_string())
            .hint("rename the file or its folder, and run again")
    };
    let absolute = std::path::absolute(path).map_err(|error| cannot("cannot be made absolute").source_error(error))?;
    let text = absolute.to_str().ok_or_else(|| cannot("is not text (UTF-8)"))?;
    if escape(text) == text { Ok(text.to_owned()) } else { Err(cannot("holds control characters")) }
}

/// A name for the machine, from that of a disk.
fn name_of(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase()).unwrap_or_default();
    let plain: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(NAME_MAX).collect();
    let words: Vec<&str> = plain.split('-').filter(|word| !word.is_empty()).collect();
    if words.is_empty() { "windows".to_owned() } else { words.join("-") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_suit_every_hypervisor() {
        for (path, name) in
            [("/vm/Win 10 (2).qcow2", "win-10-2"), ("/vm/-_.raw", "windows"), ("/vm/Büro.img", "b-ro"), ("", "windows")]
        {
            assert_eq!(name_of(Path::new(path)), name);
        }
        assert!(name_of(Path::new(&"a".repeat(200))).len() <= NAME_MAX);
    }
}
