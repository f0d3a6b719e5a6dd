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
    let media = package.files.iter().find(|file| file.sha256 == boot.sha256);
    let action = builder.write_file_with(file, boot.data.len() as u64, boot.sha256, &access, || {
        let content = Content::hashed(Arc::clone(&boot.data), boot.sha256);
        match media {
            Some(file) => content.with_media_path(file.media_path()),
            None => content,
        }
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

/// Permissions of a new driver: what its folder hands down, as for every driver that does not come with Windows. Its own
/// drivers are for TrustedInstaller alone to write, and `pnputil`, which is to replace this one, runs as SYSTEM.
pub(super) fn driver_access(builder: &PlanBuilder<'_>) -> Result<Access> {
    let folder = builder.guest.drivers_dir();
    if builder.exists(&folder)? {
        return Ok(Access::Inherited);
    }
    Err(Error::new(Kind::NotWindows, Layer::Windows, "the folder for drivers is not there")
        .path(folder)
        .hint("this Windows cannot start as it is; repair it first"))
}

pub(super) fn dotted(version: [u16; 4]) -> String {
    version.map(|n| n.to_string()).join(".")
}
