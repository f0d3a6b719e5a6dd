//! The files of an installed package: driver store, `INF`, `CatRoot`.

use super::records::Names;
use crate::drivers::Package;
use crate::error::Result;
use crate::plan::{Access, Content};
use crate::windows::plan_builder::PlanBuilder;
use crate::windows::record::Action;

/// The system's catalogue folder.
pub(crate) const CATALOGUES: &str = "CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}";

/// The package in the driver store, its INF in `INF`, its catalogue in `CatRoot`.
pub(super) fn store_files(builder: &mut PlanBuilder<'_>, package: &Package, names: &Names) -> Result<Vec<Action>> {
    let windows = builder.guest.windows_dir.clone();
    let repository = format!("{windows}/System32/DriverStore/FileRepository");
    let folder = format!("{repository}/{}", names.package);
    let access = Access::Like(repository);
    builder.ensure_folder(&folder, &access)?;
    let mut actions = Vec::new();
    for file in &package.files {
        actions.push(builder.write_package_file(&folder, file, &access)?);
    }
    let find = |name: &str| package.files.iter().find(|file| file.name.eq_ignore_ascii_case(name));
    if let Some(inf) = find(&package.inf_name) {
        let path = format!("{windows}/INF/{}", names.oem);
        actions.push(builder.write_file_with(
            &path,
            inf.size,
            inf.sha256,
            &Access::Like(format!("{windows}/INF")),
            || Content::of_package(inf),
        )?);
    }
    if let Some(catalogue) = package.inf.catalog.as_deref().and_then(find) {
        let folder = format!("{windows}/System32/{CATALOGUES}");
        let access = Access::Like(format!("{windows}/System32"));
        builder.ensure_folder(&folder, &access)?;
        let path = format!("{folder}/{}", names.oem.replace(".inf", ".cat"));
        actions
            .push(builder.write_file_with(&path, catalogue.size, catalogue.sha256, &access, || {
                Content::of_package(catalogue)
            })?);
    }
    Ok(actions)
}
