//! How long each phase took, as bars.

use crate::escape::html;
use crate::job::report::fields::Phase;

pub(super) fn write(out: &mut String, phases: &[Phase]) {
    let longest = phases.iter().map(|phase| phase.milliseconds).max().unwrap_or(0);
    if longest == 0 {
        return;
    }
    let total: u64 = phases.iter().map(|phase| phase.milliseconds).fold(0, u64::saturating_add);
    out.push_str(&format!("<h2>Time</h2>\n<p>{} in all</p>\n", seconds(total)));
    for phase in phases {
        write_bar(out, &html(&phase.title), phase.milliseconds, longest, &seconds(phase.milliseconds));
    }
}

/// Writes a bar under a title, which is HTML, as long as `value` of `longest`, and a text.
pub(crate) fn write_bar(out: &mut String, title: &str, value: u64, longest: u64, text: &str) {
    let per_mille = value.saturating_mul(1000).checked_div(longest).unwrap_or(0);
    out.push_str(&format!(
        "<div class=\"phase\"><span>{title}</span><svg aria-hidden=\"true\"><rect width=\"{}.{}%\" height=\"100%\" rx=\"3\"/></svg><span>{}</span></div>\n",
        per_mille / 10,
        per_mille % 10,
        html(text)
    ));
}

/// A duration for people, in seconds.
fn seconds(milliseconds: u64) -> String {
    format!("{}.{:02} s", milliseconds / 1000, milliseconds % 1000 / 10)
}
