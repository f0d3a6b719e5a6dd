//! `winject schema`: the JSON Schemas of answers and documents.

mod document;
mod kinds;
mod listing;
mod root;

use clap::Command;

use super::Ui;
use super::words::{named, suggestions};
use crate::error::{Error, Kind, Layer, Result};
use crate::escape::escape;
use crate::exit::ExitCode;
use kinds::KINDS;
use listing::{List, Listed};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The schemas are of JSON Schema 2020-12. New fields may come in any version of winject; a field that changes its meaning or \
goes makes the version of its document grow.

Examples:
  winject schema --list
  winject schema report > report.schema.json
  winject schema config > winject-config.schema.json")]
pub struct Args {
    /// Name of the answer or document, as --list shows it; an answer has it in its field schema, after winject/
    #[arg(required_unless_present = "list", conflicts_with = "list", hide_possible_values = true)]
    #[arg(value_parser = suggestions(|| named(KINDS.iter().map(|kind| &kind.name))))]
    name: Option<String>,

    /// List all names
    #[arg(long)]
    list: bool,
}

/// Runs the command; `root` is the command line, whose options are the keys of a document.
///
/// # Errors
/// [`Kind::Usage`] for an unknown name.
pub fn run(args: &Args, root: Command, ui: &Ui) -> Result<ExitCode> {
    let Some(name) = &args.name else {
        let schemas = KINDS.iter().map(|kind| Listed { name: kind.name, about: kind.about }).collect::<Vec<_>>();
        if ui.is_json() {
            ui.json_answer("schema-list", &List { schemas })?;
        } else {
            let lines = schemas.iter().map(|kind| format!("{:<18}{}", kind.name, kind.about));
            ui.answer(&lines.collect::<Vec<_>>().join("\n"));
        }
        return Ok(ExitCode::Done);
    };
    let known = name.strip_prefix("winject/").unwrap_or(name);
    let Some(kind) = KINDS.iter().find(|kind| kind.name == known) else {
        return Err(Error::new(Kind::Usage, Layer::Cli, format!("no schema of this name: {}", escape(name)))
            .hint("winject schema --list shows all names"));
    };
    let text = serde_json::to_string_pretty(&kind.schema(root))
        .map_err(|error| Error::bug(Layer::Cli, "cannot write the schema as JSON").source_error(error))?;
    ui.json_document(&text);
    Ok(ExitCode::Done)
}
