//! `[Manufacturer]` and the models sections: which section a guest takes, and the devices in it.

use super::columns::{manufacturer, models};
use super::document::Inf;
use super::facts::{Model, Text};
use super::lex::Section;
use super::notes::Notes;
use super::target::TargetOs;
use crate::drivers::guest::GuestTarget;
use crate::error::Result;

/// Most decorations of an INF; real ones have up to a few dozen.
const TARGETS_MAX: usize = 1024;
/// Cost of a model, in lines of other sections.
const MODEL_COST: usize = 10;

/// A line of `[Manufacturer]`: a manufacturer and where its models are.
pub(super) struct Maker {
    pub name: Text,
    pub section: String,
    pub targets: Vec<TargetOs>,
    /// The decorations as written, in the order of `targets`.
    pub decorations: Vec<String>,
}

impl Inf {
    /// The decorations of all models sections, with those sections' base names.
    #[must_use]
    pub fn targets(&self) -> Vec<TargetOs> {
        let mut out: Vec<TargetOs> = Vec::new();
        for maker in self.makers(&mut Notes::default()) {
            for target in maker.targets {
                if !out.contains(&target) {
                    out.push(target);
                }
            }
        }
        out
    }

    /// The lines of `[Manufacturer]`. A line without decorations means the plain section.
    pub(super) fn makers(&self, notes: &mut Notes) -> Vec<Maker> {
        let Some(section) = self.section("Manufacturer") else { return Vec::new() };
        let mut out = Vec::new();
        let mut targets = 0;
        for line in section.lines.iter().take(TARGETS_MAX) {
            // "%Maker%" alone: the section has the maker's own name
            let name = line.key.as_deref().unwrap_or_else(|| line.value());
            let models = if line.key.is_some() { line.field(manufacturer::MODELS_SECTION) } else { name };
            let mut maker = Maker {
                name: self.text(name),
                section: self.expand(models),
                targets: Vec::new(),
                decorations: Vec::new(),
            };
            let decorations = line.fields.iter().skip(manufacturer::TARGET_OS);
            let decorations = decorations.map(|d| self.expand(d)).filter(|d| !d.is_empty());
            for decoration in decorations.take(TARGETS_MAX.saturating_sub(targets)) {
                targets += 1;
                match TargetOs::parse(&decoration) {
                    Some(target) => {
                        maker.targets.push(target);
                        maker.decorations.push(decoration);
                    }
                    None => notes.warn(self.warning(line.number, format!("not a target system: {decoration:?}"))),
                }
            }
            // on x86 Windows falls back to the undecorated section
            if maker.targets.is_empty() || self.section(&maker.section).is_some() {
                maker.targets.push(TargetOs::none());
                maker.decorations.push(String::new());
            }
            out.push(maker);
        }
        out
    }

    /// The devices of the sections that a guest takes: of each maker the best-ranked section that fits. If that section
    /// is empty or missing, the maker has nothing for this guest; that is how INFs exclude a Windows.
    pub(super) fn models_for(&self, guest: &GuestTarget, notes: &mut Notes) -> Result<Vec<Model>> {
        let mut out = Vec::new();
        for maker in self.makers(notes) {
            let fitting = maker.targets.iter().zip(&maker.decorations).filter(|(target, _)| target.fits(guest).is_ok());
            let Some((_, decoration)) = fitting.max_by_key(|(target, _)| target.rank()) else { continue };
            let name = match decoration.as_str() {
                "" => maker.section.clone(),
                decoration => format!("{}.{decoration}", maker.section),
            };
            if let Some(section) = self.section(&name) {
                self.read_models(section, &maker.name, &mut out, notes)?;
            }
        }
        Ok(out)
    }

    fn read_models(&self, section: &Section, maker: &Text, out: &mut Vec<Model>, notes: &mut Notes) -> Result<()> {
        for line in &section.lines {
            notes.spend(MODEL_COST, self.file(), line.number)?;
            let Some(description) = &line.key else {
                notes.warn(self.warning(line.number, "a model without a description is left out"));
                continue;
            };
            let ids = line.fields.iter().skip(models::HARDWARE_ID);
            let ids: Vec<String> = ids.map(|id| self.expand(id)).filter(|id| !id.is_empty()).collect();
            let install = self.expand(line.field(models::INSTALL_SECTION));
            let Some((first, rest)) = ids.split_first() else {
                // legal: a device that is only installed by hand
                continue;
            };
            let only_compatible = line.field(models::HARDWARE_ID).is_empty();
            out.push(Model {
                manufacturer: maker.clone(),
                description: self.text(description),
                install,
                hardware_id: if only_compatible { String::new() } else { first.clone() },
                compatible_ids: if only_compatible { ids } else { rest.to_vec() },
                section: section.name.clone(),
                line: u32::try_from(line.number).unwrap_or(u32::MAX),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::target::Misfit;
    use super::*;
    use crate::drivers::guest::Arch;

    const INF: &str = r#"
[Version]
Signature="$Windows NT$"
Class=Net
[Manufacturer]
%M% = Dev, NTx86.6.1, NTamd64.6.1, NTamd64.6.3, NTamd64.10.0...16299, NTamd64.10.0.3
[Dev]
%D% = plain, PCI\X86
[Dev.NTx86.6.1]
%D% = seven86, PCI\A
[Dev.NTamd64.6.1]
%D% = seven, PCI\A, PCI\B, PCI\C
%D% = seven,, PCI\ONLY_COMPATIBLE
%D% = byhand
[Dev.NTamd64.6.3]
[Dev.NTamd64.10.0...16299]
%D% = ten, PCI\A
[Dev.NTamd64.10.0.3]
%D% = server, PCI\A
[Strings]
M="Maker"
D="Device"
"#;

    fn first(arch: Arch, build: u32, server: bool) -> Option<String> {
        let inf = Inf::parse(INF.as_bytes(), "x.inf").unwrap();
        inf.models_for(&GuestTarget::of_build(arch, build, server), &mut Notes::default())
            .unwrap()
            .first()
            .map(|m| m.install.clone())
    }

    #[test]
    fn the_best_section_wins() {
        assert_eq!(first(Arch::Amd64, 7601, false).as_deref(), Some("seven"));
        assert_eq!(first(Arch::Amd64, 9200, false).as_deref(), Some("seven"));
        assert_eq!(first(Arch::Amd64, 9600, false), None, "an empty section excludes");
        assert_eq!(first(Arch::Amd64, 14393, false), None, "10.0 before 16299 takes the empty 6.3");
        assert_eq!(first(Arch::Amd64, 14393, true).as_deref(), Some("server"));
        assert_eq!(first(Arch::Amd64, 19045, false).as_deref(), Some("ten"));
        assert_eq!(first(Arch::X86, 7601, false).as_deref(), Some("seven86"));
        assert_eq!(first(Arch::X86, 2600, false).as_deref(), Some("plain"));
        assert_eq!(first(Arch::Amd64, 6002, true), None);
        assert_eq!(first(Arch::Arm64, 22631, false), None);
    }

    #[test]
    fn ids_of_a_model() {
        let inf = Inf::parse(INF.as_bytes(), "x.inf").unwrap();
        let models = inf.models_for(&GuestTarget::of_build(Arch::Amd64, 7601, false), &mut Notes::default()).unwrap();
        assert_eq!(models.len(), 2);
        assert_eq!((models[0].hardware_id.as_str(), models[0].compatible_ids.len()), ("PCI\\A", 2));
        assert_eq!((models[1].hardware_id.as_str(), models[1].compatible_ids.len()), ("", 1));
        assert_eq!(models[0].section, "Dev.NTamd64.6.1");
        assert_eq!(models[0].manufacturer.resolved, "Maker");
    }

    #[test]
    fn why_not() {
        let inf = Inf::parse(INF.as_bytes(), "x.inf").unwrap();
        let misfit = |arch, build| inf.misfit(&GuestTarget::of_build(arch, build, false)).map(|m| m.0);
        assert_eq!(misfit(Arch::Arm64, 22631), Some(Misfit::Cpu));
        assert_eq!(misfit(Arch::Amd64, 6002), Some(Misfit::TooOld));
        assert_eq!(misfit(Arch::Amd64, 19045), None);
    }
}
