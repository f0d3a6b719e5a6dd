//! What a saved plan says of its drivers, for the report of its application.

use std::collections::HashMap;

use super::fields::{DriverFound, Report};
use crate::plan::saved::{PlanDocument, SavedEdit, SavedFileContent, Sha256Sum};
use crate::windows::{Action, FileRecord};

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
        self.virtio.extras.uploads = planned_uploads(document);
    }
}

/// The files of the user that the plan puts outside of winject's own places.
fn planned_uploads(document: &PlanDocument) -> Vec<FileRecord> {
    let record = |step: &SavedEdit| match step {
        SavedEdit::WriteFile { path, sha256, size, .. } if document.uploads.contains(path) => {
            let content = document.files.iter().find(|file| file.sha256 == *sha256).map(|file| &file.content);
            let source = match content {
                Some(SavedFileContent::Host(name)) => name.clone(),
                _ => String::new(),
            };
            Some(FileRecord {
                name: path.rsplit('/').next().unwrap_or_default().to_owned(),
                action: Action::Created,
                reason: None,
                source,
                destination: path.clone(),
                size: *size,
                sha256: sha256.to_string(),
                service: None,
            })
        }
        _ => None,
    };
    document.steps.iter().filter_map(|step| record(&step.edit)).collect()
}
