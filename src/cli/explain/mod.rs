//! `winject explain`: what an error or a finding means, why it matters, and what to do.

mod page;

use std::collections::BTreeSet;

use clap::builder::PossibleValue;
use serde::Serialize;

use super::Ui;
use super::words::suggestions;
use crate::error::{Error, Kind, Layer, Result};
use crate::error_code::explain_command;
use crate::escape::escape;
use crate::exit::ExitCode;
use crate::yaml::nearest;
use page::{Area, Page, find, pages};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Code of an error or of a finding, such as output-exists, no-device-id, B12 or SL-ORDER
    #[arg(required_unless_present = "list", value_parser = suggestions(codes), hide_possible_values = true)]
    code: Option<String>,

    /// List all codes with a line about each
    #[arg(long, conflicts_with = "code")]
    list: bool,
}

/// The answer as JSON.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Answer {
    /// A page for each code.
    pages: Vec<Page>,
}

/// Longest code, in bytes, for which a similar one is searched.
const CODE_LENGTH_MAX: usize = 64;

/// Runs the command.
///
/// # Errors
/// [`Kind::Usage`] for a code that winject does not use.
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let found = match &args.code {
        None => Area::ALL.into_iter().flat_map(pages).collect(),
        Some(code) => find(code.trim()),
    };
    if let Some(code) = args.code.as_deref().filter(|_| found.is_empty()) {
        return Err(unknown(code));
    }
    if ui.is_json() {
        ui.json_answer("explain", &Answer { pages: found })?;
    } else if args.list {
        ui.answer(&list(&found));
    } else {
        let texts: Vec<String> = found.iter().map(text).collect();
        ui.answer(&texts.join("\n"));
    }
    Ok(ExitCode::Done)
}

/// The last line under an answer that names codes: how they are explained.
pub(super) fn note_codes(code: &str, ui: &Ui) {
    ui.note(&format!("winject explain CODE tells what a code means, for example: {}", explain_command(code)));
}

/// Every code, once.
fn codes() -> Vec<PossibleValue> {
    let names: BTreeSet<_> = Area::ALL.into_iter().flat_map(Area::codes).map(|known| known.name).collect();
    names.into_iter().map(PossibleValue::new).collect()
}

fn unknown(code: &str) -> Error {
    let known = || Area::ALL.into_iter().flat_map(Area::codes).map(|known| known.name);
    // The codes of hives and volumes are in capital letters.
    let spellings = [code.to_ascii_lowercase(), code.to_ascii_uppercase()];
    let near = spellings.iter().filter(|code| code.len() <= CODE_LENGTH_MAX).find_map(|code| nearest(code, known()));
    let hint = match near {
        Some(near) => format!("did you mean {}; all codes: winject explain --list", explain_command(near)),
        None => "all codes: winject explain --list".to_owned(),
    };
    Error::new(Kind::Usage, Layer::Cli, format!("cannot explain {}: not a code of winject", escape(code))).hint(hint)
}

fn list(pages: &[Page]) -> String {
    let mut text = String::new();
    let mut area = None;
    for page in pages {
        if area != Some(page.area) {
            let gap = if area.is_some() { "\n" } else { "" };
            text += &format!("{gap}{}\n", page.area.title());
            area = Some(page.area);
        }
        text += &format!("  {:<24}{}\n", page.code, page.title);
    }
    text
}

fn text(page: &Page) -> String {
    let area = match page.area {
        Area::Error => "an error or refusal",
        Area::Check => "a finding of winject check",
        Area::Fsck => "a rule of winject fsck",
        Area::Reg => "a rule of winject reg check",
    };
    let Page { code, title, severity, what, why, remedy, .. } = page;
    let severity = severity.map(|severity| format!(", severity {severity}")).unwrap_or_default();
    format!("{code}: {title}\n({area}{severity})\n\n{what}\n\nWhy it matters\n{why}\n\nWhat to do\n{remedy}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    /// The commands in a text: what stands in backquotes and begins with winject, and indented lines that do.
    fn commands(text: &str) -> Vec<&str> {
        let quoted = text.split('`').skip(1).step_by(2);
        let lines = text.lines().filter(|line| line.starts_with("    ")).map(str::trim);
        quoted.chain(lines).filter(|command| command.starts_with("winject ")).collect()
    }

    /// The words of a command, as a shell takes them; only single quotes are used in the pages.
    fn words(command: &str) -> Vec<String> {
        let pieces = command.split('\'').enumerate();
        let mut words = vec![String::new()];
        for (i, piece) in pieces {
            if i % 2 == 1 {
                words.last_mut().unwrap().push_str(piece);
                continue;
            }
            for (j, word) in piece.split(' ').enumerate() {
                if j > 0 {
                    words.push(String::new());
                }
                words.last_mut().unwrap().push_str(word);
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn every_command_in_a_page_is_one_of_winject() {
        let mut count = 0;
        for page in Area::ALL.into_iter().flat_map(pages) {
            for command in commands(&text(&page)) {
                if let Err(error) = Cli::try_parse_from(words(command)) {
                    // --help and --version are answers.
                    assert!(!error.use_stderr(), "{}: {command}: {error}", page.code);
                }
                count += 1;
            }
        }
        assert!(count > 150, "{count}");
    }

    #[test]
    fn a_code_is_found_in_any_case_and_an_unknown_one_leads_to_its_neighbour() {
        assert_eq!(find("sl-order").first().map(|page| page.code), Some("SL-ORDER"));
        assert_eq!(find("OUTPUT-EXISTS").len(), 1);
        assert_eq!(find("no-windows").len(), 2, "an error and a finding");
        let error = unknown("output-exist");
        assert!(error.hint_text().unwrap().contains("winject explain output-exists"), "{error}");
    }
}
