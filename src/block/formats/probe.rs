//! Recognising a disk image's format by its content.

use std::path::Path;

use super::{qcow2, vdi, vhd, vhdx, vmdk};
use crate::block::{Format, Storage, StorageExt};
use crate::error::{Error, ErrorCode, Layer, Result};

/// Bytes that are read of a file's start: every magic number there is inside, that of ISO 9660 included.
const HEAD: usize = 36 * 1024;
const SECTOR: u64 = 512;

/// "CD001" of an ISO 9660 volume descriptor: in sector 16 of 2048 bytes, at byte 1 (ECMA-119, 8.1).
const ISO_SIGNATURE_OFFSET: usize = 16 * 2048 + 1;

/// Recognises the format of the file in `storage`, which is at `path`. A file without any magic number is raw.
///
/// # Errors
/// [`Kind::Unsupported`](crate::Kind::Unsupported), with its name, for what is certainly not a disk image that winject reads;
/// [`Kind::Io`](crate::Kind::Io) when the file cannot be read.
pub fn probe(storage: &dyn Storage, path: &Path) -> Result<Format> {
    let io = |e| Error::io(Layer::Block, "cannot read the file", e).path(path.display().to_string());
    let length = storage.len().map_err(io)?;
    let mut head = vec![0; HEAD];
    let filled = storage.read_at(0, &mut head).map_err(io)?;
    head.truncate(filled);
    let mut tail = [0; SECTOR as usize];
    storage.read_or_zeros_at(length.saturating_sub(SECTOR), &mut tail).map_err(io)?;
    let format = match classify(&head, &tail, length) {
        Ok(format) => format,
        Err(what) => {
            return Err(Error::unsupported(Layer::Block, what.name)
                .with_code(ErrorCode::NotADiskImage)
                .path(path.display().to_string())
                .hint(what.hint));
        }
    };
    Ok(format)
}

/// A file that winject does not read as a disk, and what to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Foreign {
    name: &'static str,
    hint: &'static str,
}

const UNPACK: &str = "unpack it first and give winject the disk image inside";
const CONVERT: &str = "convert it with qemu-img convert -O qcow2 first";

/// Magic numbers of files that are named instead of taken for raw disks: offset, bytes, name, hint.
const FOREIGN: &[(usize, &[u8], &str, &str)] = &[
    (0, b"QFI\xFB\x00\x00\x00\x01", "a qcow image of version 1", CONVERT),
    (0, b"QED\0", "a QED image", CONVERT),
    (0, b"\x1F\x8B", "a gzip file", UNPACK),
    (0, b"\xFD7zXZ\0", "an xz file", UNPACK),
    (0, b"\x28\xB5\x2F\xFD", "a zstd file", UNPACK),
    (0, b"BZh", "a bzip2 file", UNPACK),
    (0, b"7z\xBC\xAF\x27\x1C", "a 7-Zip file", UNPACK),
    (0, b"PK\x03\x04", "a zip file", UNPACK),
    (0, b"LUKS\xBA\xBE", "a LUKS-encrypted disk", "open it with cryptsetup and give winject the opened device"),
    (0, b"WithoutFreeSpace", "a Parallels image", CONVERT),
    (0, b"WithouFreSpacExt", "a Parallels image", CONVERT),
    (0, b"Bochs Virtual HD Image", "a Bochs image", CONVERT),
    (0, b"MSWIM\0\0\0", "a Windows image archive (WIM)", "winject needs the disk on which Windows is installed"),
    (257, b"ustar", "a tar archive (perhaps an OVA)", UNPACK),
];

/// Whether the bytes at `offset` of `head` are `magic`.
fn has(head: &[u8], offset: usize, magic: &[u8]) -> bool {
    head.get(offset..).is_some_and(|rest| rest.starts_with(magic))
}

/// The format of a file by its first bytes, its last 512 and its length.
fn classify(head: &[u8], tail: &[u8], length: u64) -> std::result::Result<Format, Foreign> {
    if length == 0 {
        return Err(Foreign { name: "not a disk image: the file is empty", hint: "give the path of a disk image" });
    }
    let is_qcow2 = has(head, 0, &qcow2::MAGIC);
    let is_version = |version: u32| has(head, qcow2::MAGIC.len(), &version.to_be_bytes());
    if is_qcow2 && (is_version(2) || is_version(3)) {
        return Ok(Format::Qcow2);
    }
    let is_extent = has(head, 0, vmdk::SPARSE_MAGIC)
        || has(head, 0, vmdk::COWD_MAGIC)
        || has(head, 0, &vmdk::SESPARSE_MAGIC.to_le_bytes());
    if is_extent || is_vmdk_descriptor(head) {
        return Ok(Format::Vmdk);
    }
    if has(head, 0, vhdx::FILE_SIGNATURE) {
        return Ok(Format::Vhdx);
    }
    // A fixed VHD is raw data plus a footer, in the last 512 bytes, or 511 as old Virtual PC wrote it.
    let footer_511 = length % SECTOR == SECTOR - 1 && has(tail, 1, vhd::COOKIE);
    if has(head, 0, vhd::COOKIE) || has(tail, 0, vhd::COOKIE) || footer_511 {
        return Ok(Format::Vhd);
    }
    if has(head, vdi::SIGNATURE_OFFSET, &vdi::SIGNATURE.to_le_bytes()) {
        return Ok(Format::Vdi);
    }
    if has(tail, 0, b"koly") {
        return Err(Foreign { name: "an Apple disk image (DMG)", hint: CONVERT });
    }
    for (offset, magic, name, hint) in FOREIGN {
        if has(head, *offset, magic) {
            return Err(Foreign { name, hint });
        }
    }
    if is_qcow2 {
        return Err(Foreign { name: "a qcow2 image of an unknown version", hint: CONVERT });
    }
    // A hybrid ISO has a boot record too, but no guest's disk has a volume descriptor there.
    if has(head, ISO_SIGNATURE_OFFSET, b"CD001") {
        return Err(Foreign { name: "an ISO 9660 image", hint: "winject edits disks; give an ISO with --drivers" });
    }
    if length < SECTOR {
        return Err(Foreign { name: "not a disk image: shorter than a sector", hint: "give the path of a disk image" });
    }
    Ok(Format::Raw)
}

/// A VMDK descriptor is text; comments, blank lines and a byte order mark may come first.
fn is_vmdk_descriptor(head: &[u8]) -> bool {
    const LINES_MAX: usize = 16;
    let head = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head);
    let text = head.get(..head.len().min(1024)).unwrap_or_default();
    for line in text.split(|b| *b == b'\n').take(LINES_MAX) {
        let line = line.trim_ascii();
        if line.to_ascii_lowercase().starts_with(b"# disk descriptorfile") {
            return true;
        }
        if line.to_ascii_lowercase().starts_with(b"version=") {
            return true;
        }
        if !line.is_empty() && !line.starts_with(b"#") {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(offset: usize, magic: &[u8]) -> std::result::Result<Format, Foreign> {
        let mut head = vec![0; HEAD];
        head[offset..offset + magic.len()].copy_from_slice(magic);
        classify(&head, &[0; 512], 1 << 20)
    }

    #[test]
    fn containers_are_recognised_by_content() {
        assert_eq!(of(0, b"QFI\xFB\0\0\0\x02"), Ok(Format::Qcow2));
        assert_eq!(of(0, b"QFI\xFB\0\0\0\x03"), Ok(Format::Qcow2));
        assert_eq!(of(0, b"KDMV"), Ok(Format::Vmdk));
        assert_eq!(of(0, b"COWD"), Ok(Format::Vmdk));
        assert_eq!(of(0, b"# Disk DescriptorFile\nversion=1\n"), Ok(Format::Vmdk));
        assert_eq!(of(0, b"\n# comment\r\n# Disk DescriptorFile\n"), Ok(Format::Vmdk));
        assert_eq!(of(0, b"vhdxfile"), Ok(Format::Vhdx));
        assert_eq!(of(0, b"conectix"), Ok(Format::Vhd));
        assert_eq!(of(64, &[0x7F, 0x10, 0xDA, 0xBE]), Ok(Format::Vdi));
        assert_eq!(of(510, &[0x55, 0xAA]), Ok(Format::Raw));
        let mut tail = [0; 512];
        tail[..8].copy_from_slice(b"conectix");
        assert_eq!(classify(&[0; HEAD], &tail, 1 << 20), Ok(Format::Vhd));
        let mut tail = [0; 512];
        tail[1..9].copy_from_slice(b"conectix");
        assert_eq!(classify(&[0; HEAD], &tail, (1 << 20) + 511), Ok(Format::Vhd));
        assert_eq!(classify(&[0; HEAD], &tail, 1 << 20), Ok(Format::Raw));
    }

    #[test]
    fn other_files_are_refused_by_name() {
        for (offset, magic, name, _) in FOREIGN {
            assert_eq!(of(*offset, magic).unwrap_err().name, *name);
        }
        assert!(of(ISO_SIGNATURE_OFFSET, b"CD001").is_err());
        assert!(of(0, b"QFI\xFB\0\0\0\x04").is_err());
        assert!(classify(&[], &[0; 512], 0).is_err());
        let mut tail = [0; 512];
        tail[..4].copy_from_slice(b"koly");
        assert!(classify(&[0; HEAD], &tail, 1 << 20).is_err());
    }
}
