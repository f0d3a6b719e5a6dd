//! Where a changed disk goes: into the image, to an overlay, or to a new image. The same options in every command that
//! writes a disk, and the same rules in a document.

use std::path::{Path, PathBuf};

use super::numbers::{ZLIB_LEVELS, ZSTD_LEVELS, parse_level};
use super::words::{named, words};
use crate::block::Format;
use crate::block::convert::Compression;
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::escape::shell_argument;
use crate::host::is_nbd_name;
use crate::job::Destination;

// Where the changed disk goes: into the image, to an overlay, or to a new image
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct OutputArgs {
    /// Change the image itself; a journal in its folder makes an interrupted run undoable, and stays as IMAGE.winject-undo
    /// for winject undo (of an NBD export it is in a folder of this machine, and nothing stays)
    #[arg(long, conflicts_with_all = ["overlay", "output"])]
    pub in_place: bool,

    /// Keep no undo record after --in-place, and remove an earlier one if anything is changed
    #[arg(long)]
    pub no_undo: bool,

    /// Write the changes to a small new qcow2 file that is backed by the untouched image
    #[arg(long, value_name = "NEW.qcow2", conflicts_with = "output")]
    pub overlay: Option<PathBuf>,

    /// Write a whole new image with the changes
    #[arg(short = 'o', long, alias = "to-output", value_name = "NEW")]
    pub output: Option<PathBuf>,

    /// Show what would be changed, and write nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub new_image: NewImageArgs,

    /// Replace an output file that exists
    #[arg(long)]
    pub overwrite: bool,
}

// How a whole new image is written
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct NewImageArgs {
    /// Write the new image in this format, qcow2 or raw [default: that of its name: .qcow2, .raw or .img]
    #[arg(short = 'O', long, value_name = "FORMAT", hide_possible_values = true,
        value_parser = words(parse_written_format, || named(&WRITTEN)))]
    pub output_format: Option<Format>,

    /// Compress the new qcow2: zlib (every QEMU reads it) or zstd (faster; QEMU 5.1 and later)
    #[arg(long, value_name = "ALGORITHM", num_args = 0..=1, default_missing_value = "zlib",
        value_parser = words(parse_compression, || named(&["zlib", "zstd"])), hide_possible_values = true)]
    pub compress: Option<Compression>,

    /// Compress the new qcow2 with zlib, as qemu-img does it
    #[arg(short = 'c', conflicts_with = "compress")]
    pub compress_zlib: bool,

    /// Set the compression level on the algorithm's own scale (zlib: 2 to 9, zstd: 1 to 4)
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    pub compress_level: Option<u32>,

    /// Compute the SHA-256 of the new file and print it
    #[arg(long)]
    pub checksum: bool,
}

impl OutputArgs {
    /// The file that is written next to the image, if one is named.
    pub fn new_file(&self) -> Option<&Path> {
        self.overlay.as_deref().or(self.output.as_deref())
    }

    /// Where the changes go. Nothing is changed by surprise: a destination has to be given.
    ///
    /// # Errors
    /// [`Kind::Usage`] without a destination, and those of [`Self::named`].
    pub fn destination(&self) -> Result<Destination> {
        match self.named()? {
            _ if self.dry_run => Ok(Destination::DryRun),
            Some(destination) => Ok(destination),
            None => Err(no_destination().hint(
                "-o NEW.qcow2 writes a new image; --overlay NEW.qcow2 a small one over the untouched original; --in-place \
                 changes the image itself; --dry-run writes nothing",
            )),
        }
    }

    /// The destination that is named, with `--dry-run` or without it.
    ///
    /// # Errors
    /// [`Kind::Usage`] for several destinations, options that have no effect on the one that is named, and a new image whose
    /// format is not known.
    pub fn named(&self) -> Result<Option<Destination>> {
        let named = match (self.in_place, &self.overlay, &self.output) {
            (false, None, None) => None,
            (true, None, None) => Some(Destination::InPlace),
            (false, Some(path), None) => Some(Destination::Overlay(path.clone())),
            (false, None, Some(path)) => Some(self.new_image.destination(path)?),
            _ => {
                let hint = "keep one of --in-place (`in_place`), --overlay (`overlay`) and --output (`to_output`)";
                return Err(usage("several destinations are given").hint(hint));
            }
        };
        self.refuse_ineffective(named.as_ref())?;
        Ok(named)
    }

    /// Refuses options that have no effect on the destination.
    fn refuse_ineffective(&self, named: Option<&Destination>) -> Result<()> {
        if self.no_undo && named != Some(&Destination::InPlace) {
            let message = "--no-undo (`no_undo`) has no effect without --in-place: nothing else leaves an undo record";
            return Err(usage(message).hint("leave it out; an overlay or a new image is undone by deleting it"));
        }
        if self.overwrite && self.overlay.is_none() && self.output.is_none() {
            let message = "--overwrite (`overwrite`) has no effect without an output file";
            return Err(usage(message).hint("leave it out, or name the file with --output or --overlay"));
        }
        match self.new_image.first_given().filter(|_| self.output.is_none()) {
            None => Ok(()),
            Some(option) => {
                let key = option.trim_start_matches('-').replace('-', "_");
                let message = format!("{option} (`{key}`) has no effect without --output: it is for a new image");
                Err(usage(message).hint("leave it out, or write a new image with -o NEW.qcow2"))
            }
        }
    }
}

impl NewImageArgs {
    /// The destination of a whole new image.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the format is not known, and for options of compression that have no effect.
    pub fn destination(&self, path: &Path) -> Result<Destination> {
        let format = match self.output_format {
            // Refused as an output whatever its format.
            None if path.as_os_str() == "-" => Format::Qcow2,
            None if is_nbd_name(path) => Format::Raw,
            None => format_of_name(path)?,
            Some(format) => format,
        };
        let compression = self.compress.or(self.compress_zlib.then_some(Compression::Zlib));
        match (compression, self.compress_level) {
            (Some(_), _) if format == Format::Raw => {
                let hint = if is_nbd_name(path) {
                    "leave out the compression"
                } else {
                    "leave out the compression, or write qcow2: -O qcow2"
                };
                return Err(usage("cannot compress a raw image").path(path.display().to_string()).hint(hint));
            }
            (None, Some(_)) => {
                let message = "--compress-level (`compress_level`) has no effect without --compress";
                return Err(usage(message).hint("add --compress, or leave out the level"));
            }
            (Some(Compression::Zlib), Some(level)) if !ZLIB_LEVELS.contains(&level) => {
                return Err(usage(format!("{level} is not a compression level of zlib")).hint("use one from 2 to 9"));
            }
            (Some(Compression::Zstd), Some(level)) if !ZSTD_LEVELS.contains(&level) => {
                return Err(usage(format!("{level} is not a compression level of zstd")).hint("use one from 1 to 4"));
            }
            _ => {}
        }
        let compression = compression.map(|kind| (kind, self.compress_level));
        Ok(Destination::Standalone { path: path.to_owned(), format, compression, checksum: self.checksum })
    }

    /// The first of these options that is given.
    fn first_given(&self) -> Option<&'static str> {
        [
            (self.output_format.is_some(), "--output-format"),
            (self.compress.is_some() || self.compress_zlib, "--compress"),
            (self.compress_level.is_some(), "--compress-level"),
            (self.checksum, "--checksum"),
        ]
        .into_iter()
        .find_map(|(is_given, option)| is_given.then_some(option))
    }
}

/// The format that the ending of a new image's name stands for.
fn format_of_name(path: &Path) -> Result<Format> {
    let (message, hint) = match Format::from_extension(path) {
        Some(format @ (Format::Raw | Format::Qcow2)) => return Ok(format),
        Some(other) => {
            let name = shell_argument(&path.with_extension("qcow2"), "NEW.qcow2");
            let hint = format!("name it {name}, or choose with -O qcow2 or -O raw (`output_format`)");
            (format!("cannot write the output: its name says {other}, and winject writes qcow2 and raw"), hint)
        }
        None => {
            let hint = "choose with -O qcow2 or -O raw (`output_format`), or name it .qcow2, .raw or .img";
            ("cannot tell the format of the output from its name".to_owned(), hint.to_owned())
        }
    };
    Err(usage(message).with_code(ErrorCode::OutputName).path(path.display().to_string()).hint(hint))
}

/// The error for a change without a destination; the hint is the caller's.
pub fn no_destination() -> Error {
    usage("no destination given").with_code(ErrorCode::NoDestination)
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(Kind::Usage, Layer::Cli, message)
}

/// Parses the name of a compression algorithm, in upper or lower case.
///
/// # Errors
/// The names that are known, when it is another one.
pub fn parse_compression(name: &str) -> Result<Compression, String> {
    match name.to_ascii_lowercase().as_str() {
        "zlib" => Ok(Compression::Zlib),
        "zstd" => Ok(Compression::Zstd),
        _ => Err("use zlib or zstd".to_owned()),
    }
}

/// The container formats that winject writes.
const WRITTEN: [&str; 2] = ["qcow2", "raw"];

/// Parses the name of a container format that winject writes, in upper or lower case.
///
/// # Errors
/// The names of those, when it is another one.
pub fn parse_written_format(name: &str) -> Result<Format, String> {
    match Format::from_name(&name.to_ascii_lowercase()) {
        Some(format @ (Format::Raw | Format::Qcow2)) => Ok(format),
        _ => Err("use qcow2 or raw".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(path: &str) -> OutputArgs {
        OutputArgs { output: Some(path.into()), ..OutputArgs::default() }
    }

    fn with(new_image: NewImageArgs) -> OutputArgs {
        OutputArgs { new_image, ..to("new.qcow2") }
    }

    #[test]
    fn the_name_of_a_new_image_tells_its_format() {
        for (path, expected) in [
            ("a.qcow2", Some(Format::Qcow2)),
            ("a.QCOW2", Some(Format::Qcow2)),
            ("a.raw", Some(Format::Raw)),
            ("b.qcow2/a.img", Some(Format::Raw)),
            ("a", None),
            ("a.", None),
            ("a.vmdk", None),
            ("a.vhd", None),
            ("a.qcow", None),
            ("qcow2", None),
        ] {
            match (to(path).destination(), expected) {
                (Ok(Destination::Standalone { format, .. }), Some(expected)) => assert_eq!(format, expected, "{path}"),
                (Err(error), None) => {
                    let hint = error.hint_text().unwrap_or_default();
                    assert!(
                        error.kind() == Kind::Usage && hint.contains("-O qcow2 or -O raw"),
                        "{path}: {error} {hint}"
                    );
                }
                other => panic!("{path}: {other:?}"),
            }
            let chosen = NewImageArgs { output_format: Some(Format::Raw), ..NewImageArgs::default() };
            let chosen = OutputArgs { new_image: chosen, ..to(path) }.destination().unwrap();
            assert!(matches!(chosen, Destination::Standalone { format: Format::Raw, .. }), "{path}");
        }
    }

    /// An option that would be ignored may be one that its user relies on.
    #[test]
    fn options_without_effect_are_refused() {
        let raw = Some(Format::Raw);
        let (zlib, zstd) = (Some(Compression::Zlib), Some(Compression::Zstd));
        let image = NewImageArgs::default;
        let none = OutputArgs::default;
        for (args, word) in [
            (OutputArgs { in_place: true, ..to("a.qcow2") }, "several destinations"),
            (OutputArgs { overlay: Some("b.qcow2".into()), ..to("a.qcow2") }, "several destinations"),
            (OutputArgs { no_undo: true, ..to("a.qcow2") }, "--no-undo"),
            (OutputArgs { no_undo: true, dry_run: true, ..none() }, "--no-undo"),
            (OutputArgs { no_undo: true, overlay: Some("b.qcow2".into()), ..none() }, "--no-undo"),
            (OutputArgs { overwrite: true, in_place: true, ..none() }, "--overwrite"),
            (OutputArgs { overwrite: true, dry_run: true, ..none() }, "--overwrite"),
            (
                OutputArgs { new_image: NewImageArgs { compress: zlib, ..image() }, in_place: true, ..none() },
                "--compress",
            ),
            (
                OutputArgs {
                    new_image: NewImageArgs { output_format: raw, ..image() },
                    overlay: Some("b.qcow2".into()),
                    ..none()
                },
                "--output-format",
            ),
            (
                OutputArgs { new_image: NewImageArgs { checksum: true, ..image() }, dry_run: true, ..none() },
                "--checksum",
            ),
            (with(NewImageArgs { output_format: raw, compress: zlib, ..image() }), "cannot compress a raw image"),
            (with(NewImageArgs { output_format: raw, compress_zlib: true, ..image() }), "cannot compress a raw image"),
            (with(NewImageArgs { compress_level: Some(3), ..image() }), "--compress-level"),
            (with(NewImageArgs { compress: zlib, compress_level: Some(1), ..image() }), "level of zlib"),
            (with(NewImageArgs { compress: zstd, compress_level: Some(5), ..image() }), "level of zstd"),
        ] {
            // A dry run refuses what the run would.
            for dry_run in [args.dry_run, true] {
                let error = OutputArgs { dry_run, ..args.clone() }.destination().unwrap_err();
                assert!(error.kind() == Kind::Usage && error.hint_text().is_some(), "{error}");
                assert!(error.to_string().contains(word), "{error}");
            }
        }
        let error = none().destination().unwrap_err();
        assert!(error.kind() == Kind::Usage && error.to_string().contains("no destination"), "{error}");
        assert_eq!(OutputArgs { dry_run: true, ..to("a.qcow2") }.destination().unwrap(), Destination::DryRun);
    }
}
