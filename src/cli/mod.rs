//! The command line: the only layer that prints, reads the environment or exits.
//!
//! One file for each command, each with an `Args` struct (what was typed) and `run` (what to do, answering with the
//! exit code). [`Ui`] is the only way to the terminal.

mod check;
mod config;
mod convert;
mod drivers;
mod environment;
mod fsck;
mod image;
mod inject;
mod inspect;
mod progress;
mod reg;
mod source;
mod ui;

pub use progress::Progress;
pub use source::ImageArgs;
pub use ui::{Ui, escape};

use crate::error::{Error, Layer};
use crate::exit::ExitCode;
use crate::yaml;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Makes a switched-off Windows disk image bootable from a virtio disk.
#[derive(Debug, Parser)]
#[command(name = "winject", version, about, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    /// Runs what a YAML document describes
    #[arg(long, value_name = "FILE.yaml")]
    config: Option<PathBuf>,

    /// Prints nothing but errors and what was asked for
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,

    /// Says more on the error output (twice: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done or unchanged, 1 a question answered with no, 2 usage or configuration, 3 refused, 4 not a disk \
image, unsupported or no Windows in it, 5 damaged image, 6 drivers, 7 input/output, 8 verification failed and nothing \
was written, 9 an interrupted run is pending, 70 a defect of winject.";

// The Args structs live in the commands' files. One that is not finished hides itself with `#[command(hide = true)]`.
#[derive(Debug, Subcommand)]
enum Command {
    Inject(inject::Args),
    Inspect(inspect::Args),
    Check(check::Args),
    Drivers(drivers::Args),
    Convert(convert::Args),
    Image(image::Args),
    Fsck(fsck::Args),
    Reg(reg::Args),
}

/// Runs the command with the process's arguments: parses, runs, prints errors, decides the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let ui = Ui::new(cli.quiet, cli.verbose);
    match environment::start_log(cli.verbose).and_then(|()| run(cli, &ui)) {
        Ok(code) => code,
        Err(error) => {
            ui.error(&error);
            error.kind().into()
        }
    }
}

/// What `main` does when a thread panicked: this is always a defect of ours, whatever the image held.
pub fn report_panic() -> ExitCode {
    let ui = Ui::new(false, 0);
    ui.error(&Error::bug(Layer::Cli, "winject stopped because of a defect (see the message above)"));
    ExitCode::Bug
}

fn run(cli: Cli, ui: &Ui) -> crate::Result<ExitCode> {
    match cli.command {
        Some(_) if cli.config.is_some() => Err(Error::new(crate::Kind::Usage, Layer::Cli, "--config with a command")
            .hint("the document says what to do: winject --config FILE.yaml")),
        Some(Command::Inject(args)) => inject::run(args, ui),
        Some(Command::Inspect(args)) => inspect::run(args, ui),
        Some(Command::Check(args)) => check::run(args, ui),
        Some(Command::Drivers(args)) => drivers::run(args, ui),
        Some(Command::Convert(args)) => convert::run(args, ui),
        Some(Command::Image(args)) => image::run(args, ui),
        Some(Command::Fsck(args)) => fsck::run(args, ui),
        Some(Command::Reg(args)) => reg::run(args, ui),
        None if cli.config.is_some() => inject::run_config(&cli.config.unwrap_or_default(), ui),
        None => Err(Error::new(crate::Kind::Usage, Layer::Cli, "no command was given")
            .hint("winject inject IMAGE --drivers DIR --in-place, or winject --help")),
    }
}

/// `--help` and `--version` are answers, everything else that clap finds is a usage error.
fn usage(error: &clap::Error) -> ExitCode {
    // A closed pipe is no failure of ours, and there is no other place left to complain.
    let _ = error.print();
    if error.use_stderr() { ExitCode::Usage } else { ExitCode::Done }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definitions_are_sound() {
        Cli::command().debug_assert();
    }
}
