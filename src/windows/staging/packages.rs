//! The packages, scripts and the service that installs them in the running guest.

use crate::drivers::{Category, Package, PackageFile, Selection};
use crate::error::{Error, Layer, Result};
use crate::plan::{Access, Content, HiveFile, RegData, hex};
use crate::windows::first_boot::script::{self, ScriptPackage};
use crate::windows::guest_paths;
use crate::windows::options::InjectOptions;
use crate::windows::plan_builder::Planner;
use crate::windows::record::{Action, FileRecord, FirstbootRecord, PackageRecord, Record};
use crate::windows::registration::driver_database::overall;

/// Stages every package: the whole payload, one folder for each.
///
/// # Errors
/// When the volume is damaged, or the media cannot be read.
pub fn packages(
    planner: &mut Planner<'_>,
    selection: &Selection,
    options: &InjectOptions,
    record: &mut Record,
) -> Result<()> {
    planner.because("staging: the packages that the running guest installs");
    planner.dir(guest_paths::STAGE, &Access::Protected)?;
    for package in selection.packages.iter().filter(|p| !p.files.is_empty()) {
        let done = stage(planner, package, options)?;
        record.packages_staged.push(done);
    }
    Ok(())
}

fn stage(planner: &mut Planner<'_>, package: &Package, options: &InjectOptions) -> Result<PackageRecord> {
    let folder = format!("{}/{}", guest_paths::STAGE, package.stage_name);
    planner.because(format!("staging {}", package.stage_name));
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
    if !options.force && staged_is_newer(planner, package, &folder)? {
        planner.note(format!(
            "{}: the staged package is newer than that of the media; --force replaces it",
            package.stage_name
        ));
        return Ok(record);
    }
    planner.dir(&folder, &Access::Protected)?;
    for file in &package.files {
        let path = format!("{folder}/{}", file.name);
        let action = file_into(planner, &folder, file, &Access::Protected)?;
        record.files.push(FileRecord {
            name: file.name.clone(),
            action,
            reason: None,
            source: file.media_path().to_owned(),
            destination: path,
            size: file.size,
            sha256: hex(&file.sha256),
            service: None,
        });
    }
    record.action = overall(&record.files.iter().map(|f| f.action).collect::<Vec<_>>());
    Ok(record)
}

/// One file of a package below a folder, with its sub-folders.
pub(in super::super) fn file_into(
    planner: &mut Planner<'_>,
    folder: &str,
    file: &PackageFile,
    access: &Access,
) -> Result<Action> {
    let path = format!("{folder}/{}", file.name);
    if let Some((parent, _)) = path.rsplit_once('/') {
        planner.dir(parent, access)?;
    }
    planner.file_with(&path, file.size, file.sha256, access, || Content::of_package(file))
}

/// Whether the guest holds a staged package of a later `DriverVer`.
fn staged_is_newer(planner: &Planner<'_>, package: &Package, folder: &str) -> Result<bool> {
    // One that anybody could put there must not keep ours away.
    if package.inf_name.is_empty() || !planner.is_trusted(&format!("{folder}/{}", package.inf_name))? {
        return Ok(false);
    }
    let Some(bytes) = planner.read(&format!("{folder}/{}", package.inf_name))? else { return Ok(false) };
    let present = driver_ver(&bytes);
    let ours = (package.inf.driver_date, package.inf.driver_version);
    Ok(present.is_some_and(|present| present > ours))
}

/// Date and version of the `DriverVer` line of an INF that is already in the guest.
fn driver_ver(bytes: &[u8]) -> Option<(crate::clock::FileTime, [u16; 4])> {
    let text = if bytes.starts_with(&[0xff, 0xfe]) {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|c| u16::from_le_bytes([c[0], c[1]])).collect();
        String::from_utf16_lossy(&units)
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
    let date = crate::clock::FileTime::from_date(year, u8::try_from(month).ok()?, u8::try_from(day).ok()?)?;
    let mut out = [0; 4];
    for (place, number) in out.iter_mut().zip(version.trim().split('.').filter(|number| !number.is_empty())) {
        *place = number.trim().parse().ok()?;
    }
    Some((date, out))
}

/// The packages as the scripts install them.
fn script_packages(selection: &Selection) -> Vec<ScriptPackage> {
    let with_inf = selection.packages.iter().filter(|p| !p.inf_name.is_empty() && !p.files.is_empty());
    with_inf
        .map(|p| ScriptPackage {
            folder: p.stage_name.clone(),
            inf: p.inf_name.clone(),
            required: matches!(p.category, Category::Storage | Category::Network),
        })
        .collect()
}

/// The batch files, and the service unless it is not wanted or has done its work.
///
/// # Errors
/// When the volume or a hive is damaged.
pub fn scripts(
    planner: &mut Planner<'_>,
    selection: &Selection,
    options: &InjectOptions,
    record: &mut Record,
) -> Result<()> {
    let packages = script_packages(selection);
    let build = planner.guest.build;
    planner.because("the scripts that install the packages in the running guest");
    let setup = script::setup(&packages, build);
    record.setup_script = String::from_utf8_lossy(&setup).into_owned();
    planner.file(guest_paths::SETUP, setup, &Access::Protected)?;
    record.firstboot = FirstbootRecord {
        service: guest_paths::SERVICE.to_owned(),
        method: "detached child of a cmd.exe service".to_owned(),
        payload: guest_paths::FIRSTBOOT.to_owned(),
        log_path: format!("{}/{}", planner.guest.windows_dir, guest_paths::LOG_BELOW_WINDOWS.replace('\\', "/")),
        marker_path: guest_paths::DONE.to_owned(),
        skipped: None,
    };
    if !options.firstboot {
        record.firstboot.skipped = Some("not wanted".to_owned());
        return Ok(());
    }
    planner.file(guest_paths::FIRSTBOOT, script::firstboot(&packages, build), &Access::Protected)?;
    if options.rearm {
        planner.because("the first-boot job shall run again");
        for marker in [guest_paths::DONE, guest_paths::FAILED, guest_paths::ATTEMPTS] {
            planner.no_file(marker)?;
        }
    } else if remove_foreign_markers(planner)? {
        record.firstboot.skipped = Some("the guest has run the job already; --rearm lets it run again".to_owned());
        planner.note("the first-boot job has run in this guest already; --rearm lets it run again");
        return Ok(());
    }
    service(planner)
}

/// Removes the markers and the counter of the job that it did not leave itself: any user could create them before the
/// folder was ours, to keep the drivers from being installed. Whether a marker of the job is left.
fn remove_foreign_markers(planner: &mut Planner<'_>) -> Result<bool> {
    let mut is_marked = false;
    planner.because("the first-boot job did not leave this marker");
    for marker in [guest_paths::DONE, guest_paths::FAILED, guest_paths::ATTEMPTS] {
        if !planner.exists(marker)? {
            continue;
        }
        if planner.is_trusted(marker)? {
            is_marked |= marker != guest_paths::ATTEMPTS;
            continue;
        }
        planner.warn(format!(
            "{marker} was in the guest, but the first-boot job has not left it; it is removed, so that the job runs"
        ));
        let name = marker.rsplit('/').next().unwrap_or_default();
        let is_folder = planner.folders(guest_paths::TOP)?.iter().any(|folder| folder.eq_ignore_ascii_case(name));
        if is_folder && !(planner.folders(marker)?.is_empty() && planner.file_names(marker)?.is_empty()) {
            return Err(Error::refused(Layer::Windows, "a folder is in the place of a marker of the first-boot job")
                .path(marker)
                .hint("remove it in the guest: it would keep the first-boot job from running"));
        }
        planner.no_file(marker)?;
    }
    Ok(is_marked)
}

/// The service that starts the job. It shows as failed, because a script cannot report to the service manager: so it
/// must not count as an error of the start (`ErrorControl` 0).
fn service(planner: &mut Planner<'_>) -> Result<()> {
    planner.because("the service that starts the first-boot job");
    let sets: Vec<String> = planner
        .guest
        .control_sets
        .iter()
        .filter(|set| set.is_current || set.roles.iter().any(|role| role == "Default"))
        .map(|set| set.name.clone())
        .collect();
    let command = "\"%SystemRoot%\\System32\\cmd.exe\" /d /c \"%SystemDrive%\\hyper2kvm\\firstboot.cmd\"";
    let description = "Installs the driver packages below C:\\hyper2kvm\\drivers\\virtio once, then removes itself. \
                       Its script is C:\\hyper2kvm\\firstboot.cmd.";
    for set in sets {
        let key = format!("{set}\\Services\\{}", guest_paths::SERVICE);
        let values = [
            ("Type", RegData::dword(0x10)),
            ("Start", RegData::dword(2)),
            ("ErrorControl", RegData::dword(0)),
            ("ImagePath", RegData::expand_sz(command)),
            ("ObjectName", RegData::sz("LocalSystem")),
            ("DisplayName", RegData::sz("hyper2kvm First Boot Driver Installer")),
            ("Description", RegData::sz(description)),
            ("DelayedAutoStart", RegData::dword(0)),
        ];
        for (name, data) in values {
            planner.value(HiveFile::System, &key, name, data)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FileTime;

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
