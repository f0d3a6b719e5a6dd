//! How long the phases of a job take.

use std::cell::RefCell;
use std::path::Path;
use std::time::Instant;

use super::report::{Phase, Report};
use super::request::Observer;

/// Passes everything on to the observer of a job, and measures its phases.
pub(super) struct PhaseClock<'a> {
    observer: &'a dyn Observer,
    begun: RefCell<Vec<(String, Instant)>>,
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
        let phases = begun.iter().zip(durations).map(|((title, _), duration)| Phase {
            title: title.clone(),
            milliseconds: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        });
        phases.collect()
    }
}

impl Observer for PhaseClock<'_> {
    fn step(&self, title: &str) {
        self.begun.borrow_mut().push((title.to_owned(), Instant::now()));
        self.observer.step(title);
    }
    fn image(&self, path: &Path) {
        self.observer.image(path);
    }
    fn progress(&self, done: u64, total: u64) {
        self.observer.progress(done, total);
    }
}
