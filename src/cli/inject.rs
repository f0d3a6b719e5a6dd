//! `winject inject`, and `winject --config` which does the same from a document.

use super::document::RunConfig;
use super::{ImageArgs, Progress, Ui, environment, signals};
use crate::block::convert::Compression;
use crate::block::{Format, PathPolicy};
use crate::drivers::{Policy, SignatureLevel};
use crate::error::{Error, Kind, Layer, Result};
use crate::exit::ExitCode;
use crate::host;
use crate::job::{self, Destination, InjectRequest, Observer, Report, StateOverrides};
use crate::windows::{InjectOptions, Registration};
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// The largest certificate file that is read, in bytes.
const CERTIFICATE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  winject inject win.qcow2 --drivers virtio-win.iso --output win-virtio.qcow2
  winject inject win.qcow2 --drivers virtio-win.iso --in-place --report report.md
  winject inject win.qcow2 --drivers /usr/share/virtio-win --dry-run")]
pub struct Args {
    /// The disk image of a Windows that is shut down
    image: PathBuf,

    /// Folder or ISO image with drivers; may be given several times, the first one is preferred
    #[arg(long, value_name = "PATH", required = true)]
    drivers: Vec<PathBuf>,

    /// Driver definitions (YAML) that are merged over the built-in ones
    #[arg(long, value_name = "FILE", visible_alias = "virtio-config")]
    definitions: Option<PathBuf>,

    #[command(flatten)]
    destination: DestinationArgs,

    /// Writes a report: FILE.md (and FILE.json beside it) or FILE.json
    #[arg(long, value_name = "FILE")]
    report: Vec<PathBuf>,

    /// The partition that Windows is in, as Linux counts (0: the image is a volume)
    #[arg(long, value_name = "N")]
    partition: Option<u32>,

    #[command(flatten)]
    source: ImageArgs,

    #[command(flatten)]
    guest: GuestArgs,

    #[command(flatten)]
    state: StateArgs,
}

// Where the changed disk goes
#[derive(Debug, Clone, Default, clap::Args)]
struct DestinationArgs {
    /// Changes the image itself; a journal beside it allows to undo an interrupted run
    #[arg(long, conflicts_with_all = ["output", "dry_run"])]
    in_place: bool,

    /// Writes a small new qcow2 file over the untouched image
    #[arg(long, value_name = "NEW.qcow2", conflicts_with = "dry_run")]
    output: Option<PathBuf>,

    /// Shows what would be done, and writes nothing
    #[arg(long)]
    dry_run: bool,

    /// Replaces an output file that exists
    #[arg(long)]
    overwrite: bool,
}

// How the guest is changed
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub(super) struct GuestArgs {
    /// How boot drivers are registered: what is needed to boot, or all that Windows itself would write
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    registration: RegistrationArg,

    /// What the signature of a boot driver must prove
    #[arg(long, value_name = "POLICY", value_enum, default_value_t)]
    signature_policy: SignatureArg,

    /// A certificate whose publisher the guest shall trust without asking; may be given several times
    #[arg(long, value_name = "CERT")]
    trust_publisher: Vec<PathBuf>,

    /// Lets the first-boot job run again in a guest that has finished it
    #[arg(long)]
    rearm: bool,

    /// Replaces drivers in the guest that are newer than the given ones
    #[arg(long)]
    force: bool,

    /// Stage the packages and register no driver; the guest need not boot from virtio afterwards
    #[arg(long)]
    packages_only: bool,
}

// Overrides of refusals
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub(super) struct StateArgs {
    /// Edits a volume that Windows has marked for a check
    #[arg(long)]
    allow_dirty: bool,

    /// Throws an unclean NTFS log away and marks the volume for a check by Windows
    #[arg(long)]
    discard_ntfs_log: bool,

    /// Throws a hibernated session away and marks the volume for a check by Windows
    #[arg(long)]
    discard_hibernation: bool,

    /// Edits without comparing the volume's bitmaps with its file records first
    #[arg(long)]
    skip_volume_check: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum RegistrationArg {
    #[default]
    Minimal,
    Full,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum SignatureArg {
    /// It is there, can be read, and fits the file
    #[default]
    Require,
    /// It is there; whether it fits the file is not asked
    Present,
    /// Anything goes, with a warning in the report
    Warn,
}

/// Runs the command.
///
/// # Errors
/// Whatever the job says; [`Kind::Refused`] when the user did not say where the outcome shall go.
pub fn run(args: Args, ui: &Ui) -> Result<ExitCode> {
    let destination = args.destination;
    let request = InjectRequest {
        format: args.source.format,
        path_policy: args.source.path_policy(),
        disk: args.source.disk.clone(),
        definitions: args.definitions,
        overwrite_output: destination.overwrite,
        partition: args.partition,
        cancel: signals::cancel(),
        ..InjectRequest::new(args.image, args.drivers, choose(destination)?, environment::clock()?)
    };
    let request = with_choices(request, &args.guest, args.state)?;
    execute(&request, &args.report, ui)
}

/// The request with what the user chose about the guest and about refusals.
pub(super) fn with_choices(request: InjectRequest, guest: &GuestArgs, state: StateArgs) -> Result<InjectRequest> {
    Ok(InjectRequest {
        state: StateOverrides {
            allow_dirty: state.allow_dirty,
            discard_ntfs_log: state.discard_ntfs_log,
            discard_hibernation: state.discard_hibernation,
        },
        skip_volume_check: state.skip_volume_check,
        policy: policy(guest.signature_policy),
        options: options(guest)?,
        other_inputs: guest.trust_publisher.clone(),
        packages_only: guest.packages_only,
        ..request
    })
}

/// Nothing is changed by surprise: where the outcome goes has to be said.
fn choose(args: DestinationArgs) -> Result<Destination> {
    match (args.in_place, args.output, args.dry_run) {
        (true, None, false) => Ok(Destination::InPlace),
        (false, Some(path), false) => Ok(Destination::Overlay(path)),
        (false, None, true) => Ok(Destination::DryRun),
        _ => Err(nowhere("--output NEW.qcow2 keeps the image as it is; --in-place changes it; --dry-run only shows")),
    }
}

fn nowhere(hint: &str) -> Error {
    Error::refused(Layer::Cli, "it was not said where the changed disk shall go").hint(hint)
}

fn policy(signature: SignatureArg) -> Policy {
    Policy { signature: signature.level() }
}

impl SignatureArg {
    pub(super) fn level(self) -> SignatureLevel {
        match self {
            Self::Require => SignatureLevel::Require,
            Self::Present => SignatureLevel::Present,
            Self::Warn => SignatureLevel::Warn,
        }
    }
}

fn options(args: &GuestArgs) -> Result<InjectOptions> {
    if args.packages_only && args.registration == RegistrationArg::Full {
        let what = "packages cannot be staged only and registered in full at the same time";
        return Err(
            Error::new(Kind::Usage, Layer::Cli, what).hint("leave out either --packages-only or --registration full")
        );
    }
    let trusted_publishers = args.trust_publisher.iter().map(|path| certificate(path)).collect::<Result<_>>()?;
    Ok(InjectOptions {
        force: args.force,
        rearm: args.rearm,
        registration: match args.registration {
            RegistrationArg::Minimal => Registration::Minimal,
            RegistrationArg::Full => Registration::Full,
        },
        trusted_publishers,
        ..InjectOptions::default()
    })
}

/// The bytes of a certificate file. What they mean is the business of the layer that writes them.
fn certificate(path: &Path) -> Result<Vec<u8>> {
    host::read(path, CERTIFICATE_BYTES_MAX).map_err(|error| {
        error
            .into_error("the certificate", path, Layer::Cli, Kind::Usage)
            .hint("--trust-publisher takes a certificate file (.cer, DER)")
    })
}

/// `winject --config FILE.yaml`.
///
/// # Errors
/// As [`run`], and what is wrong with the document.
pub fn run_config(path: &Path, ui: &Ui) -> Result<ExitCode> {
    let config = RunConfig::load(path)?;
    for warning in &config.warnings {
        ui.warn(warning);
    }
    let place = path.display().to_string();
    let mut request = config_request(&config).map_err(|error| error.path(&place))?;
    request.other_inputs.push(path.to_owned());
    // A folder that the document names for output is made, as its readers expect.
    if let (Some(folder), false) = (&config.output_dir, config.dry_run) {
        std::fs::create_dir_all(folder).map_err(|error| {
            Error::io(Layer::Host, "cannot create the output folder", error)
                .path(folder.display().to_string())
                .hint("name another output_dir, or check the permissions")
        })?;
    }
    execute(&request, &config.reports, ui)
}

fn config_request(config: &RunConfig) -> Result<InjectRequest> {
    let missing = |what: &str, hint: &str| Error::new(Kind::Usage, Layer::Cli, what.to_owned()).hint(hint);
    let image = config.image.clone().ok_or_else(|| missing("no image is named", "add a line `vmdk: IMAGE`"))?;
    let destination = match (config.dry_run, config.in_place, config.output()) {
        (true, ..) => Destination::DryRun,
        (false, true, _) => Destination::InPlace,
        (false, false, Some(path)) => {
            let compression = config.compress.as_ref().map(|c| (Compression::Zlib, c.level));
            let format = config.out_format.or_else(|| Format::from_extension(&path)).unwrap_or(Format::Qcow2);
            Destination::Standalone { path, format, compression, checksum: config.checksum }
        }
        (false, false, None) => return Err(nowhere("add `to_output: NEW.qcow2`, `in_place: true` or `dry_run: true`")),
    };
    let guest = GuestArgs {
        registration: word(config.registration.as_deref(), "registration")?,
        signature_policy: word(config.signature_policy.as_deref(), "signature_policy")?,
        trust_publisher: config.trust_publisher.clone(),
        rearm: config.rearm,
        force: config.force,
        packages_only: config.packages_only,
    };
    Ok(InjectRequest {
        definitions: config.definitions.clone(),
        other_inputs: config.trust_publisher.clone(),
        partition: config.partition,
        state: StateOverrides {
            allow_dirty: config.allow_dirty,
            discard_ntfs_log: config.discard_ntfs_log,
            discard_hibernation: config.discard_hibernation,
        },
        skip_volume_check: config.skip_volume_check,
        policy: policy(guest.signature_policy),
        options: options(&guest)?,
        packages_only: guest.packages_only,
        path_policy: config.allow_path.iter().fold(PathPolicy::default(), |policy, path| policy.allow(path)),
        cancel: signals::cancel(),
        ..InjectRequest::new(image, config.drivers.clone(), destination, environment::clock()?)
    })
}

/// A word of the command line's options, in a document.
fn word<T: clap::ValueEnum + Default>(text: Option<&str>, key: &str) -> Result<T> {
    let Some(text) = text else { return Ok(T::default()) };
    T::from_str(text, true).map_err(|_| {
        let known: Vec<String> =
            T::value_variants().iter().filter_map(|v| Some(v.to_possible_value()?.get_name().to_owned())).collect();
        Error::new(Kind::Usage, Layer::Cli, format!("`{key}: {text}` is not known"))
            .hint(format!("write one of: {}", known.join(", ")))
    })
}

pub(super) fn execute(request: &InjectRequest, reports: &[PathBuf], ui: &Ui) -> Result<ExitCode> {
    job::check_outputs(request, reports)?;
    let watcher = Watcher { ui, current: RefCell::new(None) };
    let mut report = Report::of_request(request);
    let outcome = job::inject_into(request, &watcher, &mut report);
    drop(watcher);
    // A run that could not even begin has nothing to report, and the report that is there may be that of a good one. Nor
    // does one that was cancelled.
    if let Err(error) = &outcome
        && matches!(error.kind(), Kind::Usage | Kind::Cancelled)
    {
        return outcome.map(|()| ExitCode::Usage);
    }
    // Reports are written, whatever signal comes, if what they tell of is done.
    let _hold = signals::cancel().hold_through();
    let written = write_reports(&report, reports, ui);
    outcome?;
    show(&report, ui);
    written?;
    Ok(ExitCode::Done)
}

/// Reports are written for failures too. One that cannot be written does not hide what happened to the image.
fn write_reports(report: &Report, paths: &[PathBuf], ui: &Ui) -> Result<()> {
    let mut failed = None;
    for path in paths {
        match job::report::write(report, path, &signals::cancel()) {
            Ok(files) => {
                for file in files {
                    ui.note(&format!("report written: {}", file.display()));
                }
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(()), Err)
}

fn show(report: &Report, ui: &Ui) {
    if report.run.recovered {
        ui.note("an earlier run was interrupted; the image was restored first");
    }
    if report.run.completed {
        ui.note("an earlier run was interrupted when it had written everything; it was completed first");
    }
    for warning in &report.virtio.warnings {
        ui.warn(warning);
    }
    if let Some(plan) = report.changes.as_ref().filter(|_| report.run.dry_run || ui.verbosity() > 0) {
        ui.answer(&plan.to_string());
    }
    if let Some(windows) = &report.virtio.windows {
        ui.done(&format!("Windows:  {} (build {}, {})", windows.product, windows.build, windows.arch));
    }
    let staged: Vec<&str> = report.virtio.packages_staged.iter().map(|package| package.service.as_str()).collect();
    ui.done(&format!("Packages: {}", staged.join(", ")));
    if let Some(machine) = &report.recommendation {
        let buses = if machine.buses.is_empty() { machine.bus.to_owned() } else { machine.buses.join(" or ") };
        ui.done(&format!(
            "Machine:  {}, {}, disk on {buses}, network {}, clock {}",
            machine.machine, machine.firmware, machine.net_model, machine.clock
        ));
        for note in &machine.notes {
            ui.done(&format!("          {note}"));
        }
    }
    ui.done(&report.summary);
    if let Some(output) = report.run.output.as_deref().filter(|_| !report.run.dry_run) {
        ui.done(&format!("Output:   {output}"));
    }
}

/// Shows the job's steps as they come.
struct Watcher<'a> {
    ui: &'a Ui,
    current: RefCell<Option<Progress>>,
}

impl Observer for Watcher<'_> {
    fn step(&self, title: &str) {
        // The old one vanishes before anything else is drawn.
        self.current.take();
        tracing::info!("{title}");
        *self.current.borrow_mut() = Some(self.ui.progress(title, 0));
    }
    fn progress(&self, done: u64, total: u64) {
        if let Some(bar) = &*self.current.borrow() {
            bar.message(&format!("{done} of {total} bytes"));
        }
    }
}
