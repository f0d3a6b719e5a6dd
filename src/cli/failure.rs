//! How a command that fails says so: as text to the error output, and with `--json` as JSON to standard output as well.

use std::ffi::OsString;

use serde::Serialize;

use super::Ui;
use crate::error::{Error, Kind, Layer, Place};
use crate::exit::ExitCode;

/// The answer of a command that failed.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Answer<'a> {
    /// What failed.
    error: Facts<'a>,
}

/// An error, for programs. What is not known is left out.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct Facts<'a> {
    /// Kind of the error, which decides the exit code.
    kind: &'static str,
    /// Its code, for `winject explain CODE`.
    code: &'static str,
    /// The text as it is printed.
    message: String,
    /// Part of winject that found it.
    layer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The file, partition or key that it is about.
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<PlaceFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    /// The exit code of the command.
    exit_code: u8,
}

/// Where an error arose.
#[derive(Debug, Serialize, schemars::JsonSchema)]
struct PlaceFacts {
    unit: &'static str,
    value: u64,
}

impl From<Place> for PlaceFacts {
    fn from(place: Place) -> Self {
        let (unit, value) = match place {
            Place::Offset(value) => ("offset", value),
            Place::Inner(value) => ("structure_offset", value),
            Place::DiskOffset(value) => ("disk_offset", value),
            Place::VolumeOffset(value) => ("volume_offset", value),
            Place::Record(value) => ("mft_record", value),
            Place::Vcn(value) => ("vcn", value),
            Place::Cluster(value) => ("cluster", value),
            Place::Bit(value) => ("bit", value),
            Place::Sector(value) => ("sector", value),
            Place::Line(value) => ("line", value),
        };
        Self { unit, value }
    }
}

impl<'a> Answer<'a> {
    fn of(error: &'a Error) -> Self {
        let (expected, found) = error.expected_found_texts().unzip();
        let error = Facts {
            kind: error.kind().name(),
            code: error.code().name(),
            message: error.to_string(),
            layer: error.layer().to_string(),
            path: error.path_text(),
            place: error.place().map(PlaceFacts::from),
            expected,
            found,
            hint: error.hint_text(),
            exit_code: ExitCode::from(error) as u8,
        };
        Self { error }
    }
}

/// Whether these arguments ask for JSON, whether or not they can be understood.
pub(super) fn wants_json(arguments: &[OsString]) -> bool {
    arguments.iter().take_while(|text| *text != "--").any(|text| text == "--json")
}

/// Prints an error. An answer in JSON that was printed before stays the only one: a reader expects one document.
pub(super) fn report(error: &Error, ui: &Ui) {
    ui.error(error);
    report_json(error, ui);
}

/// What clap found wrong with a command line, on one line.
pub(super) fn usage_message(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let message = lines.join(" ");
    message.strip_prefix("error: ").unwrap_or(&message).to_owned()
}

/// Options that were looked for in a command that does not have them: the option, the command, and the way to go.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    (
        "--machine",
        "inspect",
        "winject check IMAGE --machine KIND describes the machine: it is known when the boot is checked",
    ),
    ("--config", "", "a document stands for the whole command line: winject --config FILE.yaml"),
];

/// The way to go for an option that belongs to another command.
fn elsewhere(message: &str, usage: Option<&str>) -> Option<&'static str> {
    let is_meant = |option: &str, command: &str| {
        message.contains(&format!("unexpected argument '{option}'"))
            && usage.is_some_and(|usage| usage.starts_with(format!("winject {command}").trim_end()))
    };
    ELSEWHERE.iter().find(|(option, command, _)| is_meant(option, command)).map(|(.., hint)| *hint)
}

/// What clap found wrong with the command line, as an error like all others.
pub(super) fn usage_error(error: &clap::Error) -> Error {
    let message = usage_message(error);
    let text = error.to_string();
    let rest: Vec<&str> = text.lines().map(str::trim).skip_while(|line| !line.is_empty()).collect();
    let tips: Vec<&str> = rest.iter().filter_map(|line| line.strip_prefix("tip: ")).collect();
    let usage = rest.iter().find_map(|line| line.strip_prefix("Usage: "));
    if let Some(hint) = elsewhere(&message, usage) {
        return Error::new(Kind::Usage, Layer::Cli, message).hint(hint);
    }
    let hint = match (tips.iter().find(|tip| !tip.starts_with("to pass '")), usage) {
        (Some(tip), _) => (*tip).to_owned(),
        // Clap takes a value with a sign for an operand, and would have it after `--`.
        (None, _) if !tips.is_empty() => {
            "a value that begins with a dash is joined to its option by an equals sign: --option=-VALUE".to_owned()
        }
        (None, Some(usage)) => format!("usage: {usage}"),
        (None, None) => "--help lists the options of a command, winject --help the commands".to_owned(),
    };
    Error::new(Kind::Usage, Layer::Cli, message).hint(hint)
}

/// Prints an error in JSON, if that is asked for and nothing was printed before.
pub(super) fn report_json(error: &Error, ui: &Ui) {
    if ui.is_json() && !ui.has_answered() {
        // The text has been printed, and the exit code tells the rest.
        let _ = ui.json_answer("error", &Answer::of(error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_asked_for_by_the_option_alone() {
        let is_json = |arguments: &[&str]| wants_json(&arguments.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(is_json(&["winject", "check", "--json", "x.qcow2"]));
        assert!(!is_json(&["winject", "check", "x.json"]));
        assert!(!is_json(&["winject", "cat", "x.qcow2", "--", "--json"]));
    }

    #[test]
    fn an_error_in_json_has_all_that_its_text_has() {
        let error = Error::damaged(Layer::Ntfs, "MFT record has no FILE signature")
            .at(Place::Record(41))
            .path("partition 2")
            .expected_found("FILE", "BAAD")
            .hint("run chkdsk");
        let json = serde_json::to_value(Answer::of(&error)).unwrap();
        let expected = serde_json::json!({
            "kind": "damaged", "code": "damaged", "layer": "ntfs", "path": "partition 2", "hint": "run chkdsk",
            "message": error.to_string(), "expected": "FILE", "found": "BAAD", "exit_code": 5,
            "place": {"unit": "mft_record", "value": 41},
        });
        assert_eq!(json["error"], expected);
    }
}
