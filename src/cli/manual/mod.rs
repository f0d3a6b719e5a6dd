//! `winject manual`: the reference of all commands, as one page or as manual pages.

mod reference;

use std::path::{Path, PathBuf};

use clap::Command;

use super::{Ui, signals};
use crate::error::{Error, Kind, Layer, Result};
use crate::exit::ExitCode;
use crate::host::{Target, TextOutput, create_folder, refuse_missing_folder};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  winject manual > reference.md
  winject manual --output-dir ~/.local/share/man/man1
  man winject-inject")]
pub struct Args {
    /// Write a manual page for each command to this folder, which is made if it does not exist
    #[arg(long, value_name = "FOLDER")]
    output_dir: Option<PathBuf>,

    /// Replace manual pages that exist
    #[arg(long, requires = "output_dir")]
    overwrite: bool,
}

/// Runs the command for the command line `root`.
///
/// # Errors
/// [`Kind::Usage`] with `--json`; when the folder or a page cannot be written.
pub fn run(args: &Args, mut root: Command, ui: &Ui) -> Result<ExitCode> {
    if ui.is_json() {
        return Err(Error::new(Kind::Usage, Layer::Cli, "cannot print the manual as JSON").hint("leave --json out"));
    }
    // Commands are built when they are typed; the manual needs all of them.
    root.build();
    let Some(folder) = &args.output_dir else {
        ui.answer(&reference::page(&root));
        return Ok(ExitCode::Done);
    };
    refuse_missing_folder(folder, "the manual pages")?;
    create_folder(folder, &[]).map_err(|error| {
        Error::io(Layer::Host, "cannot create the folder of the manual pages", error)
            .path(folder.display().to_string())
            .hint("create the folder above it first, or name another one")
    })?;
    let mut count = 0_u32;
    let mut pending = vec![&root];
    while let Some(command) = pending.pop() {
        write_page(command, folder, args.overwrite)?;
        count = count.saturating_add(1);
        pending.extend(reference::documented(command));
    }
    ui.done(&format!("Written: {count} manual pages in {}", folder.display()));
    Ok(ExitCode::Done)
}

fn write_page(command: &Command, folder: &Path, overwrite: bool) -> Result<()> {
    // A page names its neighbours, and not the built-in `help`.
    let man = clap_mangen::Man::new(command.clone().disable_help_subcommand(true));
    let path = folder.join(man.get_filename());
    let cannot = |error| Error::io(Layer::Host, "cannot write the manual page", error).path(path.display().to_string());
    let mut text = Vec::new();
    man.render(&mut text).map_err(cannot)?;
    let mut output =
        TextOutput::create(Target::resolve(&path, "the manual page")?, &[], overwrite, &signals::cancel())?;
    output.write(&text)?;
    output.finish()
}
