//! `winject drivers`: what driver media hold.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::Ui;
use super::args::{DefinitionArgs, ImageArgs, PartitionArgs, ReplayArgs};
use super::bitlocker_args::BitLockerArgs;
use crate::drivers::list::{Listed, Listing, list};
use crate::drivers::trust::SignatureReport;
use crate::drivers::{Definitions, Policy, Sources};
use crate::error::{Error, Kind, Layer, Result};
use crate::escape::EscapedLines;
use crate::exit::ExitCode;
use crate::job::{self, Step};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(ListArgs),
}

/// List driver packages with their version, date, signatures and the Windows that they are for
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  winject drivers list virtio-win.iso
  winject drivers list virtio-win.iso --for win10.qcow2
  winject drivers list /usr/share/virtio-win vendor-drivers --json")]
struct ListArgs {
    /// Folders or ISO images with drivers, the preferred one first
    #[arg(required = true)]
    sources: Vec<PathBuf>,

    /// Show which packages would be used for the Windows in this image, and why
    #[arg(long = "for", value_name = "IMAGE")]
    image: Option<PathBuf>,

    #[command(flatten)]
    windows: PartitionArgs,

    #[command(flatten)]
    definitions: DefinitionArgs,

    #[command(flatten)]
    bitlocker: BitLockerArgs,

    #[command(flatten)]
    replay: ReplayArgs,

    #[command(flatten)]
    source: ImageArgs,
}

/// Runs the command.
///
/// # Errors
/// When the media or the image cannot be read, or the media have nothing for the image's Windows.
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let Command::List(args) = args.command;
    let needs_image = [
        (args.windows != PartitionArgs::default(), "--partition"),
        (args.source.format.is_some(), "--format"),
        (!args.source.allow_path.is_empty(), "--allow-path"),
        (args.source.disk.is_some(), "--disk"),
        (args.source.nbd_requests.is_some(), "--nbd-requests"),
        (args.bitlocker != BitLockerArgs::default(), "--bitlocker-…"),
        (args.replay != ReplayArgs::default(), "--no-replay"),
    ];
    let needless = needs_image.into_iter().find(|(is_given, _)| *is_given && args.image.is_none());
    if let Some((_, option)) = needless {
        let message = format!("no image given for {option}");
        return Err(Error::new(Kind::Usage, Layer::Cli, message).hint("name the image with --for IMAGE"));
    }
    let keys = args.bitlocker.keys()?;
    let progress = ui.phase(Step::ChooseDrivers.name(), "Reading the driver media");
    let find =
        |image| job::find_guest(image, &args.source.open_options(), args.windows.partition, &keys, args.replay.into());
    let guest = args.image.as_deref().map(find).transpose()?.map(|guest| guest.target());
    let definitions =
        args.definitions.definitions.as_deref().map_or_else(|| Ok(Definitions::builtin()), Definitions::load)?;
    let listing = list(&Sources::open(&args.sources)?, guest.as_ref(), &definitions, &Policy::default())?;
    drop(progress);
    if ui.is_json() {
        ui.json_answer("drivers-list", &listing)?;
    } else {
        ui.answer(&page(&listing));
    }
    for warning in &listing.warnings {
        ui.warn(warning);
    }
    match listing.problem {
        Some(problem) => {
            let bare = problem.strip_prefix("drivers: ").unwrap_or(&problem);
            let hint = listing.remedy.unwrap_or_else(|| "the list above says why each package is not used".to_owned());
            Err(Error::new(Kind::Drivers, Layer::Drivers, bare).hint(hint))
        }
        None => Ok(ExitCode::Done),
    }
}

fn page(listing: &Listing) -> String {
    let mut out = EscapedLines::new(String::new());
    // Writing to a String cannot fail.
    let _ = write_page(&mut out, listing);
    out.into_inner()
}

fn write_page(out: &mut EscapedLines<String>, listing: &Listing) -> std::fmt::Result {
    if let Some(guest) = &listing.guest {
        writeln!(out, "For {guest}; folders in order: {}", listing.buckets.join(", "))?;
        writeln!(out)?;
    }
    // the packages of a driver are neighbours in the list
    for packages in listing.packages.chunk_by(|a, b| a.driver == b.driver) {
        let class = packages.iter().map(|package| package.class.as_str()).find(|class| !class.is_empty());
        if let Some(first) = packages.first() {
            writeln!(out, "{} ({})", first.driver, class.unwrap_or("unknown class"))?;
        }
        let (used, others): (Vec<&Listed>, Vec<&Listed>) = packages.iter().partition(|p| p.chosen == Some(true));
        for package in used {
            write_head(out, "* ", package)?;
            write_details(out, package)?;
        }
        // packages that differ by their folder only are described once
        for alike in others.chunk_by(|a, b| details(a) == details(b)) {
            for package in alike {
                write_head(out, "  ", package)?;
            }
            if let Some(last) = alike.last() {
                write_details(out, last)?;
            }
        }
    }
    for skipped in &listing.skipped {
        writeln!(out, "never used: {}: {}", skipped.name, skipped.reason)?;
    }
    let used = listing.packages.iter().filter(|package| package.chosen == Some(true)).count();
    match &listing.guest {
        Some(guest) => writeln!(out, "{} packages, {used} of them for {guest}", listing.packages.len()),
        None => writeln!(out, "{} packages", listing.packages.len()),
    }
}

fn write_head(out: &mut EscapedLines<String>, mark: &str, package: &Listed) -> std::fmt::Result {
    writeln!(out, "{mark}{}  {} {}", package.path, package.version, package.date)
}

fn write_details(out: &mut EscapedLines<String>, package: &Listed) -> std::fmt::Result {
    details(package).iter().try_for_each(|line| writeln!(out, "      {line}"))
}

/// What is said below the path. Of a package that a guest does not use, the reason is all that matters.
fn details(package: &Listed) -> Vec<String> {
    let mut out = Vec::new();
    let reason = package.reason.as_deref().unwrap_or_default();
    if package.chosen == Some(false) {
        return vec![format!("not used: {reason}")];
    }
    if !package.systems.is_empty() {
        out.push(format!("for {}", package.systems.join("; ")));
    }
    // without a version the INF could not be read: the reason says so
    if !package.version.is_empty() {
        let driver = match package.service {
            Some(_) => format!("driver file {}", signature(&package.driver_file)),
            None => "no driver file of its own".to_owned(),
        };
        out.push(format!("{driver}; catalogue {}", signature(&package.catalogue)));
    }
    match package.chosen {
        Some(_) => out.push(format!("used: {reason}")),
        None if !reason.is_empty() => out.push(reason.to_owned()),
        None => {}
    }
    out
}

fn signature(report: &SignatureReport) -> String {
    let signer = report.signer.as_deref().unwrap_or("an unnamed signer");
    match (&report.problem, &report.digest) {
        (Some(problem), _) => format!("not well signed: {problem}"),
        (None, Some(digest)) => format!("signed by {signer} ({digest})"),
        (None, None) => format!("signed by {signer}"),
    }
}
