//! The driver's file in `System32\drivers`.

use std::sync::Arc;

use crate::drivers::{BootDriver, Package};
use crate::error::{Error, Kind, Layer, Result};
use crate::hex;
use crate::plan::{Access, Content};
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::{Action, FileRecord};

pub(super) fn copy_file(
    builder: &mut PlanBuilder<'_>,
    package: &Package,
    boot: &BootDriver,
    file: &str,
) -> Result<FileRecord> {
    builder.set_reason(format!("{}: the driver file that the loader reads", boot.service));
    let access = driver_access(builder)?;
    let action = builder.write_file_with(file, boot.data.len() as u64, boot.sha256, &access, || {
        Content::hashed(Arc::clone(&boot.data), boot.sha256)
    })?;
    Ok(FileRecord {
        name: boot.file_name.clone(),
        action,
        reason: None,
        source: format!("{}/{}", package.source_path, boot.file_name),
        destination: file.to_owned(),
        size: boot.data.len() as u64,
        sha256: hex::encode(&boot.sha256),
        service: Some(boot.service.clone()),
    })
}

pub(super) fn kept_record(package: &Package, boot: &BootDriver, file: &str, reason: &str) -> FileRecord {
    FileRecord {
        name: boot.file_name.clone(),
        action: Action::Kept,
        reason: Some(reason.to_owned()),
        source: format!("{}/{}", package.source_path, boot.file_name),
        destination: file.to_owned(),
        size: boot.data.len() as u64,
        sha256: hex::encode(&boot.sha256),
        service: Some(boot.service.clone()),
    }
}

/// Permissions of a driver that came with Windows; else those of the folder.
pub(super) fn driver_access(builder: &PlanBuilder<'_>) -> Result<Access> {
    let folder = builder.guest.drivers_dir();
    for name in ["disk.sys", "ntfs.sys", "partmgr.sys", "pci.sys"] {
        let path = format!("{folder}/{name}");
        if builder.exists(&path)? {
            return Ok(Access::Like(path));
        }
    }
    if !builder.exists(&folder)? {
        return Err(Error::new(Kind::NotWindows, Layer::Windows, "the folder for drivers is not there")
            .path(folder)
            .hint("this Windows cannot start as it is; repair it first"));
    }
    Ok(Access::Like(folder))
}

pub(super) fn dotted(version: [u16; 4]) -> String {
    version.map(|n| n.to_string()).join(".")
}

/// The version resource's `VS_FIXEDFILEINFO` (PE format, "VS_VERSIONINFO"), found by its signature.
pub(super) fn file_version(image: &[u8]) -> Option<[u16; 4]> {
    const SIGNATURE: [u8; 8] = [0xbd, 0x04, 0xef, 0xfe, 0x00, 0x00, 0x01, 0x00];
    let at = image.windows(SIGNATURE.len()).position(|w| w == SIGNATURE)?;
    let fields = image.get(at.checked_add(8)?..at.checked_add(16)?)?;
    let word = |i: usize| fields.get(i..i + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    Some([word(2)?, word(0)?, word(6)?, word(4)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_resource_is_found() {
        let mut image = vec![0x11; 100];
        image.extend([0xbd, 0x04, 0xef, 0xfe, 0x00, 0x00, 0x01, 0x00]);
        // dwFileVersionMS = 100.101, dwFileVersionLS = 104.28500
        image.extend([101, 0, 100, 0]);
        image.extend(28500u16.to_le_bytes());
        image.extend([104, 0]);
        assert_eq!(file_version(&image), Some([100, 101, 104, 28500]));
        assert_eq!(file_version(&image[..112]), None);
        assert_eq!(file_version(b"MZ"), None);
    }
}
