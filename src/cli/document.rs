//! `--config FILE.yaml`: a run described by a document.
//!
//! Paths in it are relative to the document's folder. A key that is not known is a warning with its line and the
//! nearest known name; a known one that winject has no use for is named too, so that nobody relies on it.

use super::yaml::{Entry, Map, Value, nearest};
use crate::block::Format;
use crate::error::{Error, Kind, Layer, Result};
use crate::host;
use std::path::{Path, PathBuf};

/// What a document says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunConfig {
    pub image: Option<PathBuf>,
    pub output_dir: Option<PathBuf>,
    pub to_output: Option<PathBuf>,
    pub out_format: Option<Format>,
    pub compress: Option<Compress>,
    pub checksum: bool,
    pub in_place: bool,
    pub dry_run: bool,
    pub drivers: Vec<PathBuf>,
    pub definitions: Option<PathBuf>,
    pub reports: Vec<PathBuf>,
    pub partition: Option<u32>,
    pub force: bool,
    pub rearm: bool,
    pub packages_only: bool,
    pub allow_dirty: bool,
    pub discard_ntfs_log: bool,
    pub discard_hibernation: bool,
    pub skip_volume_check: bool,
    pub registration: Option<String>,
    pub signature_policy: Option<String>,
    pub trust_publisher: Vec<PathBuf>,
    /// Files that the image may name (and, in place, write to), and folders of such files.
    pub allow_path: Vec<PathBuf>,
    pub warnings: Vec<String>,
}

/// `compress: true`, with an optional level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compress {
    pub level: Option<u32>,
}

/// Keys that mean something here.
const USED: &[&str] = &[
    "allow_dirty",
    "allow_path",
    "checksum",
    "cmd",
    "command",
    "compress",
    "compress_level",
    "discard_hibernation",
    "discard_ntfs_log",
    "dry_run",
    "force_virtio_overwrite",
    "image",
    "in_place",
    "out_format",
    "output_dir",
    "packages_only",
    "partition",
    "rearm",
    "registration",
    "report",
    "signature_policy",
    "skip_volume_check",
    "to_output",
    "trust_publisher",
    "virtio_config",
    "virtio_config_path",
    "virtio_drivers_dir",
    "vmdk",
    "windows",
];

/// Keys of the programs for which such documents were written first: known, without effect here.
const WITHOUT_EFFECT: &[&str] = &[
    "config",
    "dump_config",
    "emit_domain_xml",
    "export_report",
    "flatten",
    "flatten_format",
    "guest_os",
    "headless",
    "keep_domain",
    "libvirt_test",
    "log_file",
    "luks_enable",
    "luks_keyfile",
    "luks_passphrase",
    "memory",
    "no_backup",
    "qemu_test",
    "remove_vmware_tools",
    "resize",
    "timeout",
    "uefi",
    "vcpus",
    "verbose",
    "virsh_define",
    "virtio_config_json",
    "vm_name",
    "win_net",
    "win_net_json",
    "win_net_override",
    "win_stage",
    "windows_network_config",
    "windows_network_config_path",
    "workdir",
];

/// Larger than any document that people write.
const BYTES_MAX: u64 = 1 << 20;

impl RunConfig {
    /// Reads a document.
    ///
    /// # Errors
    /// [`Kind::Usage`] with file and line for everything that cannot be meant so.
    pub fn load(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let bytes = host::read(path, BYTES_MAX).map_err(|error| {
            error
                .into_error("the configuration", path, Layer::Cli, Kind::Usage)
                .hint("--config takes the YAML file, the image is named in it")
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            Error::new(Kind::Usage, Layer::Cli, "cannot read the configuration")
                .path(&name)
                .source_error(error)
                .hint("--config takes the YAML file, as UTF-8; the image is named in it")
        })?;
        Self::parse(&text, &name, path.parent().unwrap_or(Path::new("")))
    }

    /// As [`load`](Self::load), from a text; `folder` is what its paths are relative to.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, name: &str, folder: &Path) -> Result<Self> {
        let map: Map = serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location().map_or(name.to_owned(), |place| format!("{name}:{}", place.line()));
            let what = error.without_snippet().to_string();
            Error::new(Kind::Usage, Layer::Cli, format!("not a configuration: {what}"))
                .path(place)
                .hint("it should be lines of the form `key: value`, for instance `vmdk: windows.qcow2`")
        })?;
        let mut config = Self::default();
        let reader = Reader { name, folder };
        for entry in &map.0 {
            config.apply(entry, &reader)?;
        }
        Ok(config)
    }

    fn apply(&mut self, entry: &Entry, reader: &Reader<'_>) -> Result<()> {
        let key = entry.key.to_lowercase().replace('-', "_");
        match key.as_str() {
            "cmd" | "command" => reader.local(entry)?,
            "vmdk" | "image" => self.image = reader.path(entry)?,
            "output_dir" => self.output_dir = reader.path(entry)?,
            "to_output" => self.to_output = reader.path(entry)?,
            "out_format" => self.out_format = reader.format(entry)?,
            "compress" => {
                self.compress = reader.bool(entry)?.then(|| self.compress.unwrap_or(Compress { level: None }))
            }
            "compress_level" => self.compress = Some(Compress { level: reader.number(entry)? }),
            "checksum" => self.checksum = reader.bool(entry)?,
            "in_place" => self.in_place = reader.bool(entry)?,
            "dry_run" => self.dry_run = reader.bool(entry)?,
            "virtio_drivers_dir" => self.drivers = reader.paths(entry)?,
            "virtio_config" | "virtio_config_path" => self.definitions = reader.path(entry)?,
            "report" => self.reports = reader.paths(entry)?,
            "partition" => self.partition = reader.number(entry)?,
            "force_virtio_overwrite" => self.force = reader.bool(entry)?,
            "rearm" => self.rearm = reader.bool(entry)?,
            "packages_only" => self.packages_only = reader.bool(entry)?,
            "allow_dirty" => self.allow_dirty = reader.bool(entry)?,
            "discard_ntfs_log" => self.discard_ntfs_log = reader.bool(entry)?,
            "discard_hibernation" => self.discard_hibernation = reader.bool(entry)?,
            "skip_volume_check" => self.skip_volume_check = reader.bool(entry)?,
            "allow_path" => self.allow_path = reader.paths(entry)?,
            "registration" => self.registration = reader.text(entry)?,
            "signature_policy" => self.signature_policy = reader.text(entry)?,
            "trust_publisher" => self.trust_publisher = reader.paths(entry)?,
            "windows" => {
                if !reader.bool(entry)? {
                    return Err(reader.wrong(entry, "winject edits Windows guests only", "remove the line"));
                }
            }
            known if WITHOUT_EFFECT.contains(&known) => {
                self.warnings.push(format!("{}: `{}` has no effect here", reader.place(entry), entry.key));
            }
            unknown => {
                let meant = nearest(unknown, USED.iter().chain(WITHOUT_EFFECT).copied());
                let meant = meant.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
                self.warnings.push(format!("{}: unknown key `{}`{meant}", reader.place(entry), entry.key));
            }
        }
        Ok(())
    }

    /// The output file: `to_output`, or the input's name with `.qcow2` in `output_dir`.
    #[must_use]
    pub fn output(&self) -> Option<PathBuf> {
        let in_folder = || {
            let mut name = self.image.as_ref()?.file_stem()?.to_owned();
            name.push(match self.out_format {
                Some(Format::Raw) => ".raw",
                _ => ".qcow2",
            });
            Some(self.output_dir.as_ref()?.join(name))
        };
        self.to_output.clone().or_else(in_folder)
    }
}

/// Reads the values of entries, and knows where they are.
struct Reader<'a> {
    name: &'a str,
    folder: &'a Path,
}

impl Reader<'_> {
    fn place(&self, entry: &Entry) -> String {
        format!("{}:{}", self.name, entry.line)
    }

    fn wrong(&self, entry: &Entry, what: &str, hint: &str) -> Error {
        Error::new(Kind::Usage, Layer::Cli, format!("`{}`: {what}", entry.key)).path(self.place(entry)).hint(hint)
    }

    fn text(&self, entry: &Entry) -> Result<Option<String>> {
        match &entry.value {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text.clone())),
            Value::Bool(value) => Ok(Some(value.to_string())),
            Value::List(_) | Value::Map(_) => Err(self.wrong(entry, "one value is expected", "write it on one line")),
        }
    }

    fn path(&self, entry: &Entry) -> Result<Option<PathBuf>> {
        if let Value::Map(_) = entry.value {
            return Err(self.wrong(
                entry,
                "a path is expected, not the content itself",
                "put it into a file of its own and name that",
            ));
        }
        Ok(self.text(entry)?.filter(|text| !text.is_empty()).map(|text| self.folder.join(text)))
    }

    /// One path or a list of them.
    fn paths(&self, entry: &Entry) -> Result<Vec<PathBuf>> {
        let Value::List(values) = &entry.value else { return Ok(self.path(entry)?.into_iter().collect()) };
        values
            .iter()
            .map(|value| match value {
                Value::Text(text) => Ok(self.folder.join(text)),
                _ => Err(self.wrong(entry, "a list of paths is expected", "write one path on each line")),
            })
            .collect()
    }

    fn bool(&self, entry: &Entry) -> Result<bool> {
        let text = match &entry.value {
            Value::Null => return Ok(false),
            Value::Bool(value) => return Ok(*value),
            Value::Text(text) => text.to_lowercase(),
            _ => String::new(),
        };
        match text.as_str() {
            "yes" | "on" | "1" | "true" => Ok(true),
            "no" | "off" | "0" | "false" => Ok(false),
            _ => Err(self.wrong(entry, "yes or no is expected", "write true or false")),
        }
    }

    fn number(&self, entry: &Entry) -> Result<Option<u32>> {
        let Some(text) = self.text(entry)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.wrong(entry, "a number is expected", "write digits only"))
    }

    fn format(&self, entry: &Entry) -> Result<Option<Format>> {
        let Some(text) = self.text(entry)? else { return Ok(None) };
        match Format::from_name(&text.to_lowercase()) {
            Some(format @ (Format::Raw | Format::Qcow2)) => Ok(Some(format)),
            _ => Err(self.wrong(entry, "this format is not written", "write qcow2 or raw")),
        }
    }

    fn local(&self, entry: &Entry) -> Result<()> {
        match self.text(entry)?.as_deref() {
            None | Some("local") => Ok(()),
            Some(other) => Err(self.wrong(
                entry,
                &format!("`{other}` is not done here"),
                "only `cmd: local` is: a disk image on this machine",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RunConfig> {
        RunConfig::parse(text, "run.yaml", Path::new("/etc/winject"))
    }

    #[test]
    fn basic_virtio_only() {
        let config = parse(
            "cmd: local\nvmdk: /path/to/windows.vmdk\noutput_dir: /path/to/output\nwindows: true\n\n\
             # VirtIO drivers\nvirtio_drivers_dir: /usr/share/virtio-win\n\n# Output\n\
             to_output: /path/to/output/windows-converted.qcow2\nreport: /path/to/output/report.md\n",
        )
        .unwrap();
        assert_eq!(config.image.as_deref(), Some(Path::new("/path/to/windows.vmdk")));
        assert_eq!(config.drivers, [Path::new("/usr/share/virtio-win")]);
        assert_eq!(config.output().as_deref(), Some(Path::new("/path/to/output/windows-converted.qcow2")));
        assert_eq!(config.reports, [Path::new("/path/to/output/report.md")]);
        assert!(config.warnings.is_empty() && !config.dry_run);
    }

    #[test]
    fn virtio_and_custom_drivers_in_both_spellings() {
        for key in ["virtio_config", "virtio_config_path"] {
            let config = parse(&format!("vmdk: a.vmdk\nvirtio_drivers_dir: d\n{key}: custom-drivers.yaml\n")).unwrap();
            assert_eq!(config.definitions.as_deref(), Some(Path::new("/etc/winject/custom-drivers.yaml")));
        }
    }

    #[test]
    fn testing_without_conversion() {
        let config = parse(
            "# Dry run to test driver injection only\ndry_run: true\ncmd: local\nvmdk: /path/to/windows.vmdk\n\
             windows: true\nvirtio_drivers_dir: /path/to/virtio-win\nreport: /path/to/test-report.md\n",
        )
        .unwrap();
        assert!(config.dry_run && config.output().is_none());
    }

    #[test]
    fn paths_are_relative_to_the_document_and_the_name_comes_from_the_input() {
        let config = parse("vmdk: ../in/win.disk.vmdk\noutput_dir: out\n").unwrap();
        assert_eq!(config.output().as_deref(), Some(Path::new("/etc/winject/out/win.disk.qcow2")));
        let config = parse("vmdk: win.vmdk\noutput_dir: out\nout_format: raw\n").unwrap();
        assert_eq!(config.output().as_deref(), Some(Path::new("/etc/winject/out/win.raw")));
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
}
