//! `--config FILE.yaml`: a run described by a document.
//!
//! A document fills the same [`InjectSpec`] as the command line: for every option of `inject` and `convert` there is a
//! key of its name in snake case, in addition to the names that such documents had before. Paths are relative to the document's
//! folder. An unknown key is a warning with its line and the nearest known name; one that is known but has no effect in
//! winject is a warning too, so that a user does not rely on it.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::args::{parse_format, split_disks};
use super::bitlocker_args::KeySource;
use super::extras::{parse_timeout, parse_upload};
use super::numbers::{parse_level, parse_partition, parse_requests, parse_threads};
use super::output_args::{parse_compression, parse_written_format};
use super::repair_args::ToolsArg;
use super::request::InjectSpec;
use crate::block::Format;
use crate::block::convert::Compression;
use crate::error::{Error, Kind, Layer, Result};
use crate::host;
use crate::windows::{NewMac, Upload};
use crate::yaml::{Document, Field, Key, Value};

/// The contents of a document: the run that it describes, and warnings about its keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunDocument {
    pub spec: InjectSpec,
    /// The folder of the new image, which gets the input's name there if `to_output` is missing.
    pub output_dir: Option<PathBuf>,
    /// `compress`, if the document has it: the algorithm, or none.
    compress: Option<Option<Compression>>,
    /// Unknown keys and keys without effect, each with its line.
    pub warnings: Vec<String>,
}

/// Every key with its spellings: those of the guide first, then the snake case of the option.
const KEYS: &[Key<RunDocument>] = &[
    Key::new(&["cmd", "command"], |_, field| require_local(field)),
    Key::new(&["windows"], |_, field| require_windows(field)),
    Key::new(&["vmdk", "image"], |run, field| {
        let (image, other_disks) = split_disks(field.paths()?);
        set(&mut run.spec.image, image)?;
        set(&mut run.spec.other_disks, other_disks)
    }),
    Key::new(&["windows_disk"], |run, field| set(&mut run.spec.windows_disk, field.path()?)),
    Key::new(&["format"], |run, field| set(&mut run.spec.source.format, format(field)?)),
    Key::new(&["allow_path"], |run, field| set(&mut run.spec.source.allow_path, field.paths()?)),
    Key::new(&["disk"], |run, field| set(&mut run.spec.source.disk, field.optional_text()?)),
    Key::new(&["nbd_requests"], |run, field| set(&mut run.spec.source.nbd_requests, number(field, parse_requests)?)),
    Key::new(&["virtio_drivers_dir", "drivers"], |run, field| set(&mut run.spec.drivers, field.paths()?)),
    Key::new(&["virtio_config", "virtio_config_path", "definitions"], |run, field| {
        set(&mut run.spec.guest.definitions.definitions, field.path()?)
    }),
    Key::new(&["in_place"], |run, field| set(&mut run.spec.output.in_place, field.flag()?)),
    Key::new(&["no_undo"], |run, field| set(&mut run.spec.output.no_undo, field.flag()?)),
    Key::new(&["dry_run"], |run, field| set(&mut run.spec.output.dry_run, field.flag()?)),
    Key::new(&["overlay"], |run, field| set(&mut run.spec.output.overlay, field.path()?)),
    Key::new(&["to_output", "output"], |run, field| set(&mut run.spec.output.output, field.path()?)),
    Key::new(&["output_dir"], |run, field| set(&mut run.output_dir, field.path()?)),
    Key::new(&["out_format", "output_format"], |run, field| {
        set(&mut run.spec.output.new_image.output_format, written_format(field)?)
    }),
    Key::new(&["compress"], |run, field| set(&mut run.compress, Some(compression(field)?))),
    Key::new(&["compress_level"], |run, field| {
        set(&mut run.spec.output.new_image.compress_level, number(field, parse_level)?)
    }),
    Key::new(&["checksum"], |run, field| set(&mut run.spec.output.new_image.checksum, field.flag()?)),
    Key::new(&["overwrite"], |run, field| set(&mut run.spec.output.overwrite, field.flag()?)),
    Key::new(&["threads"], |run, field| set(&mut run.spec.threads, number(field, parse_threads)?)),
    Key::new(&["report"], |run, field| set(&mut run.spec.guest.report, field.paths()?)),
    Key::new(&["partition"], |run, field| set(&mut run.spec.guest.windows.partition, number(field, parse_partition)?)),
    Key::new(&["bitlocker_recovery_key"], |run, field| {
        set(&mut run.spec.guest.bitlocker.bitlocker_recovery_key, keys(field)?)
    }),
    Key::new(&["bitlocker_password"], |run, field| set(&mut run.spec.guest.bitlocker.bitlocker_password, keys(field)?)),
    Key::new(&["bitlocker_startup_key"], |run, field| {
        set(&mut run.spec.guest.bitlocker.bitlocker_startup_key, keys(field)?)
    }),
    Key::new(&["bitlocker_volume_key"], |run, field| {
        set(&mut run.spec.guest.bitlocker.bitlocker_volume_key, keys(field)?)
    }),
    Key::new(&["registration"], |run, field| set(&mut run.spec.guest.registration, word(field)?.unwrap_or_default())),
    Key::new(&["signature_policy"], |run, field| {
        set(&mut run.spec.guest.signature_policy, word(field)?.unwrap_or_default())
    }),
    Key::new(&["trust_publisher"], |run, field| set(&mut run.spec.guest.trust_publisher, field.paths()?)),
    Key::new(&["firstboot_method"], |run, field| set(&mut run.spec.guest.first_boot.firstboot_method, word(field)?)),
    Key::new(&["no_firstboot"], |run, field| set(&mut run.spec.guest.first_boot.no_firstboot, field.flag()?)),
    Key::new(&["firstboot_reboot"], |run, field| set(&mut run.spec.guest.first_boot.firstboot_reboot, field.flag()?)),
    Key::new(&["rearm"], |run, field| set(&mut run.spec.guest.first_boot.rearm, field.flag()?)),
    Key::new(&["force_virtio_overwrite", "force"], |run, field| set(&mut run.spec.guest.force, field.flag()?)),
    Key::new(&["keep_network"], |run, field| set(&mut run.spec.guest.network.keep_network, field.flag()?)),
    Key::new(&["mac"], |run, field| set(&mut run.spec.guest.network.mac, new_macs(field)?)),
    Key::new(&["packages_only"], |run, field| set(&mut run.spec.guest.packages_only, field.flag()?)),
    Key::new(&["allow_dirty"], |run, field| set(&mut run.spec.guest.state.overrides.allow_dirty, field.flag()?)),
    Key::new(&["discard_ntfs_log"], |run, field| {
        set(&mut run.spec.guest.state.overrides.discard_ntfs_log, field.flag()?)
    }),
    Key::new(&["discard_hibernation"], |run, field| {
        set(&mut run.spec.guest.state.overrides.discard_hibernation, field.flag()?)
    }),
    Key::new(&["no_replay"], |run, field| set(&mut run.spec.guest.state.replay.no_replay, field.flag()?)),
    Key::new(&["firstboot"], |run, field| set(&mut run.spec.guest.extras.firstboot, field.paths()?)),
    Key::new(&["firstboot_timeout"], |run, field| {
        set(&mut run.spec.guest.extras.firstboot_timeout, number(field, parse_timeout)?)
    }),
    Key::new(&["guest_agent"], |run, field| set(&mut run.spec.guest.extras.guest_agent, field.flag()?)),
    Key::new(&["upload"], |run, field| set(&mut run.spec.guest.extras.upload, uploads(field)?)),
    Key::new(&["skip_volume_check"], |run, field| set(&mut run.spec.guest.check.skip_volume_check, field.flag()?)),
    Key::new(&["fallback_loader"], |run, field| {
        set(&mut run.spec.guest.boot.fallback_loader, word(field)?.unwrap_or_default())
    }),
    Key::new(&["boot_graphics"], |run, field| {
        set(&mut run.spec.guest.boot.boot_graphics, word(field)?.unwrap_or_default())
    }),
    Key::new(&["test_signing"], |run, field| set(&mut run.spec.guest.boot.test_signing, word(field)?)),
    Key::new(&["remove_tools"], |run, field| {
        let tools: Vec<ToolsArg> = words(field)?;
        run.spec.guest.repairs.remove_tools.extend(tools);
        Ok(())
    }),
    Key::new(&["remove_vmware_tools"], |run, field| {
        run.spec.guest.repairs.remove_tools.extend(field.flag()?.then_some(ToolsArg::Vmware));
        Ok(())
    }),
    Key::new(&["no_auto_reboot"], |run, field| set(&mut run.spec.guest.repairs.no_auto_reboot, field.flag()?)),
    Key::new(&["data_disks"], |run, field| {
        set(&mut run.spec.guest.repairs.data_disks, word(field)?.unwrap_or_default())
    }),
    Key::new(&["machine"], |run, field| set(&mut run.spec.guest.machine.machine, word(field)?)),
    Key::new(&["machine_output"], |run, field| set(&mut run.spec.guest.machine.machine_output, field.path()?)),
    // Keys of the programs for which such documents were written first.
    Key::without_effect(&["config"]),
    Key::without_effect(&["dump_config"]),
    Key::without_effect(&["emit_domain_xml"]),
    Key::without_effect(&["export_report"]),
    Key::without_effect(&["flatten"]),
    Key::without_effect(&["flatten_format"]),
    Key::without_effect(&["guest_os"]),
    Key::without_effect(&["headless"]),
    Key::without_effect(&["keep_domain"]),
    Key::without_effect(&["libvirt_test"]),
    Key::without_effect(&["log_file"]),
    Key::without_effect(&["luks_enable"]),
    Key::without_effect(&["luks_keyfile"]),
    Key::without_effect(&["luks_passphrase"]),
    Key::without_effect(&["memory"]),
    Key::without_effect(&["no_backup"]),
    Key::without_effect(&["qemu_test"]),
    Key::without_effect(&["resize"]),
    Key::without_effect(&["timeout"]),
    Key::without_effect(&["uefi"]),
    Key::without_effect(&["vcpus"]),
    Key::without_effect(&["verbose"]),
    Key::without_effect(&["virsh_define"]),
    Key::without_effect(&["virtio_config_json"]),
    Key::without_effect(&["vm_name"]),
    Key::without_effect(&["win_net"]),
    Key::without_effect(&["win_net_json"]),
    Key::without_effect(&["win_net_override"]),
    Key::without_effect(&["win_stage"]),
    Key::without_effect(&["windows_network_config"]),
    Key::without_effect(&["windows_network_config_path"]),
    Key::without_effect(&["workdir"]),
];

/// The keys of a document, each with its spellings, the preferred one first.
pub(super) fn key_names() -> impl Iterator<Item = &'static [&'static str]> {
    KEYS.iter().map(Key::names)
}

/// The largest document that is read, in bytes.
const BYTES_MAX: u64 = 1 << 20;

impl RunDocument {
    /// Reads a document.
    ///
    /// # Errors
    /// [`Kind::Io`] when it cannot be read; [`Kind::Usage`] with file and line for everything that winject cannot do.
    pub fn load(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let bytes = host::read(path, BYTES_MAX).map_err(|error| {
            error
                .into_error("the configuration", path, Layer::Cli)
                .hint("--config takes the YAML file, the image is named in it")
        })?;
        let hint = "--config takes the YAML file, as UTF-8; the image is named in it";
        let text = Document::new(&name, Layer::Cli).text_of(bytes, "the configuration", hint)?;
        let mut run = Self::parse(&text, &name, path.parent().unwrap_or(Path::new("")))?;
        if run.spec.image.as_os_str().is_empty() {
            return Err(Error::new(Kind::Usage, Layer::Cli, "no image given")
                .path(&name)
                .hint("add a line `vmdk: IMAGE`"));
        }
        run.spec.document = Some(path.to_owned());
        Ok(run)
    }

    /// Reads a document from its text, for [`load`](Self::load); `folder` is what its paths are relative to.
    fn parse(text: &str, name: &str, folder: &Path) -> Result<Self> {
        let mut document = Document::new(name, Layer::Cli).in_folder(folder).ignoring_case();
        let hint = "it should be lines of the form `key: value`, for instance `vmdk: windows.qcow2`";
        let map = document.parse(text, "a configuration", hint)?;
        let mut run = Self::default();
        document.read(&map, KEYS, &mut run)?;
        run.warnings = document.into_warnings();
        run.complete(name)?;
        Ok(run)
    }

    /// Fills in what follows from several keys, whatever their order.
    fn complete(&mut self, name: &str) -> Result<()> {
        let Self { spec, output_dir, compress, .. } = self;
        // A level alone asks for compression, too.
        let new_image = &mut spec.output.new_image;
        let implied = new_image.compress_level.map(|_| Compression::Zlib);
        new_image.compress = compress.unwrap_or(implied);
        let extras = &spec.guest.extras;
        if extras.firstboot_timeout.is_some() && extras.firstboot.is_empty() {
            let message = "firstboot_timeout has no effect without firstboot";
            let hint = "add a line `firstboot: SCRIPT`, or leave it out";
            return Err(Error::new(Kind::Usage, Layer::Cli, message).path(name).hint(hint));
        }
        // The new image is that of the disk with Windows.
        let image = spec.windows_disk.as_ref().unwrap_or(&spec.image);
        let output = &mut spec.output;
        // A dry run writes none, and a document that is only tried has no folder for it yet.
        let is_named = output.overlay.is_some() || output.output.is_some() || output.in_place || output.dry_run;
        if let (false, Some(folder), Some(stem)) = (is_named, &output_dir, image.file_stem()) {
            if spec.windows_disk.is_none() && !spec.other_disks.is_empty() {
                let message = "cannot name the new image: it is not known yet which of the disks holds Windows";
                let hint = "add a line `to_output: NEW.qcow2`, or `windows_disk: DISK`";
                return Err(Error::new(Kind::Usage, Layer::Cli, message).path(name).hint(hint));
            }
            let mut name = stem.to_owned();
            name.push(if output.new_image.output_format == Some(Format::Raw) { ".raw" } else { ".qcow2" });
            output.output = Some(folder.join(name));
        }
        Ok(())
    }
}

fn set<T>(field: &mut T, value: T) -> Result<()> {
    *field = value;
    Ok(())
}

/// One of an option's words.
fn word<T: ValueEnum>(field: &Field<'_>) -> Result<Option<T>> {
    // YAML takes `on` and `off` for yes and no.
    let switch = match field.value() {
        Value::Bool(true) => "on",
        Value::Bool(false) => "off",
        _ => return field.optional_text()?.map(|text| parse_word(field, &text)).transpose(),
    };
    T::from_str(switch, true)
        .map(Some)
        .map_err(|_| field.error("a word is expected, not yes or no", format!("write one of: {}", known_words::<T>())))
}

fn parse_word<T: ValueEnum>(field: &Field<'_>, text: &str) -> Result<T> {
    T::from_str(text, true)
        .map_err(|_| field.error(format_args!("{text:?} is unknown"), format!("write one of: {}", known_words::<T>())))
}

/// The words of an option, for a hint.
fn known_words<T: ValueEnum>() -> String {
    let values = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    values.map(|value| value.get_name().to_owned()).collect::<Vec<_>>().join(", ")
}

/// The MAC addresses of new adapters, as `--mac` takes them.
fn new_macs(field: &Field<'_>) -> Result<Vec<NewMac>> {
    let parse =
        |text: String| NewMac::parse(&text).map_err(|why| field.error(format_args!("cannot use {text:?}"), why));
    field.texts()?.into_iter().map(parse).collect()
}

/// One or several of an option's words, as a list or with commas.
fn words<T: ValueEnum>(field: &Field<'_>) -> Result<Vec<T>> {
    let texts = field.texts()?;
    texts.iter().flat_map(|text| text.split(',')).map(|word| parse_word(field, word.trim())).collect()
}

fn format(field: &Field<'_>) -> Result<Option<Format>> {
    let Some(text) = field.optional_text()? else { return Ok(None) };
    parse_format(&text).map(Some).map_err(|hint| field.error(format_args!("{text:?} is unknown"), hint))
}

/// A format that winject writes.
fn written_format(field: &Field<'_>) -> Result<Option<Format>> {
    let Some(text) = field.optional_text()? else { return Ok(None) };
    parse_written_format(&text).map(Some).map_err(|hint| field.error("this format is not written", hint))
}

/// A number, as its option takes it.
fn number<N>(field: &Field<'_>, parse: impl Fn(&str) -> Result<N, String>) -> Result<Option<N>> {
    let Some(text) = field.optional_text()? else { return Ok(None) };
    parse(&text).map(Some).map_err(|hint| field.error(format_args!("{text:?} is not a number that fits"), hint))
}

/// Yes (zlib), no, or the algorithm.
fn compression(field: &Field<'_>) -> Result<Option<Compression>> {
    if let Value::Text(text) = field.value()
        && let Ok(kind) = parse_compression(text)
    {
        return Ok(Some(kind));
    }
    Ok(field.flag()?.then_some(Compression::Zlib))
}

/// Files to put into the guest, whose paths on the host are relative to the document's folder.
fn uploads(field: &Field<'_>) -> Result<Vec<Upload>> {
    let parse = |path: PathBuf| {
        let text = path.to_string_lossy();
        parse_upload(&text).map_err(|hint| field.error(format_args!("{text:?} is not a file and its place"), hint))
    };
    field.paths()?.into_iter().map(parse).collect()
}

/// Where keys come from, as the options take it; files are relative to the document's folder.
fn keys(field: &Field<'_>) -> Result<Vec<KeySource>> {
    Ok(field.texts()?.iter().map(|text| KeySource::from(text.as_str()).in_folder(field.folder())).collect())
}

fn require_local(field: &Field<'_>) -> Result<()> {
    match field.optional_text()?.as_deref() {
        None | Some("local") => Ok(()),
        Some(other) => {
            let hint = "only `cmd: local` is: a disk image on this machine";
            Err(field.error(format_args!("`{other}` is not done here"), hint))
        }
    }
}

fn require_windows(field: &Field<'_>) -> Result<()> {
    if field.flag()? { Ok(()) } else { Err(field.error("winject edits Windows guests only", "remove the line")) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;
    use crate::cli::args::{RegistrationArg, SignatureArg};
    use crate::cli::boot_args::{BootGraphicsArg, FallbackLoaderArg, TestSigningArg};
    use crate::cli::machine_args::MachineArg;
    use crate::cli::output_args::OutputArgs;
    use crate::cli::repair_args::DataDisksArg;

    fn parse(text: &str) -> Result<RunDocument> {
        RunDocument::parse(text, "run.yaml", Path::new("/etc/winject"))
    }

    #[test]
    fn basic_virtio_only() {
        let config = parse(
            "cmd: local\nvmdk: /path/to/windows.vmdk\noutput_dir: /path/to/output\nwindows: true\n\n\
             # VirtIO drivers\nvirtio_drivers_dir: /usr/share/virtio-win\n\n# Output\n\
             to_output: /path/to/output/windows-converted.qcow2\nreport: /path/to/output/report.md\n",
        )
        .unwrap();
        assert_eq!(config.spec.image, Path::new("/path/to/windows.vmdk"));
        assert_eq!(config.spec.drivers, [Path::new("/usr/share/virtio-win")]);
        assert_eq!(config.spec.output.output.as_deref(), Some(Path::new("/path/to/output/windows-converted.qcow2")));
        assert_eq!(config.spec.guest.report, [Path::new("/path/to/output/report.md")]);
        assert!(config.warnings.is_empty() && !config.spec.output.dry_run);
    }

    #[test]
    fn virtio_and_custom_drivers_in_both_spellings() {
        for key in ["virtio_config", "virtio_config_path"] {
            let config = parse(&format!("vmdk: a.vmdk\nvirtio_drivers_dir: d\n{key}: custom-drivers.yaml\n")).unwrap();
            assert_eq!(
                config.spec.guest.definitions.definitions.as_deref(),
                Some(Path::new("/etc/winject/custom-drivers.yaml"))
            );
        }
    }

    #[test]
    fn testing_without_conversion() {
        let config = parse(
            "# Dry run to test driver injection only\ndry_run: true\ncmd: local\nvmdk: /path/to/windows.vmdk\n\
             windows: true\nvirtio_drivers_dir: /path/to/virtio-win\nreport: /path/to/test-report.md\n",
        )
        .unwrap();
        assert!(config.spec.output.dry_run && config.spec.output.output.is_none());
    }

    #[test]
    fn paths_are_relative_to_the_document_and_the_name_comes_from_the_input() {
        let config = parse("vmdk: ../in/win.disk.vmdk\noutput_dir: out\n").unwrap();
        assert_eq!(config.spec.output.output.as_deref(), Some(Path::new("/etc/winject/out/win.disk.qcow2")));
        let config = parse("vmdk: [nbd://h/e, 'nbd+unix:///?socket=s']\nto_output: o.qcow2\n").unwrap();
        assert_eq!(config.spec.image, Path::new("nbd://h/e"));
        assert_eq!(config.spec.other_disks, [Path::new("nbd+unix:///?socket=s")]);
        let disks = "vmdk: [boot.vmdk, win.vmdk]\noutput_dir: out\n";
        assert!(parse(disks).unwrap_err().hint_text().unwrap().contains("to_output"));
        let config = parse(&format!("{disks}windows_disk: win.vmdk\n")).unwrap();
        assert_eq!(config.spec.output.output.as_deref(), Some(Path::new("/etc/winject/out/win.qcow2")));
        let config = parse("vmdk: win.vmdk\noutput_dir: out\nout_format: raw\n").unwrap();
        assert_eq!(config.spec.output.output.as_deref(), Some(Path::new("/etc/winject/out/win.raw")));
    }

    #[test]
    fn unknown_keys_are_named_with_line_and_neighbour() {
        let config = parse("vmdk: a\nvirtio_driver_dir: d\nvm_name: x\nfoo: 1\n").unwrap();
        assert_eq!(
            config.warnings,
            [
                "run.yaml:2: unknown key `virtio_driver_dir`; did you mean `virtio_drivers_dir`?",
                "run.yaml:3: `vm_name` has no effect here",
                "run.yaml:4: unknown key `foo`",
            ]
        );
    }

    #[test]
    fn what_cannot_be_meant_is_an_error_with_its_line() {
        for (text, word) in [
            ("cmd: live-fix\n", "live-fix"),
            ("\nwindows: false\n", "Windows guests only"),
            ("dry_run: perhaps\n", "yes or no"),
            ("out_format: vdi\n", "not written"),
            ("vmdk: {a: 1}\n", "a path is expected"),
            ("partition: two\n", "number"),
            ("threads: 0\n", "number"),
            ("threads: 1e23\n", "\"1e23\" is not a number that fits"),
            ("firstboot_timeout: 99999999999\n", "number"),
            ("data_disks: On\n", "a word is expected"),
            ("- a\n- b\n", "not a configuration"),
            ("vmdk: [unclosed\n", "not a configuration"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_string().contains(word), "{error}");
            assert!(error.to_string().contains("run.yaml:"), "{error}");
            assert!(error.hint_text().is_some());
        }
    }

    /// The options and operands of a command, by their names in a document.
    fn options(command: &str) -> BTreeSet<String> {
        let mut cli = Cli::command();
        cli.build();
        let command = cli.find_subcommand(command).unwrap();
        let own = command.get_arguments().filter(|option| !option.is_global_set() && option.get_id() != "help");
        own.map(|option| option.get_id().to_string()).collect()
    }

    /// Neither the command line nor a document can ask for something that the other cannot.
    #[test]
    fn every_option_has_a_key_and_every_key_an_option() {
        let operands = [("input", "image"), ("other_disk", "image"), ("compress_zlib", "compress")];
        let options = options("inject").into_iter().chain(options("convert")).map(|option| {
            let operand = operands.iter().find(|(operand, _)| *operand == option);
            operand.map_or(option, |(_, key)| (*key).to_owned())
        });
        let options: BTreeSet<String> = options.collect();
        assert!(options.len() > 25, "{options:?}");
        for option in &options {
            let keys = KEYS.iter().filter(|key| key.names().contains(&option.as_str())).count();
            assert_eq!(keys, 1, "no key for {option}");
        }
        // `output_dir` names the folder of `to_output`, `remove_vmware_tools` is one of the words of `remove_tools`; the
        // other two only say what winject does anyway.
        let only_here = ["cmd", "output_dir", "windows", "remove_vmware_tools"];
        for key in KEYS {
            let has_effect = parse(&format!("{}: null\n", key.names()[0])).is_ok_and(|run| run.warnings.is_empty());
            let has_option = key.names().iter().any(|name| options.contains(*name));
            let is_known = only_here.contains(&key.names()[0]);
            assert!(has_option || is_known || !has_effect, "no option for {:?}", key.names());
        }
    }

    /// Every key fills what its option fills.
    #[test]
    fn every_key_is_read() {
        let run = parse(
            "vmdk: [in.ova, b.raw, c.vhd]\nwindows_disk: b.raw\nformat: VHD\nallow_path: [a, b]\nnbd_requests: 3\ndisk: d.vmdk\ndrivers: [m.iso, vendor]\ndefinitions: defs.yaml\n\
             overlay: o.qcow2\nto_output: t.raw\noutput_format: raw\ncompress: zstd\ncompress_level: 3\nchecksum: yes\n\
             in_place: true\nno_undo: true\ndry_run: true\noverwrite: true\nthreads: 2\nreport: [r.md, s.json]\npartition: 3\n\
             registration: FULL\nsignature_policy: warn\ntrust_publisher: c.cer\nrearm: true\nforce: on\n\
             packages-only: true\nallow_dirty: 1\ndiscard_ntfs_log: true\ndiscard_hibernation: true\nno_replay: true\n\
             skip_volume_check: true\nfallback_loader: on\nboot_graphics: keep\ntest_signing: off\n\
             keep_network: true\nmac: [LAN=525400123456]\nremove_tools: [xen, parallels]\n\
             no_auto_reboot: true\ndata_disks: online\nmachine: qemu\nmachine_output: vm.sh\n",
        )
        .unwrap();
        assert!(run.warnings.is_empty(), "{:?}", run.warnings);
        let at = |name: &str| Path::new("/etc/winject").join(name);
        let spec = run.spec;
        assert_eq!((spec.image, spec.source.format), (at("in.ova"), Some(Format::Vhd)));
        assert_eq!((spec.other_disks, spec.windows_disk), (vec![at("b.raw"), at("c.vhd")], Some(at("b.raw"))));
        assert_eq!(spec.source.nbd_requests, Some(3));
        assert_eq!((spec.source.allow_path, spec.source.disk.as_deref()), (vec![at("a"), at("b")], Some("d.vmdk")));
        let OutputArgs { overlay, output, new_image, in_place, no_undo, dry_run, overwrite } = spec.output;
        assert_eq!((spec.drivers, overlay), (vec![at("m.iso"), at("vendor")], Some(at("o.qcow2"))));
        assert_eq!((output, new_image.output_format), (Some(at("t.raw")), Some(Format::Raw)));
        assert_eq!((new_image.compress, new_image.compress_level), (Some(Compression::Zstd), Some(3)));
        assert!(new_image.checksum && in_place && no_undo && dry_run && overwrite);
        assert_eq!(spec.threads, Some(2));
        let guest = spec.guest;
        assert_eq!((guest.definitions.definitions, guest.windows.partition), (Some(at("defs.yaml")), Some(3)));
        assert_eq!((guest.report, guest.trust_publisher), (vec![at("r.md"), at("s.json")], vec![at("c.cer")]));
        assert_eq!((guest.registration, guest.signature_policy), (RegistrationArg::Full, SignatureArg::Warn));
        assert!(guest.network.keep_network && guest.network.mac.len() == 1);
        assert_eq!(guest.repairs.remove_tools, [ToolsArg::Xen, ToolsArg::Parallels]);
        assert_eq!((guest.repairs.no_auto_reboot, guest.repairs.data_disks), (true, DataDisksArg::Online));
        assert!(guest.first_boot.rearm && guest.force && guest.packages_only && guest.state.overrides.allow_dirty);
        assert!(
            guest.state.overrides.discard_ntfs_log
                && guest.state.overrides.discard_hibernation
                && guest.state.replay.no_replay
                && guest.check.skip_volume_check
        );
        assert_eq!((guest.machine.machine, guest.machine.machine_output), (Some(MachineArg::Qemu), Some(at("vm.sh"))));
        assert_eq!(guest.boot.fallback_loader, FallbackLoaderArg::On);
        assert_eq!(guest.boot.boot_graphics, BootGraphicsArg::Keep);
        assert_eq!(guest.boot.test_signing, Some(TestSigningArg::Off));
    }

    #[test]
    fn keys_without_effect_are_errors_and_lists_may_have_commas() {
        let parse = |text: &str| RunDocument::parse(text, "run.yaml", Path::new(""));
        let error = parse("vmdk: a\nfirstboot_timeout: 5\n").unwrap_err();
        assert!(error.to_string().contains("firstboot_timeout has no effect"), "{error}");
        let run = parse("vmdk: a\nremove_tools: xen, parallels\n").unwrap();
        assert_eq!(run.spec.guest.repairs.remove_tools, [ToolsArg::Xen, ToolsArg::Parallels]);
    }

    #[test]
    fn compression_is_a_word_or_yes_or_no() {
        for (text, kind) in [
            ("", None),
            ("compress: false\n", None),
            ("compress: yes\n", Some(Compression::Zlib)),
            ("compress: ZSTD\n", Some(Compression::Zstd)),
            ("compress_level: 9\n", Some(Compression::Zlib)),
            ("compress: no\ncompress_level: 9\n", None),
            ("compress_level: 9\ncompress: no\n", None),
        ] {
            assert_eq!(parse(text).unwrap().spec.output.new_image.compress, kind, "{text}");
        }
        assert!(parse("compress: lzma\n").unwrap_err().to_string().contains("yes or no"));
    }
}
