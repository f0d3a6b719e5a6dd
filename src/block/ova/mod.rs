//! OVA: a VM as one tar file, read without unpacking. The OVF inside tells which members are disks.

mod ovf;
mod tar;

use std::path::Path;
use std::sync::Arc;

use self::ovf::Ovf;
use self::tar::Member;
use super::mapped::{NoReferences, Window, read_exact};
use super::policy::escape;
use super::{Chain, Format, Image, RawImage, Storage, probe, qcow2, vdi, vhd, vhdx, vmdk};
use crate::error::{Error, Kind, Layer as In, Result};

/// An OVF longer than this is none.
const OVF_MAX: u64 = 4 << 20;

/// Whether the file is a tar archive whose first member is an OVF description, as the OVF specification (DSP0243, 6.4)
/// demands of an OVA.
pub(crate) fn is_ova(storage: &dyn Storage) -> bool {
    tar::first_member(storage).is_ok_and(|m| m.is_some_and(|m| is_ovf(&m.name)))
}

fn is_ovf(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".ovf")
}

/// Opens a disk of the OVA at `path`: the one called `disk`, or the only one.
pub(crate) fn open(
    storage: Arc<dyn Storage>,
    path: &Path,
    chain: &Chain<'_>,
    disk: Option<&str>,
) -> Result<Box<dyn Image>> {
    open_disk(storage, path, chain, disk).map_err(|e| e.path(path.display().to_string()))
}

fn open_disk(storage: Arc<dyn Storage>, path: &Path, chain: &Chain<'_>, disk: Option<&str>) -> Result<Box<dyn Image>> {
    let members = tar::members(storage.as_ref())?;
    let name = choose(&disks(storage.as_ref(), &members)?, disk)?;
    let member = members.iter().find(|m| m.name == name).ok_or_else(|| {
        Error::damaged(In::Block, format!("the OVA lacks its disk {}", escape(&name)))
            .hint("the file is incomplete: export it again")
    })?;
    let window: Arc<dyn Storage> = Arc::new(Window::new(Arc::clone(&storage), member.offset, member.length));
    tracing::info!(disk = %escape(&name), "reading a disk inside the OVA");
    let open = || match probe::probe(window.as_ref(), path)? {
        Format::Vmdk => vmdk::open(Arc::clone(&window), path, &NoReferences),
        Format::Vhd => vhd::open(Arc::clone(&window), path, &NoReferences),
        Format::Vhdx => vhdx::open(Arc::clone(&window), path, &NoReferences),
        Format::Vdi => vdi::open(Arc::clone(&window), path),
        Format::Qcow2 => Ok(Box::new(qcow2::Qcow2Image::open(Arc::clone(&window), path, chain)?) as Box<dyn Image>),
        Format::Raw => Ok(Box::new(RawImage::open(Arc::clone(&window), path)?) as Box<dyn Image>),
    };
    open().map_err(|e| e.path(format!("{}: {}", path.display(), escape(&name))))
}

/// The names of the disks' members, in the order of the OVF.
pub(crate) fn disk_names(storage: &dyn Storage) -> Result<Vec<String>> {
    disks(storage, &tar::members(storage)?)
}

fn disks(storage: &dyn Storage, members: &[Member]) -> Result<Vec<String>> {
    let Some(member) = members.iter().find(|m| is_ovf(&m.name)) else {
        return Err(Error::unsupported(In::Block, "a tar archive without an OVF description is no OVA")
            .hint("unpack it and give winject the disk image inside"));
    };
    if member.length > OVF_MAX {
        return Err(Error::damaged(In::Block, "the OVF description is too long")
            .at(member.offset)
            .expected_found(format_args!("at most {OVF_MAX} bytes"), member.length));
    }
    // Bounded by OVF_MAX.
    let mut text = vec![0; member.length as usize];
    read_exact(storage, member.offset, &mut text)?;
    Ovf::parse(&String::from_utf8_lossy(&text))?.disks()
}

fn choose(disks: &[String], wanted: Option<&str>) -> Result<String> {
    let listed = || disks.iter().map(|d| escape(d)).collect::<Vec<_>>().join(", ");
    match (wanted, disks) {
        (Some(name), _) => disks.iter().find(|d| *d == name).cloned().ok_or_else(|| {
            Error::new(Kind::Usage, In::Block, format!("the OVA has no disk {}", escape(name)))
                .hint(format!("its disks are: {}", listed()))
        }),
        (None, [only]) => Ok(only.clone()),
        (None, []) => {
            Err(Error::damaged(In::Block, "the OVF description names no disk file").hint("is this the export of a VM?"))
        }
        (None, _) => Err(Error::refused(In::Block, format!("the OVA has {} disks: {}", disks.len(), listed()))
            .hint("name the one to read with --disk NAME; Windows usually is on the first")),
    }
}
