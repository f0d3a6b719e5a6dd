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
        let per_mille = phase.milliseconds.saturating_mul(1000) / longest;
        out.push_str(&format!(
            "<div class=\"phase\"><span>{}</span><svg aria-hidden=\"true\"><rect width=\"{}.{}%\" height=\"100%\" rx=\"3\"/></svg><span>{}</span></div>\n",
            html(&phase.title),
            per_mille / 10,
            per_mille % 10,
            seconds(phase.milliseconds)
        ));
    }
}

/// A duration for people, in seconds.
fn seconds(milliseconds: u64) -> String {
    format!("{}.{:02} s", milliseconds / 1000, milliseconds % 1000 / 10)
}
