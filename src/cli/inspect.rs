//! `winject inspect`.

use super::Ui;
use crate::error::{Error, Layer, Result};
use crate::exit::ExitCode;

/// Shows which Windows an image holds and in which state it is
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// Always: this version does not have the command.
pub fn run(_args: Args, _ui: &Ui) -> Result<ExitCode> {
    Err(Error::unsupported(Layer::Cli, "this version has no command `inspect`").hint("see winject --help"))
}
