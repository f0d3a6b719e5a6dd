//! A line on the error output that shows how far a job is.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::escape::escape;

/// Time between two drawings.
const TICK: Duration = Duration::from_millis(120);

/// Template of a line whose number of bytes is not known yet.
const SPINNER: &str = "{spinner} {wide_msg}";

/// Template of a line with a known number of bytes.
const BAR: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {eta}";

/// A running progress line; it vanishes when dropped.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A line that is never drawn.
    pub(super) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// A spinner with a title, which may hold strings of an image. Drawn by a thread until it is dropped, and only if the
    /// error output is a terminal.
    pub(super) fn start(title: &str) -> Self {
        let line = Self(ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        line.set_template(SPINNER);
        line.0.set_message(escape(title).into_owned());
        line.0.enable_steady_tick(TICK);
        line
    }

    /// Turns the spinner into a bar once `total` bytes are known, and shows that `done` of them are done.
    pub fn set(&self, done: u64, total: u64) {
        if total > 0 && self.0.length() != Some(total) {
            self.set_template(BAR);
            self.0.set_length(total);
        }
        self.0.set_position(done);
    }

    fn set_template(&self, template: &str) {
        // The templates are our own; with a wrong one the default style stays.
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_cannot_steer_the_terminal() {
        let line = Progress::start("Checking \u{1b}[31m{bar}");
        assert_eq!(line.0.message(), "Checking \\u{1b}[31m{bar}");
    }

    #[test]
    fn the_templates_are_valid() {
        for template in [SPINNER, BAR] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_spinner_becomes_a_bar_when_the_total_is_known() {
        let line = Progress::start("Writing");
        assert_eq!(line.0.length(), None);
        line.set(3, 10);
        assert_eq!((line.0.position(), line.0.length()), (3, Some(10)));
        drop(Progress::hidden());
    }
}
