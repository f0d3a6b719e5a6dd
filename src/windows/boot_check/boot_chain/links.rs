//! Collects findings at the links of the boot chain.

use crate::error::{Kind, Result};
use crate::windows::boot_check::report::{Code, Finding, Gate, Level};

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
        let text = format!("not judged: {}", text.into());
        self.0.push(Finding { gate, level: Level::NotJudged, code: Code::NotJudged, text });
    }
    pub(super) fn has_failure(&self) -> bool {
        self.0.iter().any(|finding| finding.level == Level::Failure)
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
