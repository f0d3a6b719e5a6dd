//! Copies each package, with all its files, into a folder of its own in the guest.

use crate::clock::FileTime;
use crate::drivers::{Package, Selection};
use crate::error::Result;
use crate::field::utf16_from_le;
use crate::hex;
use crate::plan::Access;
use crate::windows::guest_paths;
use crate::windows::options::InjectOptions;
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::{Action, FileRecord, PackageRecord, Record};

/// Stages every package: the whole payload, one folder for each.
///
/// # Errors
/// When the volume is damaged, or the media cannot be read.
pub fn stage_packages(
    builder: &mut PlanBuilder<'_>,
    selection: &Selection,
    options: &InjectOptions,
    record: &mut Record,
) -> Result<()> {
    builder.set_reason("staging: the packages that the running guest installs");
    builder.ensure_folder(guest_paths::STAGE, &Access::Protected)?;
    for package in selection.packages.iter().filter(|p| !p.files.is_empty()) {
        let done = stage_package(builder, package, options)?;
        record.packages_staged.push(done);
    }
    Ok(())
}

fn stage_package(builder: &mut PlanBuilder<'_>, package: &Package, options: &InjectOptions) -> Result<PackageRecord> {
    let folder = format!("{}/{}", guest_paths::STAGE, package.stage_name);
    builder.set_reason(format!("staging {}", package.stage_name));
    let service = package.inf.function_service().map_or(&package.stage_name, |s| &s.name);
    let mut record = PackageRecord {
        service: service.clone(),
        category: package.category.to_string(),
        package_dir: package.source_path.clone(),
        inf: package.inf_name.clone(),
        driver_version: package.inf.version_text(),
        guest_dir: folder.clone(),
        action: Action::Kept,
        files: Vec::new(),
    };
    if !options.force && staged_is_newer(builder, package, &folder)? {
        builder.add_note(format!(
            "{}: the staged package is newer than that of the media; --force replaces it",
            package.stage_name
        ));
        return Ok(record);
    }
    builder.ensure_folder(&folder, &Access::Protected)?;
    for file in &package.files {
        let path = format!("{folder}/{}", file.name);
        let action = builder.write_package_file(&folder, file, &Access::Protected)?;
        record.files.push(FileRecord {
            name: file.name.clone(),
            action,
            reason: None,
            source: file.media_path().to_owned(),
            destination: path,
            size: file.size,
            sha256: hex::encode(&file.sha256),
            service: None,
        });
    }
    record.action = Action::overall(&record.files.iter().map(|f| f.action).collect::<Vec<_>>());
    Ok(record)
}

/// Whether the guest holds a staged package of a later `DriverVer`.
fn staged_is_newer(builder: &PlanBuilder<'_>, package: &Package, folder: &str) -> Result<bool> {
    // a file that any user could have put there must not keep the media's package out
    if package.inf_name.is_empty() || !builder.is_trusted(&format!("{folder}/{}", package.inf_name))? {
        return Ok(false);
    }
    let Some(bytes) = builder.read_file(&format!("{folder}/{}", package.inf_name))? else { return Ok(false) };
    let present = driver_ver(&bytes);
    let ours = (package.inf.driver_date, package.inf.driver_version);
    Ok(present.is_some_and(|present| present > ours))
}

/// Date and version of the `DriverVer` line of an INF that is already in the guest.
fn driver_ver(bytes: &[u8]) -> Option<(FileTime, [u16; 4])> {
    let text = if bytes.starts_with(&[0xff, 0xfe]) {
        String::from_utf16_lossy(&utf16_from_le(bytes))
    } else {
        String::from_utf8_lossy(bytes).into_owned()
    };
    let value = text.trim_start_matches('\u{feff}').lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("DriverVer")
            .then(|| value.split(';').next().unwrap_or(value).trim().to_owned())
    })?;
    let (date, version) = value.split_once(',').unwrap_or((&value, ""));
    let mut numbers = date.trim().split(['/', '-']).map(|n| n.trim().parse::<u16>().ok());
    let (month, day, year) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let date = FileTime::from_date(year, u8::try_from(month).ok()?, u8::try_from(day).ok()?)?;
    let mut out = [0; 4];
    for (place, number) in out.iter_mut().zip(version.trim().split('.').filter(|number| !number.is_empty())) {
        *place = number.trim().parse().ok()?;
    }
    Some((date, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_ver_of_a_staged_inf() {
        let inf = b"[Version]\r\nDriverVer = 07/09/2025,100.101.104.28500 ; x\r\n";
        assert_eq!(driver_ver(inf), Some((FileTime::from_date(2025, 7, 9).unwrap(), [100, 101, 104, 28500])));
        assert_eq!(driver_ver(b"[Version]\r\nDriverVer=01/02/2024\r\n").unwrap().1, [0; 4]);
        assert_eq!(driver_ver(b"[Version]\r\n"), None);
        assert_eq!(driver_ver(b"DriverVer=xx/yy/zz,1.2.3.4"), None);
        let wide: Vec<u8> = [0xff, 0xfe]
            .into_iter()
            .chain("DriverVer=01/02/2024,1.2.3.4\n".encode_utf16().flat_map(u16::to_le_bytes))
            .collect();
        assert_eq!(driver_ver(&wide).unwrap().1, [1, 2, 3, 4]);
    }
}
