//! `winject plan`: what an injection would change, as a review for people and as a document.

use std::path::{Path, PathBuf};

use super::Ui;
use super::args::{ChosenDiskArgs, DriverArgs, GuestArgs, ImageArgs, ThreadArgs, split_disks};
use super::execute::{Watcher, is_reported, write_reports};
use super::output_args::OutputArgs;
use super::request::InjectSpec;
use super::text_file::TextFile;
use crate::error::{Error, Kind, Layer, Result};
use crate::exit::ExitCode;
use crate::job::{self, InjectRequest, Machine, Report, SavedPlan};
use crate::plan::review::Review;
use crate::plan::saved::Sha256Sum;

/// What a plan and its reviews are called in messages.
const PLAN: &str = "the plan";

#[derive(Debug, clap::Args)]
#[command(mut_arg("drivers", |argument| argument.required_unless_present("show")))]
#[command(after_help = "\
Nothing is written to the image, nor to its folder. A plan holds the identity of the image, the hash of everything that
was read for it, every edit with what it replaces, and the generated files; drivers are named by their hashes. The same
image, drivers and options give the same bytes. A signature of the file is one of all that it does. winject apply does
exactly what it says.

Examples:
  winject plan win.qcow2 --drivers virtio-win.iso
  winject plan win.qcow2 --drivers virtio-win.iso -o plan.json --review plan.html
  winject plan win.qcow2 --drivers virtio-win.iso --check
  winject plan --show plan.json")]
pub struct Args {
    /// Disk image of a Windows that is shut down: raw, qcow2, VMDK, OVA, VHD, VHDX or VDI; give all disks of a machine that
    /// has several, in any order
    #[arg(required_unless_present = "show", value_name = "IMAGE")]
    image: Vec<PathBuf>,

    #[command(flatten)]
    chosen: ChosenDiskArgs,

    #[command(flatten)]
    media: DriverArgs,

    /// Write the plan to this file
    #[arg(short, long, value_name = "PLAN.json")]
    output: Option<PathBuf>,

    /// Write the files that the plan takes from the media to a folder next to it, PLAN.files, so that winject apply needs
    /// no media
    #[arg(long, requires = "output")]
    bundle: bool,

    /// Write the review to this file: Markdown (.md), HTML (.html) or text (.txt); repeatable
    #[arg(long, value_name = "FILE")]
    review: Vec<PathBuf>,

    /// Answer with exit code 1 if there is anything to change, and 0 if not
    #[arg(long)]
    check: bool,

    /// Print the review of a plan that was saved before
    #[arg(long, value_name = "PLAN.json", conflicts_with_all = ["image", "drivers", "output", "check"])]
    show: Option<PathBuf>,

    /// Replace output files that exist
    #[arg(long)]
    overwrite: bool,

    #[command(flatten)]
    workers: ThreadArgs,

    #[command(flatten)]
    source: ImageArgs,

    #[command(flatten)]
    guest: GuestArgs,
}

/// Runs the command.
///
/// # Errors
/// What is wrong with the request or the saved plan, whatever planning fails with, and when a file cannot be written.
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    args.review.iter().try_for_each(|path| Form::of(path).map(drop))?;
    if args.overwrite && args.output.is_none() && args.review.is_empty() && args.guest.machine.machine_output.is_none()
    {
        let message = "--overwrite has no effect without an output file";
        return Err(usage(message).hint("leave it out, or name the file with --output or --review"));
    }
    match &args.show {
        Some(path) => show(path, &args, ui),
        None => make(&args, ui),
    }
}

/// Plans, prints the review and writes the files.
fn make(args: &Args, ui: &Ui) -> Result<ExitCode> {
    let (image, other_disks) = split_disks(args.image.iter().cloned());
    let spec = InjectSpec {
        image,
        other_disks,
        windows_disk: args.chosen.windows_disk.clone(),
        drivers: args.media.drivers.clone(),
        output: OutputArgs { dry_run: true, ..OutputArgs::default() },
        threads: args.workers.threads,
        source: args.source.clone(),
        guest: args.guest.clone(),
        ..InjectSpec::default()
    };
    let request = InjectRequest { overwrite_output: args.overwrite, ..spec.request()? };
    let machine = &spec.guest.machine;
    machine.prepare(&request, ui)?;
    let texts = args.output.iter().chain(&args.review).map(|path| (PLAN, path.as_path())).chain(machine.outputs());
    job::check_text_outputs(&request, &spec.guest.report, &texts.collect::<Vec<_>>())?;
    if let Some(path) = args.output.as_ref().filter(|_| args.bundle) {
        job::check_bundle(path)?;
    }
    let watcher = Watcher::new(ui);
    let mut report = Report::of_request(&request);
    let planned = job::plan_into(&request, &watcher, &mut report);
    drop(watcher);
    if is_reported(&planned) {
        write_reports(&mut report, &spec.guest.report, ui)?;
    }
    let planned = planned?;
    for warning in &report.virtio.warnings {
        ui.warn(warning);
    }
    let (bytes, review) = (planned.document.to_bytes(), Review::new(&planned.document));
    if ui.is_json() {
        ui.json_document(&String::from_utf8_lossy(&bytes));
    } else if !(ui.is_quiet() && (args.output.is_some() || args.check || machine.is_printed())) {
        ui.answer(&review.to_text());
    }
    if let Some(path) = &args.output {
        let bundle = match args.bundle {
            true => Some(job::write_bundle(&planned, path, &request, &report.image_files)?),
            false => None,
        };
        // When only the last step fails, which makes the name durable, the plan is there, and its bundle belongs to it.
        let mut is_there = false;
        let file = TextFile { what: PLAN, path, overwrite: args.overwrite };
        let written = file.write(&bytes, &report.image_files, || is_there = true);
        if let Some(bundle) = bundle.filter(|_| is_there) {
            ui.note(&format!("bundle written: {}", bundle.folder().display()));
            bundle.keep();
        }
        written?;
        ui.note(&format!("plan written: {} (SHA-256 {})", path.display(), Sha256Sum::of(&bytes)));
    }
    write_reviews(&review, args, &report.image_files, ui)?;
    machine.show(|| Machine::of_report(&report), args.overwrite, &report.image_files, ui)?;
    Ok(if args.check && !planned.is_empty { ExitCode::No } else { ExitCode::Done })
}

/// Prints the review of a saved plan.
fn show(path: &Path, args: &Args, ui: &Ui) -> Result<ExitCode> {
    let Args { chosen, workers, source, guest, .. } = args;
    let is_plain =
        (chosen, workers, source) == (&ChosenDiskArgs::default(), &ThreadArgs::default(), &ImageArgs::default());
    if !is_plain || *guest != GuestArgs::default() {
        let message = "an option for planning has no effect with --show, which prints a plan as it was saved";
        return Err(usage(message).hint("leave the option out, or plan again without --show"));
    }
    let plan = SavedPlan::read(path)?;
    let review = Review::new(plan.document());
    if ui.is_json() {
        ui.json_document(&String::from_utf8_lossy(&plan.document().to_bytes()));
    } else {
        ui.answer(&review.to_text());
    }
    write_reviews(&review, args, &[path.to_owned()], ui)?;
    Ok(ExitCode::Done)
}

fn write_reviews(review: &Review, args: &Args, sources: &[PathBuf], ui: &Ui) -> Result<()> {
    for path in &args.review {
        let text = match Form::of(path)? {
            Form::Text => review.to_text(),
            Form::Markdown => review.to_markdown(),
            Form::Html => review.to_html(),
        };
        TextFile { what: PLAN, path, overwrite: args.overwrite }.write(text.as_bytes(), sources, || ())?;
        ui.note(&format!("review written: {}", path.display()));
    }
    Ok(())
}

fn usage(message: &str) -> Error {
    Error::new(Kind::Usage, Layer::Cli, message)
}

/// What a review is written as.
enum Form {
    Text,
    Markdown,
    Html,
}

impl Form {
    /// By the ending of the file's name.
    fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("txt") => Ok(Self::Text),
            Some("md" | "markdown") => Ok(Self::Markdown),
            Some("html" | "htm") => Ok(Self::Html),
            _ => {
                let what = "cannot write the review: its name ends neither in .md nor in .html or .txt";
                Err(Error::new(Kind::Usage, Layer::Cli, what)
                    .path(path.display().to_string())
                    .hint("name it review.html, review.md or review.txt"))
            }
        }
    }
}
