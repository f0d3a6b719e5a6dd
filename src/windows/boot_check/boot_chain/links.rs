//! Collects findings at the links of the boot chain.

use crate::error::{Kind, Result};
use crate::windows::boot_check::code::Code;
use crate::windows::boot_check::report::{Finding, Gate, Level};

/// Findings at the links of the boot chain.
#[derive(Debug, Default)]
pub(super) struct ChainFindings(pub Vec<Finding>);

impl ChainFindings {
    fn add(&mut self, gate: Gate, level: Level, code: Code, text: impl Into<String>) {
        self.0.push(Finding { gate, level, code, text: format!("{}: {}", gate.name(), text.into()) });
    }
    pub(super) fn good(&mut self, gate: Gate, code: Code, text: impl Into<String>) {
        self.add(gate, Level::Good, code, text);
    }
    pub(super) fn warn(&mut self, gate: Gate, code: Code, text: impl Into<String>) {
        self.add(gate, Level::Warning, code, text);
    }
    pub(super) fn fail(&mut self, gate: Gate, code: Code, text: impl Into<String>) {
        self.add(gate, Level::Failure, code, text);
    }
    pub(super) fn not_judged(&mut self, gate: Gate, text: impl Into<String>) {
        self.not_judged_for(gate, Code::NotJudged, text);
    }
    pub(super) fn not_judged_for(&mut self, gate: Gate, code: Code, text: impl Into<String>) {
        let text = format!("not judged: {}", text.into());
        self.0.push(Finding { gate, level: Level::NotJudged, code, text });
    }
    fn has_boot_manager(&self) -> bool {
        self.0.iter().any(|finding| finding.code == Code::BootManager)
    }

    /// How far the chain leads: to the loader of Windows, to something that is not judged, or to a failure.
    pub(super) fn reach(&self) -> Reach {
        match () {
            () if self.0.iter().any(|finding| finding.level == Level::Failure) => Reach::Failure,
            () if self.0.iter().any(|finding| finding.code == Code::OsLoader) => Reach::Loader,
            () => Reach::Unknown,
        }
    }
}

/// How far a chain leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    Failure,
    Unknown,
    Loader,
}

/// The chain that leads farthest of those that one firmware can take, the first of equal ones; with the name of the disk that
/// it begins on, if that is not the one with Windows.
#[derive(Debug, Default)]
pub(super) struct BestChain<'a>(Option<(ChainFindings, Option<&'a str>)>);

impl<'a> BestChain<'a> {
    /// Compares with another chain, that of the disk with Windows first. Returns whether it leads to the loader, so that no
    /// more are needed.
    ///
    /// A chain of another disk that is not judged to its end says little of this Windows: it may be a disk of another one.
    /// It counts only where the disk with Windows starts no chain, and only if a boot manager was seen.
    pub(super) fn offer(&mut self, other: ChainFindings, start: Option<&'a str>) -> bool {
        let reach = other.reach();
        let has_own = matches!(self.0, Some((_, None)));
        let is_vague = start.is_some() && reach == Reach::Unknown && (has_own || !other.has_boot_manager());
        if !is_vague && self.0.as_ref().is_none_or(|(best, _)| reach > best.reach()) {
            self.0 = Some((other, start));
        }
        reach == Reach::Loader
    }

    /// How far the chain leads; `None` if there was no chain at all.
    pub(super) fn reach(&self) -> Option<Reach> {
        self.0.as_ref().map(|(best, _)| best.reach())
    }

    /// Adds the findings of the chain to `links`; returns the disk to start from, if the chain leads to the loader.
    pub(super) fn add_to(self, links: &mut ChainFindings) -> Option<&'a str> {
        let (best, start) = self.0?;
        let start = start.filter(|_| best.reach() == Reach::Loader);
        links.0.extend(best.0);
        start
    }
}

/// The value of a link. Damage is a failure of that link; an unsupported or refused form is not judged.
pub(super) fn readable<T>(found: Result<T>, links: &mut ChainFindings, gate: Gate, what: &str) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == Kind::Damaged => {
            links.fail(gate, Code::LinkDamaged, format!("{what} cannot be read: {error}"));
            Ok(None)
        }
        Err(error) if matches!(error.kind(), Kind::Unsupported) && gate == Gate::Partition => {
            links.fail(gate, Code::NoSystemPartition, format!("{what} cannot be read: {error}"));
            Ok(None)
        }
        Err(error) if matches!(error.kind(), Kind::Unsupported | Kind::Refused) => {
            links.not_judged(gate, format!("{what}: {error}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
