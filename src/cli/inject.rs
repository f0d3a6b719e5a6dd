//! `winject inject`.

use super::Ui;
use crate::error::{Error, Layer, Result};
use crate::exit::ExitCode;

/// Makes the Windows in an image bootable from a virtio disk
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// Always: this version does not have the command.
pub fn run(_args: Args, _ui: &Ui) -> Result<ExitCode> {
    Err(Error::unsupported(Layer::Cli, "this version has no command `inject`").hint("see winject --help"))
}
