//! `winject completions`: what a shell needs to complete a command line.

use clap::Command;
use clap_complete::Shell;

use super::Ui;
use crate::error::{Error, Kind, Layer, Result};
use crate::exit::ExitCode;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  winject completions bash > ~/.local/share/bash-completion/completions/winject
  winject completions zsh > ~/.zfunc/_winject
  winject completions fish > ~/.config/fish/completions/winject.fish")]
pub struct Args {
    /// Shell to write the completions for
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command for the command line `command`.
///
/// # Errors
/// [`Kind::Usage`] with `--json`; when standard output cannot be written.
pub fn run(args: &Args, command: &mut Command, ui: &Ui) -> Result<ExitCode> {
    if ui.is_json() {
        return Err(Error::new(Kind::Usage, Layer::Cli, "cannot print completions as JSON").hint("leave --json out"));
    }
    let mut text = Vec::new();
    clap_complete::generate(args.shell, command, "winject", &mut text);
    ui.raw(&text)?;
    Ok(ExitCode::Done)
}
