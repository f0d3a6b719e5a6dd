//! The one request for an injection, whether it was typed or written in a document.

use std::path::{Path, PathBuf};

use super::args::{GuestArgs, ImageArgs, NewImageArgs, RegistrationArg};
use super::{environment, signals};
use crate::block::Format;
use crate::drivers::Policy;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::host;
use crate::job::{Destination, InjectRequest};
use crate::windows::InjectOptions;

/// The largest certificate file that is read, in bytes.
const CERTIFICATE_BYTES_MAX: u64 = 1 << 20;

/// An injection as the user asks for it: `inject`, `convert --inject` and a document all fill this structure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InjectSpec {
    pub image: PathBuf,
    /// The other disks of the same machine.
    pub other_disks: Vec<PathBuf>,
    pub windows_disk: Option<PathBuf>,
    pub source: ImageArgs,
    /// Driver media, the preferred one first.
    pub drivers: Vec<PathBuf>,
    pub in_place: bool,
    pub no_undo: bool,
    pub dry_run: bool,
    /// A qcow2 overlay over the image.
    pub output: Option<PathBuf>,
    /// A whole new image, and how it is written.
    pub to_output: Option<PathBuf>,
    pub new_image: NewImageArgs,
    pub overwrite: bool,
    pub threads: Option<usize>,
    pub guest: GuestArgs,
    /// The document that this was read from: an input, which no output may replace.
    pub document: Option<PathBuf>,
}

impl InjectSpec {
    /// The job's request. Reads the certificates that are named.
    ///
    /// # Errors
    /// [`Kind::Refused`] when no destination is given; [`Kind::Usage`] when choices exclude each other, and for files
    /// and variables that cannot be read.
    pub fn request(&self) -> Result<InjectRequest> {
        let guest = &self.guest;
        let destination = self.destination()?;
        refuse_needless_no_undo(self.no_undo, &destination)?;
        Ok(InjectRequest {
            other_disks: self.other_disks.clone(),
            windows_disk: self.windows_disk.clone(),
            format: self.source.format,
            path_policy: self.source.path_policy(),
            disk: self.source.disk.clone(),
            definitions: guest.definitions.definitions.clone(),
            other_inputs: guest
                .trust_publisher
                .iter()
                .chain(guest.extras.inputs())
                .chain(guest.bitlocker.inputs())
                .chain(&self.document)
                .cloned()
                .collect(),
            overwrite_output: self.overwrite,
            keep_undo: !self.no_undo,
            partition: guest.windows.partition,
            threads: self.threads,
            bitlocker: guest.bitlocker.keys()?,
            state: guest.state.overrides(),
            skip_volume_check: guest.check.skip_volume_check,
            policy: Policy { signature: guest.signature_policy.into() },
            options: self.options()?,
            packages_only: guest.packages_only,
            cancel: signals::cancel(),
            ..InjectRequest::new(&self.image, self.drivers.clone(), destination, environment::clock()?)
        })
    }

    /// Nothing is changed by surprise: a destination has to be given. A dry run writes nothing, whatever else is given.
    fn destination(&self) -> Result<Destination> {
        match (self.dry_run, self.in_place, &self.output, &self.to_output) {
            (true, ..) => Ok(Destination::DryRun),
            (_, _, Some(_), Some(_)) | (_, true, Some(_), _) => {
                let message = "several destinations given: `output` is neither a new image nor the image itself";
                let hint = "keep one of `output` (an overlay), `to_output` (a new image) and `in_place`";
                Err(Error::new(Kind::Usage, Layer::Cli, message).hint(hint))
            }
            (_, true, None, _) => Ok(Destination::InPlace),
            (_, _, Some(path), None) => Ok(Destination::Overlay(path.clone())),
            (_, _, None, Some(path)) => Ok(new_image(path, &self.new_image)),
            (_, _, None, None) => Err(no_destination(Kind::Refused).hint(match self.document {
                Some(_) => "add `to_output: NEW.qcow2`, `output: OVERLAY.qcow2`, `in_place: true` or `dry_run: true`",
                None => "--output NEW.qcow2 keeps the image as it is; --in-place changes it; --dry-run only shows",
            })),
        }
    }

    fn options(&self) -> Result<InjectOptions> {
        let guest = &self.guest;
        if guest.packages_only && guest.registration == RegistrationArg::Full {
            let message = "cannot register drivers in full: --packages-only registers none";
            let hint = "leave out either --packages-only or --registration full";
            return Err(Error::new(Kind::Usage, Layer::Cli, message).hint(hint));
        }
        Ok(InjectOptions {
            force: guest.force,
            first_boot: guest.first_boot.options()?,
            registration: guest.registration.into(),
            network: guest.network.options()?,
            trusted_publishers: guest
                .trust_publisher
                .iter()
                .map(|path| read_certificate(path))
                .collect::<Result<_>>()?,
            boot: guest.boot.into(),
            repairs: guest.repairs.options(),
            extras: guest.extras.options(),
            ..InjectOptions::default()
        })
    }
}

/// The format of a new image: the requested one, else that of its file name, else qcow2.
pub fn output_format(options: &NewImageArgs, path: &Path) -> Format {
    options.output_format.or_else(|| Format::from_extension(path)).unwrap_or(Format::Qcow2)
}

/// The destination of a whole new image.
pub fn new_image(path: &Path, options: &NewImageArgs) -> Destination {
    Destination::Standalone {
        path: path.to_owned(),
        format: output_format(options, path),
        compression: options.compression(),
        checksum: options.checksum,
    }
}

/// Refuses `--no-undo` where no undo record would be kept anyway. A dry run writes nothing, whatever else is given.
pub fn refuse_needless_no_undo(no_undo: bool, destination: &Destination) -> Result<()> {
    if !no_undo || matches!(destination, Destination::InPlace | Destination::DryRun) {
        return Ok(());
    }
    let message = "--no-undo (`no_undo`) is only for an edit in place: nothing else leaves an undo record";
    Err(Error::new(Kind::Usage, Layer::Cli, message)
        .hint("leave it out; an overlay or a new image is undone by deleting it"))
}

/// The error for a change without a destination; the hint is the caller's.
pub fn no_destination(kind: Kind) -> Error {
    Error::new(kind, Layer::Cli, "no destination given").with_code(ErrorCode::NoDestination)
}

/// Reads a certificate file; the layer that writes the certificate parses it.
fn read_certificate(path: &Path) -> Result<Vec<u8>> {
    host::read(path, CERTIFICATE_BYTES_MAX).map_err(|error| {
        error
            .into_error("the certificate", path, Layer::Cli, Kind::Usage)
            .hint("--trust-publisher takes a certificate file (.cer, DER)")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::document::RunDocument;
    use crate::cli::{Cli, Command};

    fn typed(arguments: &str) -> InjectRequest {
        let cli = Cli::try_parse_from(["winject"].into_iter().chain(arguments.split_whitespace())).unwrap();
        let spec: InjectSpec = match cli.command {
            Some(Command::Inject(args)) => args.into(),
            Some(Command::Convert(args)) => args.into(),
            other => panic!("{other:?}"),
        };
        spec.request().unwrap()
    }

    fn written(folder: &Path, text: &str) -> InjectRequest {
        let path = folder.join("run.yaml");
        std::fs::write(&path, text).unwrap();
        let mut spec = RunDocument::load(&path).unwrap().spec;
        spec.document = None;
        spec.request().unwrap()
    }

    /// The request as text, without its clock.
    fn shown(request: InjectRequest) -> String {
        format!("{:?}", InjectRequest { clock: crate::clock::FileTime(0), ..request })
    }

    /// An option means the same on the command line and in a document.
    #[test]
    fn commands_and_documents_make_the_same_request() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("c.cer");
        std::fs::write(&certificate, "a certificate").unwrap();
        let at = folder.path().display();
        let common = format!(
            "--format vhd --allow-path {at}/base --disk d.vmdk --definitions {at}/defs.yaml --overwrite --threads 3 \
             --partition 2 --registration full --signature-policy warn --trust-publisher {at}/c.cer --firstboot-method script \
             --firstboot-reboot --rearm --force \
             --keep-network --mac LAN=525400123456 \
             --allow-dirty --discard-ntfs-log --discard-hibernation --no-replay --skip-volume-check \
             --upload {at}/u=C:\\T\\u --upload {at}/k=v=\\w \
             --firstboot {at}/a.cmd --firstboot {at}/b.ps1 --firstboot-timeout 60 --guest-agent \
             --fallback-loader off --boot-graphics keep --test-signing on \
             --bitlocker-password 4381F759={at}/c.cer"
        );
        let text = "vmdk: in.ova\ndrivers: [a.iso, vendor]\nformat: vpc\nallow_path: base\ndisk: d.vmdk\n\
                    definitions: defs.yaml\noverwrite: true\nthreads: 3\npartition: 2\nregistration: full\n\
                    signature_policy: warn\ntrust_publisher: c.cer\nfirstboot_method: script\n\
                    firstboot_reboot: true\nrearm: true\nforce: true\n\
                    keep_network: true\nmac: LAN=525400123456\nallow_dirty: true\n\
                    discard_ntfs_log: true\ndiscard_hibernation: true\nno_replay: true\nskip_volume_check: true\n\
                    upload:\n  - 'u=C:\\T\\u'\n  - 'k=v=\\w'\nfirstboot: [a.cmd, b.ps1]\n\
                    firstboot_timeout: 60\nguest_agent: true\n\
                    fallback_loader: off\nboot_graphics: keep\ntest_signing: on\n\
                    bitlocker_password: 4381F759=c.cer\n";
        for (option, key) in [
            (format!("--output {at}/o.qcow2"), "output: o.qcow2\n"),
            ("--in-place --no-undo".to_owned(), "in_place: true\nno_undo: true\n"),
            ("--dry-run".to_owned(), "dry_run: true\nto_output: x.qcow2\n"),
        ] {
            let inject = format!("inject {at}/in.ova --drivers {at}/a.iso --drivers {at}/vendor {common} {option}");
            assert_eq!(shown(typed(&inject)), shown(written(folder.path(), &format!("{text}{key}"))), "{option}");
        }
        for (options, keys) in [
            ("", ""),
            ("-O raw --checksum", "out_format: raw\nchecksum: true\n"),
            ("--compress", "compress: true\n"),
            ("--compress ZSTD --compress-level 4", "compress: zstd\ncompress_level: 4\n"),
        ] {
            let convert =
                format!("convert {at}/in.ova {at}/o.qcow2 --inject {at}/a.iso --inject {at}/vendor {common} {options}");
            let document = format!("{text}to_output: o.qcow2\n{keys}");
            assert_eq!(shown(typed(&convert)), shown(written(folder.path(), &document)), "{options}");
        }
    }

    /// Each option of `convert` reaches the job.
    #[test]
    fn an_injecting_conversion_obeys_every_option() {
        let plain = shown(typed("convert in.qcow2 out.qcow2 --inject drivers"));
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("c.cer");
        std::fs::write(&certificate, "a certificate").unwrap();
        let trust = format!("--trust-publisher {}", certificate.display());
        let password = format!("--bitlocker-password {}", certificate.display());
        for option in [
            "-O raw",
            "--compress",
            "--compress zstd",
            "--compress --compress-level 5",
            "--checksum",
            "--overwrite",
            "--threads 1",
            "--inject more",
            "--format vdi",
            "--allow-path base",
            "--disk d.vmdk",
            "--other-disk boot.vmdk",
            "--definitions defs.yaml",
            "--partition 2",
            "--registration full",
            "--signature-policy present",
            trust.as_str(),
            password.as_str(),
            "--firstboot-method script",
            "--no-firstboot",
            "--firstboot-reboot",
            "--rearm",
            "--force",
            "--packages-only",
            "--keep-network",
            "--keep-network --mac LAN=52:54:00:12:34:56",
            "--allow-dirty",
            "--discard-ntfs-log",
            "--discard-hibernation",
            "--no-replay",
            "--skip-volume-check",
            "--fallback-loader on",
            "--boot-graphics keep",
            "--test-signing off",
            "--remove-tools auto",
            "--no-auto-reboot",
            "--data-disks online",
            r"--upload u=C:\T\u",
            "--firstboot a.cmd",
            "--firstboot a.cmd --firstboot-timeout 60",
            "--guest-agent",
        ] {
            let changed = shown(typed(&format!("convert in.qcow2 out.qcow2 --inject drivers {option}")));
            assert_ne!(changed, plain, "{option}");
        }
    }

    #[test]
    fn an_overlay_excludes_other_destinations() {
        let output = Some(PathBuf::from("o.qcow2"));
        for spec in [
            InjectSpec { output: output.clone(), to_output: Some("t.qcow2".into()), ..InjectSpec::default() },
            InjectSpec { output: output.clone(), in_place: true, ..InjectSpec::default() },
            InjectSpec { output, no_undo: true, ..InjectSpec::default() },
        ] {
            assert_eq!(spec.request().unwrap_err().kind(), Kind::Usage);
        }
        assert_eq!(InjectSpec::default().request().unwrap_err().kind(), Kind::Refused);
    }
}
