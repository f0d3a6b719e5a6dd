//! What a batch prints: JSON lines, or a line for each item that has ended and a summary.

use super::job::JobKind;
use crate::cli::Ui;
use crate::fleet::summary::summary;
use crate::fleet::supervisor::Summary;
use crate::fleet::tally::Tally;
use crate::fleet::{Begun, Event, Finished, Outcome};

/// Prints events to standard output.
pub(super) struct Printer<'a> {
    ui: &'a Ui,
    items: u64,
    ended: u64,
}

impl<'a> Printer<'a> {
    pub(super) fn new(ui: &'a Ui) -> Self {
        Self { ui, items: 0, ended: 0 }
    }

    /// Prints an event.
    pub(super) fn show(&mut self, event: &Event) {
        if self.ui.is_json() {
            return self.ui.json_part(&(event.to_line() + "\n"));
        }
        match event {
            Event::Begun(begun) => self.begin(begun),
            Event::Finished(finished) => self.end_item(finished),
            _ => {}
        }
    }

    fn begin(&mut self, begun: &Begun) {
        self.items = begun.items;
        for skipped in &begun.skipped {
            self.ui.note(&format!("not an item: {} ({})", skipped.image, skipped.reason));
        }
        if begun.shard.count > 1 {
            self.ui.note(&format!("shard {}: {} of {} items", begun.shard, begun.items, begun.items_in_all));
        }
    }

    fn end_item(&mut self, finished: &Finished) {
        self.ended += 1;
        let Finished { id, outcome, message, seconds, .. } = finished;
        let width = self.items.to_string().len();
        let line = format!("{:>width$}/{} {outcome:<12} {id}: {message} ({seconds:.1} s)", self.ended, self.items);
        self.ui.done(&line);
        for warning in finished.warnings.iter().filter(|_| self.ui.verbosity() > 0) {
            self.ui.done(&format!("{:width$}  {:12} warning: {warning}", "", ""));
        }
        if let Some(hint) = finished.hint.as_ref().filter(|_| !outcome.is_done()) {
            self.ui.done(&format!("{:width$}  {:12} {hint}", "", ""));
        }
    }

    /// Prints the end of a batch.
    pub(super) fn end(&self, job: JobKind, summary: &Summary) {
        let counts: Vec<String> = Outcome::ALL
            .iter()
            .filter_map(|outcome| summary.counts.get(outcome).map(|count| format!("{count} {outcome}")))
            .collect();
        let stopped = summary.stopped.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
        self.ui.done(&format!("{}: {} in {:.1} s{stopped}", job.name(), counts.join(", "), summary.seconds));
    }

    /// Prints the summary: what became of the items, why, and what to run next.
    pub(super) fn summarise(&self, tally: &Tally, seconds: f64, page: Option<&str>) {
        summary(tally, Some(seconds), page).lines().for_each(|line| self.ui.done(line));
    }
}
