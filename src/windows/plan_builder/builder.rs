//! The builder: compares each request with the guest, and keeps the edits that are needed.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::desired::Desired;
use super::replaced_value::ReplacedValues;
use crate::drivers::PackageFile;
use crate::error::Result;
use crate::hive::{Hive, RegistryData};
use crate::ntfs::security::Protected;
use crate::plan::{Access, BootPlace, Change, Content, GuestHive, Plan, Step};
use crate::upcase::Fold;
use crate::windows::first_boot::description as job;
use crate::windows::guest_files::GuestFiles;
use crate::windows::inspect::guest::Guest;
use crate::windows::inspect::installation::{Hives, load_other_hives};
use crate::windows::record::Action;
use crate::windows::registry;

/// The largest file of the guest that is compared with one of ours.
const COMPARED_BYTES_MAX: u64 = 256 << 20;

/// Builds a plan against a volume that it only reads.
pub struct PlanBuilder<'a> {
    pub(super) files: &'a dyn GuestFiles,
    /// The installation that the plan is made for.
    pub guest: &'a Guest,
    inspected: &'a Hives,
    /// Hives that inspection had not loaded.
    hives: Hives,
    plan: Plan,
    /// The boot volume, once it is asked for.
    pub(super) boot: Option<BootPlace>,
    /// The edits; one that turned out to be needless is taken out.
    pub(super) steps: Vec<Option<Step>>,
    reason: String,
    /// Where an edit of a value or file already is in the plan, by its lower-case place.
    pub(super) step_index: HashMap<String, usize>,
    desired: Vec<Desired>,
    /// Index of a value in `desired`: the last request counts.
    desired_index: HashMap<String, usize>,
    /// Values of the guest's own that are replaced.
    pub(super) replaced: ReplacedValues,
    /// Steps of the first-boot job.
    pub(super) job_steps: Vec<job::Step>,
}

impl<'a> PlanBuilder<'a> {
    /// Loads the hives that inspection has not loaded.
    ///
    /// # Errors
    /// When a hive is missing, dirty or damaged.
    pub fn new(files: &'a dyn GuestFiles, guest: &'a Guest, inspected: &'a Hives) -> Result<Self> {
        let plan = Plan::new(guest.config_dir());
        let hives = load_other_hives(files, guest, inspected)?;
        let is_missing = |file: &GuestHive| !inspected.contains_key(file) && !hives.contains_key(file);
        // Windows before 8 has no DRIVERS hive.
        if let Some(file) = GuestHive::ALL.into_iter().find(|file| *file != GuestHive::Drivers && is_missing(file)) {
            return Err(registry::missing_hive(&plan.hive_path(file)));
        }
        Ok(Self {
            files,
            guest,
            inspected,
            hives,
            plan,
            boot: None,
            steps: Vec::new(),
            reason: String::new(),
            step_index: HashMap::new(),
            desired: Vec::new(),
            desired_index: HashMap::new(),
            replaced: ReplacedValues::default(),
            job_steps: Vec::new(),
        })
    }

    /// A hive as it is before the plan.
    ///
    /// # Errors
    /// When the guest has no such hive.
    pub fn hive(&self, file: GuestHive) -> Result<&Hive> {
        self.inspected
            .get(&file)
            .or_else(|| self.hives.get(&file))
            .ok_or_else(|| registry::missing_hive(&self.plan.hive_path(file)))
    }

    /// Whether the guest has this hive.
    #[must_use]
    pub fn has_hive(&self, file: GuestHive) -> bool {
        self.inspected.contains_key(&file) || self.hives.contains_key(&file)
    }

    /// A string of the SYSTEM hive.
    ///
    /// # Errors
    /// When the hive is damaged there.
    pub fn system_string(&self, key: &str, name: &str) -> Result<Option<String>> {
        registry::get_string(self.hive(GuestHive::System)?, key, name)
    }

    /// Sets the reason of the edits that follow.
    pub fn set_reason(&mut self, reason: impl Into<String>) {
        self.reason = reason.into();
    }

    /// Something that the user should know.
    pub fn add_note(&mut self, text: impl Into<String>) {
        self.plan.notes.push(text.into());
    }

    /// Something that may keep the guest from working.
    pub fn add_warning(&mut self, text: impl Into<String>) {
        self.plan.warnings.push(text.into());
    }

    /// Everything that was asked for, in order.
    #[must_use]
    pub fn desired_state(&self) -> &[Desired] {
        &self.desired
    }

    /// Whether the volume has this file or folder.
    ///
    /// # Errors
    /// When the volume is damaged there.
    pub fn exists(&self, path: &str) -> Result<bool> {
        self.files.exists(path)
    }

    /// The names of the files in a folder.
    ///
    /// # Errors
    /// When the volume is damaged there.
    pub fn file_names(&self, path: &str) -> Result<Vec<String>> {
        self.files.file_names(path)
    }

    /// The names of the folders in a folder.
    ///
    /// # Errors
    /// When the volume is damaged there.
    pub fn folders(&self, path: &str) -> Result<Vec<String>> {
        self.files.folders(path)
    }

    /// The content of a small file; `None` when it is not there.
    ///
    /// # Errors
    /// When the volume is damaged there, or the file is too large to be one that we compare.
    pub fn read_file(&self, path: &str) -> Result<Option<Vec<u8>>> {
        self.files.read(path, COMPARED_BYTES_MAX)
    }

    pub(super) fn push_step(&mut self, place: String, change: Change) {
        let step = Some(Step { change, reason: self.reason.clone() });
        match self.step_index.get(&place).and_then(|&at| self.steps.get_mut(at)) {
            Some(slot) => *slot = step,
            None => {
                self.step_index.insert(place, self.steps.len());
                self.steps.push(step);
            }
        }
    }

    /// The edit that is planned for a place.
    pub(super) fn planned_step(&self, place: &str) -> Option<&Change> {
        let step = self.step_index.get(place).and_then(|&at| self.steps.get(at))?;
        step.as_ref().map(|step| &step.change)
    }

    /// Takes back the edit that an earlier request planned for a place.
    pub(super) fn drop_step(&mut self, place: &str) {
        if let Some(slot) = self.step_index.get(place).and_then(|&at| self.steps.get_mut(at)) {
            *slot = None;
        }
    }

    /// Requests a folder with its parents.
    ///
    /// # Errors
    /// When the volume is damaged there.
    pub fn ensure_folder(&mut self, path: &str, access: &Access) -> Result<()> {
        let mut at = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            at = format!("{at}/{part}");
            let place = file_place(&at);
            if self.step_index.contains_key(&place) {
                continue;
            }
            if !self.exists(&at)? {
                self.push_step(place, Change::CreateDir { path: at.clone(), access: access.clone() });
            } else if *access == Access::Protected {
                let what = if at.rfind('/') == Some(0) { Protected::Top } else { Protected::Directory };
                self.protect(&at, what)?;
            }
        }
        Ok(())
    }

    /// Requests a file with this content.
    ///
    /// # Errors
    /// When the volume is damaged there.
    pub fn write_file(&mut self, path: &str, bytes: Vec<u8>, access: &Access) -> Result<Action> {
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        let size = bytes.len() as u64;
        self.write_file_with(path, size, hash, access, || Content::hashed(bytes.into(), hash))
    }

    /// Requests a file whose content is only read when it is needed; `content` gives the bytes that have that hash.
    ///
    /// # Errors
    /// When the volume is damaged there.
    pub fn write_file_with(
        &mut self,
        path: &str,
        size: u64,
        sha256: [u8; 32],
        access: &Access,
        content: impl FnOnce() -> Content,
    ) -> Result<Action> {
        self.desired.push(Desired::File { path: path.to_owned(), sha256: crate::hex::encode(&sha256) });
        let place = file_place(path);
        let found = self.files.size(path)?;
        if found == Some(size) && self.files.sha256(path)? == Some(sha256) {
            // an earlier request may have wanted something else; the last one counts
            self.drop_step(&place);
            if *access == Access::Protected {
                self.protect(path, Protected::File)?;
            }
            return Ok(Action::Unchanged);
        }
        let content = content();
        let replaces = found.is_some();
        let change = Change::WriteFile { path: path.to_owned(), content, replaces, access: access.clone() };
        self.push_step(place, change);
        if replaces && *access == Access::Protected {
            self.protect(path, Protected::File)?;
        }
        Ok(if replaces { Action::Updated } else { Action::Created })
    }

    /// Requests a file of the user that is not there yet, with the permissions that its folder hands down, and without a
    /// place in the desired state.
    pub fn upload_file(&mut self, path: &str, content: Content) {
        let access = Access::Inherited;
        let change = Change::WriteFile { path: path.to_owned(), content, replaces: false, access };
        self.push_step(file_place(path), change);
        self.plan.uploads.push(path.to_owned());
    }

    /// Adds a fact to the desired state.
    pub fn add_desired(&mut self, desired: Desired) {
        self.desired.push(desired);
    }

    /// Requests a file of a driver package in `folder`, with its sub-folders.
    ///
    /// # Errors
    /// When the volume is damaged there.
    pub fn write_package_file(&mut self, folder: &str, file: &PackageFile, access: &Access) -> Result<Action> {
        let path = format!("{folder}/{}", file.name);
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.ensure_folder(parent, access)?;
        }
        self.write_file_with(&path, file.size, file.sha256, access, || Content::of_package(file))
    }

    /// Requests that no file exists at this path.
    ///
    /// # Errors
    /// When the volume is damaged there.
    pub fn remove_file(&mut self, path: &str) -> Result<()> {
        if self.exists(path)? {
            self.push_step(file_place(path), Change::DeleteFile { path: path.to_owned() });
        }
        Ok(())
    }

    /// Requests a value with exactly this type and data.
    ///
    /// # Errors
    /// When the hive is damaged there.
    pub fn set_value(&mut self, hive: GuestHive, key: &str, name: &str, data: RegistryData) -> Result<Action> {
        let place = value_place(hive, key, name);
        let desired = Desired::Value { hive, key: key.to_owned(), name: name.to_owned(), data: data.clone() };
        match self.desired_index.get(&place).and_then(|&at| self.desired.get_mut(at)) {
            Some(earlier) => *earlier = desired,
            None => {
                self.desired_index.insert(place.clone(), self.desired.len());
                self.desired.push(desired);
            }
        }
        let before = registry::get_value(self.hive(hive)?, key, name)?;
        if before.as_ref() == Some(&data) {
            // an earlier request may have wanted something else; the last one counts
            self.drop_step(&place);
            return Ok(Action::Unchanged);
        }
        let action = if before.is_some() { Action::Updated } else { Action::Created };
        let change = Change::SetValue { hive, key: key.to_owned(), name: name.to_owned(), data, before };
        self.push_step(place, change);
        Ok(action)
    }

    /// Requests a key, whatever its values.
    ///
    /// # Errors
    /// When the hive is damaged there.
    pub fn create_key(&mut self, hive: GuestHive, key: &str) -> Result<()> {
        if registry::find_key(self.hive(hive)?, key)?.is_none() {
            let place = key_place(hive, key);
            self.push_step(place, Change::CreateKey { hive, key: key.to_owned() });
        }
        Ok(())
    }

    /// Requests that the value does not exist. Returns whether it exists now.
    ///
    /// # Errors
    /// When the hive is damaged there.
    pub fn remove_value(&mut self, hive: GuestHive, key: &str, name: &str) -> Result<bool> {
        let there = registry::get_value(self.hive(hive)?, key, name)?.is_some();
        if there {
            let place = value_place(hive, key, name);
            self.push_step(place, Change::DeleteValue { hive, key: key.to_owned(), name: name.to_owned() });
        }
        Ok(there)
    }

    /// Requests that neither the key nor anything below it exists. Returns whether the key exists now.
    ///
    /// # Errors
    /// When the hive is damaged there.
    pub fn remove_key(&mut self, hive: GuestHive, key: &str) -> Result<bool> {
        self.desired.push(Desired::AbsentKey { hive, key: key.to_owned() });
        self.remove_key_unrecorded(hive, key)
    }

    /// Like [`Self::remove_key`], for a key that later runs do not know: it is left out of the desired state, so that
    /// their manifest is the same.
    ///
    /// # Errors
    /// When the hive is damaged there.
    pub fn remove_key_unrecorded(&mut self, hive: GuestHive, key: &str) -> Result<bool> {
        let there = registry::find_key(self.hive(hive)?, key)?.is_some();
        if there {
            let place = key_place(hive, key);
            self.push_step(place, Change::DeleteKey { hive, key: key.to_owned() });
        }
        Ok(there)
    }

    /// The plan: files first, then the hives with SYSTEM last; otherwise in the order of the requests. With the hives
    /// that inspection had not loaded.
    #[must_use]
    pub fn finish(self) -> (Plan, Hives) {
        let mut plan = self.plan;
        plan.steps = self.steps.into_iter().flatten().collect();
        plan.boot = self.boot.filter(|_| plan.of_boot_volume().next().is_some());
        plan.steps.sort_by_key(|step| step.change.hive());
        plan.uploads.sort_unstable();
        (plan, self.hives)
    }
}

/// The name of a file or folder among the places of the steps.
pub(super) fn file_place(path: &str) -> String {
    format!("file {}", path.folded())
}

/// The name of a key among the places of the steps.
pub(super) fn key_place(hive: GuestHive, key: &str) -> String {
    format!("{hive}\\{}", key.folded())
}

/// The name of a value among the places of the steps.
pub(super) fn value_place(hive: GuestHive, key: &str, name: &str) -> String {
    format!("{}:{}", key_place(hive, key), name.folded())
}
