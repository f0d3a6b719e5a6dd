//! The command line: the only layer that prints, reads the environment or exits.
//!
//! One file for each command, each with a struct `Args` (what was typed) and a function `run` that returns the exit code. Options that commands share are in `args`; `document` reads a run from a file instead; both become the one
//! `request` for an injection, which `execute` runs. [`Ui`] is the only way to the terminal.

mod apply;
mod args;
mod batch;
mod bitlocker_args;
mod boot_args;
mod check;
mod completions;
mod convert;
mod diff;
mod document;
mod drivers;
mod envelope;
mod environment;
mod execute;
mod exit_codes;
mod explain;
mod extras;
mod failure;
mod first_boot;
mod fsck;
mod hints;
mod image;
mod inject;
mod inspect;
mod junit_file;
mod look;
mod machine_args;
mod manual;
mod network_args;
mod network_page;
mod ntfs_log;
mod numbers;
mod output;
mod output_args;
mod plan;
mod progress;
mod prompt;
mod recover;
mod reg;
mod remove;
mod repair_args;
mod repeat;
mod request;
pub mod sandbox;
mod schema;
mod signals;
mod text_file;
mod typed;
mod undo;
mod words;
mod worker;

pub use output::Ui;
pub use progress::{Progress, ProgressMode};

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use clap::error::ContextValue;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::error::{Error, Layer};
use crate::escape::escape;
use crate::exit::ExitCode;

/// The options of every command stand below its own in the help.
const GLOBAL: usize = 900;

/// Make a switched-off Windows disk image bootable from a virtio disk, without root, mount or helper programs
#[derive(Debug, Parser)]
#[command(name = "winject", bin_name = "winject", version, arg_required_else_help = true, max_term_width = 100)]
#[command(after_help = exit_codes::summary())]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    /// Run the injection that a YAML document describes (in place of a command)
    #[arg(long, value_name = "FILE.yaml")]
    config: Option<PathBuf>,

    /// Print only errors, and the answer to a question
    #[arg(short, long, global = true, display_order = GLOBAL, conflicts_with = "verbose")]
    quiet: bool,

    /// Print more: the plan, and a log to standard error (-vv, -vvv: more of it)
    #[arg(short, long, global = true, display_order = GLOBAL, action = clap::ArgAction::Count)]
    verbose: u8,

    /// Let the process open any file and make any system call; by default the kernel restricts it to what the command was given
    #[arg(long, global = true, display_order = GLOBAL)]
    no_sandbox: bool,

    /// Print the answer as one JSON document, which names its kind (schema) and version, and nothing else to standard output
    #[arg(long, global = true, display_order = GLOBAL)]
    json: bool,

    /// Choose how progress is shown on standard error
    #[arg(long, global = true, display_order = GLOBAL, value_name = "FORM", value_enum)]
    progress: Option<ProgressMode>,

    /// Run as a worker of the batch with this process id
    #[arg(long, global = true, hide = true, value_name = "PID")]
    worker: Option<u32>,

    /// Of a worker: bytes of memory that it may have
    #[arg(long, global = true, hide = true, value_name = "BYTES")]
    worker_memory: Option<u64>,
}

// The Args structs live in the commands' files. The descriptions stand here, because the rest of a command is built
// (deferred) only when it is the one that was typed. Groups of options that commands share have plain comments: clap
// would take a doc comment for the description. A command that is not finished is hidden: `#[command(hide = true)]`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum Command {
    /// Make the Windows in an image bootable from a virtio disk
    Inject(inject::Args),
    /// Plan an injection: print what it would change, and save that as a file to be reviewed
    Plan(plan::Args),
    /// Apply a saved plan: do exactly what it says, or nothing
    Apply(apply::Args),
    /// Take the last edit in place of an image back, byte for byte
    ///
    /// What something else has written to other places of the image since stays; if it has written to a place that the
    /// edit wrote, the undo is refused with the list, and nothing is touched.
    Undo(undo::Args),
    /// Take out of the Windows in an image what winject put into it, also after the guest has run
    Remove(remove::Args),
    /// Show the partitions and the Windows of an image, and whether it can be edited
    Inspect(inspect::Args),
    /// Check whether the Windows in an image will boot from a virtio disk, and say why
    ///
    /// Follow the boot loader and plug and play through the bytes on disk, and change nothing. This works on any image,
    /// also on one that another tool has prepared. Without --bus the answer is yes if the guest boots from either bus.
    Check(check::Args),
    /// Run one job over many images, each in a process of its own
    ///
    /// The failure of one image is never another's. A batch that was stopped or killed goes on when it is run again.
    Batch(Box<batch::Args>),
    /// List the packages on driver media, and which of them fit an image
    Drivers(drivers::Args),
    /// Complete an interrupted edit in place, or roll it back
    ///
    /// An image that an interrupted edit left half written is refused (exit code 9). This command gives the image its
    /// old content back, or completes the edit if everything had been written. All that it needs is in the journal next
    /// to the image: neither the drivers nor the options of the interrupted command. (A command with --in-place does the
    /// same before its own edit.)
    Recover(recover::Args),
    /// Convert an image of any supported format to qcow2 or raw, in one pass
    Convert(convert::Args),
    /// Show, check or map an image file, with the words and JSON fields of qemu-img
    Image(image::Args),
    /// Check every NTFS volume of an image, and change nothing
    Fsck(fsck::Args),
    /// List files of a volume in an image
    ///
    /// A path is one of Windows (C:\Windows, /Windows), where `*`, `?` and `[…]` match within a name and case is ignored.
    /// The volume is the one with Windows, or the one of --partition (NTFS or FAT, such as the EFI system partition).
    Ls(look::LsArgs),
    /// Print the content of files of an image
    ///
    /// Compressed files are decompressed. To a terminal, control characters are shown as codes.
    Cat(look::CatArgs),
    /// Copy files out of an image
    ///
    /// Each copy appears under its name when it is complete; zeros become holes. A name that the host cannot hold is
    /// written with %XX for the characters in question.
    Cp(look::CpArgs),
    /// Compare the files and the registry of two images, or of an image before and after a saved plan
    ///
    /// Files are compared by kind, size, content, alternate data streams, target of a link, data of reparse points, extended
    /// attributes, object id, attributes and time of the last change; the registry of a Windows by the hives in its System32\config. Exit code 0: the same, 1: different.
    Diff(diff::Args),
    /// Show or replay the log of every NTFS volume of an image, with or without a Windows
    ///
    /// The log of a volume is open if the guest crashed, or if the image is a snapshot of a running machine. All commands
    /// that read or change a guest replay it first, unless they are told --no-replay.
    NtfsLog(ntfs_log::Args),
    /// Explain an error or a finding by its code: what it is, why it matters, what to do
    Explain(explain::Args),
    /// Read and edit registry hives, in a file or in an image
    ///
    /// A TARGET is a hive file or a disk image. A KEY begins with its hive, as regedit shows it:
    /// HKLM\SYSTEM\CurrentControlSet\Services, HKEY_LOCAL_MACHINE\SYSTEM\…, or SYSTEM\…, in any case. In a hive file
    /// it can also be a path from its root (`\` is the root itself). If a hive was not closed cleanly, its log files in
    /// the same folder are replayed first, in memory.
    Reg(reg::Args),
    /// Print the JSON Schema of an answer, a report, a plan or the document of --config
    Schema(schema::Args),
    /// Print the completions of a shell
    Completions(completions::Args),
    /// Print the reference of all commands, or write manual pages
    Manual(manual::Args),
}

/// Runs the command with the process's arguments: parses, runs, prints errors, decides the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let is_json = failure::wants_json(&arguments);
    let mut command = Cli::command();
    let parsed = command.try_get_matches_from_mut(arguments).and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        Ok((cli, matches))
    });
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return usage(error, is_json),
    };
    let ui = Ui::new(cli.quiet, cli.verbose).with_json(cli.json);
    let progress = environment::progress(cli.progress, cli.quiet, cli.verbose);
    let mode = progress.as_ref().map_or(ProgressMode::None, |mode| *mode);
    let ui = ui.with_progress(mode).with_commands(hints::Typed::of(&command, &matches, Cli::command));
    let as_worker = |()| cli.worker.map_or(Ok(()), |batch| worker::begin(batch, cli.worker_memory));
    let done = progress.and_then(|_| environment::start_log(cli.verbose)).and_then(as_worker).and_then(|()| {
        // A batch has images of all kinds, and passes its options on to each worker.
        if cli.worker.is_none() && !matches!(cli.command, Some(Command::Batch(_))) {
            typed::refuse_ineffective(&command, &matches)?;
        }
        // Before the first thread: what this one gives up, those that it starts do not have either.
        // A batch reads no image but in a thread that does the same, and each worker restricts itself.
        if !cli.no_sandbox && !matches!(cli.command, Some(Command::Batch(_))) {
            sandbox::enter(&command, &matches);
        }
        signals::listen();
        run(cli, &command, &matches, &ui)
    });
    let done = done.and_then(|code| ui.finish().map(|()| code));
    // Of a file that is not there, or may not be read, each command says what to do.
    let done = done.map_err(crate::job::explain_path);
    // Not only where it is printed: the answer in JSON, and what a worker reports, have the same hint.
    let done = done.map_err(|error| ui.complete_error(error));
    worker::report(done.as_ref().err());
    match done {
        Ok(code) => {
            signals::end_if_received(None);
            code
        }
        Err(error) => {
            if error.kind() != crate::Kind::Cancelled {
                failure::report(&error, &ui);
            }
            signals::end_if_received(Some(&error));
            (&error).into()
        }
    }
}

/// Reports a panic: always a bug of ours, whatever the image holds.
pub fn report_panic() -> ExitCode {
    let ui = Ui::new(false, 0);
    ui.error(&Error::bug(Layer::Cli, "winject stopped because of a defect, see the message above"));
    ExitCode::Bug
}

fn run(cli: Cli, root: &clap::Command, matches: &ArgMatches, ui: &Ui) -> crate::Result<ExitCode> {
    match cli.command {
        Some(_) if cli.config.is_some() => {
            Err(Error::new(crate::Kind::Usage, Layer::Cli, "cannot run both a command and --config")
                .hint("the document says what to do: winject --config FILE.yaml"))
        }
        Some(Command::Inject(args)) => inject::run(args, ui),
        Some(Command::Plan(args)) => plan::run(args, ui),
        Some(Command::Apply(args)) => apply::run(args, ui),
        Some(Command::Undo(args)) => undo::run(args, ui),
        Some(Command::Remove(args)) => remove::run(args, ui),
        Some(Command::Inspect(args)) => inspect::run(args, ui),
        Some(Command::Check(args)) => check::run(args, ui),
        Some(Command::Batch(args)) => batch::run(*args, root, matches, ui),
        Some(Command::Drivers(args)) => drivers::run(args, ui),
        Some(Command::Recover(args)) => recover::run(args, ui),
        Some(Command::Convert(args)) => convert::run(args, ui),
        Some(Command::Image(args)) => image::run(args, ui),
        Some(Command::Fsck(args)) => fsck::run(args, ui),
        Some(Command::Ls(args)) => look::ls(args, ui),
        Some(Command::Cat(args)) => look::cat(args, ui),
        Some(Command::Cp(args)) => look::cp(args, ui),
        Some(Command::Diff(args)) => diff::run(args, ui),
        Some(Command::NtfsLog(args)) => ntfs_log::run(args, ui),
        Some(Command::Explain(args)) => explain::run(args, ui),
        Some(Command::Reg(args)) => reg::run(args, ui),
        Some(Command::Schema(args)) => schema::run(&args, Cli::command(), ui),
        Some(Command::Completions(args)) => completions::run(&args, &mut Cli::command(), ui),
        Some(Command::Manual(args)) => manual::run(&args, Cli::command(), ui),
        None if cli.config.is_some() => inject::run_document(&cli.config.unwrap_or_default(), ui),
        None => {
            Err(Error::new(crate::Kind::Usage, Layer::Cli, "no command given")
                .hint("winject --help lists the commands"))
        }
    }
}

/// `--help` and `--version` are answers, everything else that clap finds is a usage error. What was typed is escaped: it
/// can come from a script that passes on strings of others.
fn usage(mut error: clap::Error, is_json: bool) -> ExitCode {
    let escaped: Vec<_> = error.context().filter_map(|(kind, value)| Some((kind, escape_context(value)?))).collect();
    for (kind, value) in escaped {
        error.insert(kind, value);
    }
    if error.use_stderr() && error.kind() != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        failure::report(&failure::usage_error(&error), &Ui::new(false, 0).with_json(is_json));
        return ExitCode::Usage;
    }
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    if error.use_stderr() {
        failure::report_json(&failure::usage_error(&error), &Ui::new(false, 0).with_json(is_json));
        return ExitCode::Usage;
    }
    match printed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Ui::new(false, 0).error(&Error::io(Layer::Host, "cannot write to standard output", error));
            ExitCode::Io
        }
        _ => ExitCode::Done,
    }
}

/// The same context with its strings escaped; `None` for one that holds none.
fn escape_context(value: &ContextValue) -> Option<ContextValue> {
    match value {
        ContextValue::String(text) => Some(ContextValue::String(escape(text).into_owned())),
        ContextValue::Strings(texts) => {
            Some(ContextValue::Strings(texts.iter().map(|text| escape(text).into_owned()).collect()))
        }
        // Suggestions repeat what was typed.
        ContextValue::StyledStrs(texts) => Some(ContextValue::StyledStrs(
            texts.iter().map(|text| escape(&text.to_string()).into_owned().into()).collect(),
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_keeps_its_own_description() {
        let mut cli = Cli::command();
        cli.build();
        let mut seen = HashSet::new();
        let mut pending: Vec<_> = cli.get_subcommands().filter(|c| c.get_name() != "help").collect();
        while let Some(command) = pending.pop() {
            let about = command.get_about().map(ToString::to_string);
            assert!(about.is_some() && seen.insert(about.clone()), "{}: {about:?}", command.get_name());
            pending.extend(command.get_subcommands().filter(|c| c.get_name() != "help"));
        }
        assert!(seen.len() > 15, "{seen:?}");
    }
}
