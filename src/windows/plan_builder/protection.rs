//! Protection of winject's own folder in the guest: a script in it runs as SYSTEM, so only SYSTEM and administrators may
//! write there.

use super::builder::{PlanBuilder, file_place};
use crate::error::{Error, Layer, Result};
use crate::ntfs::security::{Protected, is_owned_by_system};
use crate::plan::Change;
use crate::upcase::Fold;
use crate::windows::guest_files::is_trusted;

/// Most files and folders of others in our folder that are protected.
const PROTECTED_MAX: usize = 20_000;

impl PlanBuilder<'_> {
    /// An existing file or folder of ours gets our descriptor: a folder that another user made may be open to
    /// every user of the guest, and what lies in it runs as the system.
    pub(super) fn protect(&mut self, path: &str, what: Protected) -> Result<()> {
        let Some(found) = self.files.protection(path)? else { return Ok(()) };
        if found.is_link {
            return Err(Error::refused(Layer::Windows, "a link is in the place of winject's own folder in the guest")
                .path(path)
                .hint("remove it in the guest: what winject puts there runs as the system"));
        }
        if found.descriptor.as_deref() != Some(what.descriptor().as_slice()) {
            self.push_step(format!("protect {}", path.folded()), Change::Protect { path: path.to_owned() });
        }
        Ok(())
    }

    /// Gives our descriptor to everything below the folder `top` that the plan does not touch anyway. Links are
    /// refused: their targets are out of reach.
    ///
    /// # Errors
    /// [`Kind::Refused`](crate::Kind::Refused) for a link or far too many files; when the volume is damaged there.
    pub fn protect_below(&mut self, top: &str) -> Result<()> {
        let mut left = PROTECTED_MAX;
        let mut pending = vec![top.to_owned()];
        while let Some(folder) = pending.pop() {
            if !self.exists(&folder)? {
                continue;
            }
            let folders = self.files.folders(&folder)?.into_iter().map(|name| (name, Protected::Directory));
            let files = self.files.file_names(&folder)?.into_iter().map(|name| (name, Protected::File));
            for (name, what) in folders.chain(files).collect::<Vec<_>>() {
                left = left.checked_sub(1).ok_or_else(|| {
                    Error::refused(Layer::Windows, format!("more than {PROTECTED_MAX} files in winject's own folder"))
                        .path(top)
                        .hint("remove the folder in the guest")
                })?;
                let path = format!("{folder}/{name}");
                if self.is_deleted(&path) {
                    continue;
                }
                let found = self.files.protection(&path)?.ok_or_else(|| {
                    Error::refused(Layer::Windows, "a file in winject's own folder has a name that Windows cannot open")
                        .path(&path)
                        .hint("remove it in the guest: chkdsk C: /f gives it another name")
                })?;
                if found.is_link || !found.descriptor.is_some_and(|descriptor| what.is_met_by(&descriptor)) {
                    self.protect(&path, what)?;
                }
                if what == Protected::Directory {
                    pending.push(path);
                }
            }
        }
        Ok(())
    }

    /// Whether the plan removes this file or folder.
    #[must_use]
    pub fn is_deleted(&self, path: &str) -> bool {
        matches!(self.planned_step(&file_place(path)), Some(Change::DeleteFile { .. }))
    }

    /// Whether a file of ours is protected as we protect it: what it says can come from the system and administrators
    /// only.
    ///
    /// # Errors
    /// When the volume is damaged there.
    pub fn is_protected_file(&self, path: &str) -> Result<bool> {
        let found = self.files.protection(path)?.and_then(|found| found.descriptor);
        Ok(self.is_trusted(path)? && found.is_some_and(|descriptor| Protected::File.is_met_by(&descriptor)))
    }

    /// Whether a file or folder is owned by the system or administrators, and writable by them only.
    ///
    /// # Errors
    /// When the volume is damaged there.
    pub fn is_writable_by_administrators_only(&self, path: &str, what: Protected) -> Result<bool> {
        let Some(found) = self.files.protection(path)? else { return Ok(false) };
        let is_met = |descriptor: &[u8]| is_owned_by_system(descriptor) && what.is_met_by(descriptor);
        Ok(!found.is_link && found.descriptor.is_some_and(|descriptor| is_met(&descriptor)))
    }

    /// Whether only the system and administrators can have written this file or folder: its folder is as an earlier run
    /// of ours left it, and it is owned by them.
    ///
    /// # Errors
    /// When the volume is damaged there.
    pub fn is_trusted(&self, path: &str) -> Result<bool> {
        is_trusted(self.files, path)
    }
}
