//! The environment of the process: clock, log filter, terminal.

use std::ffi::OsStr;
use std::fmt;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::ValueEnum;
use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::fmt::time::uptime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::progress::ProgressMode;
use crate::clock::FileTime;
use crate::error::{Error, Kind, Layer, Result};
use crate::escape::escape;

/// Whether standard output may carry colours.
pub fn stdout_colours() -> bool {
    std::io::stdout().is_terminal() && colours_wanted()
}

/// Whether the error output may carry colours.
pub fn stderr_colours() -> bool {
    std::io::stderr().is_terminal() && colours_wanted()
}

/// How progress is shown: what `--progress` says, else `WINJECT_PROGRESS`; `Auto` is decided here. A bar and a log would
/// print over each other.
///
/// # Errors
/// [`Kind::Usage`] when the variable names no form.
pub fn progress(given: Option<ProgressMode>, quiet: bool, verbose: u8) -> Result<ProgressMode> {
    let variable = std::env::var_os("WINJECT_PROGRESS").filter(|value| !value.is_empty());
    let mode = match (given, variable) {
        (Some(mode), _) => mode,
        (None, None) => ProgressMode::Auto,
        (None, Some(text)) => {
            text.to_str().and_then(|text| ProgressMode::from_str(text, false).ok()).ok_or_else(|| {
                Error::new(Kind::Usage, Layer::Cli, "cannot read WINJECT_PROGRESS: not a form of progress")
                    .expected_found("auto, bar, plain, json or none", text.display())
                    .hint("unset it, or choose the form with --progress FORM")
            })?
        }
    };
    Ok(match mode {
        ProgressMode::Auto if quiet => ProgressMode::None,
        ProgressMode::Auto if is_moving_terminal() && verbose == 0 => ProgressMode::Bar,
        ProgressMode::Auto => ProgressMode::Plain,
        mode => mode,
    })
}

/// Whether lines of the error output can be drawn over.
fn is_moving_terminal() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// <https://no-color.org>: any non-empty value switches colours off.
fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}

/// The one clock of the run: `SOURCE_DATE_EPOCH` (seconds since 1970) if set, else now.
///
/// # Errors
/// [`Kind::Usage`] when the variable is not a number of seconds.
pub fn clock() -> Result<FileTime> {
    match std::env::var_os("SOURCE_DATE_EPOCH") {
        None => Ok(FileTime::now()),
        Some(text) => given_clock(&text),
    }
}

fn given_clock(text: &OsStr) -> Result<FileTime> {
    text.to_str().and_then(|text| text.trim().parse().ok()).and_then(FileTime::from_unix_seconds).ok_or_else(|| {
        Error::new(Kind::Usage, Layer::Cli, "cannot read SOURCE_DATE_EPOCH: not a time")
            .expected_found("seconds since 1970", text.display())
            .hint("unset it, or set it as `date +%s` prints it")
    })
}

/// The folder for the journals of edits over NBD: `WINJECT_JOURNALS`, else `winject` in `XDG_STATE_HOME` or in
/// `~/.local/state`.
pub fn journal_folder() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|folder| !folder.as_os_str().is_empty());
    let own = |name, below| folder(name).filter(|folder| folder.is_absolute()).map(|folder| folder.join(below));
    let given = folder("WINJECT_JOURNALS").and_then(|folder| std::path::absolute(folder).ok());
    given.or_else(|| own("XDG_STATE_HOME", "winject")).or_else(|| own("HOME", ".local/state/winject"))
}

/// Sends the library's log to the error output: `WINJECT_LOG` names targets and levels (`debug`, or
/// `winject::internals::ntfs=trace,winject=info`), else `-v` decides.
///
/// # Errors
/// When the variable is set to something else.
pub fn start_log(verbose: u8) -> Result<()> {
    let given = std::env::var("WINJECT_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = match (given.as_deref(), verbose) {
        (Some(given), _) => given,
        (None, 0) => return Ok(()),
        (None, 1) => "winject=info",
        (None, 2) => "winject=debug",
        (None, _) => "winject=trace",
    };
    let filter: Targets = filter.parse().map_err(|_| {
        Error::new(Kind::Usage, Layer::Cli, "cannot read WINJECT_LOG: not a filter")
            .expected_found("targets and levels", filter)
            .hint("for example WINJECT_LOG=winject=debug; unset it for no log")
    })?;
    let log = tracing_subscriber::fmt::layer()
        .fmt_fields(format::debug_fn(write_field).delimited(" "))
        .with_writer(std::io::stderr)
        .with_ansi(stderr_colours());
    // A second start in one process (tests) keeps the first subscriber.
    let _ = match verbose {
        0 | 1 => tracing_subscriber::registry().with(filter).with(log.without_time()).try_init(),
        // Since the start of the program, in seconds.
        _ => tracing_subscriber::registry().with(filter).with(log.with_timer(uptime())).try_init(),
    };
    Ok(())
}

/// One field of an event: a value can be a string of an image.
fn write_field(out: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = format!("{value:?}");
    match field.name() {
        "message" => out.write_str(&escape(&text)),
        name => write!(out, "{name}={}", escape(&text)),
    }
}
