//! Answers of `check` and `fsck` as JUnit XML, which pipelines show as tests: a test for each gate or invariant. There is a
//! failure among them exactly when the command answers with no.

use std::fmt::Write as _;

use crate::error::Error;
use crate::escape::xml;
use crate::ntfs::check::{CheckReport, Code, Severity};
use crate::windows::{BootCheck, Finding, Gate, Level};

/// The first bytes of every such document, by which an earlier one is recognised.
pub(crate) const JUNIT_START: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"winject ";

/// A document.
#[derive(Debug, Clone, Default)]
pub struct Junit {
    /// What was asked: `check`, `fsck`.
    verb: &'static str,
    suites: Vec<Suite>,
}

/// The tests of one bus or volume.
#[derive(Debug, Clone)]
struct Suite {
    name: String,
    cases: Vec<Case>,
}

/// A test.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    /// What else was found, a line each.
    pub(crate) output: Vec<String>,
}

/// What became of a test.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// It passed.
    Passed,
    /// Not decided, or without weight for the answer; why.
    Skipped(String),
    /// The lines, of which the first is the message.
    Failed(Vec<String>),
    /// The command could not answer.
    Error(String),
}

impl Junit {
    /// The answers of the boot check for each bus. If the guest boots from one of them (`boots`), the failures of another do
    /// not fail a test.
    #[must_use]
    pub fn of_boot(boots: bool, buses: &[BootCheck]) -> Self {
        let suites = buses.iter().map(|bus| Suite {
            name: bus.bus.name().to_owned(),
            cases: Gate::ALL.into_iter().filter_map(|gate| gate_case(boots, bus, gate)).collect(),
        });
        Self { verb: "check", suites: suites.collect() }
    }

    /// A document for volumes that are added with [`add_volume`](Self::add_volume).
    #[must_use]
    pub fn of_volumes() -> Self {
        Self { verb: "fsck", suites: Vec::new() }
    }

    /// Adds the faults of a volume; `replayed`: its log was open, which counts as a fault.
    pub fn add_volume(&mut self, name: &str, report: &CheckReport, replayed: bool) {
        let open = "not shut down cleanly: checked as it is after the replay of its NTFS log".to_owned();
        let outcome = if replayed { Outcome::Failed(vec![open]) } else { Outcome::Passed };
        let mut cases = vec![Case { name: "the NTFS log is closed".to_owned(), outcome, output: Vec::new() }];
        cases.extend(Code::ALL.iter().map(|code| code_case(report, *code)));
        let text = report.to_string();
        let total = text.lines().last().unwrap_or_default().to_owned();
        let outcome = if report.is_clean() { Outcome::Passed } else { Outcome::Failed(vec![total.clone()]) };
        cases.push(Case { name: "the volume is sound".to_owned(), outcome, output: vec![total] });
        self.suites.push(Suite { name: name.to_owned(), cases });
    }

    /// The document of a command that could not answer; `complete` completes the commands in its hint.
    #[must_use]
    pub fn of_error(verb: &'static str, error: &Error, complete: &dyn Fn(&str) -> String) -> Self {
        let text = match error.hint_text().map(complete) {
            Some(hint) => format!("{error} (hint: {hint})"),
            None => error.to_string(),
        };
        let case = Case { name: verb.to_owned(), outcome: Outcome::Error(text), output: Vec::new() };
        Self { verb, suites: vec![Suite { name: verb.to_owned(), cases: vec![case] }] }
    }

    /// The document. Whatever strings it holds, it is well-formed XML 1.0.
    #[must_use]
    pub fn to_xml(&self) -> String {
        let mut out = start(self.verb, &Counts::of(self.suites.iter().flat_map(|s| &s.cases)));
        // Writing to a String cannot fail.
        let _ = self.suites.iter().try_for_each(|suite| self.write_suite(&mut out, suite));
        out.push_str(END);
        out
    }

    fn write_suite(&self, out: &mut String, suite: &Suite) -> std::fmt::Result {
        out.push_str(&suite_start(&suite.name, &Counts::of(suite.cases.iter())));
        let class = format!("{}.{}", self.verb, suite.name);
        suite.cases.iter().try_for_each(|case| case.write(out, &class, None))?;
        out.push_str(SUITE_END);
        Ok(())
    }
}

/// The beginning of a document about `verb`.
pub(crate) fn start(verb: &str, counts: &Counts) -> String {
    format!("{JUNIT_START}{}\" {counts}>\n", xml(verb))
}

/// The end of a document.
pub(crate) const END: &str = "</testsuites>\n";

/// The beginning of a suite.
pub(crate) fn suite_start(name: &str, counts: &Counts) -> String {
    format!("  <testsuite name=\"{}\" {counts}>\n", xml(name))
}

/// The end of a suite.
pub(crate) const SUITE_END: &str = "  </testsuite>\n";

impl Case {
    /// Writes the test; `class` is what it is a test of, `seconds` how long it took.
    pub(crate) fn write(&self, out: &mut String, class: &str, seconds: Option<f64>) -> std::fmt::Result {
        write!(out, "    <testcase classname=\"winject.{}\" name=\"{}\"", xml(class), xml(&self.name))?;
        if let Some(seconds) = seconds {
            write!(out, " time=\"{seconds:.3}\"")?;
        }
        out.push('>');
        let message = |lines: &[String]| lines.first().map(|line| xml(line)).unwrap_or_default();
        match &self.outcome {
            Outcome::Passed => {}
            Outcome::Skipped(why) => write!(out, "<skipped message=\"{}\"/>", xml(why))?,
            Outcome::Failed(lines) => {
                write!(out, "<failure message=\"{}\" type=\"failure\">{}</failure>", message(lines), text(lines))?;
            }
            Outcome::Error(why) => write!(out, "<error message=\"{}\" type=\"error\"/>", xml(why))?,
        }
        if !self.output.is_empty() {
            write!(out, "<system-out>{}</system-out>", text(&self.output))?;
        }
        out.push_str("</testcase>\n");
        Ok(())
    }
}

/// How many tests there are, and what became of them. Shown as attributes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) tests: u64,
    pub(crate) failures: u64,
    pub(crate) errors: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    fn of<'c>(cases: impl Iterator<Item = &'c Case>) -> Self {
        let mut counts = Self::default();
        cases.for_each(|case| counts.add(&case.outcome, 1));
        counts
    }

    /// Counts so many tests of an outcome.
    pub(crate) fn add(&mut self, outcome: &Outcome, tests: u64) {
        self.tests = self.tests.saturating_add(tests);
        let place = match outcome {
            Outcome::Passed => return,
            Outcome::Skipped(_) => &mut self.skipped,
            Outcome::Failed(_) => &mut self.failures,
            Outcome::Error(_) => &mut self.errors,
        };
        *place = place.saturating_add(tests);
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tests, failures, errors, skipped } = self;
        write!(f, "tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\"")
    }
}

/// Lines as the text of an element.
fn text(lines: &[String]) -> String {
    lines.iter().map(|line| xml(line)).collect::<Vec<_>>().join("\n")
}

/// The findings at a gate; `None` if there are none.
fn gate_case(boots: bool, bus: &BootCheck, gate: Gate) -> Option<Case> {
    let found: Vec<&Finding> = bus.findings.iter().filter(|finding| finding.gate == gate).collect();
    let worst = found.iter().map(|finding| finding.level).max()?;
    let line = |finding: &&Finding| format!("{}: {}", finding.level.mark(), finding.text);
    let (failed, other): (Vec<&Finding>, Vec<&Finding>) =
        found.into_iter().partition(|finding| finding.level == Level::Failure);
    let mut output: Vec<String> = other.iter().map(line).collect();
    let outcome = match worst {
        // Another bus starts the guest.
        Level::Failure if boots => {
            output.splice(0..0, failed.iter().map(line));
            Outcome::Skipped(format!("does not boot from {}, but from another bus", bus.bus.name()))
        }
        Level::Failure => Outcome::Failed(failed.iter().map(|finding| finding.text.clone()).collect()),
        Level::NotJudged if output.len() == 1 => {
            Outcome::Skipped(other.first().map(|finding| finding.text.clone()).unwrap_or_default())
        }
        _ => Outcome::Passed,
    };
    Some(Case { name: gate.name().to_owned(), outcome, output })
}

/// The faults of an invariant.
fn code_case(report: &CheckReport, code: Code) -> Case {
    let faults = report.faults.iter().filter(|fault| fault.code == code);
    let (errors, minor): (Vec<_>, Vec<_>) = faults.partition(|fault| fault.severity == Severity::Error);
    let shown = u64::try_from(errors.len() + minor.len()).unwrap_or(u64::MAX);
    let more = report.counts.get(&code).copied().unwrap_or(0).saturating_sub(shown);
    let mut output: Vec<String> = minor.iter().map(ToString::to_string).collect();
    if more > 0 {
        output.push(format!("and {more} more of {code}"));
    }
    let outcome = match errors.is_empty() {
        true => Outcome::Passed,
        false => Outcome::Failed(errors.iter().map(ToString::to_string).collect()),
    };
    Case { name: format!("{code}: {}", code.invariant()), outcome, output }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntfs::check::Fault;

    #[test]
    fn no_string_breaks_the_document() {
        let hostile = "]]></failure><x a=\"'&\u{0}\u{1b}\u{fffe}\u{ffff}\u{202e}\n\u{85}";
        let mut report = CheckReport::default();
        let code = Code::ALL[0];
        report.faults.push(Fault { path: Some(hostile.to_owned()), ..Fault::new(code, hostile) });
        report.counts.insert(code, 2);
        report.errors = 1;
        let mut junit = Junit::of_volumes();
        junit.add_volume(hostile, &report, true);
        let text = junit.to_xml();
        let is_forbidden = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{202e}');
        assert!(!text.contains(is_forbidden) && !text.contains("<x a"), "{text}");
        assert!(text.starts_with(JUNIT_START) && text.contains("failures=\"3\" errors=\"0\""), "{text}");
        assert!(text.contains("and 1 more of"), "{text}");
    }
}
