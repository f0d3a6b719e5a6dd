//! Every image with its link, by outcome, in parts that are folded up.

use std::path::{Component, Path, PathBuf};

use super::table::{row, table_start, tone};
use crate::error::Result;
use crate::escape::{html, shorten};
use crate::fleet::merge::Merged;
use crate::fleet::outcome::Outcome;
use crate::fleet::record::Finished;
use crate::fleet::tally::Tally;

/// Items of a part.
const PART: u64 = 250;
/// Items of an outcome that are shown at once, if it is not a good one.
const OPEN_MAX: u64 = 50;
/// Characters of a message.
const MESSAGE_MAX: usize = 500;

const TITLES: [&str; 5] = ["Item", "Image", "Result", "Warnings", "Seconds"];

pub(super) fn write(
    merged: &mut Merged,
    tally: &Tally,
    folder: &Path,
    write: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<()> {
    write("<h2>Images</h2>\n")?;
    // The bad ones first.
    for outcome in Outcome::ALL.into_iter().rev() {
        let count = tally.count(outcome);
        if count > 0 {
            write_outcome(merged, outcome, count, folder, write)?;
        }
    }
    Ok(())
}

fn write_outcome(
    merged: &mut Merged,
    outcome: Outcome,
    count: u64,
    folder: &Path,
    write: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<()> {
    let name = outcome.name();
    let is_parted = count > PART;
    let open = if !outcome.is_done() && count <= OPEN_MAX { " open" } else { "" };
    write(&format!(
        "<details class=\"group\" id=\"{name}\"{open}><summary><span class=\"{}\">{name}</span>: {count}</summary>\n",
        tone(outcome)
    ))?;
    let mut number = 0_u64;
    let start = table_start(&TITLES);
    let mut links = Links::new(folder);
    merged.for_each(&[outcome], &mut |finished, source| {
        if number.is_multiple_of(PART) {
            if number > 0 {
                write(if is_parted { "</table>\n</details>\n" } else { "</table>\n" })?;
            }
            if is_parted {
                let last = number.saturating_add(PART).min(count);
                let first = html(&shorten(&finished.id, 60));
                write(&format!("<details><summary>{} to {last}, from {first}</summary>\n", number.saturating_add(1)))?;
            }
            write(&start)?;
        }
        number = number.saturating_add(1);
        write(&item_row(finished, links.to(source, finished.report.as_deref()).as_deref()))
    })?;
    match (number, is_parted) {
        (0, _) => {}
        (_, true) => write("</table>\n</details>\n")?,
        (_, false) => write("</table>\n")?,
    }
    write("</details>\n")
}

fn item_row(finished: &Finished, link: Option<&str>) -> String {
    let id = html(&finished.id);
    let id = match link {
        Some(link) => format!("<a href=\"{}\">{id}</a>", html(link)),
        None => id,
    };
    let message = html(&shorten(&finished.message, MESSAGE_MAX));
    let reason = finished.reason.as_ref().map(|reason| format!(" <code>{}</code>", html(reason))).unwrap_or_default();
    let warnings: Vec<String> = finished.warnings.iter().map(|warning| html(&shorten(warning, MESSAGE_MAX))).collect();
    let seconds = format!("{:.2}", finished.seconds);
    row(&[
        ("Item", &id),
        // An item without an id of its own has its image's path.
        ("Image", &if finished.image == finished.id { String::new() } else { html(&finished.image) }),
        ("Result", &format!("{message}{reason}")),
        ("Warnings", &warnings.join("<br>")),
        ("Seconds", &seconds),
    ])
}

/// Links from the page to files in results folders.
struct Links<'f> {
    page: &'f Path,
    /// The last folder, and the way to it.
    last: Option<(PathBuf, Option<String>)>,
}

impl<'f> Links<'f> {
    fn new(page: &'f Path) -> Self {
        Self { page, last: None }
    }

    /// The link to a file below a results folder; `None` for one that a record puts elsewhere.
    fn to(&mut self, folder: &Path, file: Option<&str>) -> Option<String> {
        let file = Path::new(file.filter(|file| !file.is_empty())?);
        if !file.components().all(|part| matches!(part, Component::Normal(_))) {
            return None;
        }
        let is_known = self.last.as_ref().is_some_and(|(known, _)| known == folder);
        if !is_known {
            self.last = Some((folder.to_owned(), way(self.page, folder)));
        }
        let (_, way) = self.last.as_ref()?;
        Some(format!("{}{}", way.as_deref()?, encode(file.to_str()?)))
    }
}

/// The way from a folder to another as the beginning of a link; `None` when the host cannot tell.
fn way(from: &Path, to: &Path) -> Option<String> {
    let whole =
        |path: &Path| std::fs::canonicalize(if path.as_os_str().is_empty() { Path::new(".") } else { path }).ok();
    let (from, to) = (whole(from)?, whole(to)?);
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().count().saturating_sub(shared);
    let down: PathBuf = to.components().skip(shared).collect();
    let mut way = "../".repeat(up);
    if !down.as_os_str().is_empty() {
        way.push_str(&encode(down.to_str()?));
        way.push('/');
    }
    // A name with a colon is not a scheme.
    Some(if up == 0 { format!("./{way}") } else { way })
}

/// A path in a link: bytes with a meaning there are escaped (RFC 3986, section 2.1).
fn encode(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_results_and_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let (page, results) = (root.path().join("out"), root.path().join("a b\"<"));
        std::fs::create_dir(&page).unwrap();
        std::fs::create_dir(&results).unwrap();
        let mut links = Links::new(&page);
        assert_eq!(links.to(&results, Some("items/x#1.json")).as_deref(), Some("../a%20b%22%3C/items/x%231.json"));
        assert_eq!(links.to(&page, Some("items/x.json")).as_deref(), Some("./items/x.json"));
        for other in ["/etc/passwd", "../x", "items/../../x", ""] {
            assert_eq!(links.to(&results, Some(other)), None, "{other}");
        }
        assert_eq!(links.to(&results, None), None);
    }
}
