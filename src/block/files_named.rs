//! Which files and exports an image names, whether or not they may be opened: an edit of one of them would change what the image holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Locking;
use super::chain::OpenOptions;
use super::format::Format;
use super::named::NamedFiles;
use super::open::open_storage;
use crate::host::{FileStorage, PathPolicy, Storage, is_nbd_name};

/// Files that are looked at for one image. More are named by a hostile image alone.
const FILES_MAX: usize = 256;

/// The longest name that is taken; that of qcow2 is shorter.
const NAME_BYTES_MAX: usize = 4096;

/// All files that the image at `image` names, and those that these name, as far as their headers can be read: one that is refused
/// (by the path policy, for a format that is not stated, because an interrupted run left it half written) is among them, as is the
/// URI of an NBD export, which is not connected to. `format` is that of the image, if it is known. No lock is taken.
#[must_use]
pub fn files_named(image: &Path, format: Option<Format>) -> Vec<PathBuf> {
    let named = NamedFiles::default();
    let options = OpenOptions {
        format,
        path_policy: PathPolicy::anything(),
        locking: Locking::Ignore,
        named: Some(named.clone()),
        ..OpenOptions::default()
    };
    let mut files = vec![image.to_owned()];
    let mut next = 0;
    while let Some(path) = files.get(next).cloned().filter(|_| next < FILES_MAX) {
        let format = format.filter(|_| next == 0);
        next += 1;
        let Some(storage) = open_file(&path) else { continue };
        if format.is_none_or(|format| format == Format::Qcow2)
            && let Some(name) = qcow2_backing_name(&storage)
        {
            named.add(&path, &name);
        }
        let opened = open_storage(Arc::new(storage), &path, format, &options);
        for file in opened.map(|image| image.files()).unwrap_or_default().into_iter().chain(named.take()) {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    files
}

/// The file of this name, if there is one; the name of an export does not count.
fn open_file(path: &Path) -> Option<FileStorage> {
    if is_nbd_name(path) { None } else { FileStorage::open(path, false).ok() }
}

/// The backing file in the header of a qcow2, whatever else is wrong with the image.
fn qcow2_backing_name(storage: &FileStorage) -> Option<String> {
    let mut header = [0; 20];
    let read = storage.read_at(0, &mut header).ok()?;
    if read < header.len() || !header.starts_with(b"QFI\xfb") {
        return None;
    }
    let offset = u64::from_be_bytes(header.get(8..16)?.try_into().ok()?);
    let length = usize::try_from(u32::from_be_bytes(header.get(16..20)?.try_into().ok()?)).ok()?;
    if offset == 0 || length == 0 || length > NAME_BYTES_MAX {
        return None;
    }
    let mut name = vec![0; length];
    let read = storage.read_at(offset, &mut name).ok()?;
    if read < length { None } else { String::from_utf8(name).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A qcow2 of which nothing but the header's start is right.
    fn overlay(path: &Path, backing: &str) {
        let mut bytes = vec![0; 512];
        bytes[..4].copy_from_slice(b"QFI\xfb");
        bytes[7] = 3;
        bytes[8..16].copy_from_slice(&200u64.to_be_bytes());
        bytes[16..20].copy_from_slice(&u32::try_from(backing.len()).unwrap().to_be_bytes());
        bytes.splice(200..200, backing.bytes());
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn files_are_named_though_they_cannot_be_opened() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for folder in ["vms", "tmpl"] {
            std::fs::create_dir(at(folder)).unwrap();
        }
        std::fs::write(at("tmpl/gold.raw"), [0; 4096]).unwrap();
        overlay(&at("tmpl/mid.qcow2"), "gold.raw");
        let absolute = at("tmpl/mid.qcow2").display().to_string();
        let json =
            format!("json:{{\"driver\":\"qcow2\",\"file\":{{\"driver\":\"file\",\"filename\":\"{absolute}\"}}}}");
        let flat = format!("json:{{\"driver\":\"qcow2\",\"file.filename\":\"{absolute}\"}}");
        for name in ["../tmpl/mid.qcow2", &absolute, &format!("file:{absolute}"), &json, &flat] {
            overlay(&at("vms/top.qcow2"), name);
            let named: Vec<_> =
                files_named(&at("vms/top.qcow2"), None).iter().filter_map(|file| crate::host::file_key(file)).collect();
            for file in ["tmpl/mid.qcow2", "tmpl/gold.raw"] {
                assert!(named.contains(&crate::host::file_key(&at(file)).unwrap()), "{name}: {file}");
            }
        }
        // What the guest of a raw disk wrote names no file.
        assert_eq!(files_named(&at("vms/top.qcow2"), Some(Format::Raw)), [at("vms/top.qcow2")]);
        // A loop ends.
        overlay(&at("vms/top.qcow2"), "top.qcow2");
        assert!(!files_named(&at("vms/top.qcow2"), None).is_empty());
    }
}
