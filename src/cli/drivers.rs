//! `winject drivers`.

use super::Ui;
use crate::error::{Error, Layer, Result};
use crate::exit::ExitCode;

/// Shows what a driver source holds
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// Always: this version does not have the command.
pub fn run(_args: Args, _ui: &Ui) -> Result<ExitCode> {
    Err(Error::unsupported(Layer::Cli, "this version has no command `drivers`").hint("see winject --help"))
}
