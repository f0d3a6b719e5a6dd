//! What an INF says to one guest.

use super::document::Inf;
use super::facts::Facts;
use super::notes::Notes;
use super::target::{Misfit, TargetOs};
use crate::drivers::guest::GuestTarget;
use crate::error::Result;

impl Inf {
    /// Why the INF is not for a guest, as a kind and as text; `None` if it is.
    #[must_use]
    pub fn misfit(&self, guest: &GuestTarget) -> Option<(Misfit, String)> {
        let targets = self.targets();
        if targets.is_empty() {
            return Some((Misfit::Product, "it has no models section".to_owned()));
        }
        let reason = targets.iter().map(|t| t.fits(guest)).try_fold(Misfit::Cpu, |worst, fit| match fit {
            Ok(()) => None,
            Err(misfit) => Some(worst.min(misfit)),
        })?;
        let wanted: Vec<String> = targets.iter().take(8).map(TargetOs::describe).collect();
        Some((reason, format!("its INF is for {}", wanted.join("; "))))
    }

    /// Everything that the INF says to a guest. Without models for that guest, `models` and `installs` are empty.
    ///
    /// # Errors
    /// [`Kind::Drivers`](crate::error::Kind::Drivers) with file and line for what Windows would refuse to install: no class, a service without its
    /// section or binary, a registry value that is not a number.
    pub fn facts(&self, guest: &GuestTarget) -> Result<Facts> {
        let mut notes = Notes::default();
        let mut facts = self.version_facts(guest, &mut notes)?;
        facts.models = self.models_for(guest, &mut notes)?;
        self.install_facts(guest, &mut facts, &mut notes)?;
        facts.source_files = self.source_files(guest);
        facts.strings = self.strings.resolved().clone();
        self.warn_unknown_strings(&mut notes);
        facts.warnings = notes.warnings;
        Ok(facts)
    }
}
