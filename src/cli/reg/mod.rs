//! `winject reg`: registry hives, in a file or in an image.

mod args;
mod edit;
mod file;
mod json;
mod key;
mod show;
mod target;

pub use args::Args;
pub use json::{EditAnswer, QueriedKey, QueryAnswer};
pub use show::CheckAnswer;
pub(super) use show::write_reg;

use super::Ui;
use crate::error::Result;
use crate::exit::ExitCode;
use args::Command;

/// Runs the command.
///
/// # Errors
/// What the hive, its files or the arguments are refused for.
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    match args.command {
        Command::Query(args) => show::query(&args, ui),
        Command::Export(args) => show::export(&args, ui),
        Command::Import(args) => edit::import(&args, ui),
        Command::Diff(args) => show::diff(&args, ui),
        Command::Set(args) => edit::set(&args, ui),
        Command::Delete(args) => edit::delete(&args, ui),
        Command::Check(args) => show::check(&args, ui),
    }
}
