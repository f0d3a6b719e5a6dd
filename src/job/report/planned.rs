//! What a saved plan says of its drivers, for the report of its application.

use std::collections::HashMap;

use super::fields::{DriverFound, Report};
use crate::plan::saved::{PlanDocument, SavedEdit, Sha256Sum};

impl Report {
    /// Adds the drivers of a saved plan. What a plan does not hold of them stays empty: folders of the media, ids, service.
    pub(crate) fn add_planned_drivers(&mut self, document: &PlanDocument) {
        let folder = format!("{}/System32/drivers/", document.windows.folder);
        let written = document.steps.iter().filter_map(|step| match &step.edit {
            SavedEdit::WriteFile { path, sha256, .. } => Some((*sha256, path.strip_prefix(&folder)?)),
            _ => None,
        });
        let file_names: HashMap<Sha256Sum, &str> = written.collect();
        let found = document.drivers.iter().map(|driver| DriverFound {
            name: driver.name.clone(),
            dest_name: driver.sha256.and_then(|sum| file_names.get(&sum)).map(|name| (*name).to_owned()),
            inf_path: driver.inf.clone(),
            reason: "as the plan says, chosen when it was made".to_owned(),
            driver_version: driver.version.clone(),
            signed: driver.signed,
            signer: driver.signer.clone(),
            ..DriverFound::default()
        });
        self.virtio.drivers_found = found.collect();
    }
}
