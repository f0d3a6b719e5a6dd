//! What earlier runs put into the guest. An injection lists it again as long as it is there, so that one removal takes out
//! the work of all runs.

use std::collections::BTreeSet;

use super::manifest::{self, Listed};
use crate::error::{Kind, Result};
use crate::hex;
use crate::upcase::Fold;
use crate::windows::plan_builder::{Desired, PlanBuilder};
use crate::windows::registration::driver_database::ROOT;
use crate::windows::staging::manifest::ManifestPackage;

/// What the manifest of the guest lists. One that cannot be used counts as empty, with a warning, because a later
/// `winject remove` cannot rely on it.
///
/// # Errors
/// When the volume is damaged there.
pub fn read_earlier(builder: &mut PlanBuilder<'_>) -> Result<Listed> {
    match manifest::read(builder) {
        Ok(listed) => Ok(listed.unwrap_or_default()),
        Err(error) if error.kind() == Kind::Refused => {
            builder.add_warning(format!(
                "the manifest of an earlier run is replaced ({error}): winject remove cannot take out what that run alone \
                 wrote or uploaded, nor bring back values that it replaced"
            ));
            Ok(Listed::default())
        }
        Err(error) => Err(error),
    }
}

/// Adds what earlier runs wrote to the desired state, as far as it is there as listed and this run leaves it alone. Returns
/// the packages in `DriverDatabase` among it.
///
/// # Errors
/// When the volume or a hive is damaged.
pub fn carry_over(builder: &mut PlanBuilder<'_>, earlier: &Listed) -> Result<Vec<ManifestPackage>> {
    // Uploads were carried over when those of this run were planned.
    let files =
        earlier.files.iter().map(|file| Desired::File { path: file.path.clone(), sha256: hex::encode(&file.sha256) });
    let values = earlier.values.iter().map(|value| Desired::Value {
        hive: value.hive,
        key: value.key.clone(),
        name: value.name.clone(),
        data: value.data.clone(),
    });
    let keys = earlier.removed_keys.iter().map(|(hive, key)| Desired::AbsentKey { hive: *hive, key: key.clone() });
    builder.carry_over(files.chain(values).chain(keys))?;
    let infs: BTreeSet<String> = builder.desired_state().iter().filter_map(recorded_inf).collect();
    let is_there = |package: &&ManifestPackage| infs.contains(&package.inf.folded());
    Ok(earlier.packages.iter().filter(is_there).cloned().collect())
}

/// The INF that a value records in `DriverDatabase`, in lower case.
fn recorded_inf(fact: &Desired) -> Option<String> {
    let Desired::Value { key, .. } = fact else { return None };
    let (above, inf) = key.rsplit_once('\\')?;
    (above.folded() == format!("{ROOT}\\DriverInfFiles").folded()).then(|| inf.folded())
}
