//! How long the phases of a job take.

use std::cell::RefCell;
use std::path::Path;
use std::time::Instant;

use super::report::{Phase, Report};
use super::request::Observer;
use super::step::Step;

/// Passes everything on to the observer of a job, and measures its phases.
pub(super) struct PhaseClock<'a> {
    observer: &'a dyn Observer,
    begun: RefCell<Vec<(Step, Instant)>>,
}

impl<'a> PhaseClock<'a> {
    /// Runs a job with the observer, and adds its phases to the report, whatever the outcome.
    pub(super) fn measure<T>(
        observer: &'a dyn Observer,
        report: &mut Report,
        job: impl FnOnce(&dyn Observer, &mut Report) -> T,
    ) -> T {
        let clock = Self { observer, begun: RefCell::default() };
        let outcome = job(&clock, report);
        report.phases = clock.phases();
        outcome
    }

    fn phases(self) -> Vec<Phase> {
        let begun = self.begun.into_inner();
        let ends = begun.iter().skip(1).map(|(_, begin)| *begin).chain([Instant::now()]);
        let durations = ends.zip(&begun).map(|(end, (_, begin))| end.saturating_duration_since(*begin));
        let phases = begun.iter().zip(durations).map(|((step, _), duration)| Phase {
            title: step.title().to_owned(),
            milliseconds: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        });
        phases.collect()
    }
}

impl Observer for PhaseClock<'_> {
    fn step(&self, step: Step) {
        self.begun.borrow_mut().push((step, Instant::now()));
        self.observer.step(step);
    }
    fn image(&self, path: &Path) {
        self.observer.image(path);
    }
    fn progress(&self, done: u64, total: u64) {
        self.observer.progress(done, total);
    }
}
