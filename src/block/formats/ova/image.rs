//! Choosing and opening a disk inside an OVA.

use std::path::Path;
use std::sync::Arc;

use super::ovf::Ovf;
use super::tar::{self, Member};
use crate::block::formats::extent_map::{NoReferences, Window, read_exact};
use crate::block::formats::{probe, qcow2, vdi, vhd, vhdx, vmdk};
use crate::block::{Chain, Format, Image, RawImage, Storage};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::escape::{escape, shell_argument, shell_word};

/// Largest OVF description accepted, in bytes.
const OVF_MAX: u64 = 4 << 20;

/// Whether the file is a tar archive with an OVF description. The specification (DSP0243, 6.4) wants it to be the first
/// member; archives that were packed again by hand have it elsewhere.
pub(crate) fn is_ova(storage: &dyn Storage) -> bool {
    tar::has_member(storage, is_ovf).unwrap_or(false)
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
    let (folder, names) = disks(storage.as_ref(), &members)?;
    let name = choose(&names, disk, path)?;
    let member = find_member(&members, &folder, &name).ok_or_else(|| {
        Error::damaged(Layer::Block, format!("the OVA lacks its disk {}", escape(&name)))
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
    disks(storage, &tar::members(storage)?).map(|(_, names)| names)
}

/// The member that the reference `name` of an OVF in `folder` means: a relative URI (RFC 3986), so with `%20` and `./`.
fn find_member<'a>(members: &'a [Member], folder: &str, name: &str) -> Option<&'a Member> {
    let find = |path: String| {
        let path = normalize(&path)?;
        members.iter().find(|member| normalize(&member.name).as_ref() == Some(&path))
    };
    // Names with a percent sign that was not encoded, and names from the root of the archive, are tried after that.
    let decoded = percent_decode(name);
    let at_folder = |name: &str| format!("{folder}/{name}");
    find(at_folder(&decoded))
        .or_else(|| find(at_folder(name)))
        .or_else(|| find(decoded))
        .or_else(|| find(name.to_owned()))
}

/// A path of the archive without `.`, `..` and empty components; `None` if it leads out.
fn normalize(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Decodes percent encoding (RFC 3986, 2.1); a percent sign without two digits stays.
fn percent_decode(text: &str) -> String {
    let digit = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The folder of the OVF description in the archive, and the names of the disks in it.
fn disks(storage: &dyn Storage, members: &[Member]) -> Result<(String, Vec<String>)> {
    let Some(member) = members.iter().find(|m| is_ovf(&m.name)) else {
        return Err(Error::unsupported(Layer::Block, "not an OVA: a tar archive without an OVF description")
            .hint("unpack it and give winject the disk image inside"));
    };
    if member.length > OVF_MAX {
        return Err(Error::damaged(Layer::Block, "the OVF description is too long")
            .at(member.offset)
            .expected_found(format_args!("at most {OVF_MAX} bytes"), member.length));
    }
    // Bounded by OVF_MAX.
    let mut text = vec![0; member.length as usize];
    read_exact(storage, member.offset, &mut text)?;
    let folder = member.name.rsplit_once('/').map_or("", |(folder, _)| folder);
    Ok((folder.to_owned(), Ovf::parse(&String::from_utf8_lossy(&text))?.disks()?))
}

/// Whether the name that the user gave is the same file as this reference.
fn is_same_name(reference: &str, name: &str) -> bool {
    let plain = normalize(&percent_decode(reference));
    plain.is_some() && (plain == normalize(name) || plain == normalize(&percent_decode(name)))
}

/// The option that chooses the disk that Windows usually is on.
fn choice(disks: &[String]) -> String {
    let first = disks.first().and_then(|name| shell_word(name)).unwrap_or_else(|| "NAME".to_owned());
    format!("--disk {first} reads the first, which Windows usually is on")
}

fn choose(disks: &[String], wanted: Option<&str>, path: &Path) -> Result<String> {
    let listed = || disks.iter().map(|d| escape(d)).collect::<Vec<_>>().join(", ");
    match (wanted, disks) {
        (Some(name), _) => disks.iter().find(|d| *d == name || is_same_name(d, name)).cloned().ok_or_else(|| {
            Error::new(Kind::Usage, Layer::Block, format!("the OVA has no disk {}", escape(name))).hint(format!(
                "its disks are: {}; {}",
                listed(),
                choice(disks)
            ))
        }),
        (None, [only]) => Ok(only.clone()),
        (None, []) => {
            Err(Error::damaged(Layer::Block, "the OVF description names no disk file")
                .hint("is this the export of a VM?"))
        }
        (None, _) => Err(Error::refused(Layer::Block, format!("the OVA has {} disks: {}", disks.len(), listed()))
            .with_code(ErrorCode::SeveralDisks)
            .hint(format!(
                "{}; if Windows needs several of them, unpack the OVA and name its disks: tar -xf {}",
                choice(disks),
                shell_argument(path, "OVA")
            ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::HostOffset;

    #[test]
    fn references_are_relative_uris() {
        let members: Vec<Member> = ["vm/a b.vmdk", "vm/x%20y.vmdk", "c.vmdk", "vm/sub/d.vmdk"]
            .iter()
            .map(|name| Member { name: (*name).to_owned(), offset: HostOffset(0), length: 0 })
            .collect();
        let find = |name: &str| find_member(&members, "vm", name).map(|member| member.name.as_str());
        assert_eq!(find("a%20b.vmdk"), Some("vm/a b.vmdk"));
        assert_eq!(find("./a b.vmdk"), Some("vm/a b.vmdk"));
        assert_eq!(find("x%20y.vmdk"), Some("vm/x%20y.vmdk"), "a name that only looks encoded");
        assert_eq!(find("vm/a%20b.vmdk"), Some("vm/a b.vmdk"), "from the root of the archive");
        assert_eq!(find("../c.vmdk"), Some("c.vmdk"));
        assert_eq!(find("sub/.././sub//d.vmdk"), Some("vm/sub/d.vmdk"));
        assert_eq!(find("../../c.vmdk"), None);
        assert_eq!(find("none.vmdk"), None);
        assert_eq!(percent_decode("100%.vmdk%4"), "100%.vmdk%4");
        assert_eq!(percent_decode("%C3%A4"), "\u{e4}");
    }
}
