//! The packages that winject recorded in `DriverDatabase`, in either form, and whether each is still wholly winject's.

use std::collections::BTreeSet;

use super::manifest::Listed;
use super::usage::Usage;
use crate::error::Result;
use crate::plan::GuestHive;
use crate::upcase::Fold;
use crate::windows::plan_builder::{PlanBuilder, Present};
use crate::windows::registration::driver_database::{Keys, ROOT, foreign_binding};
use crate::windows::registration::full::driver_store::CATALOGUES;
use crate::windows::registration::full::earlier::is_ours;
use crate::windows::registration::full::oem_number::oem_number;
use crate::windows::registration::minimal;
use crate::windows::registration::without_subsystem;
use crate::windows::registry;

/// Most files and folders of a package in the driver store that are looked at.
const STORE_ENTRIES_MAX: usize = 20_000;

/// A package whose records are listed.
#[derive(Debug)]
pub(super) struct Package {
    pub hive: GuestHive,
    /// Name of the INF in the guest: `h2k-viostor.inf`, `oem3.inf`.
    pub inf: String,
    /// Its key below `DriverPackages`.
    pub name: String,
    /// The keys of the INF and of the package.
    pub keys: [String; 2],
    /// Keys of `DeviceIds` with a value that names the INF.
    pub ids: Vec<String>,
    /// The services that it installs, in lower case.
    pub services: BTreeSet<String>,
    /// Indexes of its files: driver store, INF, catalogue. None in the minimal form.
    pub files: Vec<usize>,
    /// Its folder in the driver store; `None` in the minimal form.
    pub folder: Option<String>,
    /// Why it stays.
    pub left: Option<String>,
}

impl Package {
    /// Whether it is of the minimal form, under a name of winject's own.
    pub(super) fn is_minimal(&self) -> bool {
        self.folder.is_none()
    }

    /// Whether packages of the guest itself serve all its devices, so that its records are of no use any more. The forms
    /// without a subsystem, which winject adds to each id of the INF, go with it.
    ///
    /// # Errors
    /// When the hive is damaged.
    pub(super) fn is_superseded(&self, builder: &PlanBuilder<'_>) -> Result<bool> {
        let top = format!("{ROOT}\\DeviceIds\\").folded();
        let ids: Vec<&str> = self.ids.iter().filter_map(|key| key.get(top.len()..)).collect();
        let mut served: Vec<&str> = Vec::new();
        for id in &ids {
            if foreign_binding(builder, id, &self.inf, &self.name)?.is_some() {
                served.push(id);
            }
        }
        let shortened: Vec<String> = served.iter().filter_map(|id| without_subsystem(id)).collect();
        let is_served = |id: &&str| served.contains(id) || shortened.iter().any(|short| short.eq_ignore_ascii_case(id));
        Ok(!served.is_empty() && ids.iter().all(is_served))
    }
}

/// The packages that are listed, each judged on its own.
///
/// # Errors
/// When the guest is damaged there.
pub(super) fn find(builder: &PlanBuilder<'_>, listed: &Listed, usage: &Usage) -> Result<Vec<Package>> {
    let top = format!("{ROOT}\\DriverInfFiles\\").folded();
    let mut out = Vec::new();
    for value in listed.values.iter().filter(|value| value.name.is_empty() && value.hive != GuestHive::Software) {
        if !value.key.folded().starts_with(&top) {
            continue;
        }
        let Some(inf) = value.key.get(top.len()..).filter(|inf| !inf.contains('\\')) else { continue };
        let names = value.data.as_texts().unwrap_or_default();
        if let [name] = names.as_slice()
            && !name.contains(['\\', '/'])
            && builder.has_hive(value.hive)
        {
            out.push(judge(builder, listed, usage, value.hive, inf, name)?);
        }
    }
    Ok(out)
}

fn judge(
    builder: &PlanBuilder<'_>,
    listed: &Listed,
    usage: &Usage,
    hive: GuestHive,
    inf: &str,
    name: &str,
) -> Result<Package> {
    let keys = Keys::new(inf, name);
    let is_minimal = inf.folded().starts_with("h2k-") && name == minimal::package_name(inf, builder.guest.arch);
    let windows = &builder.guest.windows_dir;
    let folder = (!is_minimal).then(|| format!("{windows}/System32/DriverStore/FileRepository/{name}"));
    let mut package = Package {
        hive,
        inf: inf.to_owned(),
        name: name.to_owned(),
        services: services(listed, hive, &keys.package),
        keys: [keys.inf_files, keys.package],
        ids: usage.ids.get(&(hive, inf.folded())).cloned().unwrap_or_default(),
        files: Vec::new(),
        folder,
        left: None,
    };
    if let Some(folder) = &package.folder {
        package.files.extend(listed.files_below(folder).map(|(index, _)| index));
        let catalogue = format!("{windows}/System32/{CATALOGUES}/{}", inf.folded().replace(".inf", ".cat"));
        package.files.extend([format!("{windows}/INF/{inf}"), catalogue].iter().filter_map(|path| listed.file(path)));
    }
    package.left = match find_reason_in_hive(builder, listed, usage, &package)? {
        None if !is_minimal => find_reason_in_files(builder, listed, &package)?,
        reason => reason,
    };
    Ok(package)
}

/// The services that the listed configurations of a package name.
fn services(listed: &Listed, hive: GuestHive, key: &str) -> BTreeSet<String> {
    let configurations = listed.subtree(hive, &format!("{key}\\Configurations"));
    let of_key = |rest: &str| (!rest.is_empty() && !rest.contains('\\')).then_some(());
    let named = configurations.iter().filter_map(|(rest, values)| of_key(rest).and(values.get("service")));
    let names = named.filter_map(|index| listed.data(*index)?.as_text());
    names.filter(|name| !name.is_empty()).map(|name| name.folded()).collect()
}

/// How the records differ from what winject wrote.
fn find_reason_in_hive(
    builder: &PlanBuilder<'_>,
    listed: &Listed,
    usage: &Usage,
    package: &Package,
) -> Result<Option<String>> {
    let hive = builder.hive(package.hive)?;
    let mut found = 0;
    for key in &package.keys {
        if let Some(id) = registry::find_key(hive, key)? {
            found += 1;
            if let Some(difference) = listed.difference(hive, id, &listed.subtree(package.hive, key))? {
                return Ok(Some(format!("{key}: {difference}")));
            }
        }
    }
    if found == 1 {
        return Ok(Some("a part of its records is gone".to_owned()));
    }
    for key in &package.ids {
        let index = listed.value(package.hive, key, &package.inf);
        let data = registry::get_value(hive, key, &package.inf)?;
        if index.and_then(|index| listed.data(index)) != data.as_ref() {
            return Ok(Some(format!("{key}: winject did not bind this device to it")));
        }
    }
    Ok(usage.infs.get(&package.inf.folded()).cloned())
}

/// How the files of a package in the driver store differ from what winject wrote.
fn find_reason_in_files(builder: &PlanBuilder<'_>, listed: &Listed, package: &Package) -> Result<Option<String>> {
    let Some(folder) = &package.folder else { return Ok(None) };
    let is_there = builder.exists(folder)?;
    let records = registry::find_key(builder.hive(package.hive)?, &package.keys[1])?;
    if oem_number(&package.inf).is_none() || (is_there || records.is_some()) && !is_ours(builder, &package.name)? {
        return Ok(Some("it is not a package that winject registered".to_owned()));
    }
    for file in package.files.iter().filter_map(|index| listed.files.get(*index)) {
        match builder.compare_file(&file.path, &file.sha256)? {
            Present::Absent | Present::AsWritten => {}
            Present::Changed => return Ok(Some(format!("{} is not the file that winject wrote", file.path))),
            Present::Link => return Ok(Some(format!("{} has other names, too", file.path))),
        }
    }
    let mut left = STORE_ENTRIES_MAX;
    let mut pending = vec![folder.clone()];
    while let Some(folder) = pending.pop() {
        for name in builder.file_names(&folder)? {
            let path = format!("{folder}/{name}");
            if listed.file(&path).is_none() {
                return Ok(Some(format!("winject did not write {path}")));
            }
        }
        for name in builder.folders(&folder)? {
            match left.checked_sub(1) {
                Some(less) => left = less,
                None => return Ok(Some(format!("{folder} holds far more than winject writes"))),
            }
            pending.push(format!("{folder}/{name}"));
        }
    }
    Ok(None)
}
