//! A line on a terminal that shows how far a command is.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::lines::{Moment, seconds_text};
use crate::escape::escape;

/// Template of a line whose number of bytes is not known.
const SPINNER: &str = "{spinner} {wide_msg}";
/// Template of a line with a known number of bytes; `prefix` holds rate and remaining time.
const BAR: &str = "{msg} {wide_bar} {percent:>3} %  {bytes}/{total_bytes}{prefix}";

/// The line, once there is something to show.
#[derive(Debug, Default)]
pub(super) struct Bar(Option<ProgressBar>);

impl Bar {
    /// Draws the line anew.
    pub(super) fn draw(&mut self, moment: &Moment<'_>) {
        self.draw_to(moment, ProgressDrawTarget::stderr);
    }

    /// Takes the line away.
    pub(super) fn clear(&mut self) {
        if let Some(line) = self.0.take() {
            line.finish_and_clear();
        }
    }

    fn draw_to(&mut self, moment: &Moment<'_>, target: impl FnOnce() -> ProgressDrawTarget) {
        let line = self.0.get_or_insert_with(|| ProgressBar::with_draw_target(None, target()));
        let has_total = moment.total > 0;
        if has_total != line.length().is_some() || line.position() == 0 {
            // The templates are our own; with a wrong one the default style stays.
            if let Ok(style) = ProgressStyle::with_template(if has_total { BAR } else { SPINNER }) {
                line.set_style(style);
            }
        }
        let title = escape(moment.title);
        if has_total {
            line.set_length(moment.total);
            line.set_message(title.into_owned());
            let rate = moment.rate_text().map(|rate| format!("  {rate}")).unwrap_or_default();
            let left = moment.remaining().map(|left| format!("  {} left", seconds_text(left))).unwrap_or_default();
            line.set_prefix(rate + &left);
        } else {
            line.unset_length();
            let bytes = moment.bytes_text().map(|bytes| format!(": {bytes}")).unwrap_or_default();
            line.set_message(format!("{title}{bytes}  {}", seconds_text(moment.phase_time)));
        }
        line.set_position(moment.done);
        line.tick();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn moment(title: &str, done: u64, total: u64) -> Moment<'_> {
        let time = Duration::from_secs(2);
        Moment { name: "copy", title, done, first: 0, total, phase_time: time, job_time: time }
    }

    #[test]
    fn a_title_cannot_steer_the_terminal() {
        let mut bar = Bar::default();
        bar.draw_to(&moment("Checking \u{1b}[31m{bar}", 0, 0), ProgressDrawTarget::hidden);
        let message = bar.0.as_ref().map(ProgressBar::message);
        assert_eq!(message.as_deref(), Some("Checking \\u{1b}[31m{bar}  2 s"));
    }

    #[test]
    fn the_templates_are_valid() {
        for template in [SPINNER, BAR] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_spinner_becomes_a_bar_and_a_spinner_again() {
        let mut bar = Bar::default();
        for (done, total, length) in [(0, 0, None), (3, 10, Some(10)), (0, 0, None)] {
            bar.draw_to(&moment("Writing", done, total), ProgressDrawTarget::hidden);
            let line = bar.0.as_ref().unwrap();
            assert_eq!((line.position(), line.length()), (done, length));
        }
    }
}
