//! The one request for an injection, whether it was typed or written in a document.

use std::path::{Path, PathBuf};

use super::args::{GuestArgs, ImageArgs, RegistrationArg};
use super::output_args::{OutputArgs, no_destination};
use super::{environment, signals, worker};
use crate::drivers::Policy;
use crate::drivers::trust::Publisher;
use crate::error::{Error, Kind, Layer, Result};
use crate::host;
use crate::job::{Destination, InjectRequest};
use crate::windows::{FirstBootMethod, InjectOptions};

/// The largest certificate file that is read, in bytes.
const CERTIFICATE_BYTES_MAX: u64 = 1 << 20;

/// An injection as the user asks for it: `inject`, `convert --drivers` and a document all fill this structure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InjectSpec {
    pub image: PathBuf,
    /// The other disks of the same machine.
    pub other_disks: Vec<PathBuf>,
    pub windows_disk: Option<PathBuf>,
    pub source: ImageArgs,
    /// Driver media, the preferred one first.
    pub drivers: Vec<PathBuf>,
    /// Where the changed disk goes.
    pub output: OutputArgs,
    pub threads: Option<usize>,
    pub guest: GuestArgs,
    /// The document that this was read from: an input, which no output may replace.
    pub document: Option<PathBuf>,
}

impl InjectSpec {
    /// The job's request. Reads the certificates that are named.
    ///
    /// # Errors
    /// [`Kind::Usage`] when no destination is given, when choices exclude each other, and for variables that cannot be read;
    /// [`Kind::Io`] for files that cannot be read.
    pub fn request(&self) -> Result<InjectRequest> {
        let guest = &self.guest;
        let destination = self.destination()?;
        Ok(InjectRequest {
            other_disks: self.other_disks.clone(),
            windows_disk: self.windows_disk.clone(),
            format: self.source.format,
            path_policy: self.source.path_policy(),
            disk: self.source.disk.clone(),
            nbd: self.source.nbd_options(),
            definitions: guest.definitions.definitions.clone(),
            other_inputs: guest
                .trust_publisher
                .iter()
                .chain(guest.extras.inputs())
                .chain(guest.bitlocker.inputs())
                .chain(&self.document)
                .cloned()
                .collect(),
            rehearsed: self.rehearsed()?,
            overwrite_output: self.output.overwrite,
            keep_undo: !self.output.no_undo,
            partition: guest.windows.partition,
            threads: self.threads,
            bitlocker: guest.bitlocker.keys()?,
            state: guest.state.overrides(),
            skip_volume_check: guest.check.skip_volume_check,
            trusts_unchanged: worker::is_worker(),
            memory: worker::memory(),
            policy: Policy { signature: guest.signature_policy.into() },
            options: self.options()?,
            packages_only: guest.packages_only,
            cancel: signals::cancel(),
            ..InjectRequest::new(&self.image, self.drivers.clone(), destination, environment::clock()?)
        })
    }

    /// The destination that a dry run rehearses.
    fn rehearsed(&self) -> Result<Option<Destination>> {
        // The folder that a document names is made by the run, and not by a dry run.
        let is_checked = |named: &Destination| match named {
            Destination::Overlay(path) | Destination::Standalone { path, .. } => {
                self.document.is_none() || host::folder_of(path).is_dir()
            }
            Destination::DryRun | Destination::InPlace => true,
        };
        Ok(self.checked_output().named()?.filter(is_checked))
    }

    /// The output options for their check: `--overwrite` has an effect on a machine's description, too.
    fn checked_output(&self) -> OutputArgs {
        let OutputArgs { overwrite, overlay, output, .. } = &self.output;
        let has_image = overlay.is_some() || output.is_some();
        let overwrite = *overwrite && (has_image || self.guest.machine.machine_output.is_none());
        OutputArgs { overwrite, ..self.output.clone() }
    }

    fn destination(&self) -> Result<Destination> {
        let output = self.checked_output();
        if self.document.is_some() && !output.dry_run && output.named()?.is_none() {
            let hint = "add `to_output: NEW.qcow2`, `overlay: NEW.qcow2`, `in_place: true` or `dry_run: true`";
            return Err(no_destination().hint(hint));
        }
        output.destination()
    }

    fn options(&self) -> Result<InjectOptions> {
        let guest = &self.guest;
        if guest.packages_only && guest.registration == RegistrationArg::Full {
            let message = "cannot register drivers in full: --packages-only registers none";
            let hint = "leave out either --packages-only or --registration full";
            return Err(Error::new(Kind::Usage, Layer::Cli, message).hint(hint));
        }
        let first_boot = guest.first_boot.options()?;
        let needless =
            [("--firstboot", !guest.extras.firstboot.is_empty()), ("--guest-agent", guest.extras.guest_agent)];
        let needless = needless.into_iter().find(|(_, is_given)| *is_given).map(|(option, _)| option);
        if let (FirstBootMethod::None, Some(option)) = (first_boot.method, needless) {
            let message = format!("{option} has no effect without a first-boot job");
            let hint = "leave out --no-firstboot and --firstboot-method none, or that option";
            return Err(Error::new(Kind::Usage, Layer::Cli, message).hint(hint));
        }
        Ok(InjectOptions {
            force: guest.force,
            first_boot,
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

/// Reads a certificate file; the layer that writes the certificate parses it again. Here the file's name is known.
fn read_certificate(path: &Path) -> Result<Vec<u8>> {
    let bytes = host::read(path, CERTIFICATE_BYTES_MAX).map_err(|error| {
        error
            .into_error("the certificate", path, Layer::Cli)
            .hint("--trust-publisher takes a certificate file (.cer, DER)")
    })?;
    Publisher::parse(&bytes, &path.display().to_string())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::document::RunDocument;
    use crate::cli::{Cli, Command};

    /// A certificate that was made for these tests.
    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n\
        MIHUMIGHAhRiwe56aIOfTJfz6iUHRY8XRDM2EDAFBgMrZXAwDDEKMAgGA1UEAwwB\n\
        dzAgFw0yNjExMzAwNzM3MTlaGA8yMTI2MTEwNjA3MzcxOVowDDEKMAgGA1UEAwwB\n\
        dzAqMAUGAytlcAMhAJEE/jIgbKBJWb6eW9iA3DDyD83OUgROE/GpHcxtoSPoMAUG\n\
        AytlcANBAGlw1VO0QPYQNs7vAE5qdUlAEbjxRFXYBkyGJ16uPv8zytBr794L2Ili\n\
        5ynt/GnM1WaZ128ShjgCM/5KDOZb2Qs=\n\
        -----END CERTIFICATE-----\n";

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
        std::fs::write(&certificate, CERTIFICATE).unwrap();
        std::fs::write(folder.path().join("password"), "a password").unwrap();
        let at = folder.path().display();
        let common = format!(
            "--format vhd --allow-path {at}/base --disk d.vmdk --nbd-requests 3 --definitions {at}/defs.yaml --threads 3 \
             --partition 2 --registration full --signature-policy warn --trust-publisher {at}/c.cer --firstboot-method script \
             --firstboot-reboot --rearm --force \
             --keep-network --mac LAN=525400123456 \
             --allow-dirty --discard-ntfs-log --discard-hibernation --no-replay --skip-volume-check \
             --upload {at}/u=C:\\T\\u --upload {at}/k=v=\\w \
             --firstboot {at}/a.cmd --firstboot {at}/b.ps1 --firstboot-timeout 60 --guest-agent \
             --fallback-loader off --boot-graphics keep --test-signing on \
             --bitlocker-password 4381F759={at}/password"
        );
        let text = "vmdk: in.ova\ndrivers: [a.iso, vendor]\nformat: vpc\nallow_path: base\ndisk: d.vmdk\nnbd_requests: 3\n\
                    definitions: defs.yaml\nthreads: 3\npartition: 2\nregistration: full\n\
                    signature_policy: warn\ntrust_publisher: c.cer\nfirstboot_method: script\n\
                    firstboot_reboot: true\nrearm: true\nforce: true\n\
                    keep_network: true\nmac: LAN=525400123456\nallow_dirty: true\n\
                    discard_ntfs_log: true\ndiscard_hibernation: true\nno_replay: true\nskip_volume_check: true\n\
                    upload:\n  - 'u=C:\\T\\u'\n  - 'k=v=\\w'\nfirstboot: [a.cmd, b.ps1]\n\
                    firstboot_timeout: 60\nguest_agent: true\n\
                    fallback_loader: off\nboot_graphics: keep\ntest_signing: on\n\
                    bitlocker_password: 4381F759=password\n";
        for (option, key) in [
            (format!("--overlay {at}/o.qcow2 --overwrite"), "overlay: o.qcow2\noverwrite: true\n"),
            (format!("-o {at}/o.img --overwrite"), "output: o.img\noverwrite: true\n"),
            (format!("-o {at}/o -O raw --checksum"), "to_output: o\nout_format: raw\nchecksum: true\n"),
            ("--in-place --no-undo".to_owned(), "in_place: true\nno_undo: true\n"),
            ("--dry-run".to_owned(), "dry_run: true\n"),
            (format!("-n -o {at}/x.qcow2"), "dry_run: true\nto_output: x.qcow2\n"),
        ] {
            let inject = format!("inject {at}/in.ova --drivers {at}/a.iso --drivers {at}/vendor {common} {option}");
            assert_eq!(shown(typed(&inject)), shown(written(folder.path(), &format!("{text}{key}"))), "{option}");
        }
        for (options, keys) in [
            ("", ""),
            ("-O raw --checksum", "out_format: raw\nchecksum: true\n"),
            ("--compress", "compress: true\n"),
            ("-c", "compress: true\n"),
            ("-n --overwrite", "dry_run: true\noverwrite: true\n"),
            ("--compress ZSTD --compress-level 4", "compress: zstd\ncompress_level: 4\n"),
        ] {
            let convert = format!(
                "convert {at}/in.ova {at}/o.qcow2 --inject {at}/a.iso --drivers {at}/vendor {common} {options}"
            );
            let inject = format!(
                "inject {at}/in.ova -o {at}/o.qcow2 --drivers {at}/a.iso --inject {at}/vendor {common} {options}"
            );
            let document = format!("{text}to_output: o.qcow2\n{keys}");
            assert_eq!(shown(typed(&convert)), shown(written(folder.path(), &document)), "{options}");
            assert_eq!(shown(typed(&convert)), shown(typed(&inject)), "{options}");
        }
    }

    /// Each option of `convert` reaches the job.
    #[test]
    fn an_injecting_conversion_obeys_every_option() {
        let plain = shown(typed("convert in.qcow2 out.qcow2 --inject drivers"));
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("c.cer");
        std::fs::write(&certificate, CERTIFICATE).unwrap();
        let trust = format!("--trust-publisher {}", certificate.display());
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, "a password").unwrap();
        let password = format!("--bitlocker-password {}", password_file.display());
        for option in [
            "-O raw",
            "--compress",
            "--compress zstd",
            "--compress --compress-level 5",
            "-c",
            "--checksum",
            "--overwrite",
            "-n",
            "--threads 1",
            "--inject more",
            "--format vdi",
            "--allow-path base",
            "--disk d.vmdk",
            "--nbd-requests 2",
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
}
